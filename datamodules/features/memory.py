"""Features of clips in memory, and the batches of them that probes are fed with.

Conventions: every clip is in one batch once per epoch, in a new, seeded order for training. What a
probe is trained on is a clip; what it is scored on is a track, known by its position in its split.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypedDict

import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, Dataset, RandomSampler, SequentialSampler

from datamodules.features.store import FeatureStore
from datamodules.tracks import SPLITS, Split, Track

EVAL_BATCH_FACTOR = 8  # val and test need no gradients, so more fits


class FeatureBatch(TypedDict):
    """What a probe is fed with: B clips (or frames) of all layers."""

    features: Tensor  # (L+1, B, D) float16
    target: Tensor  # (B,) int64, or (B, C) float32 for multilabel and regression
    track: Tensor  # (B,) int64, position of the clip's track in its split


@dataclass(frozen=True)
class LabelledTracks:
    """The tracks of one split and what is true of them.

    Attributes:
        track_ids: the split's N tracks.
        track_target: (N,) int64 classes; (N, C) float32 for multilabel and regression; (N, C) int64
            frames of each class.
    """

    track_ids: tuple[str, ...]
    track_target: Tensor


@dataclass(frozen=True)
class FeatureSplit(LabelledTracks):
    """All clips of one split, in memory.

    Attributes:
        features: (L+1, N, D) float16, N clips.
        target: (N,) int64 or (N, C) float32, per clip.
        track: (N,) int64, position of each clip's track in `track_ids`.
    """

    features: Tensor
    target: Tensor
    track: Tensor


@dataclass(frozen=True)
class MemoryFeatures:
    """Features of all clips of a task, whole in memory.

    Attributes:
        splits: the clips of each split.
        batch_size: clips per training batch.
        seed: of the order of the training clips.
    """

    splits: Mapping[Split, FeatureSplit]
    batch_size: int
    seed: int

    @property
    def shape(self) -> tuple[int, int]:
        """Number of layers L+1 and of features D."""
        n_layers, _, dim = self.splits["train"].features.shape
        return n_layers, dim

    def train_parts(self) -> Iterator[Tensor]:
        """All training features in parts of (L+1, n, D) float16, for their mean and deviation."""
        yield self.splits["train"].features

    def train_batches(self) -> DataLoader[FeatureBatch]:
        """Training clips in a new, seeded order each epoch."""
        clips = _Clips(self.splits["train"])
        order = RandomSampler(clips, generator=torch.Generator().manual_seed(self.seed))
        return _loader(clips, BatchSampler(order, self.batch_size, drop_last=False))

    def batches(self, split: Split) -> DataLoader[FeatureBatch]:
        """The clips of a split, in order."""
        clips = _Clips(self.splits[split])
        size = EVAL_BATCH_FACTOR * self.batch_size
        return _loader(clips, BatchSampler(SequentialSampler(clips), size, drop_last=False))


def load_features(
    store: FeatureStore, tracks: Sequence[Track], *, batch_size: int, seed: int
) -> MemoryFeatures:
    """Reads the features of a task's tracks from a store into memory.

    Args:
        store: that holds them.
        tracks: all tracks of the task.
        batch_size: clips per training batch.
        seed: of the order of the training clips.

    Raises:
        UserError: a broken shard, or features that are missing.
    """
    store.read(tracks)  # what is missing anywhere is said at once
    splits = {split: _read_split(store, tracks, split) for split in SPLITS}
    return MemoryFeatures(splits, batch_size, seed)


def _read_split(store: FeatureStore, tracks: Sequence[Track], split: Split) -> FeatureSplit:
    members = [track for track in tracks if track.split == split]
    clips = store.read(members)

    # Pieces of one song have one target, and are one track from here on.
    scored = {track.scored_as: track.target for track in members}
    place = {name: position for position, name in enumerate(scored)}
    place_of_member = torch.tensor([place[track.scored_as] for track in members])

    targets = torch.tensor(list(scored.values()))
    track_of_clip = place_of_member[torch.from_numpy(clips.track.copy())]
    return FeatureSplit(
        track_ids=tuple(scored),
        track_target=targets,
        features=torch.from_numpy(clips.read_all()),
        target=targets[track_of_clip],
        track=track_of_clip,
    )


class _Clips(Dataset[FeatureBatch]):
    """Indexes whole batches out of tensors (ten times faster than item by item: facts/infra)."""

    def __init__(self, split: FeatureSplit) -> None:
        self.split = split

    def __len__(self) -> int:
        return len(self.split.target)

    def __getitem__(self, rows: list[int]) -> FeatureBatch:
        index = torch.tensor(rows)
        return {
            "features": self.split.features[:, index],
            "target": self.split.target[index],
            "track": self.split.track[index],
        }


def _loader(clips: _Clips, batches: BatchSampler) -> DataLoader[FeatureBatch]:
    return DataLoader(clips, sampler=batches, batch_size=None, num_workers=0)
