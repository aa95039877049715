"""Canonical correlations and their means: mean CCA, PWCCA and what can be had beside them.

Conventions: X is the input view and Y the other, each with n frames; rho are the canonical
correlations, largest first, k of them; h_i is the i-th canonical variate of a view, of unit length.

PWCCA is defined as by Morcos et al. 2018 (arXiv 1806.05759): a weighted mean of rho, the weight of
pair i being the sum over neurons j of |<h_i, x_j>|, neurons centred and not scaled. The inner
product of a canonical variate and a neuron is a covariance, so that no frames are needed. The code
published beside that paper computes something else (it does not whiten, and it does not centre the
neurons), and fails on a LayerNorm's output, whose rank is one below its width.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from datamodules.errors import UserError

Side = Literal["x", "y", "mean"]
Power = Literal["absolute", "squared"]

_EPS = torch.finfo(torch.float64).eps


@dataclass(frozen=True)
class Whitened:
    """A view in coordinates of unit scatter without correlation, r of them.

    Attributes:
        basis: (D, r): centred frames times this are the coordinates.
        loadings: (r, D): inner products of the coordinates with the neurons.
        scale: (D,) length of each centred neuron; 0 for a dead one.
    """

    basis: Tensor
    loadings: Tensor
    scale: Tensor

    @property
    def rank(self) -> int:
        """Number of directions that are there."""
        return self.basis.shape[1]


@dataclass(frozen=True)
class CanonicalPairs:
    """What canonical correlation analysis finds in two views.

    Attributes:
        n: frames.
        rank_x: of the first view.
        rank_y: of the second.
        rho: (k,) canonical correlations in [0, 1], largest first; k is the smaller rank.
        loadings_x: (k, Dx) inner products of X's canonical variates with X's centred neurons.
        loadings_y: (k, Dy) likewise of Y.
        scale_x: (Dx,) length of each of X's centred neurons; 0 for a dead one.
        scale_y: (Dy,) likewise of Y.
    """

    n: int
    rank_x: int
    rank_y: int
    rho: Tensor
    loadings_x: Tensor
    loadings_y: Tensor
    scale_x: Tensor
    scale_y: Tensor


def whiten(scatter: Tensor, mean: Tensor, n: int) -> Whitened:
    """The coordinates of a view in which its scatter is the identity.

    Columns are scaled to unit variance before the eigenvectors are taken, since a scatter of raw
    columns loses those that are a million times smaller than others. Directions below D 8 eps of
    the largest eigenvalue are rounding and are dropped.

    Args:
        scatter: (D, D) about the mean.
        mean: (D,), which tells a constant neuron with rounding from one that moves.
        n: frames.
    """
    power = scatter.diagonal().clamp(min=0)
    # Sums of n equal numbers end some roundings beside n times the number.
    is_alive = power > n * (64 * _EPS * mean) ** 2
    scale = torch.where(is_alive, power.sqrt(), 0.0)
    inverse = torch.where(is_alive, 1 / power.sqrt(), 0.0)

    correlation = scatter * inverse[:, None] * inverse
    values, vectors = torch.linalg.eigh((correlation + correlation.T) / 2)
    kept = values > len(values) * 8 * _EPS * values[-1].clamp(min=_EPS)
    roots, vectors = values[kept].sqrt(), vectors[:, kept]
    return Whitened(inverse[:, None] * vectors / roots, (roots[:, None] * vectors.T) * scale, scale)


def canonical_pairs(n: int, x: Whitened, y: Whitened, xy: Tensor) -> CanonicalPairs:
    """Canonical correlations of two views.

    Args:
        n: frames.
        x: first view.
        y: second view.
        xy: (Dx, Dy) scatter of the first with the second.
    """
    product = x.basis.T @ xy @ y.basis
    if x.rank <= y.rank:
        u, rho, v = _singular(product)
    else:
        v, rho, u = _singular(product.T)
    return CanonicalPairs(
        n,
        x.rank,
        y.rank,
        rho.clamp(0, 1),
        u.T @ x.loadings,
        v.T @ y.loadings,
        x.scale,
        y.scale,
    )


def _singular(product: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Singular vectors and values of a (k, m) matrix with k <= m: (k, k), (k,), (m, k).

    By the eigenvectors of the (k, k) product with itself, which takes a fifth of the time. Values
    are taken as lengths of the projected rows and not as roots of eigenvalues, so that the small
    ones are as good as the large ones.
    """
    _, u = torch.linalg.eigh(product @ product.T)
    u = u.flip(1)

    # Columns from long to short: each is made orthogonal to those that are better determined.
    v, upper = torch.linalg.qr(product.T @ u)
    values = upper.diagonal()
    return u, values.abs(), v * torch.where(values < 0, -1.0, 1.0)


