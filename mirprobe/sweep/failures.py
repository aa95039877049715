"""What could not be done: with one cell, while the others go on.

Conventions: only errors that a user can put right are gathered; a bug ends the command with its
traceback.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from datamodules.errors import UserError
from datamodules.files import write_text
from mirprobe.cell import Cell
from mirprobe.progress import console

FAILED = "failed.txt"  # in a cell's folder


class Failures:
    """Cells that could not be computed, and why.

    Args:
        cells: that are to be computed.
    """

    def __init__(self, cells: Sequence[Cell]) -> None:
        self.cells = cells
        self.reasons: list[tuple[Cell, str]] = []

    @contextmanager
    def of(self, cells: Sequence[Cell]) -> Iterator[None]:
        """Takes an error that ends this block as the reason of these cells.

        Raises:
            UserError: they are all that was to be computed: the error is the answer.
        """
        try:
            yield
        except UserError as error:
            note_failure(cells, str(error))
            if len(cells) == len(self.cells):
                raise
            self.reasons += [(cell, str(error)) for cell in cells]
            _say(f"failed, the others go on: {error}")

    def without(self, cells: Sequence[Cell]) -> list[Cell]:
        """Those of some cells that have not failed."""
        failed = {cell.key for cell, _ in self.reasons}
        return [cell for cell in cells if cell.key not in failed]

    def print(self) -> int:
        """Lists the cells, and gives the exit code of the command.

        Raises:
            UserError: nothing was done, for one reason.
        """
        if not self.reasons:
            return 0
        distinct = {reason for _, reason in self.reasons}
        if len(self.reasons) == len(self.cells) and len(distinct) == 1:
            raise UserError(distinct.pop())

        _say(f"{len(self.reasons)} of {len(self.cells)} cells could not be computed:")
        for cell, reason in self.reasons:
            _say(f"  {cell.model_name} {cell.task.name} seed {cell.seed}: {reason}")
        return 1


def note_failure(cells: Sequence[Cell], reason: str) -> None:
    """Leaves the reason in the folders of some cells, for `mirprobe status`.

    A cell that has no folder was never begun, and gets none.
    """
    for cell in cells:
        if cell.folder.is_dir():
            with suppress(OSError, UserError):  # the error that it tells of is the one to be said
                write_text(cell.folder / FAILED, reason + "\n")


def forget_failure(cell: Cell) -> None:
    """Removes the reason, when the cell is done after all."""
    (cell.folder / FAILED).unlink(missing_ok=True)


def read_failure(cell: Cell) -> str | None:
    """Why a cell has failed when it was last tried; None where nothing is known."""
    with suppress(OSError):
        return (cell.folder / FAILED).read_text(encoding="utf-8", errors="replace").strip()
    return None


def _say(text: str) -> None:
    console().print(text, soft_wrap=True, markup=False)
