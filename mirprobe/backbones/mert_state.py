"""State of MERT-v1's network: as published, and as it is run here.

Conventions: block n of a file (from 0) is layer n + 1 of the project. Source: the tables in
../shared/facts/backbones2.md section 1.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from mirprobe.backbones.checkpoint import with_bias

KERNELS = (10, 3, 3, 3, 3, 2, 2)
POSITION_KERNEL, POSITION_GROUPS = 128, 16
POSITION = "encoder.pos_conv_embed.conv"
WEIGHT_NORM = {  # as published -> as newer torch calls it, which the recipe of the weights does
    f"{POSITION}.weight_g": f"{POSITION}.parametrizations.weight.original0",
    f"{POSITION}.weight_v": f"{POSITION}.parametrizations.weight.original1",
}
NAMES = {  # ours -> published, for modules whose weight and bias are taken over
    "group_norm": "feature_extractor.conv_layers.0.layer_norm",
    "feature_norm": "feature_projection.layer_norm",
    "project": "feature_projection.projection",
    "norm": "encoder.layer_norm",
}
BLOCK_NAMES = {
    "attention.out": "attention.out_proj",
    "attention_norm": "layer_norm",
    "inner": "feed_forward.intermediate_dense",
    "outer": "feed_forward.output_dense",
    "ffn_norm": "final_layer_norm",
}


@dataclass(frozen=True)
class MERTSize:
    """Sizes of the network; `pre_norm` tells blocks that normalise their input from those that
    normalise their sums.
    """

    conv_dim: int = 512
    dim: int = 768
    n_layers: int = 12
    n_heads: int = 12
    ffn_dim: int = 3072
    pre_norm: bool = False


def published_shapes(size: MERTSize) -> dict[str, tuple[int, ...]]:
    """Keys that the features need, and their shapes in the published layout."""
    shapes: dict[str, tuple[int, ...]] = {}
    for index, kernel in enumerate(KERNELS):
        n_in = 1 if index == 0 else size.conv_dim
        key = f"feature_extractor.conv_layers.{index}.conv.weight"
        shapes[key] = (size.conv_dim, n_in, kernel)
    for norm in ("group_norm", "feature_norm"):
        shapes |= with_bias(NAMES[norm], size.conv_dim)
    shapes |= with_bias(NAMES["project"], size.dim, size.conv_dim)
    shapes |= with_bias(NAMES["norm"], size.dim)

    gain, direction = WEIGHT_NORM.values()
    shapes[f"{POSITION}.bias"] = (size.dim,)
    shapes[gain] = (1, 1, POSITION_KERNEL)
    shapes[direction] = (size.dim, size.dim // POSITION_GROUPS, POSITION_KERNEL)

    for n in range(size.n_layers):
        block = f"encoder.layers.{n}"
        for projection in ("q", "k", "v", "out"):
            shapes |= with_bias(f"{block}.attention.{projection}_proj", size.dim, size.dim)
        for norm in ("attention_norm", "ffn_norm"):
            shapes |= with_bias(f"{block}.{BLOCK_NAMES[norm]}", size.dim)
        shapes |= with_bias(f"{block}.{BLOCK_NAMES['inner']}", size.ffn_dim, size.dim)
        shapes |= with_bias(f"{block}.{BLOCK_NAMES['outer']}", size.dim, size.ffn_dim)
    return shapes


def fold(state: Mapping[str, Tensor], size: MERTSize) -> dict[str, Tensor]:
    """State of the network from the published one: one matrix for queries, keys and values, and
    the positional convolution without its weight norm, which is of each of its 128 taps.
    """
    gain, direction = (state[key].double() for key in WEIGHT_NORM.values())
    norm = torch.linalg.vector_norm(direction, dim=(0, 1), keepdim=True)
    own = {
        "position.weight": (gain * direction / norm).float(),
        "position.bias": state[f"{POSITION}.bias"],
    }
    for index in range(len(KERNELS)):
        key = f"feature_extractor.conv_layers.{index}.conv.weight"
        own[f"convolutions.{index}.weight"] = state[key]

    for part in ("weight", "bias"):
        for name, published in NAMES.items():
            own[f"{name}.{part}"] = state[f"{published}.{part}"]
        for n in range(size.n_layers):
            block = f"encoder.layers.{n}"
            for name, published in BLOCK_NAMES.items():
                own[f"layers.{n}.{name}.{part}"] = state[f"{block}.{published}.{part}"]
            parts = [state[f"{block}.attention.{one}_proj.{part}"] for one in ("q", "k", "v")]
            own[f"layers.{n}.attention.query_key_value.{part}"] = torch.cat(parts)
    return own
