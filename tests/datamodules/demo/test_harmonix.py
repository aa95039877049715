"""The demo's Harmonix songs: what is written is what sounds, in the real layout."""

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import soundfile

from datamodules.audio.clips import ClipRule
from datamodules.datasets.harmonix import CLASSES, HarmonixStructure, structure_class
from datamodules.demo.harmonix import SAMPLE_RATE, StructureTrack, recipe
from datamodules.tracks import SPLITS


def write(root: Path, scale: float) -> Path:
    """Labels, and empty files for audio."""
    made = recipe(scale)
    empty = {item.path: "" for item in made.items}
    for path, text in {**empty, **made.labels(root)}.items():
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
    for item, track in zip(recipe(1.0).items, tracks, strict=True):
        assert isinstance(item, StructureTrack)
        assert isinstance(track.target, tuple)
        for segment, section in zip(track.target, item.sections(), strict=True):
            assert CLASSES[structure_class(section.label) or 0] == section.name
            assert segment.start_s == pytest.approx(section.start_s, abs=1e-5)
            assert CLASSES[segment.label] == section.name
            seen.add(segment.label)
    assert seen == set(range(7))

    texts = [path.read_text() for path in sorted((tmp_path / "segments").iterdir())]
    ends = {text.count(" end\n") for text in texts}
    assert ends == {0, 1, 2}
    assert any(not text.startswith("0.000000") for text in texts)
    assert sum(track.track_id != track.group for track in tracks) == 2


def test_the_loudest_part_is_the_chorus_and_silence_is_silent() -> None:
    songs = [StructureTrack(number) for number in range(1, 30)]
    track = next(song for song in songs if song.sections()[0].name == "silence")
    audio, rate = soundfile.read(BytesIO(track.encode()))
    assert rate == SAMPLE_RATE

    power = {}
    for section in track.sections():
        heard = audio[round(section.start_s * rate) : round(section.end_s * rate)]
        power[section.name] = float(np.mean(heard**2))
    assert power["silence"] < 1e-6
    assert power["chorus"] > power["intro"]
    assert power["chorus"] > power["outro"]
    assert len(audio) / rate == pytest.approx(track.sections()[-1].end_s + 1.0, abs=0.01)
    assert track.encode() == StructureTrack(track.number).encode()
