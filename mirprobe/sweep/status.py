"""What is done and what is not.

Conventions: what is done is what is on disk: a cell is done when it has rows.
"""

from collections.abc import Sequence

from datamodules.errors import UserError
from mirprobe.cell import Cell
from mirprobe.results import read_rows


def pending(cells: Sequence[Cell]) -> list[Cell]:
    """The cells that have no rows yet."""
    return [cell for cell in cells if not read_rows(cell.folder)]


def check_done(cells: Sequence[Cell]) -> None:
    """Raises UserError if a cell that was asked for has no rows."""
    missing = pending(cells)
    if missing:
        raise UserError(
            f"{len(missing)} of {len(cells)} cells have no results (first: {missing[0].folder}): "
            "run `mirprobe sweep` with the same settings"
        )
