"""The demo's VocalSet: whole for both tasks, in the layout of version 1.1."""

import io
import re
from collections import Counter
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import soundfile

from datamodules.audio.clips import ClipRule
from datamodules.datasets.vocalset import SINGER_FOLDERS, VocalSetSinger, VocalSetTechnique
from datamodules.demo.vocalset import FOLDER, SAMPLE_RATE, VoiceRecording, recipe
from datamodules.task import TaskDataModule
from datamodules.tracks import SPLITS


@pytest.fixture(scope="module")
def root(corpus: Path) -> Path:
    return corpus / FOLDER


@pytest.mark.parametrize(("data", "n_tracks"), [(VocalSetSinger, 200), (VocalSetTechnique, 200)])
def test_both_tasks_read_the_demo_with_every_class_in_every_split(
    root: Path, data: type[TaskDataModule], n_tracks: int
) -> None:
    tracks = data(root, ClipRule()).tracks()
    assert len(tracks) == n_tracks
    everything = set(product(SPLITS, range(len(data.classes))))
    assert {(track.split, track.target) for track in tracks} == everything


@pytest.mark.parametrize(
    ("data", "counts"),
    [
        (VocalSetSinger, {"train": 200, "val": 120, "test": 80}),
        (VocalSetTechnique, {"train": 180, "val": 120, "test": 100}),
    ],
)
def test_scale_1_has_the_promised_counts(
    tmp_path: Path, data: type[TaskDataModule], counts: dict[str, int]
) -> None:
    items = recipe(1.0).items
    assert len(items) == 20 * 10 * 2
    for item in items:
        (tmp_path / item.path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / item.path).touch()
    assert (
        Counter(track.split for track in data(tmp_path, ClipRule(), ["missing"]).tracks()) == counts
    )


def test_files_are_named_as_in_version_1_1(root: Path) -> None:
    pattern = (
        r"FULL/((?:fe)?male\d+)/(arpeggios|scales|long_tones)/(\w+)/"
        r"[fm]\d+_(arpeggios|scales|long)_\w+_[aeiou]\.wav"
        r"|FULL/((?:fe)?male\d+)/excerpts/spoken/[fm]\d+_(row|caro|dona)_spoken\.wav"
    )
    paths = [path.relative_to(root).as_posix() for path in root.rglob("*.wav")]
    assert [path for path in paths if not re.fullmatch(pattern, path)] == []

    everything = recipe(100.0).items
    assert len({item.path for item in everything}) == len(everything) == 20 * (9 * 15 + 3)
    misspelt = [item for item in everything if "/vibrado/" in item.path]
    assert len(misspelt) == 5
    for item in misspelt:
        name = f"f2_arpeggios_vibrato_{item.vowel}.wav"
        assert item.path == f"FULL/female2/arpeggios/vibrado/{name}"


def test_lists_are_those_of_the_dataset(root: Path) -> None:
    test = (root / "test_singers_technique.txt").read_text().split()
    train = (root / "train_singers_technique.txt").read_text().split()
    assert test == ["female2", "female8", "male3", "male5", "male10"]
    assert sorted(test + train) == sorted(SINGER_FOLDERS)


def test_recordings_are_one_clip_long_and_neither_clipped_nor_silent(root: Path) -> None:
    for path in sorted(root.rglob("*.wav"))[::7]:
        audio, rate = soundfile.read(path)
        assert rate == SAMPLE_RATE
        assert soundfile.info(path).subtype == "PCM_16"
        assert 2.9933 < len(audio) / rate <= 3.2
        assert 0.35 < np.abs(audio).max() < 0.95
        assert np.sqrt((audio**2).mean()) > 0.008


def test_recordings_are_the_same_every_time_and_differ_from_each_other() -> None:
    item = VoiceRecording("male3", "trillo", 1)
    assert item.encode() == VoiceRecording("male3", "trillo", 1).encode()
    others = [("male3", "trillo", 0), ("male3", "trill", 1), ("male4", "trillo", 1)]
    assert item.encode() not in [VoiceRecording(*other).encode() for other in others]


def test_contexts_and_vowels_are_spread_over_singers_and_techniques() -> None:
    items = [item for item in recipe(1.0).items if item.technique != "spoken"]
    for name in ("singer", "technique"):
        n_values = len({getattr(item, name) for item in items})
        assert len({(getattr(item, name), item.context) for item in items}) == n_values * 3
        assert len({(getattr(item, name), item.vowel) for item in items}) == n_values * 5


def test_wav_files_hold_what_is_sung() -> None:
    audio, rate = soundfile.read(io.BytesIO(VoiceRecording("female1", "straight", 0).encode()))
    assert rate == SAMPLE_RATE
    assert np.abs(audio[: rate // 200]).max() < 0.2 * np.abs(audio).max()  # fades in
