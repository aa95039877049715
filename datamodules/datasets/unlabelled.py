"""Files without labels, for their features alone: a list of paths, as JSONL.

Conventions: one row is one file, with the key `path`, relative to the root, which is its id too.
The features lie with those of own data that has labels (`manifest`).
"""

from collections.abc import Collection, Sequence
from pathlib import Path

from datamodules.audio.clips import ClipRule
from datamodules.datasets.manifest import CARD, Manifest
from datamodules.tables import read_jsonl
from datamodules.task import TaskDataModule
from datamodules.tracks import Track


class Unlabelled(TaskDataModule):
    """Tracks that nothing is known of: all are of one class, and of no split.

    Args:
        root: folder below which the files are.
        clip: how they are cut.
        exclude: what to leave out.
        file: the list.

    Raises:
        UserError: the list is missing or broken.
    """

    dataset = Manifest.dataset
    classes = ("audio",)
    card = CARD

    def __init__(
        self, root: Path, clip: ClipRule, exclude: Collection[str] = (), *, file: str
    ) -> None:
        super().__init__(root, clip, exclude)
        self._table = read_jsonl(Path(file))

    def read_tracks(self) -> list[Track]:
        """The rows of the list."""
        names = [str(row["path"]) for row in self._table.rows]
        return [Track(name, self.root / name, "train", 0) for name in names]

    def inputs(self) -> tuple[list[Path], list[Path]]:
        """The list and its files: their folder may hold anything else."""
        return [], [self._table.path, *(track.path for track in self.listed())]

    def _check_splits(self, tracks: Sequence[Track]) -> None:
        """Nothing is split."""
