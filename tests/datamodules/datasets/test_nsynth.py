"""NSynth: labels from the JSON, official splits by folder, and what a broken download is told."""

import gc
import json
import math
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from feeding import items_of

from datamodules.audio.clips import Clip, ClipRule
from datamodules.datasets import nsynth
from datamodules.datasets.nsynth import NSynthInstrument, NSynthPitch
from datamodules.errors import UserError

NOTES: dict[str, dict[str, tuple[int, int]]] = {  # folder -> note -> (pitch, family)
    "nsynth-train": {
        "bass_synthetic_009-010-025": (10, 0),
        "synth_lead_synthetic_000-060-100": (60, 9),
        "keyboard_electronic_001-021-127": (21, 4),
    },
    "nsynth-valid": {"vocal_acoustic_000-060-127": (60, 10), "string_acoustic_014-009-050": (9, 8)},
    "nsynth-test": {"vocal_acoustic_000-120-127": (120, 10)},
}


def entry(note: str, pitch: int, family: int) -> dict[str, Any]:
    return {
        "note_str": note,
        "pitch": pitch,
        "velocity": int(note[-3:]),
        "instrument_family": family,
        "sample_rate": 16000,
    }


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for folder, notes in NOTES.items():
        audio = tmp_path / folder / "audio"
        audio.mkdir(parents=True)
        for number, note in enumerate(notes):
            soundfile.write(
                audio / f"{note}.wav", np.full(1600, 0.1 * (number + 1), np.float32), 16000
            )
        write_examples(
            tmp_path, folder, {note: entry(note, *labels) for note, labels in notes.items()}
        )
    return tmp_path


def write_examples(root: Path, folder: str, examples: object) -> None:
    (root / folder / "examples.json").write_text(json.dumps(examples))


def change(root: Path, note: str, folder: str = "nsynth-train", **fields: object) -> None:
    examples = json.loads((root / folder / "examples.json").read_text())
    examples[note] |= fields
    write_examples(root, folder, examples)


def test_pitch_is_midi_pitch_minus_one_of_128(root: Path) -> None:
    data = NSynthPitch(root, ClipRule())
    assert len(data.classes) == 128
    targets = {track.track_id: track.target for track in data.tracks()}
    assert targets == {
        note: pitch - 1 for notes in NOTES.values() for note, (pitch, _) in notes.items()
    }
    assert all(
        data.classes[track.target] == str(int(track.track_id[-7:-4])) for track in data.tracks()
    )


def test_family_comes_from_the_json_also_where_its_name_has_two_words(root: Path) -> None:
    data = NSynthInstrument(root, ClipRule())
    assert len(data.classes) == 11
    families = {track.track_id: data.classes[track.target] for track in data.tracks()}
    assert families == {
        "bass_synthetic_009-010-025": "bass",
        "synth_lead_synthetic_000-060-100": "synth_lead",
        "keyboard_electronic_001-021-127": "keyboard",
        "vocal_acoustic_000-060-127": "vocal",
        "string_acoustic_014-009-050": "string",
        "vocal_acoustic_000-120-127": "vocal",
    }


def test_families_stand_in_the_official_order() -> None:
    """facts/tasks 5.1, which the official index fixes."""
    order = "bass brass flute guitar keyboard mallet organ reed string synth_lead vocal"
    assert " ".join(NSynthInstrument.classes) == order


def test_the_json_wins_over_the_file_name(root: Path) -> None:
    change(root, "bass_synthetic_009-010-025", instrument_family=5, pitch=99)
    for task, target in ((NSynthInstrument, 5), (NSynthPitch, 98)):
        targets = {track.track_id: track.target for track in task(root, ClipRule()).tracks()}
        assert targets["bass_synthetic_009-010-025"] == target


def test_the_number_of_a_note_is_not_its_pitch(root: Path) -> None:
    """The release counts its notes in a field `note`, which is a number of MIDI's range too."""
    note = "bass_synthetic_009-010-025"
    write_examples(root, "nsynth-train", {note: {"note": 99, **entry(note, 10, 0)}})
    targets = {track.track_id: track.target for track in NSynthPitch(root, ClipRule()).tracks()}
    assert targets[note] == 9


