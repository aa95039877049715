"""Tasks that are scored by frames: every frame of a label grid has a class of its own.

Conventions: the grid has `frame_rate` frames a second, counted from the start of the track; frame k covers k / frame_rate to
(k + 1) / frame_rate seconds and has the label that holds at its centre. Frames outside every segment are ignored: they are in
no loss and in no score. Features are brought to the grid before they are stored (paper 4.1), and stay on disk: an epoch reads
the clips in a new order, some hundred megabytes of them at a time, and mixes the frames of these. A batch of frames is a
`FeatureBatch` like any other, with a frame where others have a clip.
"""

import math
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from datamodules.base import FeatureBatch, LabelledTracks, TaskDataModule
from datamodules.clips import SPLITS, ClipRule, Segment, Split
from datamodules.errors import UserError
from datamodules.store import FrameClips, StoreKey

_MIX_BYTES = 2**28  # features in memory at once: 50 clips of 24 s at 8 Hz in 13 layers of 1024


def n_grid_frames(seconds: float, frame_rate: float) -> int:
    """Frames of a grid whose centres lie within a clip of this length, at least one.

    >>> n_grid_frames(24.0, 8.0), n_grid_frames(4.07, 8.0), n_grid_frames(0.01, 8.0)
    (192, 33, 1)
    """
    return max(1, math.ceil(round(seconds * frame_rate - 0.5, 6)))


def grid_weights(n_frames: int, hop: float, n_grid: int, frame_rate: float) -> Tensor:
    """How a backbone's frames make the frames of the grid: each is the mean over the time it covers.

    Args:
        n_frames: of the backbone; frame t covers t * hop to (t + 1) * hop seconds.
        hop: of the backbone, in s.
        n_grid: frames of the grid.
        frame_rate: of the grid, in Hz.

    Returns:
        (n_grid, n_frames) float32, rows sum to 1. Where the grid is finer than the backbone's frames, these repeat; beyond
        the last one it stands for the rest.

    >>> grid_weights(4, 0.5, 2, 1.0)
    tensor([[0.5000, 0.5000, 0.0000, 0.0000],
            [0.0000, 0.0000, 0.5000, 0.5000]])
    """
    start = torch.arange(n_frames, dtype=torch.float64) * hop
    end = start + hop
    end[-1] = torch.inf
    wanted = torch.arange(n_grid, dtype=torch.float64)[:, None] / frame_rate
    shared = (torch.minimum(end, wanted + 1 / frame_rate) - torch.maximum(start, wanted)).clamp(min=0)
    return (shared / shared.sum(dim=1, keepdim=True)).float()


def frame_labels(segments: tuple[Segment, ...], start_s: float, n_grid: int, frame_rate: float) -> NDArray[np.int64]:
    """(n_grid,) labels of a clip that starts at `start_s` s, by the centres of the frames; -1 outside every segment.

    >>> frame_labels((Segment(0.5, 2.0, 4), Segment(3.0, float("inf"), 1)), 0.0, 5, 1.0).tolist()
    [4, 4, -1, 1, 1]
    """
    if not segments:
        return np.full(n_grid, -1)
    starts = np.array([segment.start_s for segment in segments])
    ends = np.array([segment.end_s for segment in segments])
    labels = np.array([segment.label for segment in segments])
    centre = start_s + (np.arange(n_grid) + 0.5) / frame_rate
    place = np.searchsorted(starts, centre + 1e-9, side="right") - 1
    return np.where((place >= 0) & (centre + 1e-9 < ends[place]), labels[place], -1)


