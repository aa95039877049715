"""Tables with a header, as CSV or JSONL, and errors that name file and line.

Conventions: text is UTF-8, with or without a byte order mark; names and cells of CSV stand without
the blanks around them.
"""

import csv
import io
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from datamodules.errors import UserError

Cells = Mapping[str, Any]
S = TypeVar("S")
T = TypeVar("T")


@dataclass(frozen=True)
class Table:
    """Rows of a file.

    Attributes:
        path: the file.
        columns: all of its columns or keys, in the order of their first appearance.
        numbers: the number of each row's (last) line.
        rows: the cells of each row by column.
    """

    path: Path
    columns: tuple[str, ...]
    numbers: Sequence[int]
    rows: Sequence[Cells]


def parse_rows(
    path: Path, numbers: Sequence[int], rows: Sequence[S], parse: Callable[[S], T]
) -> list[T]:
    """`parse` of every row.

    Raises:
        UserError: `parse` has refused some with a ValueError: how many, and what is wrong with the
            first.
    """
    parsed: list[T] = []
    problems: list[str] = []
    for number, row in zip(numbers, rows, strict=True):
        try:
            parsed.append(parse(row))
        except ValueError as problem:
            problems.append(f"line {number} {problem}")
    if problems:
        raise UserError(
            f"{len(problems)} of {len(rows)} rows of {path} cannot be used (first: {problems[0]}): "
            "correct the file"
        )
    return parsed


def read_csv(path: Path) -> Table:
    """A comma-separated table with a header line; names and cells without the blanks around them.

    Raises:
        UserError: the file is missing or no CSV, or rows are longer or shorter than the header.
    """
    reader = csv.DictReader(
        io.StringIO(_read_text(path), newline=""), strict=True, skipinitialspace=True
    )
    try:
        columns = tuple(name.strip() for name in reader.fieldnames or ())
        reader.fieldnames = columns
        numbers, rows = [], []
        for cells in reader:
            numbers.append(reader.line_num)
            rows.append(cells)
    except csv.Error as error:
        raise UserError(
            f"{path} is not a CSV table (after line {reader.line_num}: {error}): save it anew as "
            "CSV"
        ) from error
    twice = [name for name, n in Counter(columns).items() if n > 1]
    if twice:
        raise UserError(f"{path} has two columns named {twice[0]!r}: keep one of them")
    return Table(path, columns, numbers, parse_rows(path, numbers, rows, _whole_row))


def _whole_row(cells: Mapping[Any, Any]) -> Cells:
    if None in cells:
        raise ValueError("has more cells than there are columns")
    missing = [name for name, value in cells.items() if value is None]
    if missing:
        raise ValueError(f"breaks off before its {missing[0]}")
    return {name: value.strip() for name, value in cells.items()}


def read_jsonl(path: Path) -> Table:
    """One JSON object per line; blank lines do not count."""
    lines = {
        number: line
        for number, line in enumerate(_read_text(path).split("\n"), start=1)
        if line.strip()
    }
    rows = parse_rows(path, list(lines), list(lines.values()), _json_object)
    return Table(
        path, tuple(dict.fromkeys(key for cells in rows for key in cells)), list(lines), rows
    )


def _json_object(line: str) -> Cells:
    try:
        value = json.loads(line)
    except ValueError as error:
        raise ValueError(f"is not valid JSON ({error})") from error
    if not isinstance(value, dict):
        raise ValueError(
            f"is a JSON {type(value).__name__}, expected an object with path and label"
        )
    return value


def _read_text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")  # Excel writes a byte order mark
    except OSError as error:
        raise UserError(
            f"cannot read {path} ({error.strerror or error}): put the table there or correct its "
            "path"
        ) from error
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path} is not UTF-8 text ({error.reason} at byte {error.start}): save it anew as "
            "UTF-8"
        ) from error
