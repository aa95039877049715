"""Scores of predictions, over tracks.

Conventions: logits of a track are the mean of the logits of its clips (MARBLE v1's rule), or on
request those of the mean of their probabilities (MARBLE v2's). A metric is computed once per split
over all tracks, never averaged over batches, so it does not depend on the batch size. More is
better, and scores are fractions (0.855, not 85.5). Every metric takes counts of the tracks: ones
for the score itself, and how often a bootstrap resample drew each for its interval, so that one
definition serves both. H heads, N tracks, R resamples, C classes, tags or dimensions.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from datamodules.datasets.emomusic import DIMENSIONS
from datamodules.datasets.giantsteps import KEYS
from datamodules.errors import UserError
from datamodules.tracks import Kind
from mirprobe.scoring.intervals import Array, Scale
from mirprobe.scoring.ranking import average_precision, roc_auc


@dataclass(frozen=True)
class TrackMetric:
    """How a split is scored.

    Attributes:
        kind: of the tasks it scores.
        score: (H, N, ...) predictions, (N, ...) targets, (R, N) counts -> (H, R) scores.
        classes: names of the classes or dimensions that it counts on, in their order; None for a
            metric to which they are all alike.
        scale: `share` is a share of tracks that are right, `fraction` another score from 0 to 1.
    """

    kind: Kind
    score: Callable[[Tensor, Tensor, Tensor], Tensor]
    classes: tuple[str, ...] | None = None
    scale: Scale = "fraction"

    def fits(self, kind: Kind, classes: Sequence[str]) -> bool:
        """Whether it can score a task with targets of this kind and these classes."""
        return self.kind == kind and self.classes in (None, tuple(classes))


def predictions(kind: Kind, outputs: Tensor) -> Tensor:
    """Turns outputs of heads into what is scored.

    Args:
        kind: of the task.
        outputs: (H, N, C) logits or values, or (H, N, C, C) confusions of frames.

    Returns:
        (H, N) classes, (H, N, C) probabilities of tags, (H, N, C) values, or the confusions.
    """
    if kind == "classification":
        return outputs.argmax(dim=2)
    return torch.sigmoid(outputs) if kind == "multilabel" else outputs


def score_once(metric: TrackMetric, predicted: Tensor, target: Tensor) -> Tensor:
    """(H,) scores over all tracks: (H, N, ...), (N, ...) -> (H,)."""
    ones = torch.ones(1, len(target), dtype=torch.float64, device=target.device)
    return metric.score(predicted, target, ones)[:, 0]


def score_of_counts(
    metric: TrackMetric, predicted: Tensor, target: Tensor
) -> Callable[[Array], Array]:
    """The metric of these predictions as a function of arrays: (R, N) counts -> (H, R) scores."""

    def score(counts: Array) -> Array:
        scores = metric.score(predicted, target, torch.from_numpy(counts))
        return scores.double().numpy()

    return score


def accuracy(predicted: Tensor, target: Tensor, counts: Tensor) -> Tensor:
    """Share of tracks whose class is right.

    >>> predicted, target = torch.tensor([[0, 1, 1, 2]]), torch.tensor([0, 1, 2, 2])
    >>> accuracy(predicted, target, torch.tensor([[1.0, 1, 1, 1], [0, 0, 4, 0]]))
    tensor([[0.7500, 0.0000]])
    """
    return _mean_over_tracks((predicted == target).double(), counts)


def key_weighted(predicted: Tensor, target: Tensor, counts: Tensor) -> Tensor:
    """Key score of mir_eval 0.8.2, mean over tracks: the paper's Refined_Acc.

    1 for the key; 0.5 for a fifth above it in the same mode; 0.3 for the relative key; 0.2 for the
    parallel key; else 0. Classes are the 12 major keys by semitone, then the 12 minor keys. A fifth
    below scores 0, as in mir_eval.key.weighted_score (Raffel et al. 2014) and in MIREX up to 2016;
    MIREX has credited it since 2017.

    >>> predicted, target = torch.tensor([[0, 7, 21, 12, 5]]), torch.tensor([0, 0, 0, 0, 0])
    >>> key_weighted(predicted, target, torch.ones(1, 5))
    tensor([[0.4000]])
    """
    credit = key_table().to(target.device)[target.expand_as(predicted), predicted]
    return _mean_over_tracks(credit.double(), counts)


def key_table() -> Tensor:
    """(24, 24) score of every estimated key (second index) for every true key (first index)."""
    true, estimate = torch.meshgrid(torch.arange(24), torch.arange(24), indexing="ij")
    interval = (estimate - true) % 12
    same_mode = true // 12 == estimate // 12

    # C major has A minor, a sixth above; A minor has C major, a minor third above.
    to_relative = torch.where(true < 12, 9, 3)

    table = torch.zeros(24, 24)
    table[same_mode & (interval == 0)] = 1.0
    table[same_mode & (interval == 7)] = 0.5
    table[~same_mode & (interval == to_relative)] = 0.3
    table[~same_mode & (interval == 0)] = 0.2
    return table


def r2(predicted: Tensor, target: Tensor, counts: Tensor) -> Tensor:
    """Coefficient of determination over tracks, uniform mean over dimensions: 1 - SS_res / SS_tot.

    >>> predicted, target = torch.tensor([[[1.0], [2.0], [4.0]]]), torch.tensor([[1.0], [2], [3]])
    >>> r2(predicted, target, torch.ones(1, 3))
    tensor([[0.5000]])
    """
    dimensions = range(target.shape[1])
    scores = [_r2(predicted[..., d], target[..., d], counts) for d in dimensions]
    return torch.stack(scores).mean(dim=0)


def r2_of(dimension: int) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """Makes the metric that is `r2` of one dimension."""

    def score(predicted: Tensor, target: Tensor, counts: Tensor) -> Tensor:
        return _r2(predicted[..., dimension], target[..., dimension], counts)

    return score


def frame_accuracy(confusion: Tensor, _frames: Tensor, counts: Tensor) -> Tensor:
    """Share of all labelled frames whose class is right (micro): long tracks count more.

    Args:
        confusion: (H, N, C, C) frames by true and predicted class, see `TrackConfusion`.
        _frames: (N, C) frames of each true class, which the confusion holds too.
        counts: (R, N).

    >>> confusion = torch.tensor([[[[3, 1], [0, 0]], [[1, 1], [2, 2]]]])  # 1 head, 2 tracks
    >>> frame_accuracy(confusion, torch.tensor([[4, 0], [2, 4]]), torch.ones(1, 2))
    tensor([[0.6000]])
    """
    right = confusion.diagonal(dim1=2, dim2=3).sum(dim=2).double()  # (H, N)
    total = confusion.sum(dim=(2, 3)).double()

    by_resample = counts.to(right).T
    return (right @ by_resample / (total @ by_resample)).float()


def frame_accuracy_macro(confusion: Tensor, _frames: Tensor, counts: Tensor) -> Tensor:
    """Mean over classes of the share of a class's frames that are found.

    Classes without frames are left out. Arguments as of `frame_accuracy`.

    >>> confusion = torch.tensor([[[[3, 1], [0, 0]], [[1, 1], [2, 2]]]])
    >>> frame_accuracy_macro(confusion, torch.tensor([[4, 0], [2, 4]]), torch.ones(1, 2))
    tensor([[0.5833]])
    """
    right = confusion.diagonal(dim1=2, dim2=3).double()  # (H, N, C)
    total = confusion.sum(dim=3).double()

    counts = counts.to(torch.float64)
    found = torch.einsum("hnc,rn->hrc", right, counts)
    wanted = torch.einsum("hnc,rn->hrc", total, counts)
    return torch.nanmean(found / wanted, dim=2).float()


def _r2(predicted: Tensor, target: Tensor, counts: Tensor) -> Tensor:
    """`r2` of one dimension: (H, N) values, (N,) targets, (R, N) counts -> (H, R)."""
    counts = counts.double()
    residual = (predicted - target).double().square() @ counts.T

    # Each resample deviates from its own mean, as if its tracks were the whole split.
    mean = (counts @ target.double()) / counts.sum(dim=1)
    deviations = (target.double()[None] - mean[:, None]).square()  # (R, N)
    total = (counts * deviations).sum(dim=1)
    return (1 - residual / total).float()


def _mean_over_tracks(scores: Tensor, counts: Tensor) -> Tensor:
    """(H, N) scores per track, (R, N) counts -> (H, R)."""
    counts = counts.to(scores)
    return (scores @ counts.T / counts.sum(dim=1)).float()


METRICS: Mapping[str, TrackMetric] = {
    "accuracy": TrackMetric("classification", accuracy, scale="share"),
    "key_weighted": TrackMetric("classification", key_weighted, KEYS),
    "r2": TrackMetric("regression", r2, scale="unbounded"),
    "r2_arousal": TrackMetric("regression", r2_of(0), DIMENSIONS, "unbounded"),
    "r2_valence": TrackMetric("regression", r2_of(1), DIMENSIONS, "unbounded"),
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
        known = ", ".join(METRICS)
        raise UserError(f"unknown metric {name!r} in the task's configuration. Known: {known}")
    return METRICS[name]
