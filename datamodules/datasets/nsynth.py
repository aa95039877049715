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
from datamodules.errors import UserError
from datamodules.task import TaskDataModule
from datamodules.tracks import Split, Track

FOLDERS: Mapping[Split, str] = {
    "train": "nsynth-train",
    "val": "nsynth-valid",
    "test": "nsynth-test",
}
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
PITCHES = tuple(
    str(pitch) for pitch in range(1, 129)
)  # MARBLE v1 NSynthP_dataset.py: class = MIDI pitch - 1

_HOST = "http://download.magenta.tensorflow.org/datasets/nsynth"
_ARCHIVES = (  # MD5 as published in HEAR's nsynth_pitch.py, which is the ETag of the host
    ("nsynth-train.jsonwav.tar.gz", "fde6665a93865503ba598b9fac388660", 23_815_298_079),
    ("nsynth-valid.jsonwav.tar.gz", "87e94a00a19b6dbc99cf6d4c0c0cae87", 1_068_767_009),
    ("nsynth-test.jsonwav.tar.gz", "5e6f8719bf7e16ad0a00d518b78af77d", 349_501_546),
)
CARD = Card(
    title="NSynth (2017)",
    licence="CC BY 4.0",
    citation=(
        "J. Engel, C. Resnick, A. Roberts, S. Dieleman, D. Eck, K. Simonyan, M. Norouzi: Neural "
        "audio synthesis of musical notes "
        "with WaveNet autoencoders, ICML 2017"
    ),
    obtain="""\
From Magenta, the three archives named json/wav (25 GB, unpacked about 40 GB): https://magenta.tensorflow.org/datasets/nsynth
Unpack nsynth-train, nsynth-valid and nsynth-test .jsonwav.tar.gz into NSynth:
  NSynth/nsynth-{train,valid,test}/examples.json and NSynth/nsynth-{train,valid,test}/audio/<note>.wav""",
    archives=tuple(
        Archive(f"{_HOST}/{name}", path=name, md5=md5, n_bytes=n_bytes)
        for name, md5, n_bytes in _ARCHIVES
    ),
)


def read_notes(root: Path, target: Callable[[Mapping[str, Any]], int]) -> list[Track]:
    """The notes of all three splits; `target` maps a note's JSON entry to its class.

    Raises:
        UserError: an examples.json is missing, unreadable, or an entry lacks a field.
    """
    return [
        Track(
            note,
            root / folder / "audio" / f"{note}.wav",
            split,
            _target(note, entry, target),
            entry.get("instrument_str"),
        )
        for split, folder in FOLDERS.items()
        for note, entry in _read_examples(root / folder / "examples.json").items()
    ]


def _target(note: str, entry: Mapping[str, Any], target: Callable[[Mapping[str, Any]], int]) -> int:
    try:
        return target(entry)
    except KeyError as error:
        raise UserError(
            f"NSynth's entry {note!r} has no field {error}: download examples.json again"
        ) from error
    except (TypeError, ValueError) as error:
        raise UserError(
            f"NSynth's entry {note!r} has no usable label ({error}): download examples.json again"
        ) from error


def _read_examples(path: Path) -> dict[str, dict[str, Any]]:
    try:
        examples = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(
            f"no NSynth labels: {path} does not exist. Unpack nsynth-*.jsonwav.tar.gz into "
            f"{path.parent.parent}"
        ) from error
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON ({error}): unpack its archive again") from error
    if not isinstance(examples, dict):
        raise UserError(
            f"{path} is not NSynth's examples.json: expected an object keyed by note, found a "
            f"{type(examples).__name__}"
        )
    return examples


class NSynthPitch(TaskDataModule):
    """MIDI pitch of a note, 128 classes (paper 3.4; class = pitch - 1 as in MARBLE v1)."""

    dataset = "nsynth"
    classes = PITCHES
    card = CARD
    expected: Mapping[Split, int] = {"train": 289205, "val": 12678, "test": 4096}

    def read_tracks(self) -> list[Track]:
        """Notes with their pitch class."""
        return read_notes(self.root, lambda entry: int(entry["pitch"]) - 1)


class NSynthInstrument(TaskDataModule):
    """Instrument family of a note, 11 classes (paper 3.4)."""

    dataset = "nsynth"
    classes = FAMILIES
    card = CARD
    expected: Mapping[Split, int] = NSynthPitch.expected

    def read_tracks(self) -> list[Track]:
        """Notes with their family."""
        return read_notes(self.root, lambda entry: int(entry["instrument_family"]))
