"""NSynth (Engel et al. 2017, CC BY 4.0): 305 979 notes of 1006 instruments, 4 s each, 16 kHz mono.

Conventions: the layout is the one distributed, `nsynth-{train,valid,test}/examples.json` with
`audio/<note>.wav`. Splits are the official folders; train shares no instrument with valid or test,
while valid and test share instruments with each other. Labels are read from the JSON, never from
file names (`synth_lead_synthetic_000` has a family of two words).
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from datamodules.card import Archive, Card
from datamodules.errors import BrokenLabelsError, MissingFilesError
from datamodules.task import TaskDataModule
from datamodules.tracks import Split, Track

Entry = Mapping[str, Any]  # what the JSON says about a note

FOLDERS: Mapping[Split, str] = {
    "train": "nsynth-train",
    "val": "nsynth-valid",
    "test": "nsynth-test",
}
LABELS = "examples.json"
FAMILIES = (
    "bass",
    "brass",
    "flute",
    "guitar",
    "keyboard",
    "mallet",
    "organ",
    "reed",
    "string",
    "synth_lead",
    "vocal",
)
PITCHES = tuple(str(pitch) for pitch in range(1, 129))  # MIDI, as MARBLE v1's NSynthP_dataset.py

_HOST = "http://download.magenta.tensorflow.org/datasets/nsynth"
CARD = Card(
    title="NSynth (2017)",
    licence="CC BY 4.0",
    citation=(
        "J. Engel, C. Resnick, A. Roberts, S. Dieleman, D. Eck, K. Simonyan, M. Norouzi: "
        "Neural audio synthesis of musical notes with WaveNet autoencoders, ICML 2017"
    ),
    obtain="""\
From Magenta, the three archives named json/wav (25 GB, unpacked about 40 GB): \
https://magenta.tensorflow.org/datasets/nsynth
Unpack nsynth-train, nsynth-valid and nsynth-test .jsonwav.tar.gz into NSynth:
  NSynth/nsynth-{train,valid,test}/examples.json \
and NSynth/nsynth-{train,valid,test}/audio/<note>.wav""",
    archives=(  # MD5 as published in HEAR's nsynth_pitch.py, which is the ETag of the host
        Archive(
            url=f"{_HOST}/nsynth-train.jsonwav.tar.gz",
            path="nsynth-train.jsonwav.tar.gz",
            md5="fde6665a93865503ba598b9fac388660",
            n_bytes=23_815_298_079,
        ),
        Archive(
            url=f"{_HOST}/nsynth-valid.jsonwav.tar.gz",
            path="nsynth-valid.jsonwav.tar.gz",
            md5="87e94a00a19b6dbc99cf6d4c0c0cae87",
            n_bytes=1_068_767_009,
        ),
        Archive(
            url=f"{_HOST}/nsynth-test.jsonwav.tar.gz",
            path="nsynth-test.jsonwav.tar.gz",
            md5="5e6f8719bf7e16ad0a00d518b78af77d",
            n_bytes=349_501_546,
        ),
    ),
)


class NSynthPitch(TaskDataModule):
    """MIDI pitch of a note, 128 classes (paper 3.4; class = pitch - 1 as in MARBLE v1)."""

    dataset = "nsynth"
    classes = PITCHES
    card = CARD
    expected: Mapping[Split, int] = {"train": 289205, "val": 12678, "test": 4096}
    lasts_s = (3.99, 4.01)

    def read_tracks(self) -> list[Track]:
        """Notes with their pitch class; raises as `read_notes`."""
        return read_notes(self.root, lambda entry: int(entry["pitch"]) - 1)


class NSynthInstrument(TaskDataModule):
    """Instrument family of a note, 11 classes (paper 3.4)."""

    dataset = "nsynth"
    classes = FAMILIES
    card = CARD
    expected: Mapping[Split, int] = NSynthPitch.expected
    lasts_s = (3.99, 4.01)

    def read_tracks(self) -> list[Track]:
        """Notes with their family; raises as `read_notes`."""
        return read_notes(self.root, lambda entry: int(entry["instrument_family"]))


def read_notes(root: Path, target: Callable[[Entry], int]) -> list[Track]:
    """Notes of all three splits; `target` maps a note's JSON entry to its class.

    Raises:
        UserError: an examples.json is missing or unreadable, or an entry has no usable label.
    """
    tracks: list[Track] = []
    for split, name in FOLDERS.items():
        labels, audio = root / name / LABELS, root / name / "audio"
        for note, entry in _read_entries(labels).items():
            label = _label(labels, note, entry, target)
            instrument = entry.get("instrument_str")
            tracks.append(Track(note, audio / f"{note}.wav", split, label, instrument))
    return tracks


def _read_entries(path: Path) -> Mapping[str, Entry]:
    """Entries of all notes of a split, by note."""
    if not path.is_file():
        remedy = f"Unpack nsynth-*.jsonwav.tar.gz into {path.parent.parent}"
        raise MissingFilesError("NSynth labels", path.parent, path.name, remedy)

    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        problem = f"is not valid JSON ({error})"
        raise BrokenLabelsError(path, problem, "unpack its archive again") from error
    if not isinstance(entries, dict):
        found = type(entries).__name__
        remedy = f"expected an object keyed by note, found a {found}"
        raise BrokenLabelsError(path, "is not NSynth's examples.json", remedy)
    return entries


def _label(path: Path, note: str, entry: Entry, target: Callable[[Entry], int]) -> int:
    remedy = f"download {path.name} again"
    try:
        return target(entry)
    except KeyError as error:
        problem = f"has an entry {note!r} without a field {error}"
        raise BrokenLabelsError(path, problem, remedy) from error
    except (TypeError, ValueError) as error:
        problem = f"has an entry {note!r} without a usable label ({error})"
        raise BrokenLabelsError(path, problem, remedy) from error
