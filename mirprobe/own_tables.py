"""Files and labels that come from Python, checked and written as a table that a task reads.

Conventions: a table is JSONL, one row for each file, with paths below one folder; its name is that
of its content. Text and whole numbers are classes, other numbers are values of regression, a list
of texts are tags, a list of numbers are several values.
"""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from datamodules.errors import UserError
from datamodules.files import write_text
from datamodules.tracks import Kind, Track

PathLike = str | os.PathLike[str]
TABLES = "tables"  # folder below `paths.runs`


def file_names(files: Iterable[PathLike]) -> list[str]:
    """The files as they were named, each once.

    Raises:
        UserError: there is none, or one is named twice.
    """
    if isinstance(files, str | os.PathLike):
        raise UserError(f"files must be a list, found the single path {files}: write [{files!r}]")
    given = list(files)
    odd = [file for file in given if not isinstance(file, str | os.PathLike)]
    if odd:
        raise UserError(f"files must be paths, found {odd[0]!r}: give text or pathlib's paths")
    names = [os.fspath(file) for file in given]
    if not names:
        raise UserError("no files were given: give a list of at least one path")

    counts = Counter(Path(name).absolute() for name in names)
    twice = [path for path, n in counts.items() if n > 1]
    if twice:
        raise UserError(f"{len(twice)} files are named twice (first: {twice[0]}): name each once")
    return names


def below_one_folder(names: Sequence[str]) -> tuple[Path, list[str]]:
    """The folder that all files are below, and their paths from there."""
    absolute = [Path(name).absolute() for name in names]
    folder = Path(os.path.commonpath([path.parent for path in absolute]))
    return folder, [path.relative_to(folder).as_posix() for path in absolute]


def folder_of(track: Track) -> Path:
    """The folder that the id of a track, which is its path, starts from."""
    return track.path.parents[len(Path(track.track_id).parts) - 1]


def write_table(runs: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    """Writes rows as JSONL below `runs`, and gives the absolute path.

    Raises:
        UserError: a value is nothing that JSON knows.
    """
    try:
        text = "".join(json.dumps(row) + "\n" for row in rows)
    except TypeError as error:
        raise UserError(
            f"labels, groups and splits must be text, numbers or lists of these ({error})"
        ) from error
    name = hashlib.sha256(text.encode()).hexdigest()[:16]
    path = (runs / TABLES / f"{name}.jsonl").absolute()
    if not path.is_file():
        write_text(path, text)
    return path


def for_each(values: Any, names: Sequence[str], what: str) -> list[Any]:
    """One value for each file, from as many values or from a dict, as JSON knows them.

    Args:
        values: in the order of the files, or a mapping from file to value.
        names: of the files.
        what: the values are, in the plural.

    Raises:
        UserError: some file has none.

    >>> for_each({"b": 2, "a": 1}, ["a", "b"], "labels")
    [1, 2]
    """
    if isinstance(values, Mapping):
        by_name = {os.fspath(name): value for name, value in values.items()}
        missing = [name for name in names if name not in by_name]
        if missing:
            raise UserError(
                f"{len(missing)} of {len(names)} files have no value in {what} "
                f"(first: {missing[0]}): add them, or leave these files out of the features"
            )
        return [_plain(by_name[name]) for name in names]

    found = [_plain(value) for value in values]
    if len(found) != len(names):
        raise UserError(
            f"{len(found)} {what} for {len(names)} files: give one for each of features.ids, in "
            "their order, or a dict from file to value"
        )
    return found


def _plain(value: Any) -> Any:
    """What JSON knows, of what numpy, torch and Python call it."""
    if isinstance(value, list | tuple | set | frozenset):
        members = sorted(value, key=str) if isinstance(value, set | frozenset) else value
        return [_plain(one) for one in members]
    return value.tolist() if hasattr(value, "tolist") else value


def as_written(labels: Sequence[Any]) -> list[Any]:
    """Labels as the table has them: values of regression in lists.

    A whole number is a value too where any label has a point.

    >>> as_written([1, 2.5]), as_written([1, 2])
    ([[1], [2.5]], [1, 2])
    """
    if not any(type(label) is float for label in labels):
        return list(labels)
    return [[label] if type(label) in (int, float) else label for label in labels]


def kind_of(labels: Sequence[Any]) -> Kind:
    """What a table with these labels is; where they do not go together its reader says so."""
    first = labels[0]
    if not isinstance(first, list):
        return "classification"
    is_numbers = bool(first) and all(type(value) in (int, float) for value in first)
    return "regression" if is_numbers else "multilabel"
