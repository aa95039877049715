"""Tables with a header, as CSV or JSONL, and errors that name file and line.

Conventions: text is UTF-8, with or without a byte order mark; names and cells of CSV stand without
the blanks around them; rows in which nothing is written do not count. Lines are counted from 1, and
a row has the number of its last line.
"""

import csv
import io
import json
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten
from typing import Any, TypeVar

from datamodules.errors import BrokenLabelsError, UserError

Cells = Mapping[str, Any]
S = TypeVar("S")
T = TypeVar("T")

_DELIMITERS = {",": "comma", "\t": "tab"}
_MOST_COLUMNS = 8  # in an error: a table may have hundreds
_MOST_CHARACTERS = 60  # of each: read with a wrong delimiter, all of them are one


@dataclass(frozen=True)
class Table:
    """Rows of a file.

    Attributes:
        path: the file.
        columns: all of its columns or keys, in the order of their first appearance.
        numbers: the number of each row's (last) line.
        rows: the cells of each row by column.
        remedy: what to do about rows that cannot be used.
    """

    path: Path
    columns: tuple[str, ...]
    numbers: Sequence[int]
    rows: Sequence[Cells]
    remedy: str = "correct the file"

    def parse(self, parse: Callable[[Cells], T]) -> list[T]:
        """`parse` of every row.

        Raises:
            UserError: `parse` has refused rows with a ValueError, see `parse_rows`.
        """
        return parse_rows(self.path, self.numbers, self.rows, parse, self.remedy)


