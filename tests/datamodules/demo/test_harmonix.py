"""The demo's Harmonix songs: what is written is what sounds, in the real layout."""

from pathlib import Path

import numpy as np
import pytest

from datamodules.audio.clips import ClipRule
from datamodules.datasets.harmonix import CLASSES, HarmonixStructure, structure_class
from datamodules.demo.harmonix import SAMPLE_RATE, StructureTrack, plan
from datamodules.tracks import SPLITS


def write(root: Path, scale: float) -> Path:
    """Labels, and empty files for audio."""
    made = plan(scale)
    for path in (item.path for item in made.items):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()
    for path, text in made.labels(root).items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    return root


@pytest.mark.parametrize("scale", [0.01, 0.3, 1.0])
@pytest.mark.parametrize("fold", [0, 7])
def test_every_fold_has_all_splits(tmp_path: Path, scale: float, fold: int) -> None:
    tracks = HarmonixStructure(write(tmp_path, scale), ClipRule(24.0), fold=fold).tracks()
    assert {track.split for track in tracks} == set(SPLITS)


def test_labels_are_the_sections_and_all_classes_and_oddities_occur(tmp_path: Path) -> None:
    tracks = HarmonixStructure(write(tmp_path, 1.0), ClipRule(24.0)).tracks()
    seen: set[int] = set()
    for item, track in zip(plan(1.0).items, tracks, strict=True):
        assert isinstance(item, StructureTrack) and isinstance(track.target, tuple)
        sections = item.sections()
        for section in sections:
            assert CLASSES[structure_class(section.label) or 0] == section.name
        for segment, section in zip(track.target, sections, strict=True):
            assert segment == pytest.approx(
                (section.start_s, segment.end_s, CLASSES.index(section.name)), abs=1e-5
            )
        seen |= {segment.label for segment in track.target}
    assert seen == set(range(7))
    texts = [path.read_text() for path in sorted((tmp_path / "segments").iterdir())]
    ends = {text.count(" end\n") for text in texts}
    assert ends == {0, 1, 2} and any(not text.startswith("0.000000") for text in texts)
    assert sum(track.track_id != track.group for track in tracks) == 2


def test_the_loudest_part_is_the_chorus_and_silence_is_silent() -> None:
    from io import BytesIO

    import soundfile

    track = next(
        track
        for track in (StructureTrack(number) for number in range(1, 30))
        if track.sections()[0].name == "silence"
    )
    audio, rate = soundfile.read(BytesIO(track.encode()))
    assert rate == SAMPLE_RATE
    power = {
        section.name: float(
            np.mean(audio[round(section.start_s * rate) : round(section.end_s * rate)] ** 2)
        )
        for section in track.sections()
    }
    assert (
        power["silence"] < 1e-6
        and power["chorus"] > power["intro"]
        and power["chorus"] > power["outro"]
    )
    assert len(audio) / rate == pytest.approx(track.sections()[-1].end_s + 1.0, abs=0.01)
    assert track.encode() == StructureTrack(track.number).encode()
