"""Uncertainty of a score: how far it would move with other tracks.

Conventions: the unit that is resampled is the track. Intervals are percentile intervals at 95 %,
from 1000 resamples of the tracks of the split; they say nothing about other seeds or other training
sets. A resample is a count per track: how often it was drawn.
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
        score: (H, N, ...) predictions, (N, ...) targets, (R, N) counts -> (H, R).
        predicted: (H, N, ...).
        target: (N, ...).
        seed: of the resamples; the same tracks are drawn for every head.

    Returns:
        Two (H,) tensors.
    """
    counts = draw_counts(len(target), seed)
    chunks = [score(predicted, target, chunk) for chunk in torch.split(counts, _CHUNK)]
    scores = torch.cat(chunks, dim=1).double()

    # A resample may hold no track that a score is defined on: it has no score, and is left out.
    tail = (1 - LEVEL) / 2
    ends = torch.tensor([tail, 1 - tail], dtype=torch.float64)
    low, high = torch.nanquantile(scores, ends, dim=1).float()
    return low, high


def draw_counts(n_tracks: int, seed: int) -> Tensor:
    """(R, N) float64: how often each track was drawn, with replacement, in each of R resamples."""
    generator = torch.Generator().manual_seed(seed)
    draws = torch.randint(n_tracks, (N_RESAMPLES, n_tracks), generator=generator)

    once = torch.ones(draws.shape, dtype=torch.float64)
    return torch.zeros_like(once).scatter_add_(1, draws, once)
