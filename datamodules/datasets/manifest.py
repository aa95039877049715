"""Own data without code: a table of files and labels as CSV or JSONL, also the JSONL files of
MARBLE v2 as they are.

Conventions: one row is one track. Columns (keys): `path` or `audio_path`, which is also the track's
id, relative to the table's folder or to data.root (the first of the two under which any of the
files is); `start` and `end` in s, where the track is a part of its file (`a.wav@10-25` is its id
then); `label` (one class), or `labels` (tags, in CSV separated by `|`), or numeric columns that the
option `targets` names. A JSON list in `label` is a list of tags, or of numbers for regression.
`split` says train, val or test; without it the split is drawn, 3:1:1, so that no `group` is in two
splits. Other columns are not looked at. Classes and tags are sorted by name, or as numbers where
all of them are; values of regression are standardised on train, which R² does not see and training
needs.
"""

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from datamodules.audio.clips import ClipRule
from datamodules.card import Card
from datamodules.errors import UserError
from datamodules.splitting import split_groups
from datamodules.tables import Cells, Table, parse_rows, read_csv, read_jsonl
from datamodules.task import TaskDataModule
from datamodules.tracks import SPLITS, Kind, Split, Track

SPLIT_NAMES: Mapping[str, Split] = {
    "train": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
}
_JSON_SUFFIXES = (".jsonl", ".ndjson")

CARD = Card(
    title="Your own data",
    licence="that of your audio",
    citation="that of your audio",
    obtain="""\
Write a table, CSV or JSONL, and name it: mirprobe sweep task=manifest task.options.file=TABLE.csv
  path: the audio file, relative to the table's folder or to data.root
  label (one class), labels (tags, separated by | in CSV), or numeric columns named by task.options.targets=[COLUMN,...]
  split: train, val or test; without it 3:1:1 is drawn, so that no group is in two splits""",
)


@dataclass(frozen=True)
class _Label:
    """What a row says: the names of its class, tags or dimensions; the values of regression."""

    kind: Kind
    names: tuple[str, ...]
    values: tuple[float, ...] = ()


@dataclass(frozen=True)
class _Entry:
    """A row, understood."""

    path: str
    start_s: float
    end_s: float | None
    split: Split | None
    group: str
    label: _Label

    @property
    def track_id(self) -> str:
        """The path, with the times where the track is a part of the file."""
        if self.start_s == 0 and self.end_s is None:
            return self.path
        return f"{self.path}@{self.start_s:g}-{'' if self.end_s is None else f'{self.end_s:g}'}"


class Manifest(TaskDataModule):
    """The user's own tracks; kind and classes follow from the table. The options are explained in
    conf/task/manifest.yaml.

    Features are shared by all tables that find their files under the same folder.

    Raises:
        UserError: a table is missing or broken, or its rows do not go together.
    """

    dataset = "manifest"
    card = CARD

    def __init__(
        self,
        root: Path,
        clip: ClipRule,
        exclude: Collection[str] = (),
        *,
        file: str | None = None,
        train: str | None = None,
        val: str | None = None,
        test: str | None = None,
        targets: Sequence[str] | None = None,
        split_seed: int = 0,
    ) -> None:
        tables = _tables(file, {"train": train, "val": val, "test": test})
        names = (targets,) if isinstance(targets, str) else tuple(targets or ())
        entries = [entry for path, split in tables for entry in _read_entries(path, split, names)]
        source = ", ".join(str(path) for path, _ in tables)
        _check_unique(entries, source)
        folder = _base_folder([tables[0][0].parent, Path(root)], entries)
        super().__init__(folder, clip, exclude)
        self.kind = _kind(entries, source)
        splits = _splits(entries, source, split_seed)
        self.classes = _classes(entries, splits, source)
        self._listed = self._make_tracks(entries, splits)

    def read_tracks(self) -> list[Track]:
        """The rows of the table."""
        return self._listed

    def _make_tracks(self, entries: Sequence[_Entry], splits: Sequence[Split]) -> list[Track]:
        targets: Sequence[int | tuple[float, ...]]
        if self.kind == "classification":
            targets = [self.classes.index(entry.label.names[0]) for entry in entries]
        elif self.kind == "multilabel":
            targets = [
                tuple(float(name in entry.label.names) for name in self.classes)
                for entry in entries
            ]
        else:
            targets = _scaled([entry.label.values for entry in entries], splits, self.classes)
        return [
            Track(
                entry.track_id,
                self.root / entry.path,
                split,
                target,
                _named(entry.group),
                entry.start_s,
                entry.end_s,
            )
            for entry, split, target in zip(entries, splits, targets, strict=True)
        ]


