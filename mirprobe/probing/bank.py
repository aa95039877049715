"""The bank: every probe of a backbone, trained together as stacked tensors.

Conventions: the head axis H is the first axis of every parameter and of every output. A head is a
multilayer perceptron (linear, ReLU, dropout, linear) on the state of one layer, or on the
softmax-weighted sum of layers 1..L (paper eq. 3 and 4).
Heads share nothing: each draws its initial weights from its own generator, so a head in a bank
equals the head alone.
"""

import math
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

WEIGHTED = "weighted"


@dataclass(frozen=True)
class Head:
    """One probe: of `layer`, or of the learned weighted sum where `layer` is None."""

    name: str
    layer: int | None


def all_heads(n_layers: int) -> tuple[Head, ...]:
    """A head for every layer 0..L, and one for the weighted sum of layers 1..L where there are at
    least two.

    >>> [head.name for head in all_heads(2)], [head.name for head in all_heads(0)]
    (['layer_00', 'layer_01', 'layer_02', 'weighted'], ['layer_00'])
    """
    single = tuple(Head(f"layer_{layer:02d}", layer) for layer in range(n_layers + 1))
    return (*single, Head(WEIGHTED, None)) if n_layers > 1 else single


@dataclass(frozen=True)
class BankSize:
    """Sizes of a bank: `n_layers` is L, `dim` D, `n_outputs` C."""

    n_layers: int
    dim: int
    hidden: int
    n_outputs: int
    dropout: float = 0.0


class ProbeBank(nn.Module):
    """H probes with one forward pass.

    Args:
        heads: single-layer heads first, weighted heads last.
        size: of the bank.
        seed: of the initial weights.
        normal_start: draw the layer weights' logits from N(0, 1) as MARBLE v1 does, instead of
            starting at the layers' mean.
    """

    def __init__(
        self,
        heads: Sequence[Head],
        size: BankSize,
        *,
        seed: int,
        normal_start: bool = False,
    ) -> None:
        super().__init__()
        self.heads, self.size = tuple(heads), size
        self.layers = [head.layer for head in heads if head.layer is not None]
        assert [head.layer for head in heads[: len(self.layers)]] == self.layers, (
            "weighted heads come last"
        )
        drawn = [_draw(head, size, seed) for head in heads]
        self.hidden_weight = nn.Parameter(
            torch.stack([head["hidden_weight"] for head in drawn])
        )  # (H, D, hidden)
        self.hidden_bias = nn.Parameter(
            torch.stack([head["hidden_bias"] for head in drawn])
        )  # (H, 1, hidden)
        self.output_weight = nn.Parameter(
            torch.stack([head["output_weight"] for head in drawn])
        )  # (H, hidden, C)
        self.output_bias = nn.Parameter(
            torch.stack([head["output_bias"] for head in drawn])
        )  # (H, 1, C)
        start = torch.stack([head["layer_weights"] for head in drawn])
        self.layer_weights = nn.Parameter(
            start if normal_start else torch.zeros_like(start)
        )  # (H, L)
        self.register_buffer("mean", torch.zeros(size.n_layers + 1, 1, size.dim))
        self.register_buffer("scale", torch.ones(size.n_layers + 1, 1, size.dim))

    def standardize(self, parts: Iterable[Tensor]) -> None:
        """Takes mean and standard deviation of every feature from training clips or frames;
        constants keep scale 1.

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
        self.get_buffer("mean")[:, 0] = mean
        self.get_buffer("scale")[:, 0] = torch.where(
            deviation > 1e-6 * (1 + mean.abs()), 1 / deviation, 1.0
        )

    def forward(self, features: Tensor) -> Tensor:
        """Logits of every head: (L+1, B, D) of any float type -> (H, B, C) float32."""
        states = (features.float() - self.get_buffer("mean")) * self.get_buffer("scale")
        hidden = F.relu(torch.baddbmm(self.hidden_bias, self.inputs(states), self.hidden_weight))
        hidden = F.dropout(hidden, self.size.dropout, self.training)
        return torch.baddbmm(self.output_bias, hidden, self.output_weight)

    def inputs(self, states: Tensor) -> Tensor:
        """What each head sees: (L+1, B, D) -> (H, B, D)."""
        single = states[self.layers]
        n_weighted = len(self.heads) - len(self.layers)
        if n_weighted == 0:
            return single
        weights = self.softmax_weights()[len(self.layers) :]
        return torch.cat([single, torch.einsum("hl,lbd->hbd", weights, states[1:])])

    def softmax_weights(self) -> Tensor:
        """(H, L) weights over layers 1..L, each row sums to 1 (only those of weighted heads are
        used).
        """
        return torch.softmax(self.layer_weights, dim=1)


def _draw(head: Head, size: BankSize, seed: int) -> dict[str, Tensor]:
    """Initial weights of one head, as torch.nn.Linear draws them, from a generator of its own."""
    generator = torch.Generator().manual_seed(zlib.crc32(f"{seed}/{head.name}".encode()))

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