def test_splits_are_the_official_folders(root: Path) -> None:
    for task in (NSynthPitch, NSynthInstrument):
        splits = {track.track_id: track.split for track in task(root, ClipRule()).tracks()}
        expected = {"nsynth-train": "train", "nsynth-valid": "val", "nsynth-test": "test"}
        assert splits == {
            note: expected[folder] for folder, notes in NOTES.items() for note in notes
        }


def test_both_tasks_share_audio_and_know_the_official_size() -> None:
    assert NSynthPitch.dataset == NSynthInstrument.dataset == "nsynth"
    assert (
        NSynthPitch.expected
        == NSynthInstrument.expected
        == {"train": 289205, "val": 12678, "test": 4096}
    )


def test_a_note_without_audio_is_named(root: Path) -> None:
    (root / "nsynth-valid" / "audio" / "string_acoustic_014-009-050.wav").unlink()
    with pytest.raises(
        UserError, match=r"1 of 6 nsynth tracks have no audio .*string_acoustic_014-009-050\.wav"
    ):
        NSynthPitch(root, ClipRule()).tracks()


def test_audio_without_an_entry_and_other_junk_are_no_tracks(root: Path) -> None:
    junk = ("guitar_acoustic_000-050-050.wav", "._bass_synthetic_009-010-025.wav", "notes.txt")
    for name in junk:
        (root / "nsynth-train" / "audio" / name).write_bytes(b"junk")
    assert len(NSynthPitch(root, ClipRule()).tracks()) == 6


def test_missing_labels_are_named_with_what_to_unpack(root: Path) -> None:
    (root / "nsynth-valid" / "examples.json").unlink()
    pattern = (
        r"no NSynth labels: .*nsynth-valid has no examples\.json\. "
        r"Unpack nsynth-\*\.jsonwav\.tar\.gz into .*"
    )
    with pytest.raises(UserError, match=pattern):
        NSynthPitch(root, ClipRule()).tracks()


@pytest.mark.parametrize("text", ["", '{"bass_synthetic_009-010-025": {"pitch": 10', "\udcff"])
def test_labels_that_are_no_json_are_named_with_what_to_do(root: Path, text: str) -> None:
    path = root / "nsynth-train" / "examples.json"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(
        UserError, match=r"nsynth-train/examples\.json is not valid JSON .*unpack its archive again"
    ):
        NSynthPitch(root, ClipRule()).tracks()


def test_labels_that_are_a_list_are_refused(root: Path) -> None:
    write_examples(root, "nsynth-test", [1, 2])
    with pytest.raises(UserError, match=r"expected an object keyed by note, found a list"):
        NSynthPitch(root, ClipRule()).tracks()


@pytest.mark.parametrize(
    ("task", "field"), [(NSynthPitch, "pitch"), (NSynthInstrument, "instrument_family")]
)
def test_an_entry_without_its_label_is_named(
    root: Path, task: type[NSynthPitch | NSynthInstrument], field: str
) -> None:
    write_examples(root, "nsynth-test", {"vocal_acoustic_000-120-127": {"velocity": 127}})
    pattern = (
        r"nsynth-test/examples\.json has an entry 'vocal_acoustic_000-120-127' "
        rf"without a field '{field}': download examples\.json again"
    )
    with pytest.raises(UserError, match=pattern):
        task(root, ClipRule()).tracks()


@pytest.mark.parametrize(
    ("task", "fields"),
    [
        (NSynthPitch, {"pitch": 0}),  # would be class -1
        (NSynthPitch, {"pitch": 129}),
        (NSynthPitch, {"pitch": "C4"}),
        (NSynthPitch, {"pitch": None}),
        (NSynthPitch, {"pitch": 60.7}),  # would be 60
        (NSynthPitch, {"pitch": math.inf}),  # as 1e999 is read
        (NSynthPitch, {"pitch": True}),
        (NSynthInstrument, {"instrument_family": -1}),
        (NSynthInstrument, {"instrument_family": 11}),
    ],
)
def test_a_label_outside_the_classes_is_refused_and_the_note_named(
    root: Path, task: type[NSynthPitch | NSynthInstrument], fields: dict[str, object]
) -> None:
    change(root, "bass_synthetic_009-010-025", **fields)
    with pytest.raises(UserError, match="bass_synthetic_009-010-025"):
        task(root, ClipRule()).tracks()