def _named(group: str) -> str | None:
    """The group as the table names it; None for a path that stands in for one."""
    return group.removeprefix("group:") if group.startswith("group:") else None


def _tables(file: str | None, parts: Mapping[Split, str | None]) -> list[tuple[Path, Split | None]]:
    given = {split: path for split, path in parts.items() if path}
    if file and not given:
        return [(Path(file), None)]
    if not file and len(given) == len(SPLITS):
        return [(Path(path), split) for split, path in given.items()]
    found = ", ".join([*(["file"] if file else []), *given]) or "none of them"
    raise UserError(
        "task=manifest reads task.options.file, or else task.options.train, val and test "
        f"together; found {found}: "
        "set task.options.file=TABLE.csv"
    )


def _read_entries(path: Path, split: Split | None, targets: tuple[str, ...]) -> list[_Entry]:
    if path.suffix.lower() not in (".csv", *_JSON_SUFFIXES):
        raise UserError(f"{path} is neither .csv nor .jsonl: tables are read in these two formats")
    table = read_csv(path) if path.suffix.lower() == ".csv" else read_jsonl(path)
    _check_columns(table, targets)
    return parse_rows(path, table.numbers, table.rows, lambda cells: _entry(cells, split, targets))


def _check_columns(table: Table, targets: Sequence[str]) -> None:
    found = f"found {', '.join(table.columns) or 'nothing'}"
    if not {"path", "audio_path"} & set(table.columns):
        raise UserError(
            f"{table.path} has no column path (or audio_path): {found}. Name the column of the "
            "audio files so"
        )
    unknown = [name for name in targets if name not in table.columns]
    if unknown:
        raise UserError(
            f"task.options.targets names a column that {table.path} does not have: {unknown[0]}; "
            f"{found}"
        )
    n_labels = len({"label", "labels"} & set(table.columns))
    if not targets and n_labels != 1:
        raise UserError(
            f"{table.path} has {'both' if n_labels else 'neither'} label "
            f"{'and' if n_labels else 'nor'} labels: {found}. "
            "Keep label for one class or labels for tags, or set task.options.targets=[COLUMN,...] "
            "for regression"
        )


def _entry(cells: Cells, split: Split | None, targets: tuple[str, ...]) -> _Entry:
    path = cells.get("path", cells.get("audio_path"))
    if not isinstance(path, str) or not path:
        raise ValueError("has no path")
    path = PurePosixPath(path).as_posix()
    group = f"path:{path}" if cells.get("group") in (None, "") else f"group:{cells['group']}"
    return _Entry(path, *_part(cells), split or _split(cells), group, _label(cells, targets))


def _part(cells: Cells) -> tuple[float, float | None]:
    """Start and end of the track in its file, in s."""
    start, end = (
        None if cells.get(name) in (None, "") else _number(name, cells[name])
        for name in ("start", "end")
    )
    start = start or 0.0
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


def _label(cells: Cells, targets: tuple[str, ...]) -> _Label:
    if targets:
        return _Label(
            "regression", targets, tuple(_number(name, cells.get(name)) for name in targets)
        )
    if "labels" in cells:
        tags = cells["labels"]
        return _Label("multilabel", _names(tags.split("|") if isinstance(tags, str) else tags))
    label = cells.get("label")
    if not isinstance(label, list):
        return _Label("classification", (_name(label),))
    if label and all(
        isinstance(value, int | float) and not isinstance(value, bool) for value in label
    ):
        names = tuple(f"label_{index}" for index in range(len(label)))
        return _Label("regression", names, tuple(_number("label", value) for value in label))
    return _Label("multilabel", _names(label))


def _names(tags: object) -> tuple[str, ...]:
    if not isinstance(tags, list):
        raise ValueError(f"has labels={tags!r}, expected a list of tags")
    return tuple(_name(tag) for tag in tags if tag != "")


def _name(label: object) -> str:
    """Name of a class: text as it is, whole numbers as they are written."""
    if isinstance(label, str) and label.strip():
        return label.strip()
    if isinstance(label, float) and not label.is_integer():
        raise ValueError(
            f"has label={label}, which is no class: for regression set task.options.targets=[label]"
        )
    if isinstance(label, int | float):
        return str(label if isinstance(label, bool) else int(label))
    raise ValueError(
        "has no label"
        if label in (None, "")
        else f"has label={label!r}, expected text or a whole number"
    )


