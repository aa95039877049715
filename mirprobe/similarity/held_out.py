"""Canonical correlations on tracks that the directions were not fitted to.

Conventions: those of cca.py. Plug-in values are too high, held-out ones too low: together they
bracket the truth. A held-out correlation may be negative and is left so.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mirprobe.similarity.cca import Whitened


@dataclass(frozen=True)
class HeldOut:
    """Means over folds.

    Attributes:
        pwcca: weights from the held-out frames of the first view.
        mean_cca: plain mean of the correlations.
    """

    pwcca: float
    mean_cca: float


@dataclass(frozen=True)
class FoldView:
    """A fold of one view in the whitened coordinates of all folds, r of them.

    Attributes:
        scatter: (r, r) of the fold, about its own mean.
        loadings: (r, D) inner products of the coordinates with the neurons, in the fold.
        offset: (r,) of the fold's mean from that of the other folds, times the root of the weight
            with which it counts in the scatter of all.
        factor: (r, r) lower Cholesky factor of the scatter of the other folds about their mean.
    """

    scatter: Tensor
    loadings: Tensor
    offset: Tensor
    factor: Tensor


def fold_view(whole: Whitened, scatter: Tensor, offset: Tensor, n: int, n_all: int) -> FoldView:
    """A fold of a view.

    Args:
        whole: the view over all folds.
        scatter: (D, D) of the fold, about its own mean.
        offset: (D,) of the fold's mean from the mean over all folds.
        n: frames of the fold.
        n_all: frames of all folds.
    """
    loadings = whole.basis.T @ scatter
    own = loadings @ whole.basis
    own = (own + own.T) / 2

    # All folds together have unit scatter here. It is that of the fold, that of the others, and
    # that of their two means, which lie on a line: the weights of Chan's merge.
    apart = whole.basis.T @ offset * math.sqrt(n * n_all / (n_all - n))
    others = torch.eye(len(own), dtype=own.dtype) - own - apart[:, None] * apart
    return FoldView(own, loadings, apart, _factor(others))


def _factor(scatter: Tensor) -> Tensor:
    """Lower Cholesky factor; a direction that is not there counts as a very short one."""
    factor: Tensor
    factor, failed = torch.linalg.cholesky_ex(scatter)
    if not failed:
        return factor
    values, vectors = torch.linalg.eigh(scatter)
    shortest = len(values) * 8 * torch.finfo(values.dtype).eps
    factor = torch.linalg.cholesky(vectors * values.clamp(min=shortest) @ vectors.T)
    return factor


def held_out(
    x: Sequence[FoldView], y: Sequence[FoldView], xy: Sequence[Tensor], total: Tensor
) -> HeldOut:
    """Held-out correlations, mean over folds.

    Args:
        x: folds of the first view.
        y: folds of the second.
        xy: (rx, ry) scatter of both in each fold about its means, in their coordinates.
        total: (rx, ry) of all folds.
    """
    found = []
    for of_x, of_y, held in zip(x, y, xy, strict=True):
        fitted = total - held - of_x.offset[:, None] * of_y.offset
        found.append(_of_fold(of_x, of_y, fitted, held))

    of_pwcca, of_mean = zip(*found, strict=True)
    return HeldOut(sum(of_pwcca) / len(found), sum(of_mean) / len(found))


def _of_fold(x: FoldView, y: FoldView, fitted: Tensor, held: Tensor) -> tuple[float, float]:
    """PWCCA and mean CCA of one fold, by directions of the others."""
    product = torch.linalg.solve_triangular(x.factor, fitted, upper=False)
    product = torch.linalg.solve_triangular(y.factor, product.T, upper=False).T
    # Only directions matter below, not their lengths.
    if len(product) <= product.shape[1]:
        _, u = torch.linalg.eigh(product @ product.T)
        v = product.T @ u
    else:
        _, v = torch.linalg.eigh(product.T @ product)
        u = product @ v

    a = torch.linalg.solve_triangular(x.factor.T, u, upper=True)
    b = torch.linalg.solve_triangular(y.factor.T, v, upper=True)
    power_x = ((x.scatter @ a) * a).sum(dim=0).clamp(min=0)
    power_y = ((y.scatter @ b) * b).sum(dim=0).clamp(min=0)
    both = (power_x * power_y).sqrt()
    correlation = torch.where(both > 0, ((held.T @ a) * b).sum(dim=0) / both, 0.0)

    projections = (x.loadings.T @ a).abs().sum(dim=0)
    weights = torch.where(power_x > 0, projections / power_x.sqrt(), 0.0)
    return float(weights @ correlation / weights.sum()), float(correlation.mean())
