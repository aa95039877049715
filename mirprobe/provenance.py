"""Provenance: what a result was made of, and whether that is still what is there.

Conventions: results of a cell lie in a folder of their own for each content that they were made of,
`<cell's folder>/<hash of weights, labelled list and store>`, so that other labels, other audio or
another checkpoint never overwrite a result and never pass for it. Paths are in no hash. Beside the
rows lies, for each place that the data was read from, a *stamp* over names, sizes and times of
change of all files that could matter: while it holds, the result is known to be current without
reading a label, a file of audio or a weight.
"""

import gzip
import hashlib
import json
import os
import stat
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from datamodules.errors import UserError
from datamodules.files import atomic, write_text
from datamodules.listing import differences, hash_text
from mirprobe.cell import Cell
from mirprobe.results import is_done

MADE_OF = "made_of.json"
LISTS = "lists"  # folder below `paths.runs`: labelled lists by their hash, which many cells share


@dataclass(frozen=True)
class MadeOf:
    """What a result was made of.

    Attributes:
        weights: fingerprint of the backbone.
        tracks: hash of the labelled list: ids, splits, targets, and the content of the audio.
        store: hash of the feature store.
    """

    weights: str
    tracks: str
    store: str

    @property
    def hash(self) -> str:
        """8 hex digits over all of it."""
        text = json.dumps(asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:8]


@dataclass(frozen=True)
class Inputs:
    """Files that a result follows from.

    Attributes:
        folders: below which every file counts.
        files: single files that count too.
    """

    folders: tuple[str, ...]
    files: tuple[str, ...]


@dataclass(frozen=True)
class Result:
    """The results of a cell on one content.

    Attributes:
        folder: of its rows, probes and predictions.
        made_of: its content.
    """

    folder: Path
    made_of: MadeOf


class Stamps:
    """Stamps of files and folders, each taken once; for the length of one command."""

    def __init__(self) -> None:
        self._of: dict[str, str] = {}

    def take(self, inputs: Inputs) -> str:
        """16 hex digits that change when a file is added, taken away, renamed or written."""
        parts = [self._part(path) for path in (*inputs.folders, *inputs.files)]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]

    def _part(self, path: str) -> str:
        if path not in self._of:
            digest = hashlib.sha256()
            for name, size, changed_ns in sorted(_walk(path)):
                digest.update(f"{name}\t{size}\t{changed_ns}\n".encode("utf-8", "surrogateescape"))
            self._of[path] = digest.hexdigest()
        return self._of[path]


def _walk(path: str) -> Iterator[tuple[str, int, int]]:
    """Name, size and time of change of a file, or of every file below a folder but hidden ones."""
    try:
        status = Path(path).stat()
    except OSError:
        return
    if stat.S_ISDIR(status.st_mode):
        yield from _walk_folder(path, frozenset())
    else:
        yield path, status.st_size, status.st_mtime_ns


def _walk_folder(folder: str, above: frozenset[Path]) -> Iterator[tuple[str, int, int]]:
    """As `_walk`; `above` are the folders that it lies in, to which a link may lead back."""
    real = Path(folder).resolve()
    if real in above:
        return
    try:
        entries = list(os.scandir(folder))
    except OSError:  # such as lost+found: nobody here can read what it holds
        return

    for entry in entries:
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            yield from _walk_folder(entry.path, above | {real})
            continue
        try:
            status = entry.stat()
        except OSError:  # a link to nowhere
            continue
        yield entry.path, status.st_size, status.st_mtime_ns


def current_result(cell: Cell, stamps: Stamps) -> Result | None:
    """The result of a cell that was made of what is there now, as far as stamps tell."""
    for result in _results_here(cell):
        path = result.folder / _stamp_name(cell)
        note = _read_json(path) or {}
        try:
            inputs = Inputs(tuple(note.get("folders", ())), tuple(note.get("files", ())))
            is_current = stamps.take(inputs) == note.get("stamp")
        except TypeError as error:
            raise _not_a_note(path) from error
        if is_current:
            return result
    return None


