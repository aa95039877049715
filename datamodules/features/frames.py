"""Features of frames, read from disk as they are needed, for tasks that are scored by frames.

Conventions: a batch of frames is a `FeatureBatch` like any other, with a frame where others have a
clip. Frames outside every segment are ignored: they are in no loss and in no score. An epoch reads
the clips in a new order, some hundred megabytes of them at a time, and mixes the frames of these.
"""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from datamodules.errors import UserError
from datamodules.features.grid import frame_labels
from datamodules.features.memory import EVAL_BATCH_FACTOR, FeatureBatch, LabelledTracks
from datamodules.features.store import FeatureStore, StoredClips
from datamodules.tracks import SPLITS, Split, Track

_MIX_BYTES = 2**28  # features in memory at once: 50 clips of 24 s at 8 Hz in 13 layers of 1024


@dataclass(frozen=True)
class FrameSplit(LabelledTracks):
    """The clips of one split, their values on disk.

    Attributes:
        clips: M clips.
        labels: of each clip, (n,) int64; -1 is ignored.
    """

    clips: StoredClips
    labels: tuple[NDArray[np.int64], ...]

    def read(self, places: NDArray[np.int64]) -> FeatureBatch:
        """All labelled frames of some of the split's clips, given by their positions."""
        features, labels, tracks = [], [], []
        for place in places.tolist():
            of_clip = self.labels[place]
            is_labelled = of_clip >= 0
            features.append(self.clips.read(place)[:, is_labelled])
            labels.append(of_clip[is_labelled])
            tracks.append(np.full(int(is_labelled.sum()), self.clips.track[place]))

        return {
            "features": torch.from_numpy(np.concatenate(features, axis=1)),
            "target": torch.from_numpy(np.concatenate(labels)),
            "track": torch.from_numpy(np.concatenate(tracks)),
        }


@dataclass(frozen=True)
class FrameFeatures:
    """Features of all labelled frames of a task, on disk.

    Attributes:
        splits: the clips of each split.
        batch_size: frames per training batch.
        seed: of the order of the training frames.
    """

    splits: Mapping[Split, FrameSplit]
    batch_size: int
    seed: int

    @property
    def shape(self) -> tuple[int, int]:
        """Number of layers L+1 and of features D."""
        return self.splits["train"].clips.shape

    def train_parts(self) -> Iterator[Tensor]:
        """All labelled training frames in parts of (L+1, n, D) float16."""
        for batch in _FrameBatches(self.splits["train"], batch_size=None, seed=None):
            yield batch["features"]

    def train_batches(self) -> DataLoader[FeatureBatch]:
        """Training frames in a new, seeded order each epoch."""
        return _loader(_FrameBatches(self.splits["train"], self.batch_size, self.seed))

    def batches(self, split: Split) -> DataLoader[FeatureBatch]:
        """The labelled frames of a split, in order."""
        size = EVAL_BATCH_FACTOR * self.batch_size
        return _loader(_FrameBatches(self.splits[split], size, seed=None))


def open_features(
    store: FeatureStore,
    tracks: Sequence[Track],
    *,
    n_classes: int,
    frame_rate: float,
    batch_size: int,
    seed: int,
) -> FrameFeatures:
    """Labels the frames of a task's tracks in a store; their features stay there.

    Args:
        store: that holds them.
        tracks: all tracks of the task.
        n_classes: of the labels.
        frame_rate: of the label grid, in Hz.
        batch_size: frames per training batch.
        seed: of the order of the training frames.

    Raises:
        UserError: a broken shard, features that are missing, or a split without a labelled frame.
    """
    store.read(tracks)  # what is missing anywhere is said at once
    splits = {split: _label(store, tracks, split, n_classes, frame_rate) for split in SPLITS}

    empty = [split for split in SPLITS if not splits[split].track_target.any()]
    if empty:
        raise UserError(
            f"no frame of {', '.join(empty)} has a label: the segments of {store.id.dataset} lie "
            "outside its audio. Put the segments and the audio of the same songs there"
        )
    return FrameFeatures(splits, batch_size, seed)


def _label(
    store: FeatureStore, tracks: Sequence[Track], split: Split, n_classes: int, frame_rate: float
) -> FrameSplit:
    members = [track for track in tracks if track.split == split]
    clips = store.read(members)

    labels = []
    counts = torch.zeros(len(members), n_classes, dtype=torch.int64)
    for track, start_s, n_rows in zip(clips.track, clips.start_s, clips.n_rows, strict=True):
        segments = members[track].target
        of_clip = frame_labels(segments, start_s, n_rows, frame_rate)
        labels.append(of_clip)
        counts[track] += torch.from_numpy(np.bincount(of_clip[of_clip >= 0], minlength=n_classes))

    ids = tuple(track.track_id for track in members)
    return FrameSplit(ids, counts, clips, tuple(labels))


class _FrameBatches(IterableDataset[FeatureBatch]):
    """Batches of frames; with a seed in a new order each epoch, frames of many clips mixed.

    While the frames of some clips are batched, the next clips are read.
    """

    def __init__(self, split: FrameSplit, batch_size: int | None, seed: int | None) -> None:
        super().__init__()
        self.split, self.batch_size = split, batch_size
        self.generator = None if seed is None else torch.Generator().manual_seed(seed)

        n_layers, dim = split.clips.shape
        longest_bytes = 2 * n_layers * dim * int(split.clips.n_rows.max())
        self.clips_at_once = max(1, _MIX_BYTES // longest_bytes)

    def __iter__(self) -> Iterator[FeatureBatch]:
        rest: FeatureBatch | None = None  # too few frames for a batch, joined to the next clips'
        for mix in self._read_ahead():
            frames = mix if rest is None else _join(rest, mix)
            rest = None

            size = self.batch_size or max(1, len(frames["target"]))
            for batch in torch.split(self._order(len(frames["target"])), size):
                taken = _take(frames, batch)
                if len(batch) < size:
                    rest = taken
                else:
                    yield taken

        if rest is not None and len(rest["target"]):
            yield rest

    def _order(self, n: int) -> Tensor:
        if self.generator is None:
            return torch.arange(n)
        return torch.randperm(n, generator=self.generator)

    def _read_ahead(self) -> Iterator[FeatureBatch]:
        order = self._order(len(self.split.clips))
        groups = [group.numpy() for group in torch.split(order, self.clips_at_once)]

        with ThreadPoolExecutor(max_workers=1) as reader:
            coming = reader.submit(self.split.read, groups[0])
            for group in groups[1:]:
                ready = coming.result()
                coming = reader.submit(self.split.read, group)
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


def _loader(batches: _FrameBatches) -> DataLoader[FeatureBatch]:
    return DataLoader(batches, batch_size=None, num_workers=0)
