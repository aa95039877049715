"""ConvNeXt-v2 stages over time, which make frames of MERT2's log-mel.

Conventions: M frames of the mel or of a stage. Every norm has an epsilon of 1e-6, unlike those of
the Conformer behind. The response normalisation is over time: a frame depends on the whole clip.
"""

from typing import cast

import torch
from torch import Tensor, nn

from mirprobe.backbones.layers import DepthwiseConvolution, Linear

EPS = 1e-6
KERNEL = 7


class Halve(nn.Module):
    """LayerNorm, then each two frames joined into one."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(n_in, EPS)
        self.join = Linear(2 * n_in, n_out)

    def forward(self, x: Tensor) -> Tensor:
        """(B, M, n_in) -> (B, floor(M / 2), n_out): a last frame without a second is dropped."""
        n_pairs = x.shape[1] // 2
        pairs = self.norm(x[:, : 2 * n_pairs]).view(len(x), n_pairs, -1)
        return cast(Tensor, self.join(pairs))


class ConvNeXt(nn.Module):
    """Depthwise convolution, LayerNorm, linear, GELU, response normalisation, linear; added."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.depthwise = DepthwiseConvolution(width, KERNEL)
        self.norm = nn.LayerNorm(width, EPS)
        self.inner = Linear(width, 4 * width, activation="gelu")
        self.response_weight = nn.Parameter(torch.empty(1, 1, 4 * width))
        self.response_bias = nn.Parameter(torch.empty(1, 1, 4 * width))
        self.outer = Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, M, width) -> (B, M, width)."""
        y: Tensor = self.inner(self.norm(self.depthwise(x)))

        # How strong a channel is over the clip, against the others.
        strength = torch.linalg.vector_norm(y, dim=1, keepdim=True)
        relative = strength / (strength.mean(dim=2, keepdim=True) + EPS)
        y = self.response_weight * (y * relative) + self.response_bias + y
        return cast(Tensor, self.outer(y).add_(x))


class Stage(nn.Module):
    """Frames halved, but in the first stage; then ConvNeXt layers."""

    def __init__(self, n_in: int, width: int, depth: int, *, halves: bool) -> None:
        super().__init__()
        self.halve = Halve(n_in, width) if halves else nn.Identity()
        self.layers = nn.Sequential(*[ConvNeXt(width) for _ in range(depth)])

    def forward(self, x: Tensor) -> Tensor:
        """(B, M, n_in) -> (B, M or floor(M / 2), width)."""
        return cast(Tensor, self.layers(self.halve(x)))
