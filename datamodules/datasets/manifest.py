"""Own data without code: a table of files and labels, as CSV or JSONL.

Conventions: one row is one track; `own_table` says what its columns mean, and the JSONL files of
MARBLE v2 serve as they are. Splits are as written; else they are drawn, 3:1:1 and, of classes,
3:1:1 within each as far as groups allow, so that no `group` is in two splits; or folds are, of
which `fold` is test and the next one val. Classes and tags are sorted by name, or as numbers where
all of them are; where all of them are keys, classes are the 24 keys, C to B major, then minor.
Values of regression are standardised on train, which R² does not see and training needs.
"""

from collections.abc import Collection, Mapping, Sequence
from itertools import chain
from pathlib import Path

import numpy as np

from datamodules.audio.clips import ClipRule
from datamodules.card import Card
from datamodules.datasets.giantsteps import KEYS, key_class
from datamodules.datasets.own_splits import splits_of
from datamodules.datasets.own_table import (
    Entry,
    Label,
    check_unique,
    kind_of,
    read_entries,
    tables_of,
)
from datamodules.errors import UserError
from datamodules.task import TaskDataModule, check_grid
from datamodules.tracks import Segment, Split, Track

_LARGEST = 1e100  # of a value: the sum of squares must be a number

CARD = Card(
    title="Your own data",
    licence="that of your audio",
    citation="that of your audio",
    obtain="""\
Write a table, CSV or JSONL, and name it: mirprobe sweep task=manifest task.options.file=TABLE.csv
  path: the audio file, relative to the table's folder or to data.root
  label (one class), labels (tags, separated by | in CSV), \
or numeric columns named by task.options.targets=[COLUMN,...]
  or segments: a .lab or .jams file of each, for scores by frames
  split: train, val or test; without it 3:1:1 is drawn, so that no group is in two splits
Or let mirprobe look at a table that has other columns: mirprobe task new TABLE.csv""",
)


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
        columns: Mapping[str, str | None] | None = None,
        split_seed: int = 0,
        fold: int | str | None = None,
        folds: int = 5,
        frame_rate: float = 8.0,
    ) -> None:
        tables = tables_of(file, {"train": train, "val": val, "test": test})
        if fold is not None and len(tables) > 1:
            raise UserError(
                f"task.options.fold={fold} says what is test, and so do task.options.train, val "
                "and test: drop one of them"
            )
        source = ", ".join(str(path) for path, _ in tables)  # for errors
        values = (targets,) if isinstance(targets, str) else tuple(targets or ())
        read = [read_entries(path, split, values, columns, Path(root)) for path, split in tables]
        entries = list(chain.from_iterable(read))
        check_unique(entries, source)

        folder = _base_folder([tables[0][0].parent, Path(root)], entries)
        super().__init__(folder, clip, exclude)
        self._tables = [path for path, _ in tables]
        self.kind = kind_of(entries, source)
        if self.kind == "frames":
            check_grid(clip, frame_rate)
            self.frame_rate = frame_rate
        self._label_files = [entry.label.source for entry in entries if entry.label.source]
        splits = splits_of(entries, source, split_seed, fold, folds)
        self.classes = _classes(entries, splits, source)
        self._listed = self._make_tracks(entries, splits)

    def inputs(self) -> tuple[list[Path], list[Path]]:
        """The tables and the files that they name: their folder may hold anything else."""
        audio = [track.path for track in self._listed]
        return [], [*self._tables, *self._label_files, *audio]

    def read_tracks(self) -> list[Track]:
        """The rows of the table."""
        return self._listed

    def _make_tracks(self, entries: Sequence[Entry], splits: Sequence[Split]) -> list[Track]:
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
        self, labels: Sequence[Label], splits: Sequence[Split]
    ) -> Sequence[int | tuple[float, ...] | tuple[Segment, ...]]:
        if self.kind == "frames":
            return [_segments(label, self.classes) for label in labels]
        if self.kind == "classification":
            return [self.classes.index(_spelled(label.names[0], self.classes)) for label in labels]
        if self.kind == "multilabel":
            return [_flags(label.names, self.classes) for label in labels]
        return _standardised([label.values for label in labels], splits, self.classes)


def _songs(entries: Sequence[Entry]) -> list[str | None]:
    """What each row is a clip of; with its label where the song has several."""
    labels: dict[str | None, set[Label]] = {}
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


def _segments(label: Label, classes: Sequence[str]) -> tuple[Segment, ...]:
    """The stretches of a track with the numbers of their classes."""
    return tuple(Segment(start, end, classes.index(name)) for start, end, name in label.stretches)


def _base_folder(candidates: Sequence[Path], entries: Sequence[Entry]) -> Path:
    """The first folder that has any of the files; the first of all where none has, to miss them."""
    for folder in candidates:
        if any((folder / entry.path).is_file() for entry in entries):
            return folder
    return candidates[0]


def _classes(entries: Sequence[Entry], splits: Sequence[Split], source: str) -> tuple[str, ...]:
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
    fewest = 1 if entries[0].label.kind == "multilabel" else 2
    if len(known) < fewest:
        raise UserError(
            f"{source} has {len(known)} different labels in train: there is nothing to tell apart"
        )

    if entries[0].label.kind == "classification" and _are_keys(known):
        return KEYS  # in the order that the score of keys counts on
    all_numbers = all(name.isdecimal() for name in known)
    return tuple(sorted(known, key=int) if all_numbers else sorted(known))


def _dimensions(entries: Sequence[Entry], source: str) -> tuple[str, ...]:
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
