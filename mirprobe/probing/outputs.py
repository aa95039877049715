"""Outputs of probes, collected from clips and frames into tracks.

Conventions: outputs of a track are the mean of the logits of its clips (MARBLE v1's rule), or on
request those of the mean of their probabilities (MARBLE v2's). H heads, N tracks, B clips or frames
of a batch, C classes, tags or dimensions.
"""

import torch
from torch import Tensor
from torchmetrics import Metric

from datamodules.tracks import Kind


class TrackLogits(Metric):
    """Mean logits of every track and head, collected over batches (and over ranks, by sums).

    Args:
        n_heads: H.
        n_tracks: N, tracks of the split.
        n_classes: C.
        averages: `classification` or `multilabel` averages the probabilities of these instead of
            logits; what `compute` gives are then the logits of the mean probabilities.
    """

    full_state_update = False
    total: Tensor
    count: Tensor

    def __init__(
        self, n_heads: int, n_tracks: int, n_classes: int, *, averages: Kind | None = None
    ) -> None:
        super().__init__()
        self.averages = averages
        self.add_state(
            "total",
            torch.zeros(n_tracks, n_heads, n_classes, dtype=torch.float64),
            dist_reduce_fx="sum",
        )
        self.add_state("count", torch.zeros(n_tracks, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, logits: Tensor, track: Tensor, _target: Tensor | None = None) -> None:
        """Adds a batch: logits (H, B, C), track (B,) positions in 0 .. N - 1."""
        values = logits.to(self.total.dtype)
        if self.averages is not None:
            values = (
                values.softmax(dim=2) if self.averages == "classification" else values.sigmoid()
            )
        self.total.index_add_(0, track, values.transpose(0, 1))
        self.count.index_add_(0, track, torch.ones_like(track, dtype=self.count.dtype))

    def compute(self) -> Tensor:
        """(H, N, C) float32 mean logits."""
        mean = (self.total / self.count[:, None, None]).transpose(0, 1)
        if self.averages is not None:
            mean = mean.log() if self.averages == "classification" else mean.logit()
        return mean.float()


class TrackConfusion(Metric):
    """How often frames of each class were taken for each class, by track and head: nothing grows
    with the number of frames.

    Args:
        n_heads: H.
        n_tracks: N, tracks of the split.
        n_classes: C.
    """

    full_state_update = False
    counts: Tensor

    def __init__(self, n_heads: int, n_tracks: int, n_classes: int) -> None:
        super().__init__()
        self.n_classes = n_classes
        self.add_state(
            "counts",
            torch.zeros(n_heads, n_tracks, n_classes * n_classes, dtype=torch.int64),
            dist_reduce_fx="sum",
        )

    def update(self, logits: Tensor, track: Tensor, target: Tensor) -> None:
        """Adds a batch of frames: logits (H, B, C), track (B,) positions in 0 .. N - 1, target (B,)
        classes.
        """
        pair = target * self.n_classes + logits.argmax(dim=2)  # (H, B)
        n_heads, n_tracks, n_pairs = self.counts.shape
        place = (
            torch.arange(n_heads, device=pair.device)[:, None] * n_tracks + track
        ) * n_pairs + pair
        self.counts += torch.bincount(place.flatten(), minlength=self.counts.numel()).view_as(
            self.counts
        )

    def compute(self) -> Tensor:
        """(H, N, C, C) int64: true class, predicted class."""
        return self.counts.view(*self.counts.shape[:2], self.n_classes, self.n_classes)
