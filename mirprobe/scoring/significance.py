"""Differences between heads or models that were scored on the same tracks.

Conventions: a difference is paired: the first score minus the second, on the same tracks and on the
same resamples of them (`intervals.draw_counts`). Intervals are at 95 %, p-values two-sided. Nothing
here draws anything. N tracks, R resamples.

Two rules: `mcnemar` for shares of independent tracks that are right, where only the tracks count on
which just one of the two is right; `bootstrap` for every other score.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest, norm

from mirprobe.scoring.intervals import ROUNDING, Array, Clusters, Z, widened_tail

POWER = 0.8


@dataclass(frozen=True)
class Scored:
    """What is known of one head's score on a split.

    Attributes:
        value: the score.
        resamples: (R,) of it, NaN where it is not defined.
        right: (N,) which tracks are right, for a share of independent tracks; else None.
    """

    value: float
    resamples: Array
    right: NDArray[np.bool_] | None = None


@dataclass(frozen=True)
class Difference:
    """By how much one score is above another.

    Attributes:
        value: the first minus the second.
        low: lower end of its interval; None where there is none.
        high: upper end.
        p: probability of so large a difference if there were none; 1 where nothing can be said.
        p_holm: the same, corrected for all comparisons that were made along with it.
        rule: that made both.
    """

    value: float
    low: float | None
    high: float | None
    p: float
    p_holm: float
    rule: Literal["mcnemar", "bootstrap"]


def compare(first: Scored, second: Scored, clusters: Clusters) -> Difference:
    """The difference between two scores on the same tracks."""
    if first.right is not None and second.right is not None:
        return _compare_right(first.right, second.right)

    value = first.value - second.value
    drawn = first.resamples - second.resamples
    drawn = drawn[np.isfinite(drawn)]
    if len(drawn) == 0 or clusters.n_clusters == 1:
        return Difference(value, None, None, 1.0, 1.0, "bootstrap")

    # Resamples vary about their mean as other test sets would about the truth.
    drawn = drawn - drawn.mean()
    tail = widened_tail(clusters.n_clusters)
    low, high = value + np.quantile(drawn, [tail, 1 - tail])

    n_as_large = np.count_nonzero(abs(drawn) >= abs(value) - ROUNDING)
    p = (1 + n_as_large) / (1 + len(drawn))
    return Difference(value, float(low), float(high), p, p, "bootstrap")


def _compare_right(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> Difference:
    """Exact test of McNemar (Psychometrika 1947) and interval of Bonett & Price (Journal of
    Educational and Behavioral Statistics 2012), which has a width even where the two are right on
    the same tracks.
    """
    n = len(first)
    gained = int(np.count_nonzero(first & ~second))
    lost = int(np.count_nonzero(second & ~first))
    p = binomtest(gained, gained + lost).pvalue if gained + lost else 1.0

    gain, loss = (gained + 1) / (n + 2), (lost + 1) / (n + 2)
    spread = Z * math.sqrt((gain + loss - (gain - loss) ** 2) / (n + 2))

    value = (gained - lost) / n
    low = max(-1.0, min(value, gain - loss - spread))
    high = min(1.0, max(value, gain - loss + spread))
    return Difference(value, low, high, float(p), float(p), "mcnemar")


def compare_all(
    pairs: Sequence[tuple[Scored, Scored]], clusters: Sequence[Clusters]
) -> list[Difference]:
    """The differences of pairs, their p-values corrected for how many there are.

    Args:
        pairs: of scores, each pair on the same tracks.
        clusters: of the tracks of each pair.
    """
    found = [compare(*pair, of_pair) for pair, of_pair in zip(pairs, clusters, strict=True)]
    corrected = holm([one.p for one in found])
    return [replace(one, p_holm=p) for one, p in zip(found, corrected, strict=True)]


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values corrected for their number (Holm 1979), in the order given.

    >>> [round(p, 3) for p in holm([0.01, 0.04, 0.03])]
    [0.03, 0.06, 0.06]
    """
    order = np.argsort(p_values, kind="stable")
    corrected = np.empty(len(p_values))
    worst = 0.0
    for rank, place in enumerate(order):
        worst = max(worst, (len(p_values) - rank) * p_values[place])
        corrected[place] = min(1.0, worst)
    return corrected.tolist()


def detectable_difference(standard_error: float, *, power: float = POWER) -> float:
    """The smallest true difference that a test at 5 % finds with this probability.

    Args:
        standard_error: of the difference.
        power: at 0.5 it is the smallest *measured* difference that is significant.

    Two results of 85 % on 290 songs each that are not paired:

    >>> error = math.sqrt(2 * 0.85 * 0.15 / 290)
    >>> round(detectable_difference(error, power=0.5), 3), round(detectable_difference(error), 3)
    (0.058, 0.083)
    """
    return float((Z + norm.ppf(power)) * standard_error)


def standard_error(resamples: Array) -> float:
    """Standard deviation of the resamples that have a score; 0 where fewer than two have one."""
    scored = resamples[np.isfinite(resamples)]
    return float(scored.std(ddof=1)) if len(scored) > 1 else 0.0


def seed_spread(values: Sequence[float]) -> float:
    """Standard deviation over seeds on the same tracks: of training alone, not of the sampling.

    Raises:
        ValueError: fewer than two seeds.

    >>> round(seed_spread([0.80, 0.82, 0.84]), 3)
    0.02
    """
    if len(values) < 2:
        raise ValueError("one seed has no spread")
    return float(np.std(values, ddof=1))
