"""State of OMAR-RQ's network: as published, and as it is run here.

Conventions: block n of a file (from 0) is layer n + 1 of the project. Source: the table in
../shared/facts/backbones2.md section 3.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from mirprobe.backbones.checkpoint import with_bias
from mirprobe.backbones.conformer_state import fold_batch_norm

EPS = 6.1e-5  # of the norms of feed-forward and convolution modules
FFN_FACTOR = 4.0  # of a feed-forward module in its sum; a power of two, so folding it is exact
COUNTERS = r"net\.layers\.\d+\.conv_block\.module\.3\.num_batches_tracked"
BLOCK_NAMES = {  # ours -> published, for modules whose weight and bias are taken over
    "ffn1.norm": "ff1.module.0",
    "ffn1.inner": "ff1.module.1",
    "ffn1.outer": "ff1.module.4",
    "attention.out": "attention.proj",
    "attention_norm": "norm1.layer_norm",
    "convolution.norm": "conv_block.layer_norm",
    "convolution.expand": "conv_block.module.0",
    "convolution.reduce": "conv_block.module.5",
    "ffn2.norm": "ff2.module.0",
    "ffn2.inner": "ff2.module.1",
    "ffn2.outer": "ff2.module.4",
    "norm": "norm2",
}


@dataclass(frozen=True)
class OmarSize:
    """Sizes of the network; the defaults are the published ones."""

    dim: int = 1024
    n_layers: int = 24
    n_heads: int = 8
    ffn_dim: int = 4096
    kernel: int = 31


def published_shapes(size: OmarSize, patch: int) -> dict[str, tuple[int, ...]]:
    """Keys that the features need, and their shapes in the published layout.

    Args:
        size: sizes of the network.
        patch: numbers that make a frame.
    """
    shapes = with_bias("embedding_layer", size.dim, patch)
    for n in range(size.n_layers):
        shapes |= _block_shapes(f"net.layers.{n}", size)
    return shapes


def _block_shapes(block: str, size: OmarSize) -> dict[str, tuple[int, ...]]:
    dim, ffn_dim = size.dim, size.ffn_dim
    shapes: dict[str, tuple[int, ...]] = {f"{block}.attention.qkv.weight": (3 * dim, dim)}
    for ffn in ("ff1", "ff2"):
        shapes |= with_bias(f"{block}.{ffn}.module.0", dim)
        shapes |= with_bias(f"{block}.{ffn}.module.1", ffn_dim, dim)
        shapes |= with_bias(f"{block}.{ffn}.module.4", dim, ffn_dim)
    shapes |= with_bias(f"{block}.attention.proj", dim, dim)
    for norm in ("norm1.layer_norm", "norm2", "conv_block.layer_norm", "conv_block.module.3"):
        shapes |= with_bias(f"{block}.{norm}", dim)

    convolution = f"{block}.conv_block.module"
    shapes |= with_bias(f"{convolution}.0", 2 * dim, dim, 1)
    shapes |= with_bias(f"{convolution}.2", dim, 1, size.kernel)
    shapes |= with_bias(f"{convolution}.5", dim, dim, 1)
    shapes[f"{convolution}.3.running_mean"] = shapes[f"{convolution}.3.running_var"] = (dim,)
    return shapes


def fold(state: Mapping[str, Tensor], size: OmarSize) -> dict[str, Tensor]:
    """State of the network from the published one.

    BatchNorm is folded into the convolution before it, the factor of the feed-forward modules into
    their output weights, and the pairs of the rotation lie half a head apart, not side by side.
    """
    own = {}
    for part in ("weight", "bias"):
        own[f"embedding.{part}"] = state[f"embedding_layer.{part}"]
    for n in range(size.n_layers):
        for key, tensor in _fold_block(state, f"net.layers.{n}", size).items():
            own[f"layers.{n}.{key}"] = tensor
    return own


def _fold_block(state: Mapping[str, Tensor], block: str, size: OmarSize) -> dict[str, Tensor]:
    own: dict[str, Tensor] = {}
    for part in ("weight", "bias"):
        for name, published in BLOCK_NAMES.items():
            own[f"{name}.{part}"] = state[f"{block}.{published}.{part}"]
        for ffn in ("ffn1", "ffn2"):
            own[f"{ffn}.outer.{part}"] = own[f"{ffn}.outer.{part}"] * FFN_FACTOR
    for pointwise in ("convolution.expand.weight", "convolution.reduce.weight"):
        own[pointwise] = own[pointwise].squeeze(2)

    query, key, value = state[f"{block}.attention.qkv.weight"].chunk(3)
    halves = [halve_pairs(one, size.n_heads) for one in (query, key)]
    own["attention.query_key_value.weight"] = torch.cat([*halves, value])

    convolution = f"{block}.conv_block.module"
    weight, bias = fold_batch_norm(
        *(state[f"{convolution}.2.weight"], state[f"{convolution}.2.bias"], state),
        norm=f"{convolution}.3",
        eps=EPS,
    )
    own["convolution.depthwise.weight"] = weight.unsqueeze(2)
    own["convolution.depthwise.bias"] = bias
    return own


def halve_pairs(weight: Tensor, n_heads: int) -> Tensor:
    """Rows of each head in another order: pairs (2i, 2i+1) become (i, i + d/2).

    Products of queries and keys stay what they are, as both are ordered alike.

    >>> halve_pairs(torch.arange(8.0)[:, None], n_heads=2).flatten().tolist()
    [0.0, 2.0, 1.0, 3.0, 4.0, 6.0, 5.0, 7.0]
    """
    n_rows, n_in = weight.shape
    pairs = weight.view(n_heads, n_rows // n_heads // 2, 2, n_in)
    return pairs.transpose(1, 2).reshape(n_rows, n_in)
