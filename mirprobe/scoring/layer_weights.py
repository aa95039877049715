"""Learned layer weights against the layers' own scores: pure functions.

Conventions: weights are softmax weights over layers 1..L, so position 0 is layer 1. A layer curve
is the score of each of these layers alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

from mirprobe.scoring.intervals import ROUNDING, Array


@dataclass(frozen=True)
class WeightsPath:
    """What training has made of the layer weights of one head.

    Attributes:
        largest_start: layer of the largest weight before training; None where all are alike.
        largest_end: the same at the kept epoch.
        moved: largest change of a weight.
        entropy: of the weights at the end, as a share of that of equal ones: 1 is a plain mean, 0 a
            single layer.
        rank_start: rank correlation of the weights before training with the layer curve; None where
            either is constant.
        rank_end: the same at the kept epoch.
    """

    largest_start: int | None
    largest_end: int | None
    moved: float
    entropy: float
    rank_start: float | None
    rank_end: float | None

    @property
    def is_where_it_started(self) -> bool:
        """Whether the largest weight was the largest before training."""
        return self.largest_start is not None and self.largest_start == self.largest_end


def weights_path(start: Sequence[float], end: Sequence[float], curve: Array) -> WeightsPath:
    """Describes how layer weights went from start to end.

    Args:
        start: L softmax weights before training.
        end: L softmax weights at the kept epoch.
        curve: (L,) score of each layer; NaN where it has none.

    >>> path = weights_path([0.5, 0.5], [0.25, 0.75], np.array([0.6, 0.9]))
    >>> path.largest_start, path.largest_end, path.moved, path.rank_end
    (None, 2, 0.25, 1.0)
    """
    before, after = np.array(start), np.array(end)
    return WeightsPath(
        largest(before),
        largest(after),
        float(abs(after - before).max()),
        _entropy(after),
        rank_correlation(before, curve),
        rank_correlation(after, curve),
    )


def largest(weights: Array) -> int | None:
    """The layer of the largest of (L,) weights; None where all are alike."""
    if np.ptp(weights) <= ROUNDING:
        return None
    return int(weights.argmax()) + 1


def _entropy(weights: Array) -> float:
    """In units of log L; a weight of 0 adds nothing."""
    positive = weights[weights > 0]
    return float(-(positive * np.log(positive)).sum() / np.log(len(weights)))


def rank_correlation(one: Array, other: Array) -> float | None:
    """Spearman's rank correlation, with mean ranks of ties; None where either side is constant.

    Positions at which either is NaN are left out (Spearman 1904, DOI 10.2307/1412159).

    >>> rank_correlation(np.array([1.0, 2.0, 3.0]), np.array([10.0, 30.0, 20.0]))
    0.5
    """
    both = np.isfinite(one) & np.isfinite(other)
    if both.sum() < 2 or np.ptp(one[both]) <= ROUNDING or np.ptp(other[both]) <= ROUNDING:
        return None
    ranks = [rankdata(values[both]) for values in (one, other)]
    return round(float(np.corrcoef(*ranks)[0, 1]), 12)
