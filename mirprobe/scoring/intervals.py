"""Uncertainty of a score: how far it would move with other tracks.

Conventions: the unit that is resampled is the track. Intervals are percentile intervals at 95 %,
from 1000 resamples of the tracks of the split; they say nothing about other seeds or other training
sets. A resample is a weight per track: how often it was drawn.
"""

from collections.abc import Callable

import torch
from torch import Tensor

N_RESAMPLES = 1000
LEVEL = 0.95
_CHUNK = 100  # resamples scored at once: bounds memory to 100 x tracks


def bootstrap(
    score: Callable[[Tensor, Tensor, Tensor], Tensor],
    predicted: Tensor,
    target: Tensor,
    *,
    seed: int,
) -> tuple[Tensor, Tensor]:
    """Lower and upper end of the interval of every head's score.

    Args:
        score: (H, N, ...) predictions, (N, ...) targets, (R, N) weights -> (H, R).
        predicted: (H, N, ...).
        target: (N, ...).
        seed: of the resamples; the same tracks are drawn for every head.

    Returns:
        Two (H,) tensors.
    """
    generator = torch.Generator().manual_seed(seed)
    draws = torch.randint(len(target), (N_RESAMPLES, len(target)), generator=generator)
    weights = torch.zeros(draws.shape, dtype=torch.float64).scatter_add_(
        1, draws, torch.ones(draws.shape, dtype=torch.float64)
    )
    scores = torch.cat(
        [score(predicted, target, chunk) for chunk in torch.split(weights, _CHUNK)], dim=1
    )
    tail = (1 - LEVEL) / 2
    low, high = torch.nanquantile(
        scores.double(), torch.tensor([tail, 1 - tail], dtype=torch.float64), dim=1
    ).float()
    return low, high
