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
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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
        lines: the cells of each row by column, by the number of its (last) line.
        remedy: what to do about rows that cannot be used.
    """

    path: Path
    columns: tuple[str, ...]
    lines: Mapping[int, Cells]
    remedy: str = "correct the file"

    @property
    def rows(self) -> list[Cells]:
        """The cells of each row by column."""
        return list(self.lines.values())

    def parse(self, parse: Callable[[Cells], T]) -> list[T]:
        """`parse` of every row.

        Raises:
            UserError: `parse` has refused rows with a ValueError, see `parse_lines`.
        """
        return list(parse_lines(self.path, self.lines.items(), parse, self.remedy).values())


def parse_lines(
    path: Path,
    lines: Iterable[tuple[int, S]],
    parse: Callable[[S], T],
    remedy: str = Table.remedy,
) -> dict[int, T]:
    """`parse` of every line, by its number.

    Raises:
        UserError: `parse` has refused some with a ValueError, whose text goes on behind `line 7`:
            how many they are, what is wrong with the first, and the remedy.
    """
    parsed: dict[int, T] = {}
    problems: list[str] = []
    for number, line in lines:
        try:
            parsed[number] = parse(line)
        except ValueError as problem:
            problems.append(f"line {number} {problem}")

    if problems:
        raise UserError(
            f"{len(problems)} of {len(problems) + len(parsed)} rows of {path} cannot be used "
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
    lines = _split_lines(path, delimiter, quotes, remedy)
    _, header = next(lines, (0, []))
    columns = tuple(name.strip() for name in header)
    _check_columns(path, columns, required, delimiter, remedy)

    # A table of hundreds of columns is read several times faster without those nobody asks for.
    wanted = [*required, *(name for name in optional if name in columns)] or columns
    places = [columns.index(name) for name in wanted]

    def to_cells(line: Sequence[str]) -> Cells:
        if len(line) > len(columns):
            raise ValueError("has more cells than there are columns")
        if len(line) < len(columns):
            raise ValueError(f"breaks off before its {columns[len(line)]}")
        cells = map(line.__getitem__, places)
        return dict(zip(wanted, map(str.strip, cells), strict=True))

    remedy = remedy or Table.remedy
    return Table(path, columns, parse_lines(path, lines, to_cells, remedy), remedy)


def _split_lines(
    path: Path, delimiter: str, quotes: bool, remedy: str | None
) -> Iterator[tuple[int, list[str]]]:
    """Number and cells of every line in which something is written, the header first."""
    # As bytes again: csv reads them much quicker than io.StringIO, which counts with MagnaTagATune.
    text = io.BytesIO(read_text(path, remedy).encode())
    reader = csv.reader(
        io.TextIOWrapper(text, encoding="utf-8", newline=""),
        delimiter=delimiter,
        quoting=csv.QUOTE_MINIMAL if quotes else csv.QUOTE_NONE,
        skipinitialspace=True,  # or a quote behind `, ` would enclose nothing
        strict=True,
    )
    last = 0  # good line: an open quote is noticed at the end of the file only
    try:
        for line in reader:
            last = reader.line_num
            if any(map(str.strip, line)):
                yield last, line
    except csv.Error as error:
        problem = f"is not a {_DELIMITERS[delimiter]}-separated table (after line {last}: {error})"
        raise BrokenLabelsError(path, problem, remedy or "save it anew as CSV") from error


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
    lines = enumerate(read_text(path).split("\n"), start=1)
    written = [(number, line) for number, line in lines if line.strip()]
    rows = parse_lines(path, written, _json_object)
    keys = dict.fromkeys(key for cells in rows.values() for key in cells)
    return Table(path, tuple(keys), rows)


def _json_object(line: str) -> Cells:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:  # nested deeper than Python's stack
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
