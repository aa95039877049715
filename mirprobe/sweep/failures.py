"""What could not be done: with one cell, while the others go on.

Conventions: only errors that a user can put right are gathered; a bug ends the command with its
traceback.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from datamodules.errors import UserError
from mirprobe.cell import Cell
from mirprobe.progress import console


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


def _say(text: str) -> None:
    console().print(text, soft_wrap=True, markup=False)
