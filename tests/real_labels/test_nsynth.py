"""NSynth's test set beside CMI-Bench's list of its families, and real entries of its JSON."""

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from real_labels.reading import read, rows, task_data, write, write_audio

from datamodules.datasets.nsynth import FAMILIES
from datamodules.passport import read_passport
from datamodules.tracks import Track

pytestmark = pytest.mark.trial


@pytest.fixture(scope="module")
def families() -> dict[str, str]:
    return dict(rows("nsynth_test.tsv.gz"))


@pytest.fixture(scope="module")
def excerpt() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = json.loads(read("nsynth_test_excerpt.json"))
    return found


@pytest.fixture(scope="module")
def root(
    families: dict[str, str],
    excerpt: dict[str, dict[str, Any]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """The test set; train and valid have no notes, since no list of theirs is here."""
    root = tmp_path_factory.mktemp("nsynth")
    entries = {note: excerpt.get(note) or _entry(note, name) for note, name in families.items()}
    for split in ("train", "valid"):
        write(root / f"NSynth/nsynth-{split}/examples.json", "{}")
    write(root / "NSynth/nsynth-test/examples.json", json.dumps(entries))
    write_audio(root / f"NSynth/nsynth-test/audio/{note}.wav" for note in families)
    return root


def _entry(note: str, family: str) -> dict[str, Any]:
    """An entry as NSynth has it, of a note's name and its family."""
    instrument, pitch, velocity = note.split("-")
    return {
        "note_str": note,
        "pitch": int(pitch),
        "velocity": int(velocity),
        "instrument_str": instrument,
        # NSynth numbers its families by the alphabet, as the excerpt shows below.
        "instrument_family": sorted(FAMILIES).index(family),
        "instrument_family_str": family,
    }


def tracks(root: Path, task: str) -> dict[str, Track]:
    return {track.track_id: track for track in task_data(root, task).listed()}


def test_every_note_has_the_family_of_the_list(root: Path, families: dict[str, str]) -> None:
    found = tracks(root, "nsynth_instrument")
    assert {track.split for track in found.values()} == {"test"}
    assert {note: FAMILIES[track.target] for note, track in found.items()} == families


def test_the_number_and_the_name_of_a_family_are_those_of_real_entries(
    root: Path, excerpt: dict[str, dict[str, Any]]
) -> None:
    instruments, pitches = tracks(root, "nsynth_instrument"), tracks(root, "nsynth_pitch")
    classes = task_data(root, "nsynth_pitch").classes
    for note, entry in excerpt.items():
        assert FAMILIES[entry["instrument_family"]] == entry["instrument_family_str"]
        assert FAMILIES[instruments[note].target] == entry["instrument_family_str"]
        assert classes[pitches[note].target] == str(entry["pitch"])
        assert pitches[note].group == entry["instrument_str"]


def test_every_note_has_the_pitch_of_its_name(root: Path, families: dict[str, str]) -> None:
    classes = task_data(root, "nsynth_pitch").classes
    found = {note: classes[track.target] for note, track in tracks(root, "nsynth_pitch").items()}
    assert found == {note: str(int(note.split("-")[1])) for note in families}


@pytest.mark.parametrize("task", ["nsynth_instrument", "nsynth_pitch"])
def test_the_passport_counts_what_the_list_holds(
    root: Path, task: str, families: dict[str, str]
) -> None:
    passport = read_passport(task_data(root, task))
    test = passport.splits["test"]
    assert test.found == test.expected == passport.listed == len(families)
    assert passport.missing == passport.unreadable == passport.duplicates == ()
    assert set(passport.groups) == {note.split("-")[0] for note in families}

    names = families.values() if task == "nsynth_instrument" else pitches_of(families)
    n = Counter(names)
    found = dict(zip(passport.classes, test.per_class, strict=True))
    assert found == {name: n[name] for name in passport.classes}


def pitches_of(notes: Mapping[str, str]) -> list[str]:
    return [str(int(note.split("-")[1])) for note in notes]
