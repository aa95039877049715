"""What is there to do."""

from collections.abc import Sequence

from datamodules.errors import UserError
from mirprobe.cell import Cell
from mirprobe.results import read_rows


def pending(cells: Sequence[Cell]) -> list[Cell]:
    """The cells that have no rows yet."""
    return [cell for cell in cells if not read_rows(cell.folder)]


def cells_by_model(cells: Sequence[Cell]) -> list[list[Cell]]:
    """Cells that share a backbone; the baseline comes last, so that missing weights are said before
    any work.
    """
    by_model: dict[tuple[bool, str], list[Cell]] = {}
    for cell in cells:
        by_model.setdefault(
            (cell.is_baseline, repr(sorted(cell.model.items(), key=str))), []
        ).append(cell)
    return [by_model[name] for name in sorted(by_model)]


def check_done(cells: Sequence[Cell]) -> None:
    """Raises UserError if a cell that was asked for has no rows."""
    missing = pending(cells)
    if missing:
        raise UserError(
            f"{len(missing)} of {len(cells)} cells have no results (first: {missing[0].folder}): "
            "run `mirprobe sweep` with the same settings"
        )
