"""Choice of a layer: the rows chosen on val, and how far the choice can be trusted.

Conventions: a head without a score is never chosen. What is said of a choice comes from scores of
the layers on the same resamples of the tracks (`intervals.resample`), one metric at a time. H
heads, here layers; R resamples.
"""

from collections.abc import Sequence
from operator import attrgetter

import numpy as np

from datamodules.tracks import Split
from mirprobe.results import Probe, Row
from mirprobe.scoring.intervals import LEVEL, ROUNDING, Array


def head_rows(
    rows: Sequence[Row], split: Split, *, single: bool, probe: Probe = "mlp"
) -> list[Row]:
    """The rows of one split and probe: of single layers, in order, or of heads of several."""
    of_probe = [row for row in rows if row.split == split and row.probe == probe]
    wanted = [row for row in of_probe if (row.layer is not None) == single]
    return sorted(wanted, key=lambda row: (row.layer or 0, row.head))


def best_layer(rows: Sequence[Row], chosen_on: Split, probe: Probe = "mlp") -> Row | None:
    """The test row of the layer with the best score on `chosen_on`; of equals the lowest layer.

    None where no layer has a score on `chosen_on`.
    """
    layers = head_rows(rows, chosen_on, single=True, probe=probe)
    scored = [row for row in layers if row.value is not None]
    if not scored:
        return None

    # Layers come in order, and max keeps the first of equals.
    best = max(scored, key=attrgetter("value"))
    on_test = head_rows(rows, "test", single=True, probe=probe)
    return next(row for row in on_test if row.layer == best.layer)


def by_metric(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """The rows of a cell apart by metric, in the order they were written."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row.metric, []).append(row)
    return found


def optimism(values: Array, resamples: Array) -> float:
    """By how much the best of several scores is too high because it was chosen for being so.

    On each resample the best head is chosen anew, as on a test set of its own; what it scores there
    beyond its score on all tracks, which here stand for all music, is on average the optimism
    (Efron 1983, DOI 10.1080/01621459.1983.10477973).

    Args:
        values: (H,) scores on all tracks.
        resamples: (H, R); those on which any head has no score are left out.

    >>> round(optimism(np.array([0.5, 0.5]), np.array([[0.4, 0.6], [0.5, 0.5]])), 3)
    0.05
    """
    scored = _whole(resamples)
    if scored.shape[1] == 0:
        return 0.0

    # Resamples may be biased as a whole, such as those of average precision: not by the choice.
    excess = scored - scored.mean(axis=1, keepdims=True)
    best = (values[:, None] + excess).argmax(axis=0)
    return float(excess[best, np.arange(scored.shape[1])].mean())


def chance_of_best(values: Array, resamples: Array) -> Array:
    """(H,) share of the resamples on which each head is the best; equals share one.

    Args:
        values: (H,) scores on all tracks.
        resamples: (H, R) as in `optimism`.
    """
    scored = _whole(resamples)
    if scored.shape[1] == 0:
        return np.full(len(values), 1 / len(values))

    placed = values[:, None] + scored - scored.mean(axis=1, keepdims=True)
    is_best = placed >= placed.max(axis=0) - ROUNDING
    shares: Array = (is_best / is_best.sum(axis=0)).mean(axis=1)
    return shares


def best_set(values: Array, resamples: Array) -> list[int]:
    """The heads of which one is the best, with 95 % confidence.

    A head leaves the set if some other is above it by more than the largest of such differences, in
    units of their standard errors, is on resamples that are moved to where all heads are equal to
    it. The truly best head is refused in at most 5 % of test sets, and no correction is needed for
    the number of heads, as it is refused only if it is itself taken for worse (multiple comparisons
    with the best: Hsu 1981, DOI 10.1214/aos/1176345581; bootstrapped as by Hansen, Lunde & Nason
    2011, DOI 10.3982/ECTA5771).

    Args:
        values: (H,) scores on all tracks.
        resamples: (H, R) as in `optimism`.
    """
    scored = _whole(resamples)
    if scored.shape[1] == 0:
        return list(range(len(values)))
    return [head for head in range(len(values)) if _may_be_best(head, values, scored)]


def _may_be_best(head: int, values: Array, scored: Array) -> bool:
    """Whether a head could be the best and yet be as far below others as it is."""
    drawn = scored - scored[head]
    drawn = drawn - drawn.mean(axis=1, keepdims=True)
    errors = drawn.std(axis=1)

    # Heads that are right on the same tracks differ by nothing, in every resample.
    others = errors > ROUNDING
    if not others.any():
        return True
    largest = (drawn[others] / errors[others, None]).max(axis=0)
    found = ((values - values[head])[others] / errors[others]).max()

    n_as_large = np.count_nonzero(largest >= found)
    return bool((1 + n_as_large) / (1 + len(largest)) >= 1 - LEVEL)


def _whole(resamples: Array) -> Array:
    """(H, R') the resamples on which every head has a score."""
    return resamples[:, np.isfinite(resamples).all(axis=0)]
