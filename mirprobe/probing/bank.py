"""The bank: every probe of a backbone, trained together as stacked tensors.

Conventions: the head axis H is the first axis of every parameter and of every output. A head is a
multilayer perceptron (linear, ReLU, dropout, linear) on the state of one layer, or on the
softmax-weighted sum of layers 1..L (paper eq. 3 and 4). Heads share nothing: each draws its initial
weights from its own generator, so a head in a bank equals the head alone.
"""

import math
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

WEIGHTED: Literal["weighted"] = "weighted"


@dataclass(frozen=True)
class Head:
    """One probe.

    Attributes:
        name: such as `layer_03`; its initial weights hang on it and on the seed.
        source: the layer it reads, or `weighted` for the learned weighted sum.
        seed: of its initial weights.
    """

    name: str
    source: int | Literal["weighted"]
    seed: int

    @property
    def layer(self) -> int | None:
        """The layer it reads; None for a weighted sum."""
        return self.source if isinstance(self.source, int) else None


def all_heads(n_layers: int, *, seed: int) -> tuple[Head, ...]:
    """A head for every layer 0..L, and where L > 1 one for the weighted sum of layers 1..L.

    >>> [head.name for head in all_heads(2, seed=0)]
    ['layer_00', 'layer_01', 'layer_02', 'weighted']
    >>> [head.name for head in all_heads(0, seed=0)]
    ['layer_00']
    """
    single = [Head(f"layer_{layer:02d}", layer, seed) for layer in range(n_layers + 1)]
    weighted = [Head(WEIGHTED, WEIGHTED, seed)] if n_layers > 1 else []
    return (*single, *weighted)


@dataclass(frozen=True)
class BankSize:
    """Sizes of a bank: `n_layers` is L, `dim` D, `n_outputs` C."""

    n_layers: int
    dim: int
    hidden: int
    n_outputs: int


class ProbeBank(nn.Module):
    """H probes with one forward pass.

    Args:
        heads: in any order.
        size: of the bank.
        dropout: share of hidden units that training drops.
        layer_weights_init: `zeros` starts at the layers' mean, `normal` draws the logits of the
            layer weights from N(0, 1) as MARBLE v1 does.

    Attributes:
        weighted: positions of the W heads that read a weighted sum.
        layer_weights: (W, L) logits of their weights over layers 1..L.
    """

    mean: Tensor
    scale: Tensor

    def __init__(
        self,
        heads: Sequence[Head],
        size: BankSize,
        *,
        dropout: float = 0.0,
        layer_weights_init: str = "zeros",
    ) -> None:
        super().__init__()
        self.heads = tuple(heads)
        self.size = size
        self.dropout = dropout

        self.layers = [head.layer for head in heads if head.layer is not None]
        self.weighted = [h for h, head in enumerate(heads) if head.layer is None]
        # Inputs are made of single layers first; this brings them into the order of the heads.
        single = [h for h, head in enumerate(heads) if head.layer is not None]
        made_of = [*single, *self.weighted]
        self.order = [made_of.index(h) for h in range(len(made_of))]

        drawn = [_draw(head, size) for head in heads]
        self.hidden_weight = _stack(drawn, "hidden_weight")  # (H, D, hidden)
        self.hidden_bias = _stack(drawn, "hidden_bias")  # (H, 1, hidden)
        self.output_weight = _stack(drawn, "output_weight")  # (H, hidden, C)
        self.output_bias = _stack(drawn, "output_bias")  # (H, 1, C)

        start = torch.zeros(len(self.weighted), size.n_layers)
        if layer_weights_init == "normal":
            for row, h in enumerate(self.weighted):
                start[row] = drawn[h]["layer_weights"]
        self.layer_weights = nn.Parameter(start)

        self.register_buffer("mean", torch.zeros(size.n_layers + 1, 1, size.dim))
        self.register_buffer("scale", torch.ones(size.n_layers + 1, 1, size.dim))

    def standardize(self, parts: Iterable[Tensor]) -> None:
        """Takes mean and deviation of every feature over training; constants keep scale 1.

        Args:
            parts: (L+1, n, D) each; their moments are joined (Chan, Golub & LeVeque 1979), so that
                not all are in memory.
        """
        count = 0
        mean = torch.zeros(self.size.n_layers + 1, self.size.dim, dtype=torch.float64)
        squares = torch.zeros_like(mean)  # sums of squared deviations from the mean
        for part in parts:
            n = part.shape[1]
            for layer, values in enumerate(part):  # one layer at a time in float32
                variance, here = torch.var_mean(values.float(), dim=0, correction=0)
                off = here - mean[layer]
                mean[layer] += off * n / (count + n)
                squares[layer] += variance * n + off.square() * count * n / (count + n)
            count += n

        deviation = (squares / count).sqrt()
        varies = deviation > 1e-6 * (1 + mean.abs())
        self.mean[:, 0] = mean
        self.scale[:, 0] = torch.where(varies, 1 / deviation, 1.0)

    def forward(self, features: Tensor) -> Tensor:
        """Logits of every head: (L+1, B, D) of any float type -> (H, B, C) float32."""
        # In place, without temporaries of a batch of all layers, but never in the caller's tensor.
        states = features.to(torch.float32, copy=True).sub_(self.mean).mul_(self.scale)

        hidden = F.relu(torch.baddbmm(self.hidden_bias, self.inputs(states), self.hidden_weight))
        hidden = F.dropout(hidden, self.dropout, self.training)
        return torch.baddbmm(self.output_bias, hidden, self.output_weight)

    def inputs(self, states: Tensor) -> Tensor:
        """The input of each head: (L+1, B, D) -> (H, B, D)."""
        reads_all = self.layers == list(range(len(states)))  # as in every sweep: nothing to copy
        single = states if reads_all else states[self.layers]
        if not self.weighted:
            return single

        sums = torch.einsum("hl,lbd->hbd", self.softmax_weights(), states[1:])
        inputs = torch.cat([single, sums])
        is_in_order = self.order == sorted(self.order)
        return inputs if is_in_order else inputs[self.order]

    def softmax_weights(self) -> Tensor:
        """(W, L) weights of the weighted heads over layers 1..L; each row sums to 1."""
        return torch.softmax(self.layer_weights, dim=1)

    def rows_of(self, name: str, is_chosen: Tensor) -> Tensor:
        """Which rows of the parameter `name` belong to the heads that are chosen, (H,) bool."""
        return is_chosen[self.weighted] if name == "layer_weights" else is_chosen


def _stack(drawn: Sequence[dict[str, Tensor]], name: str) -> nn.Parameter:
    return nn.Parameter(torch.stack([of_head[name] for of_head in drawn]))


def _draw(head: Head, size: BankSize) -> dict[str, Tensor]:
    """Initial weights of one head, as torch.nn.Linear draws them, from a generator of its own."""
    text = f"{head.seed}/{head.name}"
    generator = torch.Generator().manual_seed(zlib.crc32(text.encode()))

    def uniform(fan_in: int, *shape: int) -> Tensor:
        bound = 1 / math.sqrt(fan_in)
        return torch.empty(shape).uniform_(-bound, bound, generator=generator)

    return {
        "hidden_weight": uniform(size.dim, size.dim, size.hidden),
        "hidden_bias": uniform(size.dim, 1, size.hidden),
        "output_weight": uniform(size.hidden, size.hidden, size.n_outputs),
        "output_bias": uniform(size.hidden, 1, size.n_outputs),
        "layer_weights": torch.randn(size.n_layers, generator=generator),
    }
