"""What is done and what is not.

Conventions: a cell is done when it has rows that were made of what is there now: the same labels,
audio and weights.
"""

from collections.abc import Sequence

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
