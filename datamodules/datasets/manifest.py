"""Own data without code: a table of files and labels, as CSV or JSONL.

Conventions: one row is one track, and the JSONL files of MARBLE v2 serve as they are. Columns
(keys) are:
- `path` or `audio_path`: also the track's id; relative to the table's folder or to data.root, the
  first of the two under which any of the files is.
- `start` and `end`, in s: where the track is a part of its file; `a.wav@10-25` is its id then.
- `label` (one class), or `labels` (tags, in CSV separated by `|`), or numeric columns that the
  option `targets` names. A JSON list in `label` is a list of tags, or of numbers for regression.
- `split`: train, val or test; without it it is drawn, 3:1:1 and, of classes, 3:1:1 within each as
  far as groups allow, so that no `group` is in two splits.
- `ori_uid` (MARBLE v2): the song that several rows are clips of. They are one track: its outputs
  are the mean over all of them, and it counts once. A song whose clips have several labels is one
  track for each label.
Other columns are not looked at. Classes and tags are sorted by name, or as numbers where all of
them are; where all of them are keys, classes are the 24 keys, C to B major, then minor. Values of
regression are standardised on train, which R² does not see and training needs.
"""

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path, PurePosixPath

import numpy as np

from datamodules.audio.clips import ClipRule
from datamodules.card import Card
from datamodules.datasets.giantsteps import KEYS, key_class
from datamodules.errors import BrokenLabelsError, UserError
from datamodules.splitting import split_groups
from datamodules.tables import Cells, Table, read_csv, read_jsonl, to_number
from datamodules.task import TaskDataModule
from datamodules.tracks import SPLITS, Kind, Split, Track

SPLIT_NAMES: Mapping[str, Split] = {
    **{split: split for split in SPLITS},
    "valid": "val",
    "validation": "val",
}
_LARGEST = 1e100  # of a value: the sum of squares must be a number
_JSON_SUFFIXES = (".jsonl", ".ndjson")

CARD = Card(
    title="Your own data",
    licence="that of your audio",
    citation="that of your audio",
    obtain="""\
Write a table, CSV or JSONL, and name it: mirprobe sweep task=manifest task.options.file=TABLE.csv
  path: the audio file, relative to the table's folder or to data.root
  label (one class), labels (tags, separated by | in CSV), \
or numeric columns named by task.options.targets=[COLUMN,...]
  split: train, val or test; without it 3:1:1 is drawn, so that no group is in two splits""",
)


@dataclass(frozen=True)
class _Label:
    """The label of a row: names of its class, tags or dimensions; the values of regression."""

    kind: Kind
    names: tuple[str, ...]
    values: tuple[float, ...] = ()


@dataclass(frozen=True)
class _Entry:
    """One row of a table; `split` and `group` are None where none is written."""

    path: str
    start_s: float
    end_s: float | None
    split: Split | None
    group: str | None
    song: str | None
    label: _Label

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


