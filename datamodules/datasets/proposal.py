"""What the columns of somebody's table seem to mean, for `mirprobe task new`.

Conventions: a role (see `own_table`) goes to the column that is called by it, else to one whose
name or cells speak for it; every choice is a line that says why. Nothing is guessed about audio
that the table does not say.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from datamodules.datasets.own_table import SPLIT_NAMES
from datamodules.datasets.segment_file import JAMS, LAB
from datamodules.errors import UserError
from datamodules.tables import Table, to_number

_AUDIO = (".wav", ".mp3", ".flac", ".ogg", ".opus", ".aif", ".aiff", ".au", ".m4a")
_NAMES = {
    "start": ("start", "start_s", "start_time", "onset", "begin"),
    "end": ("end", "end_s", "end_time", "offset", "stop"),
    "group": (
        *("group", "artist", "artist_id", "artist_name", "singer", "singer_id", "performer"),
        *("speaker", "speaker_id", "player", "composer", "album", "album_id", "song", "song_id"),
    ),
}
_LABELS = (
    *("label", "labels", "genre", "genres", "tags", "tag", "class", "category", "target", "key"),
    *("instrument", "mood", "emotion", "style", "technique", "language", "scale", "pitch"),
)
_FEWEST_FOLDS, _MOST_FOLDS = 3, 20
_MOST_SHARE = 0.5  # of the rows that classes may be many: more are names of something


@dataclass(frozen=True)
class Proposal:
    """Roles of a table's columns.

    Attributes:
        columns: the column of each role.
        targets: numeric columns, for regression; then no column is the label.
        lines: what was found, a line for each role.
    """

    columns: dict[str, str]
    targets: tuple[str, ...]
    lines: tuple[str, ...]


def propose(table: Table) -> Proposal:
    """Roles for the columns of a table.

    Raises:
        UserError: it has no rows, or no column of audio files or of labels.
    """
    if not table.lines:
        raise UserError(f"{table.path} lists no tracks: add one row per audio file")
    columns: dict[str, str] = {}
    lines: list[str] = []

    def take(role: str, column: str | None, why: str) -> None:
        if column is not None:
            columns[role] = column
            lines.append(f"{role}: column {column} ({why})")

    path = _path_column(table)
    n_files = len(set(_cells(table, path)))
    take("path", path, f"{n_files} files in {len(table.lines)} rows")
    for role in ("start", "end"):
        take(role, _named(table, _NAMES[role], _is_number), "numbers, taken for s")
    song = "ori_uid" if "ori_uid" in table.columns else None
    take("ori_uid", song, "rows of one song are one track")

    split = _split_column(table)
    take("split", split, _counts(table, split))
    fold = None if split else _fold_column(table)
    take("fold", fold, _counts(table, fold))
    names = [name for name in _NAMES["group"] if name != path.lower()]
    group = _named(table, names, lambda _: True)
    take("group", group, _different(table, group))

    free = [name for name in table.columns if name not in columns.values()]
    targets = _take_label(table, free, columns, lines)
    rest = [name for name in free if name not in (*columns.values(), *targets)]
    if rest:
        lines.append(f"not looked at: {', '.join(rest)}")
    return Proposal(columns, targets, tuple(lines))


def _take_label(
    table: Table, free: Sequence[str], columns: dict[str, str], lines: list[str]
) -> tuple[str, ...]:
    """Chooses the label among free columns; gives the targets where it is regression.

    Raises:
        UserError: no column can be one.
    """
    files = [name for name in free if _is_of(table, name, (*LAB, *JAMS))]
    if files:
        columns["segments"] = files[0]
        lines.append(f"segments: column {files[0]} (a file of labels for each: by frames)")
        return ()

    by_name = sorted(
        (name for name in free if name.lower() in _LABELS),
        key=lambda name: _LABELS.index(name.lower()),
    )
    for name in by_name:
        if _is_value(table, name):
            lines.append(f"targets: {name} (numbers with a point: regression)")
            return (name,)
        role = "labels" if _is_tags(table, name) else "label"
        what = "tags between |" if role == "labels" else _different(table, name)
        columns[role] = name
        lines.append(f"{role}: column {name} ({what})")
        return ()

    values = tuple(name for name in free if _is_value(table, name))
    if values:
        lines.append(f"targets: {', '.join(values)} (numbers with a point: regression)")
        return values
    for name in free:
        if 2 <= len(set(_cells(table, name))) <= _MOST_SHARE * len(table.lines):
            columns["label"] = name
            lines.append(f"label: column {name} ({_different(table, name)})")
            return ()
    raise UserError(
        f"{table.path} has no column that looks like labels: call it label, labels (tags between "
        f"|), or give numbers; found {', '.join(table.columns)}"
    )


# -- columns by their names and cells --------------------------------------------------------------


def _cells(table: Table, column: str) -> list[str]:
    """What is written in a column, as text; empty cells are left out."""
    cells = [row.get(column) for row in table.rows]
    return [str(cell) for cell in cells if cell not in (None, "")]


def _path_column(table: Table) -> str:
    """The column of audio files.

    Raises:
        UserError: there is none.
    """
    for name in ("path", "audio_path"):
        if name in table.columns:
            return name

    n_audio = {
        name: sum(PurePosixPath(cell).suffix.lower() in _AUDIO for cell in _cells(table, name))
        for name in table.columns
    }
    best = max(n_audio, key=n_audio.__getitem__)
    if n_audio[best] < len(table.lines) / 2:
        raise UserError(
            f"{table.path} has no column of audio files, such as path with a.wav in it: found "
            f"{', '.join(table.columns)}"
        )
    return best


def _named(table: Table, names: Sequence[str], fits: Callable[[list[str]], bool]) -> str | None:
    """The column with the first of some names whose cells fit."""
    by_lower = {name.lower(): name for name in table.columns}
    for name in names:
        column = by_lower.get(name)
        if column is not None and _cells(table, column) and fits(_cells(table, column)):
            return column
    return None


def _is_number(cells: Sequence[str]) -> bool:
    return all(to_number(cell) == to_number(cell) for cell in cells)  # NaN equals nothing


def _split_column(table: Table) -> str | None:
    """The column in which every row says train, val or test."""
    for name in table.columns:
        cells = _cells(table, name)
        found = {cell.lower() for cell in cells}
        if len(cells) == len(table.lines) and "train" in found and found <= set(SPLIT_NAMES):
            return name
    return None


def _is_of(table: Table, column: str, suffixes: Sequence[str]) -> bool:
    """Whether all cells are names of files with some endings."""
    cells = _cells(table, column)
    return bool(cells) and all(PurePosixPath(cell).suffix.lower() in suffixes for cell in cells)


def _fold_column(table: Table) -> str | None:
    for name in table.columns:
        n_folds = len(set(_cells(table, name)))
        if "fold" in name.lower() and _FEWEST_FOLDS <= n_folds <= _MOST_FOLDS:
            return name
    return None


def _is_value(table: Table, column: str) -> bool:
    """Whether all cells are numbers and some are no whole ones."""
    cells = _cells(table, column)
    if not cells or not _is_number(cells):
        return False
    return any(not to_number(cell).is_integer() for cell in cells)


def _is_tags(table: Table, column: str) -> bool:
    cells = [row.get(column) for row in table.rows]
    return any(isinstance(cell, list) or (isinstance(cell, str) and "|" in cell) for cell in cells)


def _counts(table: Table, column: str | None) -> str:
    counts = Counter(_cells(table, column)) if column else Counter[str]()
    return ", ".join(f"{name} {n}" for name, n in sorted(counts.items()))


def _different(table: Table, column: str | None) -> str:
    """How many different ones there are, and the most frequent."""
    counts = Counter(_cells(table, column)) if column else Counter[str]()
    if not counts:
        return ""
    name, n = counts.most_common(1)[0]
    return f"{len(counts)} different, most often {name}, {n} times"


def files_there(table: Table, column: str, folders: Sequence[Path]) -> tuple[int, int]:
    """How many of the files in a column are below any of some folders, and how many there are."""
    names = set(_cells(table, column))
    return sum(any((folder / name).is_file() for folder in folders) for name in names), len(names)
