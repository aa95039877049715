"""Scores of predictions, over tracks.

Conventions: logits of a track are the mean of the logits of its clips (MARBLE v1's rule), or on
request those of the mean of their probabilities (MARBLE v2's). A metric is computed once per split
over all tracks, never averaged over batches, so it does not depend on the batch size. More is
better, and scores are fractions (0.855, not 85.5). Every metric takes weights of the tracks, ones
for the score itself and the counts of a bootstrap resample for its interval, so one definition
serves both. H heads, N tracks, R weightings, C classes, tags or dimensions.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from datamodules.errors import UserError
from datamodules.tracks import Kind
from mirprobe.scoring.ranking import average_precision, roc_auc


@dataclass(frozen=True)
class TrackMetric:
    """How a split is scored.

    Attributes:
        kind: of the tasks it scores.
        score: (H, N, ...) predictions, (N, ...) targets, (R, N) weights -> (H, R) scores.
    """

    kind: Kind
    score: Callable[[Tensor, Tensor, Tensor], Tensor]


def predict(kind: Kind, said: Tensor) -> Tensor:
    """What is scored: (H, N) classes, (H, N, C) probabilities or (H, N, C) values, from (H, N, C)
    logits.

    The (H, N, C, C) confusion of frames is scored as it is.
    """
    if kind == "classification":
        return said.argmax(dim=2)
    return torch.sigmoid(said) if kind == "multilabel" else said


def score_once(metric: TrackMetric, predicted: Tensor, target: Tensor) -> Tensor:
    """(H,) scores over all tracks: (H, N, ...), (N, ...) -> (H,)."""
    return metric.score(
        predicted, target, torch.ones(1, len(target), dtype=torch.float64, device=target.device)
    )[:, 0]


def accuracy(predicted: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """Share of tracks whose class is right.

    >>> accuracy(torch.tensor([[0, 1, 1, 2]]), torch.tensor([0, 1, 2, 2]), torch.tensor([[1.0, 1, 1, 1], [0, 0, 4, 0]]))
    tensor([[0.7500, 0.0000]])
    """
    return _mean((predicted == target).double(), weights)


def key_weighted(predicted: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """MIREX key score, mean over tracks: the paper's Refined_Acc (Raffel et al. 2014,
    mir_eval.key.weighted_score).

    1 for the key; 0.5 for a fifth above it in the same mode; 0.3 for the relative key; 0.2 for the
    parallel key; else 0. Classes are the 12 major keys by semitone, then the 12 minor keys. A fifth
    below scores 0, as in mir_eval.

    >>> key_weighted(torch.tensor([[0, 7, 21, 12, 5]]), torch.tensor([0, 0, 0, 0, 0]), torch.ones(1, 5))
    tensor([[0.4000]])
    """
    table = key_table().to(target.device)
    return _mean(table[target.expand_as(predicted), predicted].double(), weights)


def key_table() -> Tensor:
    """(24, 24) score of every estimated key (second index) for every true key (first index)."""
    true, estimate = torch.meshgrid(torch.arange(24), torch.arange(24), indexing="ij")
    interval = (estimate - true) % 12
    same_mode = true // 12 == estimate // 12
    relative = torch.where(
        true < 12, 9, 3
    )  # the minor key a sixth above a major one, the major a third above a minor one
    table = torch.zeros(24, 24)
    table[same_mode & (interval == 0)] = 1.0
    table[same_mode & (interval == 7)] = 0.5
    table[~same_mode & (interval == relative)] = 0.3
    table[~same_mode & (interval == 0)] = 0.2
    return table


def r2(predicted: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """Coefficient of determination over tracks, uniform mean over dimensions: 1 - SS_res / SS_tot.

    >>> r2(torch.tensor([[[1.0], [2.0], [4.0]]]), torch.tensor([[1.0], [2.0], [3.0]]), torch.ones(1, 3))
    tensor([[0.5000]])
    """
    return torch.stack(
        [_r2(predicted[..., c], target[..., c], weights) for c in range(target.shape[1])]
    ).mean(dim=0)


def r2_of(dimension: int) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """`r2` of one dimension."""
    return lambda predicted, target, weights: _r2(
        predicted[..., dimension], target[..., dimension], weights
    )


def _r2(predicted: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    weights = weights.double()
    residual = (predicted - target).double().square() @ weights.T  # (H, R)
    mean = (weights @ target.double()) / weights.sum(dim=1)
    total = (weights * (target.double()[None] - mean[:, None]).square()).sum(dim=1)
    return (1 - residual / total).float()


def _mean(scores: Tensor, weights: Tensor) -> Tensor:
    """(H, N) scores per track, (R, N) weights -> (H, R)."""
    weights = weights.to(scores)
    return (scores @ weights.T / weights.sum(dim=1)).float()


def frame_accuracy(confusion: Tensor, _counts: Tensor, weights: Tensor) -> Tensor:
    """Share of all labelled frames whose class is right (micro): long tracks count more. See
    `TrackConfusion`.

    >>> confusion = torch.tensor([[[[3, 1], [0, 0]], [[1, 1], [2, 2]]]])  # one head, two tracks, two classes
    >>> frame_accuracy(confusion, torch.tensor([[4, 0], [2, 4]]), torch.ones(1, 2))
    tensor([[0.6000]])
    """
    right = confusion.diagonal(dim1=2, dim2=3).sum(dim=2).double()  # (H, N)
    weights = weights.to(right)
    return (right @ weights.T / (confusion.sum(dim=(2, 3)).double() @ weights.T)).float()


def frame_accuracy_macro(confusion: Tensor, _counts: Tensor, weights: Tensor) -> Tensor:
    """Mean over classes of the share of a class's frames that are found; classes without frames are
    left out.

    >>> confusion = torch.tensor([[[[3, 1], [0, 0]], [[1, 1], [2, 2]]]])
    >>> frame_accuracy_macro(confusion, torch.tensor([[4, 0], [2, 4]]), torch.ones(1, 2))
    tensor([[0.5833]])
    """
    weights = weights.to(torch.float64)
    right = torch.einsum("hnc,rn->hrc", confusion.diagonal(dim1=2, dim2=3).double(), weights)
    return torch.nanmean(
        right / torch.einsum("hnc,rn->hrc", confusion.sum(dim=3).double(), weights), dim=2
    ).float()


METRICS: Mapping[str, TrackMetric] = {
    "accuracy": TrackMetric("classification", accuracy),
    "key_weighted": TrackMetric("classification", key_weighted),
    "r2": TrackMetric("regression", r2),
    "r2_arousal": TrackMetric("regression", r2_of(0)),  # EmoMusic's order: arousal, valence
    "r2_valence": TrackMetric("regression", r2_of(1)),
    "roc_auc": TrackMetric("multilabel", roc_auc),
    "average_precision": TrackMetric("multilabel", average_precision),
    "frame_accuracy": TrackMetric("frames", frame_accuracy),
    "frame_accuracy_macro": TrackMetric("frames", frame_accuracy_macro),
}


def metric_named(name: str) -> TrackMetric:
    """The metric of a task file.

    Raises:
        UserError: there is none of that name.
    """
    if name not in METRICS:
        raise UserError(
            f"unknown metric {name!r} in the task's configuration. Known: {', '.join(METRICS)}"
        )
    return METRICS[name]
