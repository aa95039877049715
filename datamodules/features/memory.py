"""Features of clips in memory, and the batches that probes are fed with."""

from dataclasses import dataclass
from typing import TypedDict

import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, Dataset


class FeatureBatch(TypedDict):
    """What a probe is fed with: B clips of all layers."""

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


class _InMemory(Dataset[FeatureBatch]):
    """Indexes whole batches out of tensors in memory (ten times faster than item by item:
    facts/infra).
    """

    def __init__(self, split: FeatureSplit) -> None:
        self.split = split

    def __len__(self) -> int:
        return len(self.split.target)

    def __getitem__(self, rows: list[int]) -> FeatureBatch:
        split, index = self.split, torch.tensor(rows)
        return {
            "features": split.features[:, index],
            "target": split.target[index],
            "track": split.track[index],
        }


def _loader(data: _InMemory, batches: BatchSampler) -> DataLoader[FeatureBatch]:
    return DataLoader(data, sampler=batches, batch_size=None, num_workers=0)
