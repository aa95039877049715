"""Rows of a table of somebody's own files and labels, as CSV or JSONL.

Conventions: one row is one track. Columns (keys) have the names of their roles, or are given them
by the option `columns`, such as `{label: genre}`; others are not looked at. Roles are:
- `path` or `audio_path`: also the track's id; relative to the table's folder or to data.root, the
  first of the two under which any of the files is.
- `start` and `end`, in s: where the track is a part of its file; `a.wav@10-25` is its id then.
- `label` (one class), or `labels` (tags, in CSV separated by `|`), or numeric columns that the
  option `targets` names. A JSON list in `label` is a list of tags, or of numbers for regression.
- `segments`: a .lab or .jams file with labelled stretches of the audio, which is then scored by
  frames; relative as `path` is.
- `split`: train, val or test; or `fold`: any name. `group`: what must not be in two of them.
- `ori_uid` (MARBLE v2): the song that several rows are clips of. They are one track: its outputs
  are the mean over all of them, and it counts once. A song whose clips have several labels is one
  track for each label.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from datamodules.datasets.segment_file import Stretch, read_segments
from datamodules.errors import BrokenLabelsError, UserError, nearest
from datamodules.tables import Cells, Table, read_csv, read_jsonl, to_number
from datamodules.tracks import SPLITS, Kind, Split

SPLIT_NAMES: Mapping[str, Split] = {
    **{split: split for split in SPLITS},
    "valid": "val",
    "validation": "val",
}
ROLES: tuple[str, ...] = (
    *("path", "audio_path", "start", "end", "label", "labels", "segments"),
    *("split", "fold", "group", "ori_uid"),
)
_JSON_SUFFIXES = (".jsonl", ".ndjson")


@dataclass(frozen=True)
class Label:
    """The label of a row: names of its class, tags or dimensions; the values of regression; the
    stretches of frames, in s from the start of the track, and the file that they are from.
    """

    kind: Kind
    names: tuple[str, ...]
    values: tuple[float, ...] = ()
    stretches: tuple[Stretch, ...] = ()
    source: Path | None = None


@dataclass(frozen=True)
class Entry:
    """One row of a table; `split`, `fold` and `group` are None where none is written."""

    path: str
    start_s: float
    end_s: float | None
    split: Split | None
    fold: str | None
    group: str | None
    song: str | None
    label: Label

    @property
    def unit(self) -> str:
        """The tracks that stay in one split: of the group, of the song, or parts of the file."""
        if self.group is None and self.song is None:
            return f"path:{self.path}"
        return f"group:{self.song if self.group is None else self.group}"

    @property
    def track_id(self) -> str:
        """The path, with the times where the track is a part of the file."""
        if self.start_s == 0 and self.end_s is None:
            return self.path
        end = "" if self.end_s is None else f"{self.end_s:g}"
        return f"{self.path}@{self.start_s:g}-{end}"


def tables_of(
    file: str | None, parts: Mapping[Split, str | None]
) -> list[tuple[Path, Split | None]]:
    """The tables that options name, each with the split of its rows; None where they say it.

    Raises:
        UserError: neither one table is named nor three.
    """
    given = {split: path for split, path in parts.items() if path}
    if file and not given:
        return [(Path(file), None)]
    if not file and len(given) == len(SPLITS):
        return [(Path(path), split) for split, path in given.items()]
    found = ", ".join([*(["file"] if file else []), *given]) or "none of them"
    raise UserError(
        "task=manifest reads task.options.file, or else task.options.train, val and test "
        f"together; found {found}: set task.options.file=TABLE.csv"
    )


def read_entries(
    path: Path,
    split: Split | None,
    targets: tuple[str, ...],
    columns: Mapping[str, str | None] | None = None,
    root: Path = Path(),
) -> list[Entry]:
    """Rows of a table.

    Args:
        path: the table, .csv or .jsonl.
        split: of all its rows; None where they say it.
        targets: numeric columns for regression; none for labels.
        columns: the column of each role that is not called by it; None for a role that a column is
            called by and does not have.
        root: where files of segments are that are not below the folder of the table.

    Raises:
        UserError: the table is missing or broken, lacks a column, or has rows that cannot be used.
    """
    table = _renamed(read_table(path), columns or {})
    _check_columns(table, targets)
    return table.parse(lambda cells: _entry(cells, split, targets, (path.parent, root)))


def read_table(path: Path) -> Table:
    """A table in one of the two formats.

    Raises:
        UserError: it is in another one, missing or broken.
    """
    if path.suffix.lower() not in (".csv", *_JSON_SUFFIXES):
        raise UserError(f"{path} is neither .csv nor .jsonl: tables are read in these two formats")
    return read_csv(path) if path.suffix.lower() == ".csv" else read_jsonl(path)


def _renamed(table: Table, columns: Mapping[str, str | None]) -> Table:
    """The table with its columns under the names of their roles."""
    unknown = [role for role in columns if role not in ROLES]
    if unknown:
        raise UserError(
            f"task.options.columns has the role {unknown[0]!r}{nearest(str(unknown[0]), ROLES)}. "
            f"Known: {', '.join(ROLES)}"
        )
    absent = [name for name in columns.values() if name is not None and name not in table.columns]
    if absent:
        raise UserError(
            f"task.options.columns names a column that {table.path} does not have: {absent[0]}; "
            f"found {', '.join(table.columns) or 'nothing'}"
        )

    # What has a role has no other one by its own name: `{labels: label}` leaves no label.
    taken = {*columns, *columns.values()}

    def rename(cells: Cells) -> Cells:
        kept = {name: cell for name, cell in cells.items() if name not in taken}
        given = {role: cells[str(name)] for role, name in columns.items() if name in cells}
        return {**kept, **given}

    names = [name for name in table.columns if name not in taken]
    names += [role for role, name in columns.items() if name is not None]
    lines = {number: rename(cells) for number, cells in table.lines.items()}
    return replace(table, columns=tuple(dict.fromkeys(names)), lines=lines)


def _check_columns(table: Table, targets: Sequence[str]) -> None:
    found = f"found {', '.join(table.columns) or 'nothing'}"
    if not {"path", "audio_path"} & set(table.columns):
        remedy = f"{found}. Name the column of the audio files so"
        raise BrokenLabelsError(table.path, "has no column path (or audio_path)", remedy)

    unknown = [name for name in targets if name not in table.columns]
    if unknown:
        raise UserError(
            f"task.options.targets names a column that {table.path} does not have: "
            f"{unknown[0]}; {found}"
        )

    labels = [name for name in ("label", "labels", "segments") if name in table.columns]
    if not targets and len(labels) != 1:
        raise BrokenLabelsError(
            table.path,
            f"has both {' and '.join(labels)}" if labels else "has neither label nor labels",
            f"{found}. Keep label for one class or labels for tags, segments for files of them, "
            "or set task.options.targets=[COLUMN,...] for regression",
        )


def _entry(
    cells: Cells, split: Split | None, targets: tuple[str, ...], folders: Sequence[Path]
) -> Entry:
    path = cells.get("path", cells.get("audio_path"))
    if not isinstance(path, str) or not path:
        raise ValueError("has no path")
    path = PurePosixPath(path).as_posix()
    group = None if _is_empty(cells, "group") else str(cells["group"])
    song = None if _is_empty(cells, "ori_uid") else str(cells["ori_uid"])
    fold = None if _is_empty(cells, "fold") else str(cells["fold"])
    split = split or _split(cells)
    start_s, end_s = _part(cells)
    if "segments" in cells and not targets:
        label = _frames(cells["segments"], start_s, end_s, folders)
    else:
        label = _label(cells, targets)
    return Entry(path, start_s, end_s, split, fold, group, song, label)


def _is_empty(cells: Cells, name: str) -> bool:
    return cells.get(name) in (None, "")


def _part(cells: Cells) -> tuple[float, float | None]:
    """Start and end of the track in its file, in s; None for the end of the file."""
    start = 0.0 if _is_empty(cells, "start") else _number("start", cells["start"])
    end = None if _is_empty(cells, "end") else _number("end", cells["end"])
    if start < 0 or (end is not None and end <= start):
        raise ValueError(f"has start={start:g} and end={end}: expected 0 <= start < end, in s")
    return start, end


def _split(cells: Cells) -> Split | None:
    if "split" not in cells:
        return None
    name = str(cells["split"]).lower()
    if name not in SPLIT_NAMES:
        raise ValueError(f"has the unknown split {cells['split']!r}: write {', '.join(SPLITS)}")
    return SPLIT_NAMES[name]


def _frames(name: object, start_s: float, end_s: float | None, folders: Sequence[Path]) -> Label:
    """The stretches of a file of segments that lie in a track, which may be a part of its audio."""
    if not isinstance(name, str) or not name:
        raise ValueError("has no segments")
    places = [folder / name for folder in folders]
    path = next((place for place in places if place.is_file()), places[0])

    last_s = math.inf if end_s is None else end_s
    stretches = tuple(
        (max(start, start_s) - start_s, min(end, last_s) - start_s, label)
        for start, end, label in read_segments(path)
        if end > start_s and start < last_s
    )
    if not stretches:
        raise ValueError(f"names {path}, which has no label from {start_s:g} s to {last_s:g} s")
    return Label("frames", tuple(sorted({s[2] for s in stretches})), (), stretches, path)


def _label(cells: Cells, targets: tuple[str, ...]) -> Label:
    if targets:
        values = tuple(_number(name, cells.get(name)) for name in targets)
        return Label("regression", targets, values)
    if "labels" in cells:
        tags = cells["labels"]
        return Label("multilabel", _names(tags.split("|") if isinstance(tags, str) else tags))

    label = cells.get("label")
    if not isinstance(label, list):
        return Label("classification", (_name(label),))
    if label and all(type(value) in (int, float) for value in label):  # True is a tag
        names = tuple(f"label_{index}" for index in range(len(label)))
        return Label("regression", names, tuple(_number("label", value) for value in label))
    return Label("multilabel", _names(label))


def _names(tags: object) -> tuple[str, ...]:
    """Names of a list of tags; what lies between two `|` may be empty."""
    if not isinstance(tags, list):
        raise ValueError(f"has labels={tags!r}, expected a list of tags")
    return tuple(_name(tag) for tag in tags if tag != "")


def _name(label: object) -> str:
    """Name of a class: text as it is, whole numbers as they are written."""
    match label:
        case None | "":
            raise ValueError("has no label")
        case str() if label.strip():
            return label.strip()
        case int():  # or True and False
            return str(label)
        case float() if label.is_integer():
            return str(int(label))
        case float():
            remedy = "for regression set task.options.targets=[label]"
            raise ValueError(f"has label={label}, which is no class: {remedy}")
        case _:
            raise ValueError(f"has label={label!r}, expected text or a whole number")


def _number(name: str, value: object) -> float:
    number = to_number(value)
    if not math.isfinite(number):
        raise ValueError(f"has {name}={value!r}, which is not a number")
    return number


def check_unique(entries: Sequence[Entry], source: str) -> None:
    """Raises UserError if a track is listed twice."""
    counts = Counter(entry.track_id for entry in entries)
    twice = [track_id for track_id, n in counts.items() if n > 1]
    if twice:
        raise UserError(
            f"{len(twice)} tracks are listed more than once in {source} (first: {twice[0]}): "
            "keep one row of each"
        )


def kind_of(entries: Sequence[Entry], source: str) -> Kind:
    """The kind of all labels.

    Raises:
        UserError: there are none, or they are of several kinds.
    """
    first: dict[Kind, str] = {}
    for entry in entries:
        first.setdefault(entry.label.kind, entry.track_id)
    if not first:
        raise UserError(f"{source} lists no tracks: add one row per audio file")
    if len(first) > 1:
        mixed = ", ".join(f"{kind} (first: {track_id})" for kind, track_id in first.items())
        raise UserError(
            f"labels of several kinds in {source}: {mixed}. Write all labels in one form"
        )
    return next(iter(first))
