"""Layers that the Conformer and FCPE share, in the form that is fastest on a CPU.

Conventions: T frames, D features. Weights are held as `nn.Linear` and `nn.Conv2d` hold them; what
they compute is what `nn.Conv1d` computes, up to sums in another order.
"""

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EPS = 1e-5  # of every BatchNorm and LayerNorm
ONEDNN: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]


class Linear(nn.Linear):
    """`nn.Linear`, followed by SiLU if asked for; in float32 on a CPU both are one oneDNN call."""

    def __init__(self, n_in: int, n_out: int, *, bias: bool = True, silu: bool = False) -> None:
        super().__init__(n_in, n_out, bias)
        self.silu = silu

    def forward(self, x: Tensor) -> Tensor:
        """(..., n_in) -> (..., n_out)."""
        if ONEDNN and x.is_cpu and x.dtype == torch.float32 and not torch.compiler.is_compiling():
            # F.linear goes to MKL, which reaches 90 GFLOP/s on a core of an AMD EPYC where oneDNN
            # reaches 215. Inductor cannot compile this call with weights that are not packed.
            activation = "swish" if self.silu else "none"
            onednn = torch.ops.mkldnn._linear_pointwise
            return cast(Tensor, onednn(x, self.weight, self.bias, activation, [], ""))

        y = F.linear(x, self.weight, self.bias)
        return F.silu(y, inplace=True) if self.silu else y


class Convolution(nn.Module):
    """LayerNorm, gated pointwise, depthwise over time, SiLU, pointwise.

    Args:
        dim: D.
        inner: width between the pointwise convolutions.
        kernel: frames that the depthwise convolution spans, an odd number.
        bias: of the pointwise convolutions; the depthwise one has its own in any case, into which a
            BatchNorm after it can be folded.
    """

    def __init__(self, dim: int, inner: int, kernel: int, *, bias: bool) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim, EPS)
        self.expand = Linear(dim, 2 * inner, bias=bias)
        # A conv2d, since (B, T, inner) is a channels_last map one row high: no transposition, and
        # 30 times conv1d's speed.
        self.depthwise = nn.Conv2d(
            inner, inner, (1, kernel), padding=(0, kernel // 2), groups=inner
        )
        self.reduce = Linear(inner, dim, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        gated = F.glu(self.expand(self.norm(x)), dim=-1)

        as_map = gated.unsqueeze(1).permute(0, 3, 1, 2)  # (B, inner, 1, T)
        mixed = F.silu(self.depthwise(as_map), inplace=True)
        return cast(Tensor, self.reduce(mixed.permute(0, 2, 3, 1).squeeze(1)))