def _number(name: str, value: object) -> float:
    try:
        number = float(value)  # type: ignore[arg-type]  # whatever JSON gives: float() is the judge
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"has {name}={value!r}, which is not a number")
    return number


def _check_unique(entries: Sequence[_Entry], source: str) -> None:
    twice = [
        track_id for track_id, n in Counter(entry.track_id for entry in entries).items() if n > 1
    ]
    if twice:
        raise UserError(
            f"{len(twice)} tracks are listed more than once in {source} (first: {twice[0]}): keep "
            "one row of each"
        )


def _base_folder(candidates: Sequence[Path], entries: Sequence[_Entry]) -> Path:
    """The first folder under which any of the files is; the first of all if none is anywhere, to be
    missed there.
    """
    found = (
        folder for folder in candidates if any((folder / entry.path).is_file() for entry in entries)
    )
    return next(found, candidates[0])


def _kind(entries: Sequence[_Entry], source: str) -> Kind:
    kinds: dict[Kind, str] = {}
    for entry in entries:
        kinds.setdefault(entry.label.kind, entry.track_id)
    if len(kinds) > 1:
        mixed = ", ".join(f"{kind} (first: {track_id})" for kind, track_id in kinds.items())
        raise UserError(
            f"labels of several kinds in {source}: {mixed}. Write all labels in one form"
        )
    if not kinds:
        raise UserError(f"{source} lists no tracks: add one row per audio file")
    return next(iter(kinds))


def _splits(entries: Sequence[_Entry], source: str, seed: int) -> list[Split]:
    """The split of every entry: as written, or drawn where none is written."""
    written = [entry.split for entry in entries if entry.split is not None]
    if not written:
        drawn = split_groups((entry.group for entry in entries), seed)
        return [drawn[entry.group] for entry in entries]
    if len(written) < len(entries):
        first = next(entry.track_id for entry in entries if entry.split is None)
        raise UserError(
            f"{len(entries) - len(written)} of {len(entries)} tracks in {source} have no split "
            f"(first: {first}): write it for "
            "all or for none"
        )
    places = {(entry.group, entry.split) for entry in entries}
    torn = [group for group, n in Counter(group for group, _ in places).items() if n > 1]
    if torn:
        raise UserError(
            f"{len(torn)} groups of {source} are in more than one split (first: "
            f"{torn[0].removeprefix('group:')}): correct the "
            "splits, or leave the column split or group away"
        )
    return written


def _classes(entries: Sequence[_Entry], splits: Sequence[Split], source: str) -> tuple[str, ...]:
    """Names of the classes or tags of train, sorted; or those of the dimensions, as they stand."""
    if entries[0].label.kind == "regression":
        odd = [entry.track_id for entry in entries if entry.label.names != entries[0].label.names]
        if odd:
            n_values = len(entries[0].label.names)
            raise UserError(
                f"{len(odd)} tracks in {source} do not have {n_values} values (first: {odd[0]}): "
                "give all as many"
            )
        return entries[0].label.names
    known = {
        name
        for entry, split in zip(entries, splits, strict=True)
        if split == "train"
        for name in entry.label.names
    }
    unknown = sorted({name for entry in entries for name in entry.label.names} - known)
    if unknown:
        raise UserError(
            f"{len(unknown)} labels of {source} are in val or test but not in train (first: "
            f"{unknown[0]!r}): no probe can learn "
            "them. Correct the spelling, the split, or set another task.options.split_seed"
        )
    if len(known) < (2 if entries[0].label.kind == "classification" else 1):
        raise UserError(
            f"{source} has {len(known)} different labels in train: there is nothing to tell apart"
        )
    return tuple(
        sorted(known, key=int) if all(name.isdecimal() for name in known) else sorted(known)
    )


def _scaled(
    values: Sequence[tuple[float, ...]], splits: Sequence[Split], names: Sequence[str]
) -> list[tuple[float, ...]]:
    """Values less the mean over train, in standard deviations over train."""
    table = np.array(values, dtype=np.float64)
    train = table[[split == "train" for split in splits]]
    if len(train) == 0:
        return [tuple(row) for row in table.tolist()]  # the base class says that train is empty
    constant = [
        name for name, deviation in zip(names, train.std(axis=0), strict=True) if deviation == 0
    ]
    if constant:
        raise UserError(
            f"{constant[0]} has the same value in all of train: there is nothing to learn, leave "
            "it out"
        )
    return [tuple(row) for row in ((table - train.mean(axis=0)) / train.std(axis=0)).tolist()]
