"""State of MERT2's network: as published, and as it is run here.

Conventions: block n of a file (from 0) is layer n + 1 of the project; stage s and layer j of the
subsampling count from 0. Source: the table in ../shared/facts/backbones2.md section 2.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from mirprobe.backbones.checkpoint import with_bias
from mirprobe.backbones.convnext import KERNEL

WINDOW = "feature_extractor.spectrogram.window"
FILTERS = "feature_extractor.mel_scale.fb"
MEL_MEAN, MEL_STD = "feature_extractor.mel_mean", "feature_extractor.mel_std"
STEM_NAMES = {  # ours -> published, for modules whose weight and bias are taken over
    "norm": "pointwise_block.0",
    "inner": "pointwise_block.1",
    "outer": "pointwise_block.4",
}
BLOCK_NAMES = {
    "ffn1.norm": "ffn1_layer_norm",
    "ffn1.inner": "ffn1.w_1",
    "ffn1.outer": "ffn1.w_2",
    "attention_norm": "attn_layer_norm",
    "attention.out": "attn.out_proj",
    "convolution.norm": "conv_module.layer_norm",
    "convolution.inner_norm": "conv_module.conv_block.4.1",
    "ffn2.norm": "ffn2_layer_norm",
    "ffn2.inner": "ffn2.w_1",
    "ffn2.outer": "ffn2.w_2",
    "norm": "final_layer_norm",
}


@dataclass(frozen=True)
class MERT2Size:
    """Sizes of the network; `channels` and `depths` are of the three stages of the subsampling, the
    first of which has as many channels as the mel has bands.
    """

    channels: tuple[int, ...] = (128, 512, 1024)
    depths: tuple[int, ...] = (3, 4, 5)
    dim: int = 1024
    n_layers: int = 24
    n_heads: int = 16
    ffn_dim: int = 4096
    kernel: int = 31


def published_shapes(size: MERT2Size) -> dict[str, tuple[int, ...]]:
    """Keys that the features need, window and filters excepted, and their published shapes."""
    shapes: dict[str, tuple[int, ...]] = dict.fromkeys((MEL_MEAN, MEL_STD), size.channels[:1])
    n_in = size.channels[0]
    for s, (width, depth) in enumerate(zip(size.channels, size.depths, strict=True)):
        stage = f"subsampling_module.{s}"
        if s > 0:
            shapes |= with_bias(f"{stage}.resampling_layer.0", n_in)
            shapes |= with_bias(f"{stage}.resampling_layer.2", width, n_in, 2)
        for j in range(depth):
            shapes |= _stem_shapes(f"{stage}.convnext_layers.{j}", width)
        n_in = width

    for n in range(size.n_layers):
        shapes |= _block_shapes(f"layers.{n}", size)
    return shapes


def _stem_shapes(layer: str, width: int) -> dict[str, tuple[int, ...]]:
    return {
        **with_bias(f"{layer}.depthwise_block.1", width, 1, KERNEL),
        **with_bias(f"{layer}.pointwise_block.0", width),
        **with_bias(f"{layer}.pointwise_block.1", 4 * width, width),
        f"{layer}.pointwise_block.3.weight": (1, 1, 4 * width),
        f"{layer}.pointwise_block.3.bias": (1, 1, 4 * width),
        **with_bias(f"{layer}.pointwise_block.4", width, 4 * width),
    }


def _block_shapes(block: str, size: MERT2Size) -> dict[str, tuple[int, ...]]:
    dim, ffn_dim = size.dim, size.ffn_dim
    shapes: dict[str, tuple[int, ...]] = {}
    for module in ("ffn1", "attn", "ffn2", "final"):
        shapes |= with_bias(f"{block}.{module}_layer_norm", dim)
    for ffn in ("ffn1", "ffn2"):
        shapes |= with_bias(f"{block}.{ffn}.w_1", ffn_dim, dim)
        shapes |= with_bias(f"{block}.{ffn}.w_2", dim, ffn_dim)
    for projection in ("query", "key", "value", "out"):
        shapes |= with_bias(f"{block}.attn.{projection}_proj", dim, dim)

    convolution = f"{block}.conv_module"
    shapes |= with_bias(f"{convolution}.layer_norm", dim)
    shapes |= with_bias(f"{convolution}.conv_block.4.1", dim)
    shapes[f"{convolution}.conv_block.1.weight"] = (2 * dim, dim, 1)
    shapes[f"{convolution}.conv_block.3.weight"] = (dim, 1, size.kernel)
    shapes[f"{convolution}.conv_block.6.weight"] = (dim, dim, 1)
    return shapes


def fold(state: Mapping[str, Tensor], size: MERT2Size) -> dict[str, Tensor]:
    """State of the network, mel excepted, from the published one: one matrix for queries, keys and
    values, and the factor 0.5 of the feed-forward modules in their output weights.
    """
    own: dict[str, Tensor] = {}
    for s, depth in enumerate(size.depths):
        own |= _fold_stage(state, s, depth)
    for n in range(size.n_layers):
        for key, tensor in _fold_block(state, f"layers.{n}").items():
            own[f"layers.{n}.{key}"] = tensor
    return own


def _fold_stage(state: Mapping[str, Tensor], s: int, depth: int) -> dict[str, Tensor]:
    own: dict[str, Tensor] = {}
    for part in ("weight", "bias"):
        if s > 0:
            resampling = f"subsampling_module.{s}.resampling_layer"
            own[f"stages.{s}.halve.norm.{part}"] = state[f"{resampling}.0.{part}"]
            own[f"stages.{s}.halve.join.{part}"] = state[f"{resampling}.2.{part}"]
        for j in range(depth):
            ours = f"stages.{s}.layers.{j}"
            layer = f"subsampling_module.{s}.convnext_layers.{j}"
            own[f"{ours}.depthwise.{part}"] = state[f"{layer}.depthwise_block.1.{part}"]
            own[f"{ours}.response_{part}"] = state[f"{layer}.pointwise_block.3.{part}"]
            for name, published in STEM_NAMES.items():
                own[f"{ours}.{name}.{part}"] = state[f"{layer}.{published}.{part}"]

    for key, tensor in own.items():
        if key.endswith("depthwise.weight"):
            own[key] = tensor.unsqueeze(2)
        if key.endswith("join.weight"):  # of two frames at a time, one after the other
            own[key] = tensor.transpose(1, 2).flatten(1)
    return own


def _fold_block(state: Mapping[str, Tensor], block: str) -> dict[str, Tensor]:
    own: dict[str, Tensor] = {}
    for part in ("weight", "bias"):
        for name, published in BLOCK_NAMES.items():
            own[f"{name}.{part}"] = state[f"{block}.{published}.{part}"]
        for ffn in ("ffn1", "ffn2"):  # a power of two, so this is exact
            own[f"{ffn}.outer.{part}"] = own[f"{ffn}.outer.{part}"] * 0.5

        parts = [state[f"{block}.attn.{one}_proj.{part}"] for one in ("query", "key", "value")]
        own[f"attention.query_key_value.{part}"] = torch.cat(parts)

    convolution = f"{block}.conv_module.conv_block"
    own["convolution.expand.weight"] = state[f"{convolution}.1.weight"].squeeze(2)
    own["convolution.depthwise.weight"] = state[f"{convolution}.3.weight"].unsqueeze(2)
    own["convolution.reduce.weight"] = state[f"{convolution}.6.weight"].squeeze(2)
    return own
