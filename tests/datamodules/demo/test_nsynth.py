"""The demo's NSynth: the layout of the real release, and notes that cover pitches and programs."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile

from datamodules.datasets.nsynth import FAMILIES
from datamodules.demo.nsynth import recipe


def test_scale_1_has_the_promised_counts() -> None:
    counts = Counter(note.split for note in recipe(1.0).items)
    assert counts == {"train": 396, "val": 100, "test": 140}


FIELDS = {
    "note",
    "note_str",
    "instrument",
    "instrument_str",
    "pitch",
    "velocity",
    "sample_rate",
    "qualities",
    "qualities_str",
    "instrument_family",
    "instrument_family_str",
    "instrument_source",
    "instrument_source_str",
}
SOURCES = ("acoustic", "electronic", "synthetic")


@pytest.mark.parametrize("folder", ["nsynth-train", "nsynth-valid", "nsynth-test"])
def test_json_has_the_fields_of_the_real_release(corpus: Path, folder: str) -> None:
    examples = json.loads((corpus / "NSynth" / folder / "examples.json").read_text())
    for name, entry in examples.items():
        assert set(entry) == FIELDS
        note = f"{entry['instrument_str']}-{entry['pitch']:03d}-{entry['velocity']:03d}"
        assert name == entry["note_str"] == note
        instrument = f"{entry['instrument_family_str']}_{entry['instrument_source_str']}_"
        assert entry["instrument_str"].startswith(instrument)
        assert FAMILIES[entry["instrument_family"]] == entry["instrument_family_str"]
        assert SOURCES[entry["instrument_source"]] == entry["instrument_source_str"]
        assert len(entry["qualities"]) == 10


@pytest.mark.parametrize("folder", ["nsynth-train", "nsynth-valid", "nsynth-test"])
def test_audio_is_that_of_the_real_release(corpus: Path, folder: str) -> None:
    examples = json.loads((corpus / "NSynth" / folder / "examples.json").read_text())
    paths = list((corpus / "NSynth" / folder / "audio").iterdir())
    assert {path.name for path in paths} == {f"{name}.wav" for name in examples}
    for path in paths:
        info = soundfile.info(path)
        assert (info.samplerate, info.channels) == (16000, 1)
        assert (info.frames, info.subtype) == (64000, "PCM_16")
        assert 0.002 < np.abs(soundfile.read(path)[0]).max() < 0.99


def test_splits_share_no_program_and_only_train_has_synth_lead() -> None:
    notes = recipe(1.0).items
    programs = {
        split: {note.program for note in notes if note.split == split}
        for split in ("train", "val", "test")
    }
    assert not programs["train"] & programs["val"]
    assert not programs["train"] & programs["test"]
    assert not programs["val"] & programs["test"]
    families = {split: {note.family for note in notes if note.split == split} for split in programs}
    assert families["train"] == set(FAMILIES)
    assert families["val"] == families["test"] == set(FAMILIES) - {"synth_lead"}


def test_covers_pitches_and_velocities_evenly() -> None:
    train = [note for note in recipe(1.0).items if note.split == "train"]
    pitches = Counter(note.pitch for note in train)
    assert set(pitches) == set(range(36, 85))
    assert min(pitches.values()) >= 7
    assert set(Counter(note.velocity for note in train)) == {25, 50, 75, 100, 127}


def test_names_stay_unique_when_all_notes_are_used_up() -> None:
    notes = recipe(100.0).items
    assert len({note.name for note in notes}) == len(notes)
    assert len({note.entry()["note"] for note in notes}) == len(notes)
