"""The same measures from the frames themselves: a second route, for what fits into memory.

Conventions: X is (n, Dx) and Y is (n, Dy), rows are frames, float64. Views are factorised by
singular values of the centred frames, so that nothing is squared: accurate to 1e-11 where the
largest direction is 1e8 times the smallest, at forty times the cost of moments.
"""

import torch
from torch import Tensor

from mirprobe.similarity.cca import CanonicalPairs

_EPS = torch.finfo(torch.float64).eps


def centre(frames: Tensor) -> Tensor:
    """Frames about their mean, in float64; the second pass removes the rounding of the first."""
    centred = frames.double() - frames.double().mean(dim=0)
    return centred - centred.mean(dim=0)


def canonical_pairs_of(x: Tensor, y: Tensor) -> CanonicalPairs:
    """Canonical pairs of two views, by three singular value decompositions.

    Args:
        x: (n, Dx).
        y: (n, Dy).
    """
    centred_x, centred_y = centre(x), centre(y)
    ux, loadings_x = _factorise(centred_x)
    uy, loadings_y = _factorise(centred_y)
    p, rho, q = torch.linalg.svd(ux.T @ uy, full_matrices=False)
    return CanonicalPairs(
        len(x),
        ux.shape[1],
        uy.shape[1],
        rho.clamp(0, 1),
        p.T @ loadings_x,
        q @ loadings_y,
        centred_x.norm(dim=0),
        centred_y.norm(dim=0),
    )


def _factorise(centred: Tensor) -> tuple[Tensor, Tensor]:
    """(n, r) orthonormal columns and (r, D) whose product is the view."""
    left, values, right = torch.linalg.svd(centred, full_matrices=False)
    kept = values > max(centred.shape) * _EPS * values[0]
    return left[:, kept], values[kept, None] * right[kept]


def spectrum_of(x: Tensor) -> Tensor:
    """(min(n, D),) shares of the variance along the principal components, largest first."""
    values: Tensor = torch.linalg.svdvals(centre(x)).square()
    return values / values.sum()


def linear_cka_of(x: Tensor, y: Tensor) -> float:
    """Linear CKA, by the (n, n) products of frames with frames."""
    kx, ky = (centred @ centred.T for centred in (centre(x), centre(y)))
    return float((kx * ky).sum() / (kx.norm() * ky.norm()))


def debiased_cka_of(x: Tensor, y: Tensor) -> float:
    """Debiased linear CKA, by (n, n) matrices centred as by Song et al. 2012."""
    kx, ky = _u_centred(x.double()), _u_centred(y.double())
    own = (kx.square().sum() * ky.square().sum()).sqrt()
    return float((kx * ky).sum() / own)


def _u_centred(frames: Tensor) -> Tensor:
    """(n, n) products of frames, whose rows sum to 0 and whose diagonal is 0."""
    n = len(frames)
    products = frames @ frames.T
    products.fill_diagonal_(0)

    rows = products.sum(dim=0) / (n - 2)
    centred = products - rows - rows[:, None] + products.sum() / ((n - 1) * (n - 2))
    centred.fill_diagonal_(0)
    return centred


def procrustes_of(x: Tensor, y: Tensor) -> float:
    """Procrustes similarity."""
    centred_x, centred_y = centre(x), centre(y)
    nuclear = torch.linalg.svdvals(centred_x.T @ centred_y).sum()
    return float(nuclear / (centred_x.norm() * centred_y.norm()))


def svcca_of(x: Tensor, y: Tensor, share: float = 0.99) -> tuple[float, tuple[int, int]]:
    """SVCCA, and how many components hold `share` of each view's variance."""
    left = []
    for view in (x, y):
        components, values, _ = torch.linalg.svd(centre(view), full_matrices=False)
        held = values.square().cumsum(0) / values.square().sum()
        left.append(components[:, : int((held < share - 1e-12).sum()) + 1])

    rho = torch.linalg.svdvals(left[0].T @ left[1]).clamp(0, 1)
    return float(rho.mean()), (left[0].shape[1], left[1].shape[1])
