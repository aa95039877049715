"""Similarity of two views without canonical pairs, and measures of one view alone.

Conventions: those of two_views.py; functions take scatter matrices about the mean, of which no
measure depends on the factor. Nothing here needs a label.
"""

import math

import torch
from torch import Tensor

from mirprobe.similarity.clip_sums import Raw, SquareSums
from mirprobe.similarity.two_views import TwoViews


def linear_cka(views: TwoViews) -> float:
    """Centred kernel alignment with linear kernels (Kornblith et al. 2019, arXiv 1905.00414)."""
    own = views.xx.norm() * views.yy.norm()
    return float(views.xy.square().sum() / own) if own > 0 else math.nan


def debiased_cka(
    n: int,
    pair: tuple[Raw, SquareSums],
    x: tuple[Raw, SquareSums],
    y: tuple[Raw, SquareSums],
) -> float:
    """Linear CKA by the unbiased estimate of HSIC; near 0 for unrelated views, maybe below.

    Song et al. 2012 (JMLR 13:1393), in one pass over frames; the sums may be about any origin.

    Args:
        n: frames; at least 4.
        pair: sums of both views.
        x: sums of the first with itself.
        y: sums of the second with itself.
    """
    power_x, power_y = float(x[0].xy.trace()), float(y[0].xy.trace())
    own_x = _hsic(n, *x, power_x, power_x)
    own_y = _hsic(n, *y, power_y, power_y)
    if own_x <= 0 or own_y <= 0:
        return math.nan
    return _hsic(n, *pair, power_x, power_y) / math.sqrt(own_x * own_y)


def _hsic(n: int, raw: Raw, squares: SquareSums, power_x: float, power_y: float) -> float:
    """Unbiased HSIC with linear kernels; `power` is the sum of squared lengths of a view."""
    of_x, of_y = squares.x.cpu(), squares.y.cpu()
    diagonal = squares.xy.cpu()
    products = raw.xy.square().sum() - diagonal
    kernel_x = raw.x @ raw.x - power_x
    kernel_y = raw.y @ raw.y - power_y
    rows = raw.x @ raw.xy @ raw.y - raw.x @ of_x - raw.y @ of_y + diagonal

    total = products + kernel_x * kernel_y / ((n - 1) * (n - 2)) - 2 * rows / (n - 2)
    return float(total / (n * (n - 3)))


def procrustes(views: TwoViews) -> float:
    """Similarity of shapes after the best rotation, in [0, 1] (Ding et al. 2021, arXiv 2108.01661).

    The distance sqrt(2 - 2 p) of this p is a metric.
    """
    own = (views.xx.trace() * views.yy.trace()).sqrt()
    return float(torch.linalg.svdvals(views.xy).sum() / own) if own > 0 else math.nan


def svcca(views: TwoViews, share: float = 0.99) -> tuple[float, tuple[int, int]]:
    """Mean correlation of the leading principal components (Raghu et al. 2017, arXiv 1706.05806).

    Args:
        views: moments of both.
        share: of each view's variance that its components hold.

    Returns:
        The mean, and how many components were kept of each view.
    """
    x, y = (leading(*components(scatter), share) for scatter in (views.xx, views.yy))
    return mean_correlation(x, y, views.xy), (x.shape[1], y.shape[1])


def mean_correlation(x: Tensor, y: Tensor, xy: Tensor) -> float:
    """Mean canonical correlation of leading components, (Dx, r) and (Dy, s), of two views."""
    return float(torch.linalg.svdvals(x.T @ xy @ y).clamp(0, 1).mean())


def components(scatter: Tensor) -> tuple[Tensor, Tensor]:
    """(D,) eigenvalues, largest first, and (D, D) eigenvectors in columns."""
    values, vectors = torch.linalg.eigh(scatter)
    return values.flip(0).clamp(min=0), vectors.flip(1)


def leading(values: Tensor, vectors: Tensor, share: float = 0.99) -> Tensor:
    """(D, r) eigenvectors that hold a share of the variance, over the root of their eigenvalues."""

    held = values.cumsum(0) / values.sum()
    # Rounding must not add a component where the first ones hold exactly this share.
    n_kept = int((held < share - 1e-12).sum()) + 1
    kept: Tensor = vectors[:, :n_kept] / values[:n_kept].sqrt()
    return kept


# -- one view ----------------------------------------------------------------------------------


def spectrum(scatter: Tensor) -> Tensor:
    """(D,) shares of the variance along the principal components, largest first."""
    values: Tensor = torch.linalg.eigvalsh(scatter).flip(0).clamp(min=0)
    return values / values.sum()


def entropy(shares: Tensor) -> float:
    """Entropy of a spectrum, in nats: the matrix entropy of a view."""
    held = shares[shares > 0]
    return float(-(held * held.log()).sum())


def effective_rank(shares: Tensor) -> float:
    """Exponential of the entropy of a spectrum (Roy and Vetterli 2007).

    >>> round(effective_rank(torch.tensor([0.25, 0.25, 0.25, 0.25])), 6)
    4.0
    """
    return math.exp(entropy(shares))


def participation_ratio(shares: Tensor) -> float:
    """One over the sum of squared shares: how many equal components would be as spread out."""
    return float(1 / shares.square().sum())


def top_share(shares: Tensor) -> float:
    """Share of the variance along the first component: anisotropy by variance."""
    return float(shares[0])


def isotropy(shares: Tensor) -> float:
    """Entropy of a spectrum over that of an even one: 1 where all directions are used alike."""
    return entropy(shares) / math.log(len(shares)) if len(shares) > 1 else 1.0


def mean_cosine(directions: Tensor, n: int) -> float:
    """Mean cosine between two different frames: anisotropy as usually reported.

    Args:
        directions: (D,) sum of the frames, each of length 1.
        n: frames; at least 2.
    """
    return float((directions @ directions - n) / (n * (n - 1)))
