"""Scores of a ranking: areas under the ROC and the precision-recall curve, tag by tag.

Conventions: H heads, N tracks, C tags, R resamples, P positives of a tag. Counts say how often each
track stands in each resample, see `mirprobe.scoring.metrics`.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


def roc_auc(predicted: Tensor, target: Tensor, counts: Tensor) -> Tensor:
    """Area under the ROC curve, mean over tags; ties count half.

    A tag without positives or without negatives has no area and is left out of the mean
    (torchmetrics counts it as 0).

    >>> scores = torch.tensor([[[0.1], [0.4], [0.35], [0.8]]])  # one head, four tracks, one tag
    >>> roc_auc(scores, torch.tensor([[0.0], [0], [1], [1]]), torch.ones(1, 4))
    tensor([[0.7500]])
    """
    return _mean_over_tags(predicted, target, counts, _area)


def average_precision(predicted: Tensor, target: Tensor, counts: Tensor) -> Tensor:
    """Average precision (no interpolation), mean over tags; a tag without positives is left out.

    >>> scores = torch.tensor([[[0.1], [0.4], [0.35], [0.8]]])
    >>> average_precision(scores, torch.tensor([[0.0], [0], [1], [1]]), torch.ones(1, 4))
    tensor([[0.8333]])
    """
    return _mean_over_tags(predicted, target, counts, _precision)


@dataclass(frozen=True)
class _Ranking:
    """Places of the positives of one head and tag, highest score first.

    Attributes:
        positive: (P, R) counts of the positives.
        above: (P, R) how many tracks stand strictly above a positive, `found` how many of these are
            positive.
        level: (P, R) the same down to and with what is tied with it, `found_level` the positives.
        total: (R,) number of all tracks.
    """

    positive: Tensor
    above: Tensor
    found: Tensor
    level: Tensor
    found_level: Tensor
    total: Tensor


def _mean_over_tags(
    predicted: Tensor, target: Tensor, counts: Tensor, score: Callable[[_Ranking], Tensor]
) -> Tensor:
    """(H, R) mean over tags of a score of the ranking; NaN of a tag is left out."""
    by_track = counts.double().T.contiguous()  # (N, R)
    positives = [truth.nonzero()[:, 0] for truth in target.T]

    shape = (len(predicted), target.shape[1], len(counts))
    scores = torch.full(shape, torch.nan, dtype=torch.float64, device=counts.device)
    for h, head in enumerate(predicted):
        negated = -head  # torch.searchsorted wants rising values, a ranking starts at the highest
        order = torch.argsort(negated, dim=0)
        for tag, members in enumerate(positives):
            if len(members):
                ranking = _rank(negated[:, tag], order[:, tag], members, by_track)
                scores[h, tag] = score(ranking)
    return scores.nanmean(dim=1).float()


def _rank(negated: Tensor, order: Tensor, positives: Tensor, by_track: Tensor) -> _Ranking:
    """The ranking of one head and tag; only the positives are looked up, which are few.

    Args:
        negated: (N,) negated scores.
        order: (N,) tracks by rising `negated`.
        positives: (P,) tracks that have the tag.
        by_track: (N, R) counts.
    """
    values = negated[order]
    wanted, places = torch.sort(negated[positives])
    positive = by_track[positives[places]]

    # Sums from the top, of all tracks and of the positives: at the first place of a value they hold
    # what stands above it, after its last place also what is tied with it.
    n_all, n_positive = _sums_from_top(by_track[order]), _sums_from_top(positive)
    return _Ranking(
        positive,
        above=n_all[torch.searchsorted(values, wanted)],
        found=n_positive[torch.searchsorted(wanted, wanted)],
        level=n_all[torch.searchsorted(values, wanted, right=True)],
        found_level=n_positive[torch.searchsorted(wanted, wanted, right=True)],
        total=n_all[-1],
    )


def _sums_from_top(counts: Tensor) -> Tensor:
    """(n, R) -> (n + 1, R): sums of the first 0, 1, .. n rows."""
    return torch.cat([torch.zeros_like(counts[:1]), counts.cumsum(dim=0)])


def _area(ranking: _Ranking) -> Tensor:
    """(R,) share of pairs in which the positive stands higher, ties half.

    NaN without positives or negatives.
    """
    n_positive = ranking.positive.sum(dim=0)
    n_negative = ranking.total - n_positive

    negative_above = ranking.above - ranking.found
    negative_level = ranking.level - ranking.found_level
    below = n_negative - (negative_above + negative_level) / 2
    return (ranking.positive * below).sum(dim=0) / (n_positive * n_negative)


def _precision(ranking: _Ranking) -> Tensor:
    """(R,) precision at each positive's value, mean over positives; NaN without positives."""
    # A resample may hold nothing down to here: 0 / tiny is 0, as its positives count 0 times too.
    precision = ranking.found_level / ranking.level.clamp(min=1e-12)
    return (ranking.positive * precision).sum(dim=0) / ranking.positive.sum(dim=0)
