"""What is done and what is not.

Conventions: a cell is done when it has rows that were made of what is there now: the same labels,
audio and weights.
"""

import shlex
from collections.abc import Sequence
from pathlib import Path

from datamodules.errors import UserError
from mirprobe.cell import Cell
from mirprobe.provenance import Stamps, current_result, latest_result
from mirprobe.results import read_rows


def pending(cells: Sequence[Cell]) -> list[Cell]:
    """The cells that have no rows, or none that are known to be current."""
    stamps = Stamps()
    waiting = []
    for cell in cells:
        result = current_result(cell, stamps)
        if result is None or not read_rows(result.folder, cell.hash, cell.metrics):
            waiting.append(cell)
    return waiting


def check_done(cells: Sequence[Cell]) -> None:
    """Raises UserError if a cell that was asked for has no rows, current or not."""
    missing = [cell for cell in cells if latest_result(cell) is None]
    if missing:
        raise UserError(
            f"{len(missing)} of {len(cells)} cells have no results (first: {missing[0].folder}): "
            "run `mirprobe sweep` with the same settings"
        )


def part_by_data(cells: Sequence[Cell]) -> tuple[list[Cell], list[Cell]]:
    """The cells whose dataset has a folder here, and those whose has none.

    Raises:
        UserError: none has.
    """
    there = [cell for cell in cells if _has_folder(cell)]
    absent = [cell for cell in cells if not _has_folder(cell)]
    if not there:
        folders = ", ".join(sorted({cell.task.folder for cell in absent}))
        raise UserError(
            f"no dataset under {absent[0].data.root}: looked for the folders {folders}. Set "
            "data.root to the folder that holds them"
        )
    return there, absent


def _has_folder(cell: Cell) -> bool:
    return cell.is_demo or (Path(cell.data.root or ".") / cell.task.folder).is_dir()


def how_to_get(cells: Sequence[Cell]) -> list[str]:
    """A line for each task of some cells that says how to get its data."""
    lines = []
    for cell in {cell.task.name: cell for cell in cells}.values():
        root = "" if cell.data.root is None else " " + shlex.quote(f"data.root={cell.data.root}")
        lines.append(
            f"{cell.task.name}: left out, no data here. How to get it: "
            f"mirprobe data task={cell.task.name}{root}"
        )
    return lines