def parse_rows(
    path: Path,
    numbers: Sequence[int],
    rows: Sequence[S],
    parse: Callable[[S], T],
    remedy: str = Table.remedy,
) -> list[T]:
    """`parse` of every row.

    Raises:
        UserError: `parse` has refused some with a ValueError, whose text goes on behind `line 7`:
            how many they are, what is wrong with the first, and the remedy.
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
            f"{len(problems)} of {len(rows)} rows of {path} cannot be used "
            f"(first: {problems[0]}): {remedy}"
        )
    return parsed


# -- CSV -------------------------------------------------------------------------------------------


def read_csv(
    path: Path,
    *,
    required: Sequence[str] = (),
    optional: Sequence[str] = (),
    delimiter: str = ",",
    quotes: bool = True,
    remedy: str | None = None,
) -> Table:
    """Rows of a table with a header line.

    Args:
        path: the file.
        required: columns that must be there.
        optional: columns that are read where they are there. All are read if neither these nor
            `required` name one.
        delimiter: what stands between cells, a comma or a tab.
        quotes: whether quotation marks enclose cells; False where they are a part of the text.
        remedy: what to do about a broken file, for the errors; None for a table that the user has
            written.

    Raises:
        UserError: the file is missing or no CSV, it lacks a column or has one twice, or rows are
            longer or shorter than the header.
    """
    header, numbers, lines = _read_lines(path, delimiter, quotes, remedy)
    columns = tuple(name.strip() for name in header)
    _check_columns(path, columns, required, delimiter, remedy)

    # A table of hundreds of columns is read several times faster without those nobody asks for.
    wanted = [*required, *(name for name in optional if name in columns)] or columns
    places = {name: columns.index(name) for name in wanted}

    def to_cells(line: Sequence[str]) -> Cells:
        if len(line) > len(columns):
            raise ValueError("has more cells than there are columns")
        if len(line) < len(columns):
            raise ValueError(f"breaks off before its {columns[len(line)]}")
        return {name: line[place].strip() for name, place in places.items()}

    remedy = remedy or Table.remedy
    return Table(path, columns, numbers, parse_rows(path, numbers, lines, to_cells, remedy), remedy)


def _read_lines(
    path: Path, delimiter: str, quotes: bool, remedy: str | None
) -> tuple[list[str], list[int], list[list[str]]]:
    """Cells of the header; the number and the cells of every row in which something is written."""
    reader = csv.reader(
        io.StringIO(read_text(path, remedy), newline=""),
        delimiter=delimiter,
        quoting=csv.QUOTE_MINIMAL if quotes else csv.QUOTE_NONE,
        skipinitialspace=True,  # or a quote behind `, ` would enclose nothing
        strict=True,
    )
    numbers: list[int] = []
    lines: list[list[str]] = []
    last = 0  # good line: an open quote is noticed at the end of the file only
    try:
        header = next(reader, [])
        last = reader.line_num
        for line in reader:
            last = reader.line_num
            if any(map(str.strip, line)):
                numbers.append(last)
                lines.append(line)
    except csv.Error as error:
        problem = f"is not a {_DELIMITERS[delimiter]}-separated table (after line {last}: {error})"
        raise BrokenLabelsError(path, problem, remedy or "save it anew as CSV") from error
    return header, numbers, lines


def _check_columns(
    path: Path, found: Sequence[str], required: Sequence[str], delimiter: str, remedy: str | None
) -> None:
    twice = [name for name, n in Counter(found).items() if n > 1]
    if twice:
        raise BrokenLabelsError(
            path, f"has two columns named {twice[0]!r}", remedy or "keep one of them"
        )

    missing = [name for name in required if name not in found]
    if missing:
        raise BrokenLabelsError(
            path,
            f"has no column {_shortened(missing)}, found {_shortened(found) or 'none'}",
            f"expected a {_DELIMITERS[delimiter]}-separated table with {_shortened(required)}"
            + (f"; {remedy}" if remedy else ""),
        )


def _shortened(names: Sequence[str]) -> str:
    shown = [shorten(name, _MOST_CHARACTERS, placeholder="...") for name in names[:_MOST_COLUMNS]]
    more = len(names) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")


# -- JSONL -----------------------------------------------------------------------------------------


def read_jsonl(path: Path) -> Table:
    """Rows of a file with one JSON object per line.

    Raises:
        UserError: the file is missing, or lines are no JSON objects.
    """
    # Not splitlines(): JSON may hold other line ends, such as U+2028, inside its text.
    lines = {
        number: line
        for number, line in enumerate(read_text(path).split("\n"), start=1)
        if line.strip()
    }
    rows = parse_rows(path, list(lines), list(lines.values()), _json_object)
    keys = dict.fromkeys(key for cells in rows for key in cells)
    return Table(path, tuple(keys), list(lines), rows)


def _json_object(line: str) -> Cells:
    try:
        value = json.loads(line)
    except ValueError as error:
        raise ValueError(f"is not valid JSON ({error})") from error
    if not isinstance(value, dict):
        kind = type(value).__name__
        raise ValueError(f"is a JSON {kind}, expected an object with path and label")
    return value


# -- text and numbers ------------------------------------------------------------------------------


def to_number(cell: object) -> float:
    """The number that a cell is or writes, NaN for anything else.

    >>> to_number("4.5"), to_number(4), to_number("four")
    (4.5, 4.0, nan)
    """
    try:
        return float(cell)  # type: ignore[arg-type]  # whatever JSON gives: float() is the judge
    except (TypeError, ValueError):
        return math.nan


def read_text(path: Path, remedy: str | None = None) -> str:
    """Text of a file, its line ends as they are.

    Args:
        path: the file.
        remedy: what to do about a file that is no UTF-8; None for one that the user has written.

    Raises:
        UserError: the file cannot be read, or is not UTF-8.
    """
    try:
        return path.read_bytes().decode("utf-8-sig")  # Excel writes a byte order mark
    except OSError as error:
        raise UserError(
            f"cannot read {path} ({error.strerror or error}): "
            "put the table there or correct its path"
        ) from error
    except UnicodeDecodeError as error:
        raise BrokenLabelsError(
            path,
            f"is not UTF-8 text ({error.reason} at byte {error.start})",
            remedy or "save it anew as UTF-8",
        ) from error
