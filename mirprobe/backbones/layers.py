"""Layers that backbones share, in the form that is fastest on a CPU.

Conventions: T frames, D features. Weights are held as `nn.Linear` and `nn.Conv2d` hold them; what
they compute is what `nn.Conv1d` computes, up to sums in another order. GELU is the exact one, of
the error function.
"""

from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Activation = Literal["none", "silu", "gelu"]
Rotation = tuple[Tensor, Tensor]  # (cos, sin) of each frame's angles, each (T, 1, d/2)

EPS = 1e-5  # of every BatchNorm and LayerNorm that has no other
ROTARY_BASE = 10_000.0
ONEDNN: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
# What oneDNN calls an activation and its form.
ONEDNN_NAMES = {"none": ("none", ""), "silu": ("swish", ""), "gelu": ("gelu", "none")}


class Linear(nn.Linear):
    """`nn.Linear` and an activation; in float32 on a CPU both are one oneDNN call."""

    def __init__(
        self, n_in: int, n_out: int, *, bias: bool = True, activation: Activation = "none"
    ) -> None:
        super().__init__(n_in, n_out, bias)
        self.activation: Activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """(..., n_in) -> (..., n_out)."""
        if ONEDNN and x.is_cpu and x.dtype == torch.float32 and not torch.compiler.is_compiling():
            # F.linear goes to MKL, which reaches 90 GFLOP/s on a core of an AMD EPYC where oneDNN
            # reaches 215. Inductor cannot compile this call with weights that are not packed.
            name, form = ONEDNN_NAMES[self.activation]
            onednn = torch.ops.mkldnn._linear_pointwise
            return cast(Tensor, onednn(x, self.weight, self.bias, name, [], form))

        return activate(F.linear(x, self.weight, self.bias), self.activation)


def activate(x: Tensor, activation: Activation) -> Tensor:
    """SiLU (in place), exact GELU, or nothing."""
    if activation == "silu":
        return F.silu(x, inplace=True)
    return F.gelu(x) if activation == "gelu" else x


class FeedForward(nn.Module):
    """LayerNorm, linear, activation, linear; the factor of its residual is in the weights.

    Args:
        dim: D.
        inner: width between the linear layers.
        activation: after the first of them.
        eps: of the LayerNorm.
    """

    def __init__(
        self, dim: int, inner: int, *, activation: Activation = "silu", eps: float = EPS
    ) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim, eps)
        self.inner = Linear(dim, inner, activation=activation)
        self.outer = Linear(inner, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        return cast(Tensor, self.outer(self.inner(self.norm(x))))


def inverse_frequencies(head_dim: int) -> Tensor:
    """Angles of a rotary position per frame, (head_dim / 2,): 10000^(-2i / head_dim)."""
    return 1.0 / ROTARY_BASE ** (torch.arange(0, head_dim, 2) / head_dim)


def rotation_of(x: Tensor, frequencies: Tensor) -> Rotation:
    """Cosine and sine of the angles of the frames of x: (B, T, D), (d/2,) -> two of (T, 1, d/2)."""
    frames = torch.arange(x.shape[1], device=x.device)
    angles = (frames.unsqueeze(1) * frequencies).unsqueeze(1)
    return angles.cos().to(x.dtype), angles.sin().to(x.dtype)


def rotate(x: Tensor, rotation: Rotation) -> Tensor:
    """Rotates the pairs (i, i + d/2) of each head by the frame's angles: (B, T, heads, d) likewise.

    >>> quarter = (torch.zeros(1, 1, 1), torch.ones(1, 1, 1))
    >>> rotate(torch.tensor([[[[1.0, 2.0]]]]), quarter).flatten()
    tensor([-2.,  1.])
    """
    cos, sin = rotation
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


class SelfAttention(nn.Module):
    """Self-attention over all frames, or over those up to each; no norm of its own.

    Args:
        dim: D.
        n_heads: number of heads, of width d = D / n_heads.
        bias: of queries, keys and values.
        is_causal: whether a frame sees none after it.
    """

    def __init__(
        self, dim: int, n_heads: int, *, bias: bool = True, is_causal: bool = False
    ) -> None:
        super().__init__()
        self.n_heads, self.is_causal = n_heads, is_causal
        self.query_key_value = Linear(dim, 3 * dim, bias=bias)
        self.out = Linear(dim, dim)

    def forward(self, x: Tensor, rotation: Rotation | None = None) -> Tensor:
        """(B, T, D) -> (B, T, D); queries and keys are rotated, if by anything."""
        heads = self.query_key_value(x).view(*x.shape[:2], 3, self.n_heads, -1)
        query, key, value = heads.unbind(2)
        if rotation is not None:
            query, key = rotate(query, rotation), rotate(key, rotation)

        mixed = F.scaled_dot_product_attention(
            query.transpose(1, 2),
            key.transpose(1, 2),
            value.transpose(1, 2),
            is_causal=self.is_causal,
        )
        return cast(Tensor, self.out(mixed.transpose(1, 2).flatten(2)))


class DepthwiseConvolution(nn.Conv2d):
    """Convolution of each feature over time: (B, T, D) -> (B, T, D), zeros around the clip.

    A conv2d, since (B, T, D) is a channels_last map one row high: no transposition, and 30 times
    conv1d's speed.
    """

    def __init__(self, dim: int, kernel: int, *, bias: bool = True) -> None:
        padding = (0, kernel // 2)
        super().__init__(dim, dim, (1, kernel), padding=padding, groups=dim, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        as_map = x.unsqueeze(1).permute(0, 3, 1, 2)  # (B, D, 1, T)
        return super().forward(as_map).permute(0, 2, 3, 1).squeeze(1)


class Convolution(nn.Module):
    """LayerNorm, gated pointwise, depthwise over time, activation, pointwise.

    Args:
        dim: D.
        inner: width between the pointwise convolutions.
        kernel: frames that the depthwise convolution spans, an odd number.
        bias: of the pointwise convolutions.
        activation: after the depthwise one.
        eps: of the first LayerNorm.
        inner_norm: whether there is a LayerNorm before the activation; the depthwise convolution
            then has no bias, else it has one, into which a BatchNorm after it can be folded.
    """

    def __init__(
        self,
        dim: int,
        inner: int,
        kernel: int,
        *,
        bias: bool,
        activation: Activation = "silu",
        eps: float = EPS,
        inner_norm: bool = False,
    ) -> None:
        super().__init__()
        self.activation: Activation = activation
        self.norm = nn.LayerNorm(dim, eps)
        self.expand = Linear(dim, 2 * inner, bias=bias)
        self.depthwise = DepthwiseConvolution(inner, kernel, bias=not inner_norm)
        self.inner_norm = nn.LayerNorm(inner, EPS) if inner_norm else nn.Identity()
        self.reduce = Linear(inner, dim, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        gated = F.glu(self.expand(self.norm(x)), dim=-1)
        mixed = self.inner_norm(self.depthwise(gated))
        return cast(Tensor, self.reduce(activate(mixed, self.activation)))
