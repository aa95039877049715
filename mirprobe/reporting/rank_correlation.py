"""Rank correlation of two curves over layers, with an interval.

Conventions: Spearman's, ties share their mean rank. The interval is Fisher's with the variance of
Bonett and Wright 2000 (doi:10.1007/BF02294183), which takes layers for independent. They are not,
so it is rather too narrow than too wide; with 7 or 13 layers it is wide all the same.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

FEWEST = 5  # layers, below which the interval is all there is
_Z = 1.959963984540054  # of 95 %, both sides


@dataclass(frozen=True)
class Correlation:
    """A rank correlation.

    Attributes:
        value: in [-1, 1].
        low: lower end of the 95 % interval.
        high: upper end.
        n: number of layers.
    """

    value: float
    low: float
    high: float
    n: int


def rank_correlation(one: NDArray[np.float64], other: NDArray[np.float64]) -> Correlation | None:
    """Spearman's correlation over the layers where both have a value.

    None below five layers, or where one of them is the same everywhere.

    >>> rank_correlation(np.arange(6.0), np.array([0.0, 1, 2, 3, 5, 4]))
    Correlation(value=0.943, low=0.383, high=0.996, n=6)
    """
    both = ~(np.isnan(one) | np.isnan(other))
    n = int(both.sum())
    if n < FEWEST:
        return None
    ranks = [rankdata(values[both]) for values in (one, other)]
    if min(np.ptp(rank) for rank in ranks) == 0:
        return None

    value = float(np.corrcoef(*ranks)[0, 1])
    # At 1 Fisher's transform is infinite: the interval then begins below the largest other value.
    at = math.atanh(max(-0.999, min(0.999, value)))
    half = _Z * math.sqrt((1 + value**2 / 2) / (n - 3))
    low, high = math.tanh(at - half), math.tanh(at + half)
    return Correlation(round(value, 3), round(min(low, value), 3), round(max(high, value), 3), n)
