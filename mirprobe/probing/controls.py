"""Answers of something that has learned nothing: what a score is held against.

Conventions: a constant answer is the same for every track. The best of them is found with the
targets in hand, by the metric itself: what no head should score less than. Answers are predictions
of one head, (1, N, ...) as a metric takes them.
"""

import math
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from mirprobe.scoring.metrics import TrackMetric, score_once


def best_constant(metric: TrackMetric, answers: Iterable[Tensor], target: Tensor) -> float | None:
    """Score of the best of the constant answers; None where the metric is not defined."""
    scores = [score_once(metric, answer, target).item() for answer in answers]
    defined = [score for score in scores if math.isfinite(score)]
    if not defined:
        return None

    # Scores are float32. What is below their resolution is 0, not the minus 0 of a table.
    best = max(defined)
    return best if abs(best) > torch.finfo(torch.float32).eps else 0.0


def each_class(target: Tensor, n_classes: int) -> Iterator[Tensor]:
    """Every class in turn, for (N,) classes."""
    for label in range(n_classes):
        yield torch.full_like(target, label)[None]


def each_class_of_frames(target: Tensor, n_classes: int) -> Iterator[Tensor]:
    """Every class in turn for all frames, as confusions, for (N, C) frames of each class."""
    for label in range(n_classes):
        confusion = torch.zeros(1, *target.shape, n_classes, dtype=torch.int64)
        confusion[..., label] = target
        yield confusion


def equal_odds(target: Tensor, _n_classes: int) -> Iterator[Tensor]:
    """The same odds for every track and tag, for (N, C) tags.

    A ranking in which all are tied has an area of 0.5 and, for each tag, its frequency as average
    precision, whatever the odds.
    """
    yield torch.full_like(target, 0.5)[None]


def mean_values(target: Tensor, _n_classes: int) -> Iterator[Tensor]:
    """The mean of each dimension over the scored tracks, for (N, D) values.

    No constant is nearer to them, so its R2 of 0 is the best that a constant can have.
    """
    yield target.double().mean(dim=0).expand(target.shape)[None]
