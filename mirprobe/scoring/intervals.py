"""Uncertainty of a score: how far it would move with other tracks.

Conventions: the unit that is resampled is the track. Intervals are percentile intervals at 95 %,
from 1000 resamples of the tracks of the split; they say nothing about other seeds or other training
sets. A resample is a count per track: how often it was drawn. A resample on which a metric is not
defined (no track with a tag, all targets alike) has no score: it is left out, and counted.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

N_RESAMPLES = 1000
LEVEL = 0.95
MIN_SHARE = 0.9  # of the resamples: where fewer have a score, the others would be another interval
ROUNDING = 1e-6  # of a score in float32, by which it may lie beside its own resamples
_CHUNK = 100  # resamples scored at once: bounds memory to 100 x tracks


@dataclass(frozen=True)
class Interval:
    """Uncertainty of one score.

    Attributes:
        low: lower end; None where there is no interval.
        high: upper end.
        n_left_out: resamples that have no score, and that it leaves out.
        problem: why there is no interval; None where there is one.
    """

    low: float | None
    high: float | None
    n_left_out: int
    problem: str | None = None


def bootstrap(
    score: Callable[[Tensor, Tensor, Tensor], Tensor],
    predicted: Tensor,
    target: Tensor,
    *,
    seed: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Lower and upper end of the percentile interval of every head's score.

    Args:
        score: (H, N, ...) predictions, (N, ...) targets, (R, N) counts -> (H, R).
        predicted: (H, N, ...).
        target: (N, ...).
        seed: of the resamples; the same tracks are drawn for every head.

    Returns:
        Two (H,) tensors, NaN where no resample has a score, and (H,) how many have one.
    """
    counts = draw_counts(len(target), seed)
    chunks = [score(predicted, target, chunk) for chunk in torch.split(counts, _CHUNK)]
    scores = torch.cat(chunks, dim=1).double()

    # R2 of tracks that are all alike is minus infinity: no score either.
    is_score = scores.isfinite()
    scores = torch.where(is_score, scores, torch.nan)

    tail = (1 - LEVEL) / 2
    ends = torch.tensor([tail, 1 - tail], dtype=torch.float64)
    low, high = torch.nanquantile(scores, ends, dim=1).float()
    return low, high, is_score.sum(dim=1)


def interval_of(value: float, low: float, high: float, n_scored: int) -> Interval:
    """The interval of a score from what `bootstrap` found, or why there is none.

    A percentile interval need not hold the score: average precision rises where tracks are drawn
    twice. One that does not is none.

    >>> interval_of(0.5, 0.4, 0.6, 990)
    Interval(low=0.4, high=0.6, n_left_out=10, problem=None)
    >>> interval_of(0.5, 0.4, 0.6, 899).problem
    'a score in 899 of 1000 resamples only'
    """
    n_left_out = N_RESAMPLES - n_scored
    problem = None
    if n_scored < MIN_SHARE * N_RESAMPLES:
        problem = f"a score in {n_scored} of {N_RESAMPLES} resamples only"
    elif not low - ROUNDING <= value <= high + ROUNDING:
        problem = f"95 % of the resamples score from {low:.3g} to {high:.3g}, all beside the score"
    if problem is not None:
        return Interval(None, None, n_left_out, problem)
    return Interval(min(low, value), max(high, value), n_left_out)


def draw_counts(n_tracks: int, seed: int) -> Tensor:
    """(R, N) float64: how often each track was drawn, with replacement, in each of R resamples."""
    generator = torch.Generator().manual_seed(seed)
    draws = torch.randint(n_tracks, (N_RESAMPLES, n_tracks), generator=generator)

    once = torch.ones(draws.shape, dtype=torch.float64)
    return torch.zeros_like(once).scatter_add_(1, draws, once)