def check_frames(pairs: CanonicalPairs) -> CanonicalPairs:
    """The same pairs, if there are frames enough to say anything.

    Raises:
        UserError: with n - 1 below the sum of both ranks some correlations are 1 whatever the data.
    """
    needed = pairs.rank_x + pairs.rank_y
    if pairs.n - 1 < needed:
        raise UserError(
            f"{pairs.n} frames are too few for views of rank {pairs.rank_x} and {pairs.rank_y}: "
            f"{needed - pairs.n + 1} correlations would be 1 whatever the data. Take more "
            f"tracks (similarity.n_tracks), for at least {needed + 1} frames; 20 times that is good"
        )
    return pairs


def mean_cca(pairs: CanonicalPairs) -> float:
    """Mean of the canonical correlations."""
    return float(pairs.rho.mean())


def mean_squared_cca(pairs: CanonicalPairs) -> float:
    """Mean of the squared canonical correlations; max(Dx, Dy) / (n - 1) for independent views."""
    return float(pairs.rho.square().mean())


def weights_of(
    pairs: CanonicalPairs,
    side: Literal["x", "y"] = "x",
    *,
    power: Power = "absolute",
    standardized: bool = False,
) -> Tensor:
    """(k,) weights of the canonical pairs, of sum 1.

    Args:
        pairs: canonical pairs.
        side: the view whose neurons say what counts.
        power: `absolute` sums |<h, x>| as defined, `squared` sums its square, which depends neither
            on a rotation of the neurons nor on the choice among equal correlations.
        standardized: weighs neurons of unit variance in place of raw ones.
    """
    loadings = pairs.loadings_x if side == "x" else pairs.loadings_y
    if standardized:
        scale = pairs.scale_x if side == "x" else pairs.scale_y
        loadings = torch.where(scale > 0, loadings / scale, 0.0)
    alpha = (loadings.abs() if power == "absolute" else loadings.square()).sum(dim=1)
    return alpha / alpha.sum()


def pwcca(
    pairs: CanonicalPairs,
    side: Side = "x",
    *,
    power: Power = "absolute",
    standardized: bool = False,
) -> float:
    """Projection-weighted mean of the canonical correlations.

    Args:
        pairs: canonical pairs.
        side: the view the weights are of; `mean` for the mean of both answers.
        power: see `weights_of`.
        standardized: likewise.
    """
    sides: tuple[Literal["x", "y"], ...] = ("x", "y") if side == "mean" else (side,)
    values = [
        float(weights_of(pairs, one, power=power, standardized=standardized) @ pairs.rho)
        for one in sides
    ]
    return sum(values) / len(values)


def explained(pairs: CanonicalPairs, side: Literal["x", "y"] = "x") -> float:
    """R2: the share of a view's variance that a linear map of the other view gives.

    It is PWCCA with squared weights and squared correlations (Kornblith et al. 2019, arXiv
    1905.00414).

    Args:
        pairs: canonical pairs.
        side: the view that is explained.
    """
    loadings, scale = (
        (pairs.loadings_x, pairs.scale_x) if side == "x" else (pairs.loadings_y, pairs.scale_y)
    )
    return float(loadings.square().sum(dim=1) @ pairs.rho.square() / scale.square().sum())


def effective_frames(unrelated: CanonicalPairs, dim: int) -> float:
    """How many independent frames would give unrelated views the correlations that they have.

    Of n independent frames the mean squared correlation is max(Dx, Dy) / (n - 1). Frames that
    follow each other are alike, and those of a track have its timbre: they count less.

    Args:
        unrelated: the null of two views.
        dim: the larger of their ranks.
    """
    return 1 + dim / max(mean_squared_cca(unrelated), _EPS)
