"""Scores of a ranking: areas under the ROC and the precision-recall curve, tag by tag."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


def roc_auc(predicted: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """Area under the ROC curve, mean over tags; ties count half.

    A tag without positives or without negatives has no area and is left out of the mean
    (torchmetrics counts it as 0).

    >>> roc_auc(torch.tensor([[[0.1], [0.4], [0.35], [0.8]]]), torch.tensor([[0.0], [0], [1], [1]]), torch.ones(1, 4))
    tensor([[0.7500]])
    """
    return _per_tag(predicted, target, weights, _auc)


def average_precision(predicted: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """Average precision (no interpolation), mean over tags; a tag without positives is left out.

    >>> average_precision(torch.tensor([[[0.1], [0.4], [0.35], [0.8]]]), torch.tensor([[0.0], [0], [1], [1]]), torch.ones(1, 4))
    tensor([[0.8333]])
    """
    return _per_tag(predicted, target, weights, _precision)


@dataclass(frozen=True)
class _Ranking:
    """Of one head and tag, R weightings: what stands where among the P positives, highest score
    first.

    Attributes:
        positive: (P, R) weights of the positives.
        above: (P, R) weight of everything that stands strictly above a positive, `found` the share
            of it that is positive.
        level: (P, R) the same down to and with what is tied with it, `found_level` the positive
            share.
        total: (R,) weight of all tracks.
    """

    positive: Tensor
    above: Tensor
    found: Tensor
    level: Tensor
    found_level: Tensor
    total: Tensor


def _per_tag(
    predicted: Tensor, target: Tensor, weights: Tensor, score: Callable[[_Ranking], Tensor]
) -> Tensor:
    """Mean over tags of a score of the ranking; only the positives are looked at, which are few,
    after one sum over all.
    """
    by_track = weights.double().T.contiguous()  # (N, R)
    total = by_track.sum(dim=0)
    positives = [truth.nonzero()[:, 0] for truth in target.T]
    scores = torch.full(
        (len(predicted), target.shape[1], len(weights)),
        torch.nan,
        dtype=torch.float64,
        device=weights.device,
    )
    for h, head in enumerate(predicted):
        values, order = torch.sort(-head, dim=0)
        for tag, rows in enumerate(positives):
            if len(rows):
                sums = _sums(by_track[order[:, tag]])
                wanted, places = torch.sort(-head[rows, tag])
                positive = by_track[rows[places]]
                found, column = _sums(positive), values[:, tag].contiguous()
                scores[h, tag] = score(
                    _Ranking(
                        positive,
                        above=sums[torch.searchsorted(column, wanted)],
                        found=found[torch.searchsorted(wanted, wanted)],
                        level=sums[torch.searchsorted(column, wanted, right=True)],
                        found_level=found[torch.searchsorted(wanted, wanted, right=True)],
                        total=total,
                    )
                )
    return scores.nanmean(dim=1).float()


def _sums(weights: Tensor) -> Tensor:
    """(n, R) -> (n + 1, R): sums of the first 0, 1, .. n rows."""
    return torch.cat([torch.zeros_like(weights[:1]), weights.cumsum(dim=0)])


def _auc(ranking: _Ranking) -> Tensor:
    """(R,) share of pairs in which the positive stands higher, ties half; NaN without positives or
    negatives.
    """
    n_positive = ranking.positive.sum(dim=0)
    n_negative = ranking.total - n_positive
    negative_above = ranking.above - ranking.found
    negative_level = ranking.level - ranking.found_level
    below = n_negative - (negative_above + negative_level) / 2
    return (ranking.positive * below).sum(dim=0) / (n_positive * n_negative)


def _precision(ranking: _Ranking) -> Tensor:
    """(R,) precision at each positive's value, mean over positives; NaN without positives."""
    precision = ranking.found_level / ranking.level.clamp(min=1e-12)
    return (ranking.positive * precision).sum(dim=0) / ranking.positive.sum(dim=0)
