"""Tasks that are scored by frames: every frame of a label grid has a class of its own.

Conventions: the grid has `frame_rate` frames a second, counted from the start of the track; frame k
covers k / frame_rate to (k + 1) / frame_rate seconds and has the label that holds at its centre.
Frames outside every segment are ignored: they are in no loss and in no score. Features are brought
to the grid before they are stored (paper 4.1), and stay on disk: an epoch reads the clips in a new
order, some hundred megabytes of them at a time, and mixes the frames of these. A batch of frames is
a `FeatureBatch` like any other, with a frame where others have a clip.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from datamodules.features.memory import FeatureBatch, LabelledTracks
from datamodules.features.store import FrameClips

_MIX_BYTES = 2**28  # features in memory at once: 50 clips of 24 s at 8 Hz in 13 layers of 1024


@dataclass(frozen=True)
class FrameSplit(LabelledTracks):
    """The clips of one split, their values on disk.

    Attributes:
        stored: the clips of all splits.
        clips: (M,) positions of the split's clips in `stored`.
        track: (M,) position of each clip's track in `track_ids`.
        labels: of each clip, (n,) int64; -1 is ignored.
    """

    stored: FrameClips
    clips: NDArray[np.int64]
    track: NDArray[np.int64]
    labels: tuple[NDArray[np.int64], ...]

    def read(self, places: NDArray[np.int64]) -> FeatureBatch:
        """All labelled frames of some of the split's clips."""
        kept = [self.labels[place] >= 0 for place in places]
        parts = [
            self.stored.read(int(self.clips[place]))[:, keep]
            for place, keep in zip(places, kept, strict=True)
        ]
        labels = [self.labels[place][keep] for place, keep in zip(places, kept, strict=True)]
        return {
            "features": torch.from_numpy(np.concatenate(parts, axis=1)),
            "target": torch.from_numpy(np.concatenate(labels)),
            "track": torch.from_numpy(
                np.repeat(self.track[places], [len(part) for part in labels])
            ),
        }


class _FrameBatches(IterableDataset[FeatureBatch]):
    """Batches of frames; with a seed in an order that is new each epoch, and frames of many clips
    mixed.

    While the frames of some clips are batched, the next clips are read.
    """

    def __init__(self, split: FrameSplit, batch_size: int | None, seed: int | None) -> None:
        super().__init__()
        self.split, self.batch_size = split, batch_size
        self.generator = None if seed is None else torch.Generator().manual_seed(seed)
        n_layers, dim = split.stored.shape
        frame_bytes = 2 * n_layers * dim
        longest = int(split.stored.n_rows[split.clips].max())
        self.clips_at_once = max(1, _MIX_BYTES // (frame_bytes * longest))

    def __iter__(self) -> Iterator[FeatureBatch]:
        left: FeatureBatch | None = None
        for mix in self._read_ahead():
            frames = mix if left is None else _join(left, mix)
            left = None
            size = self.batch_size or max(1, len(frames["target"]))
            for batch in torch.split(self._order(len(frames["target"])), size):
                taken = _take(frames, batch)
                if len(batch) < size:
                    left = taken
                else:
                    yield taken
        if left is not None and len(left["target"]):
            yield left

    def _order(self, n: int) -> Tensor:
        return (
            torch.arange(n)
            if self.generator is None
            else torch.randperm(n, generator=self.generator)
        )

    def _read_ahead(self) -> Iterator[FeatureBatch]:
        groups = [
            group.numpy()
            for group in torch.split(self._order(len(self.split.clips)), self.clips_at_once)
        ]
        with ThreadPoolExecutor(max_workers=1) as reader:
            coming = reader.submit(self.split.read, groups[0])
            for group in groups[1:]:
                ready, coming = coming.result(), reader.submit(self.split.read, group)
                yield ready
            yield coming.result()


def _join(first: FeatureBatch, second: FeatureBatch) -> FeatureBatch:
    return {
        "features": torch.cat([first["features"], second["features"]], dim=1),
        "target": torch.cat([first["target"], second["target"]]),
        "track": torch.cat([first["track"], second["track"]]),
    }


def _take(frames: FeatureBatch, rows: Tensor) -> FeatureBatch:
    return {
        "features": frames["features"][:, rows],
        "target": frames["target"][rows],
        "track": frames["track"][rows],
    }


def frame_loader(batches: _FrameBatches) -> DataLoader[FeatureBatch]:
    """Loader of batches that are made already."""
    return DataLoader(batches, batch_size=None, num_workers=0)