class Manifest(TaskDataModule):
    """The user's own tracks; kind and classes follow from the table.

    The options are explained in conf/task/manifest.yaml. Features are shared by all tables that
    find their files under the same folder.

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
        source = ", ".join(str(path) for path, _ in tables)  # for errors
        columns = (targets,) if isinstance(targets, str) else tuple(targets or ())
        entries = [entry for path, split in tables for entry in _read_entries(path, split, columns)]
        _check_unique(entries, source)

        folder = _base_folder([tables[0][0].parent, Path(root)], entries)
        super().__init__(folder, clip, exclude)
        self._tables = [path for path, _ in tables]
        self.kind = _kind(entries, source)
        splits = _splits(entries, source, split_seed)
        self.classes = _classes(entries, splits, source)
        self._listed = self._make_tracks(entries, splits)

    def inputs(self) -> tuple[list[Path], list[Path]]:
        """The tables and the files that they name: their folder may hold anything else."""
        return [], [*self._tables, *(track.path for track in self._listed)]

    def read_tracks(self) -> list[Track]:
        """The rows of the table."""
        return self._listed

    def _make_tracks(self, entries: Sequence[_Entry], splits: Sequence[Split]) -> list[Track]:
        targets = self._targets([entry.label for entry in entries], splits)
        songs = _songs(entries)
        return [
            Track(
                entry.track_id,
                self.root / entry.path,
                split,
                target,
                entry.song if entry.group is None else entry.group,
                entry.start_s,
                entry.end_s,
                song=song,
            )
            for entry, split, target, song in zip(entries, splits, targets, songs, strict=True)
        ]

    def _targets(
        self, labels: Sequence[_Label], splits: Sequence[Split]
    ) -> Sequence[int | tuple[float, ...]]:
        if self.kind == "classification":
            return [self.classes.index(_spelled(label.names[0], self.classes)) for label in labels]
        if self.kind == "multilabel":
            return [_flags(label.names, self.classes) for label in labels]
        return _standardised([label.values for label in labels], splits, self.classes)


def _songs(entries: Sequence[_Entry]) -> list[str | None]:
    """What each row is a clip of; with its label where the song has several."""
    labels: dict[str | None, set[_Label]] = {}
    for entry in entries:
        labels.setdefault(entry.song, set()).add(entry.label)

    songs: list[str | None] = []
    for entry in entries:
        is_mixed = entry.song is not None and len(labels[entry.song]) > 1
        label = " ".join([*entry.label.names, *map(str, entry.label.values)])
        songs.append(f"{entry.song} ({label})" if is_mixed else entry.song)
    return songs


def _spelled(name: str, classes: Sequence[str]) -> str:
    """The name of a class as it is in the list: keys have several spellings."""
    return KEYS[key_class(name)] if classes == KEYS else name


def _are_keys(names: Collection[str]) -> bool:
    try:
        return bool([key_class(name) for name in names])
    except ValueError:
        return False


def _flags(tags: Collection[str], classes: Sequence[str]) -> tuple[float, ...]:
    """1.0 for every class that is among the tags, 0.0 for the others."""
    return tuple(float(name in tags) for name in classes)


# -- tables and their rows -------------------------------------------------------------------------


def _tables(file: str | None, parts: Mapping[Split, str | None]) -> list[tuple[Path, Split | None]]:
    """The tables that options name, each with the split of its rows; None where they say it."""
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


def _read_entries(path: Path, split: Split | None, targets: tuple[str, ...]) -> list[_Entry]:
    if path.suffix.lower() not in (".csv", *_JSON_SUFFIXES):
        raise UserError(f"{path} is neither .csv nor .jsonl: tables are read in these two formats")
    table = read_csv(path) if path.suffix.lower() == ".csv" else read_jsonl(path)
    _check_columns(table, targets)
    return table.parse(lambda cells: _entry(cells, split, targets))


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

    n_labels = len({"label", "labels"} & set(table.columns))
    if not targets and n_labels != 1:
        raise BrokenLabelsError(
            table.path,
            "has both label and labels" if n_labels else "has neither label nor labels",
            f"{found}. Keep label for one class or labels for tags, "
            "or set task.options.targets=[COLUMN,...] for regression",
        )


def _entry(cells: Cells, split: Split | None, targets: tuple[str, ...]) -> _Entry:
    path = cells.get("path", cells.get("audio_path"))
    if not isinstance(path, str) or not path:
        raise ValueError("has no path")
    path = PurePosixPath(path).as_posix()
    group = None if _is_empty(cells, "group") else str(cells["group"])
    song = None if _is_empty(cells, "ori_uid") else str(cells["ori_uid"])
    split = split or _split(cells)
    return _Entry(path, *_part(cells), split, group, song, _label(cells, targets))


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


def _label(cells: Cells, targets: tuple[str, ...]) -> _Label:
    if targets:
        values = tuple(_number(name, cells.get(name)) for name in targets)
        return _Label("regression", targets, values)
    if "labels" in cells:
        tags = cells["labels"]
        return _Label("multilabel", _names(tags.split("|") if isinstance(tags, str) else tags))

    label = cells.get("label")
    if not isinstance(label, list):
        return _Label("classification", (_name(label),))
    if label and all(type(value) in (int, float) for value in label):  # True is a tag
        names = tuple(f"label_{index}" for index in range(len(label)))
        return _Label("regression", names, tuple(_number("label", value) for value in label))
    return _Label("multilabel", _names(label))


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


def _check_unique(entries: Sequence[_Entry], source: str) -> None:
    counts = Counter(entry.track_id for entry in entries)
    twice = [track_id for track_id, n in counts.items() if n > 1]
    if twice:
        raise UserError(
            f"{len(twice)} tracks are listed more than once in {source} (first: {twice[0]}): "
            "keep one row of each"
        )


def _base_folder(candidates: Sequence[Path], entries: Sequence[_Entry]) -> Path:
    """The first folder that has any of the files; the first of all where none has, to miss them."""
    for folder in candidates:
        if any((folder / entry.path).is_file() for entry in entries):
            return folder
    return candidates[0]


def _kind(entries: Sequence[_Entry], source: str) -> Kind:
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


def _splits(entries: Sequence[_Entry], source: str, seed: int) -> list[Split]:
    """The split of every entry: as written, or drawn where none is written."""
    written = [entry.split for entry in entries if entry.split is not None]
    if not written:
        units = [entry.unit for entry in entries]
        is_classes = entries[0].label.kind == "classification"
        drawn = split_groups(
            units, seed, [entry.label for entry in entries] if is_classes else None
        )
        return [drawn[entry.unit] for entry in entries]

    without = [entry.track_id for entry in entries if entry.split is None]
    if without:
        raise UserError(
            f"{len(without)} of {len(entries)} tracks in {source} have no split "
            f"(first: {without[0]}): write it for all or for none"
        )

    places = {(entry.unit, entry.split) for entry in entries}
    places |= {(f"group:{entry.song}", entry.split) for entry in entries if entry.song is not None}
    n_splits = Counter(unit for unit, _ in places)
    torn = sorted(unit for unit, n in n_splits.items() if n > 1)
    if torn:
        raise UserError(
            f"{len(torn)} groups of {source} are in more than one split "
            f"(first: {torn[0].removeprefix('group:')}): "
            "correct the splits, or leave the column split or group away"
        )
    return written


def _classes(entries: Sequence[_Entry], splits: Sequence[Split], source: str) -> tuple[str, ...]:
    """Names of the classes or tags of train, sorted; or those of the dimensions, as they stand."""
    if entries[0].label.kind == "regression":
        return _dimensions(entries, source)

    train = [entry for entry, split in zip(entries, splits, strict=True) if split == "train"]
    known = set(chain.from_iterable(entry.label.names for entry in train))
    everywhere = set(chain.from_iterable(entry.label.names for entry in entries))
    if entries[0].label.kind == "classification" and _are_keys(everywhere):
        known, everywhere = ({KEYS[key_class(name)] for name in x} for x in (known, everywhere))
    unknown = sorted(everywhere - known)
    if unknown:
        raise UserError(
            f"{len(unknown)} labels of {source} are in val or test but not in train "
            f"(first: {unknown[0]!r}): no probe can learn them. "
            "Correct the spelling, the split, or set another task.options.split_seed"
        )
    fewest = 2 if entries[0].label.kind == "classification" else 1
    if len(known) < fewest:
        raise UserError(
            f"{source} has {len(known)} different labels in train: there is nothing to tell apart"
        )

    if entries[0].label.kind == "classification" and _are_keys(known):
        return KEYS  # in the order that the score of keys counts on
    all_numbers = all(name.isdecimal() for name in known)
    return tuple(sorted(known, key=int) if all_numbers else sorted(known))


def _dimensions(entries: Sequence[_Entry], source: str) -> tuple[str, ...]:
    names = entries[0].label.names
    odd = [entry.track_id for entry in entries if entry.label.names != names]
    if odd:
        raise UserError(
            f"{len(odd)} tracks in {source} do not have {len(names)} values (first: {odd[0]}): "
            "give all as many"
        )
    return names


def _standardised(
    values: Sequence[tuple[float, ...]], splits: Sequence[Split], names: Sequence[str]
) -> list[tuple[float, ...]]:
    """Values less the mean over train, in standard deviations over train."""
    table = np.array(values, dtype=np.float64)
    largest = np.abs(table).max()
    if largest > _LARGEST:
        raise UserError(
            f"task.options.targets has the value {largest:g}, whose square no number holds: give "
            "it in another unit"
        )
    train = table[[split == "train" for split in splits]]
    if len(train) == 0:
        return [tuple(row) for row in table.tolist()]  # the base class says that train is empty

    mean, deviation = train.mean(axis=0), train.std(axis=0)
    constant = [name for name, spread in zip(names, deviation, strict=True) if spread == 0]
    if constant:
        raise UserError(
            f"{constant[0]} has the same value in all of train: "
            "there is nothing to learn, leave it out"
        )
    return [tuple(row) for row in ((table - mean) / deviation).tolist()]