def latest_result(cell: Cell) -> Result | None:
    """The newest result of a cell from the places that its settings name, current or not."""
    return next(iter(_results_here(cell)), None)


def stored_results(cell: Cell) -> list[Result]:
    """All results of a cell, the newest first."""
    found = []
    for path in cell.folder.glob(f"*/{MADE_OF}"):
        note = _read_json(path)
        if note is not None and is_done(path.parent):
            found.append(Result(path.parent, _made_of(path, note)))
    return sorted(found, key=_age_s)


def _made_of(path: Path, note: Mapping[str, Any]) -> MadeOf:
    try:
        return MadeOf(**note["made_of"])
    except (KeyError, TypeError) as error:
        raise _not_a_note(path) from error


def _results_here(cell: Cell) -> list[Result]:
    """Results from the places that the settings name, that which was current last first."""
    name = _stamp_name(cell)
    here = [result for result in stored_results(cell) if (result.folder / name).is_file()]
    return sorted(here, key=lambda result: _age_s(result, name))


def _age_s(result: Result, note: str = MADE_OF) -> float:
    return -(result.folder / note).stat().st_mtime


def result_of(cell: Cell, made_of: MadeOf) -> Result:
    """The place for a cell's results on one content, whether or not it exists."""
    return Result(cell.folder / made_of.hash, made_of)


def note_result(cell: Cell, result: Result, list_text: str) -> None:
    """Writes what a result is made of, and the labelled list that it names."""
    path = Path(cell.paths.runs) / LISTS / f"{result.made_of.tracks}.tsv.gz"
    if not path.is_file():
        with atomic(path) as temporary:
            temporary.write_bytes(gzip.compress(list_text.encode("utf-8", "surrogateescape"), 6))
    note = {"made_of": asdict(result.made_of), "cell": cell.hash}
    write_text(result.folder / MADE_OF, json.dumps(note, indent=1) + "\n")


def note_stamp(cell: Cell, result: Result, inputs: Inputs, stamp: str) -> None:
    """Writes that a result is current as long as the stamp of its inputs holds."""
    note = {"places": cell.places, **asdict(inputs), "stamp": stamp}
    write_text(result.folder / _stamp_name(cell), json.dumps(note, indent=1) + "\n")


def what_changed(cell: Cell, before: MadeOf, now: MadeOf, list_text: str) -> str:
    """One line that says in what two contents differ, such as `labels changed: 12 of 290`."""
    parts = []
    if before.weights != now.weights:
        parts.append("the weights are others")
    elif before.store != now.store:
        parts.append("the features are others")
    if before.tracks != now.tracks:
        parts += _list_changes(cell, before.tracks, list_text)
    return "; ".join(parts)


def _list_changes(cell: Cell, before: str, list_text: str) -> list[str]:
    path = Path(cell.paths.runs) / LISTS / f"{before}.tsv.gz"
    try:
        old = gzip.decompress(path.read_bytes()).decode("utf-8", "surrogateescape")
    except (OSError, EOFError, zlib.error):
        old = ""
    if hash_text(old) != before:  # it is lost
        return ["the labelled list is another"]

    n_tracks = list_text.count("\n")
    found = differences(old, list_text)
    one_sided = [f"{what}: {found[what]}" for what in ("tracks gone", "tracks new") if found[what]]
    changed = [
        f"{what} changed: {found[what]} of {n_tracks}"
        for what in ("labels", "splits", "audio")
        if found[what]
    ]
    return [*one_sided, *changed]


def _stamp_name(cell: Cell) -> str:
    """One note for each place that the data was read from."""
    text = json.dumps(cell.places)
    return f"stamp-{hashlib.sha256(text.encode()).hexdigest()[:8]}.json"


def _read_json(path: Path) -> Mapping[str, Any] | None:
    """A note's content; None if there is no such file.

    Raises:
        UserError: the file is broken.
    """
    try:
        note = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path} cannot be read ({error}): delete it and run the same command again"
        ) from error
    if not isinstance(note, Mapping):
        raise _not_a_note(path)
    return note


def _not_a_note(path: Path) -> UserError:
    return UserError(f"{path} is not a note of mirprobe: delete it and run the same command again")