@pytest.mark.parametrize("indent", [None, 4])
@pytest.mark.parametrize("piece", [1, 7, 64])
def test_labels_are_read_in_pieces_wherever_these_end(
    root: Path, monkeypatch: pytest.MonkeyPatch, piece: int, indent: int | None
) -> None:
    names = ['a "b" \\ c', "é音", "}, {", "d"]
    entries = {name: entry("x-100", 60, 3) | {"qualities_str": ["}", '"', "\\"]} for name in names}
    path = root / "nsynth-train" / "examples.json"
    path.write_text(json.dumps(entries, indent=indent, ensure_ascii=False), encoding="utf-8")
    monkeypatch.setattr(nsynth, "_PIECE", piece)
    tracks = NSynthPitch(root, ClipRule()).read_tracks()
    assert [track.track_id for track in tracks if track.split == "train"] == names


@pytest.mark.parametrize(
    "text",
    [
        '{"a": {"pitch": 1}',
        '{"a": {"pitch": 1}} and more',
        '{"a" {"pitch": 1}}',
        '{"a": {"pitch": 1} "b": {"pitch": 1}}',
        '{"a": ' + "[" * 100_000 + "]" * 100_000 + "}",
        "[" * 100_000,
    ],
)
def test_broken_json_is_one_line(root: Path, text: str) -> None:
    (root / "nsynth-train" / "examples.json").write_text(text)
    with pytest.raises(UserError, match=r"examples\.json is not valid JSON .*unpack its") as error:
        NSynthPitch(root, ClipRule()).tracks()
    assert "\n" not in str(error.value)


def test_an_entry_that_is_no_object_is_named(root: Path) -> None:
    write_examples(root, "nsynth-train", {"a": [60]})
    with pytest.raises(UserError, match="has no object for 'a', but a list"):
        NSynthPitch(root, ClipRule()).tracks()


def test_a_folder_in_place_of_the_labels_is_named(root: Path) -> None:
    (root / "nsynth-train" / "examples.json").unlink()
    (root / "nsynth-train" / "examples.json").mkdir()
    with pytest.raises(UserError, match=r"cannot read .*nsynth-train/examples\.json \(Is a dir"):
        NSynthPitch(root, ClipRule()).tracks()


def test_entries_are_not_kept(root: Path) -> None:
    """All 289 205 of train as objects took a gigabyte."""
    many = {f"n{n}": entry("x-100", 60, 3) | {"qualities": [0] * 100} for n in range(4_000)}
    write_examples(root, "nsynth-train", many)
    del many
    tracemalloc.start()
    assert len(NSynthPitch(root, ClipRule()).read_tracks()) == 4_003
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5.8e6  # it was 7.2 MB; of tracks alone it is 3
    assert gc.isenabled()


def test_a_note_is_one_clip_of_its_own_audio(root: Path) -> None:
    data = NSynthPitch(root, ClipRule())
    items = items_of(data, min_samples=10)
    clips = {item.track_id: item for item in items if isinstance(item, Clip)}
    assert set(clips) == {note for notes in NOTES.values() for note in notes}
    for notes in NOTES.values():
        for number, note in enumerate(notes):
            np.testing.assert_allclose(
                clips[note].audio, np.full(1600, 0.1 * (number + 1)), atol=1e-4
            )


def test_the_shared_toy_notes_are_readable(notes_root: Path) -> None:
    counts = [track.split for track in NSynthPitch(notes_root / "NSynth", ClipRule()).tracks()]
    assert [counts.count(split) for split in ("train", "val", "test")] == [48, 24, 24]
