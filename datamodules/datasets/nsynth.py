"""NSynth (Engel et al. 2017, CC BY 4.0): 305 979 notes of 1006 instruments, 4 s each, 16 kHz mono.

Conventions: the layout is the one distributed, `nsynth-{train,valid,test}/examples.json` with
`audio/<note>.wav`. Splits are the official folders; train shares no instrument with valid or test,
while valid and test share instruments with each other. Labels are read from the JSON, never from
file names (`synth_lead_synthetic_000` has a family of two words).
"""

import gc
import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

from datamodules.card import Archive, Card
from datamodules.errors import BrokenLabelsError, MissingFilesError, UserError
from datamodules.task import TaskDataModule
from datamodules.tracks import SPLITS, Split, Track

Entry = Mapping[str, Any]  # what the JSON says about a note

FOLDERS: Mapping[Split, str] = {
    "train": "nsynth-train",
    "val": "nsynth-valid",
    "test": "nsynth-test",
}
LABELS = "examples.json"
_PIECE = 2**20  # characters of it that are read at a time
_LONGEST = 2**24  # of an entry: a file that is no JSON is not read to its end
_DECODER = json.JSONDecoder()
_MEMBER = re.compile(r'\s*[{,]\s*"((?:[^"\\]|\\.)*)"\s*:\s*')
_END = re.compile(r"\s*(\{\s*)?\}\s*")
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
        return read_notes(self.root, lambda entry: _whole(entry["pitch"]) - 1)


class NSynthInstrument(TaskDataModule):
    """Instrument family of a note, 11 classes (paper 3.4)."""

    dataset = "nsynth"
    classes = FAMILIES
    card = CARD
    expected: Mapping[Split, int] = NSynthPitch.expected
    lasts_s = (3.99, 4.01)

    def read_tracks(self) -> list[Track]:
        """Notes with their family; raises as `read_notes`."""
        return read_notes(self.root, lambda entry: _whole(entry["instrument_family"]))


def read_notes(root: Path, target: Callable[[Entry], int]) -> list[Track]:
    """Notes of all three splits; `target` maps a note's JSON entry to its class.

    Raises:
        UserError: an examples.json is missing or unreadable, or an entry has no usable label.
    """
    # Looking through 300 000 tracks for garbage, again and again, takes a third of the time.
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        return [track for split in SPLITS for track in _read_split(root, split, target)]
    finally:
        if was_enabled:
            gc.enable()


def _read_split(root: Path, split: Split, target: Callable[[Entry], int]) -> Iterator[Track]:
    labels = root / FOLDERS[split] / LABELS
    audio = root / FOLDERS[split] / "audio"
    for note, entry in _read_entries(labels):
        if not isinstance(entry, dict):
            problem = f"has no object for {note!r}, but a {type(entry).__name__}"
            raise BrokenLabelsError(labels, problem, f"download {labels.name} again")

        label = _label(labels, note, entry, target)
        instrument = entry.get("instrument_str")
        # One of a thousand names, for 300 000 notes.
        group = sys.intern(instrument) if isinstance(instrument, str) else None
        yield Track(note, audio / f"{note}.wav", split, label, group)


def _read_entries(path: Path) -> Iterator[tuple[str, object]]:
    """Notes of a split and their entries, one after the other: all at once take a gigabyte."""
    remedy = "unpack its archive again"
    if not path.exists():
        archive = f"Unpack nsynth-*.jsonwav.tar.gz into {path.parent.parent}"
        raise MissingFilesError("NSynth labels", path.parent, path.name, archive)
    try:
        with path.open(encoding="utf-8") as file:
            if not _starts_object(file):
                problem = f"found a {type(json.load(file)).__name__}"
                remedy = f"expected an object keyed by note, {problem}"
                raise BrokenLabelsError(path, "is not NSynth's examples.json", remedy)
            yield from _members(file)
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror}): {remedy}") from error
    except (ValueError, RecursionError) as error:  # nested deeper than Python's stack
        raise BrokenLabelsError(path, f"is not valid JSON ({error})", remedy) from error


def _starts_object(file: TextIO) -> bool:
    start = file.read(_PIECE).lstrip()
    file.seek(0)
    return start.startswith("{") or not start


def _members(file: TextIO) -> Iterator[tuple[str, object]]:
    """Keys and values of the JSON object that a file holds.

    Raises:
        ValueError: it is not valid JSON.
    """
    text, place = "", 0
    is_more = True
    while is_more:
        piece = file.read(_PIECE)
        is_more = bool(piece)
        text, place = text[place:] + piece, 0

        # Each note is behind `{` or a comma. The last one in the text may go on behind it.
        while (start := _MEMBER.match(text, place)) is not None:
            try:
                entry, behind = _DECODER.raw_decode(text, start.end())
            except json.JSONDecodeError:
                if is_more and len(text) - place < _LONGEST:
                    break
                raise
            note = start[1] if "\\" not in start[1] else json.loads(f'"{start[1]}"')
            yield note, entry
            place = behind

    if _END.fullmatch(text, place) is None:
        raise json.JSONDecodeError("Expecting ',' delimiter", text, place)


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


def _whole(value: object) -> int:
    """A number that is whole: 60.7 is no pitch that somebody meant."""
    if type(value) is not int:
        raise ValueError(f"{value!r} is no whole number")
    return value
