"""Everything that depends on the kind of a task's targets, in one table.

Conventions: H heads, B clips or frames of a batch, C classes, tags or dimensions, N tracks.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from datamodules.tracks import Kind
from mirprobe.probing.controls import each_class, each_class_of_frames, equal_odds, mean_values
from mirprobe.probing.outputs import TrackConfusion, TrackLogits

Collector = TrackLogits | TrackConfusion


@dataclass(frozen=True)
class KindRules:
    """How targets of one kind are learned and collected.

    Attributes:
        loss: (H, B, C) logits and the batch's targets -> (H,) mean loss of each head.
        collect: n_heads, n_tracks, n_classes, and whether probabilities are averaged instead of
            logits -> what collects outputs into tracks.
        constants: (N, ...) targets and n_classes -> the constant answers that may be the best, see
            `best_constant`.
        by_frames: whether a clip has a target for every frame.
    """

    loss: Callable[[Tensor, Tensor], Tensor]
    collect: Callable[[int, int, int, bool], Collector]
    constants: Callable[[Tensor, int], Iterator[Tensor]]
    by_frames: bool = False


def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Mean cross-entropy of each head: (H, B, C) and (B,) classes -> (H,)."""
    n_heads, n_clips, n_classes = logits.shape
    flat = logits.reshape(-1, n_classes)
    losses = F.cross_entropy(flat, target.repeat(n_heads), reduction="none")
    return losses.view(n_heads, n_clips).mean(dim=1)


def binary_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Mean binary cross-entropy of each head over clips and tags: (H, B, C) and (B, C) -> (H,)."""
    losses = F.binary_cross_entropy_with_logits(logits, target.expand_as(logits), reduction="none")
    return losses.mean(dim=(1, 2))


def squared_error(outputs: Tensor, target: Tensor) -> Tensor:
    """Mean squared error of each head over clips and dimensions: (H, B, C) and (B, C) -> (H,)."""
    return F.mse_loss(outputs, target.expand_as(outputs), reduction="none").mean(dim=(1, 2))


def _collect_classes(n_heads: int, n_tracks: int, n_classes: int, mean_odds: bool) -> Collector:
    averages: Kind | None = "classification" if mean_odds else None
    return TrackLogits(n_heads, n_tracks, n_classes, averages=averages)


def _collect_tags(n_heads: int, n_tracks: int, n_classes: int, mean_odds: bool) -> Collector:
    averages: Kind | None = "multilabel" if mean_odds else None
    return TrackLogits(n_heads, n_tracks, n_classes, averages=averages)


def _collect_values(n_heads: int, n_tracks: int, n_classes: int, _mean_odds: bool) -> Collector:
    return TrackLogits(n_heads, n_tracks, n_classes)


def _collect_frames(n_heads: int, n_tracks: int, n_classes: int, _mean_odds: bool) -> Collector:
    return TrackConfusion(n_heads, n_tracks, n_classes)


KINDS: Mapping[Kind, KindRules] = {
    "classification": KindRules(cross_entropy, _collect_classes, each_class),
    "multilabel": KindRules(binary_cross_entropy, _collect_tags, equal_odds),
    "regression": KindRules(squared_error, _collect_values, mean_values),
    "frames": KindRules(cross_entropy, _collect_frames, each_class_of_frames, by_frames=True),
}