class FrameTask(TaskDataModule):
    """Base of the tasks that have a label for every frame: targets of tracks are segments.

    Args:
        root: of the dataset.
        clip: cutting rule; clips start on the grid.
        exclude: ids of tracks to leave out.
        frame_rate: of the label grid, in Hz.

    Raises:
        UserError: a frame rate that is not above 0, or clips that do not hold a whole number of frames.
    """

    kind = "frames"
    frame_rate: float

    def __init__(self, root: Path, clip: ClipRule, exclude: Collection[str] = (), *, frame_rate: float = 8.0) -> None:
        super().__init__(root, clip, exclude)
        if not 0 < frame_rate < float("inf"):
            raise UserError(f"task.options.frame_rate must be above 0 Hz, found {frame_rate:g}")
        frames = 0.0 if clip.seconds is None else clip.seconds * frame_rate
        if abs(frames - round(frames)) > 1e-6:
            raise UserError(
                f"a clip of {clip.seconds:g} s holds {frames:g} frames at {frame_rate:g} Hz: choose task.clip.seconds and "
                "task.options.frame_rate so that their product is a whole number"
            )
        self.frame_rate = frame_rate
        self._frames: dict[Split, FrameSplit] = {}

    def load_features(self, folder: Path, key: StoreKey, *, batch_size: int, seed: int) -> None:
        """Chooses what the train, val and test loaders yield: the labelled frames of a store, read as they are needed.

        Args:
            folder: of the store.
            key: of the store.
            batch_size: frames per training batch.
            seed: of the order of the training frames.

        Raises:
            UserError: a broken shard, features that are missing, or a split without a labelled frame.
        """
        stored = FrameClips(folder, key, [track.track_id for track in self.tracks()])
        self._batch_size, self._seed = batch_size, seed
        self._frames = {split: self._label(stored, split) for split in SPLITS}
        empty = [split for split in SPLITS if not self._frames[split].track_target.any()]
        if empty:
            raise UserError(f"no frame of {', '.join(empty)} has a label: the segments of {self.dataset} lie outside its audio")

    def _label(self, stored: FrameClips, split: Split) -> "FrameSplit":
        tracks = self.tracks()
        members = np.array([index for index, track in enumerate(tracks) if track.split == split])
        clips = np.flatnonzero(np.isin(stored.track, members))
        track = np.searchsorted(members, stored.track[clips])
        labels = tuple(
            frame_labels(tracks[stored.track[clip]].target, stored.start_s[clip], stored.n_rows[clip], self.frame_rate)
            for clip in clips
        )
        counts = torch.zeros(len(members), len(self.classes), dtype=torch.int64)
        for place, of_clip in zip(track, labels, strict=True):
            counts[place] += torch.from_numpy(np.bincount(of_clip[of_clip >= 0], minlength=len(self.classes)))
        ids = tuple(tracks[index].track_id for index in members)
        return FrameSplit(ids, counts, stored, clips, track, labels)

    @property
    def feature_shape(self) -> tuple[int, int]:
        """Number of layers L+1 and of features D, after `load_features`."""
        return self._frames["train"].stored.shape

    def split(self, split: Split) -> LabelledTracks:
        """The tracks of one split, after `load_features`."""
        return self._frames[split]

    def train_features(self) -> Iterator[Tensor]:
        """All labelled training frames in parts of (L+1, n, D) float16."""
        return (batch["features"] for batch in _FrameBatches(self._frames["train"], batch_size=None, seed=None))

    def train_dataloader(self) -> DataLoader[FeatureBatch]:
        """Training frames in a new, seeded order each epoch."""
        return _loader(_FrameBatches(self._frames["train"], self._batch_size, self._seed))

    def val_dataloader(self) -> DataLoader[FeatureBatch]:
        """Validation frames, in order."""
        return _loader(_FrameBatches(self._frames["val"], 8 * self._batch_size, seed=None))

    def test_dataloader(self) -> DataLoader[FeatureBatch]:
        """Test frames, in order."""
        return _loader(_FrameBatches(self._frames["test"], 8 * self._batch_size, seed=None))


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
        parts = [self.stored.read(int(self.clips[place]))[:, keep] for place, keep in zip(places, kept, strict=True)]
        labels = [self.labels[place][keep] for place, keep in zip(places, kept, strict=True)]
        return {
            "features": torch.from_numpy(np.concatenate(parts, axis=1)),
            "target": torch.from_numpy(np.concatenate(labels)),
            "track": torch.from_numpy(np.repeat(self.track[places], [len(part) for part in labels])),
        }


class _FrameBatches(IterableDataset[FeatureBatch]):
    """Batches of frames; with a seed in an order that is new each epoch, and frames of many clips mixed.

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
        return torch.arange(n) if self.generator is None else torch.randperm(n, generator=self.generator)

    def _read_ahead(self) -> Iterator[FeatureBatch]:
        groups = [group.numpy() for group in torch.split(self._order(len(self.split.clips)), self.clips_at_once)]
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
    return {"features": frames["features"][:, rows], "target": frames["target"][rows], "track": frames["track"][rows]}


def _loader(batches: _FrameBatches) -> DataLoader[FeatureBatch]:
    return DataLoader(batches, batch_size=None, num_workers=0)
