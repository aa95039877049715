"""State of the network that MusicFM and MuQ share: as published, and as it is run here.

Conventions: published keys are given without the leading `model.`; layer n of a file (from 0) is
layer n + 1 of the project. Own state means: BatchNorm folded into the convolution before it, query
and key projections in one matrix, the factor 0.5 of the feed-forward modules in their output
weights. Source: the table in ../shared/facts/backbones.md section 3.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from mirprobe.backbones.checkpoint import with_bias
from mirprobe.backbones.layers import EPS

STORED_MEL = "preprocessor_melspec_2048.mel_stft"
INV_FREQ = "conformer.embed_positions.inv_freq"
WEIGHT_NORM = r"(weight_g|weight_v|parametrizations\.weight\.original[01])"
IGNORED = (
    r".*\.num_batches_tracked",  # counters of training
    rf"conformer\.pos_conv_embed\.conv\.(bias|{WEIGHT_NORM})",  # in both modules, never called
    r"linear\.(weight|bias)",  # pretraining head
    r"cls_token",
)
LAYER_NAMES = {  # ours -> published, for modules whose weight and bias are taken over
    "ffn1.norm": "ffn1_layer_norm",
    "ffn1.inner": "ffn1.intermediate_dense",
    "ffn1.outer": "ffn1.output_dense",
    "attention.norm": "self_attn_layer_norm",
    "attention.value": "self_attn.linear_v",
    "attention.out": "self_attn.linear_out",
    "convolution.norm": "conv_module.layer_norm",
    "ffn2.norm": "ffn2_layer_norm",
    "ffn2.inner": "ffn2.intermediate_dense",
    "ffn2.outer": "ffn2.output_dense",
    "norm": "final_layer_norm",
}


@dataclass(frozen=True)
class ConformerSize:
    """Sizes of the network; the defaults are the published ones (316 million parameters)."""

    conv_dim: int = 512
    dim: int = 1024
    n_layers: int = 12
    n_heads: int = 16
    ffn_dim: int = 4096
    kernel: int = 31
    n_mels: int = 128


def published_shapes(size: ConformerSize) -> dict[str, tuple[int, ...]]:
    """Keys that the features need, and their shapes in the published layout."""
    shapes = _front_end_shapes(size)
    for n in range(size.n_layers):
        shapes |= _layer_shapes(f"conformer.layers.{n}", size)
    return shapes


def _front_end_shapes(size: ConformerSize) -> dict[str, tuple[int, ...]]:
    """The two convolutional blocks, the projection, and the LayerNorm after the last layer."""
    channels = size.conv_dim
    shapes: dict[str, tuple[int, ...]] = {}
    for block, n_in in enumerate((1, channels)):
        for conv, width in ((1, n_in), (2, channels), (3, n_in)):
            shapes |= with_bias(f"conv.conv.{block}.conv{conv}", channels, width, 3, 3)
            shapes |= _batch_norm(f"conv.conv.{block}.bn{conv}", channels)

    shapes |= with_bias("conv.linear", size.dim, channels * (size.n_mels // 4))
    shapes |= with_bias("conformer.layer_norm", size.dim)
    return shapes


def _layer_shapes(layer: str, size: ConformerSize) -> dict[str, tuple[int, ...]]:
    dim, ffn_dim = size.dim, size.ffn_dim
    shapes: dict[str, tuple[int, ...]] = {}
    for module in ("ffn1", "self_attn", "ffn2", "final"):
        shapes |= with_bias(f"{layer}.{module}_layer_norm", dim)
    for ffn in ("ffn1", "ffn2"):
        shapes |= with_bias(f"{layer}.{ffn}.intermediate_dense", ffn_dim, dim)
        shapes |= with_bias(f"{layer}.{ffn}.output_dense", dim, ffn_dim)
    for projection in ("q", "k", "v", "out"):
        shapes |= with_bias(f"{layer}.self_attn.linear_{projection}", dim, dim)

    convolution = f"{layer}.conv_module"
    shapes |= with_bias(f"{convolution}.layer_norm", dim)
    shapes |= _batch_norm(f"{convolution}.batch_norm", dim)
    shapes[f"{convolution}.pointwise_conv1.weight"] = (2 * dim, dim, 1)
    shapes[f"{convolution}.depthwise_conv.weight"] = (dim, 1, size.kernel)
    shapes[f"{convolution}.pointwise_conv2.weight"] = (dim, dim, 1)
    return shapes


def _batch_norm(key: str, width: int) -> dict[str, tuple[int, ...]]:
    statistics = {f"{key}.running_mean": (width,), f"{key}.running_var": (width,)}
    return with_bias(key, width) | statistics


def fold(state: Mapping[str, Tensor], size: ConformerSize) -> dict[str, Tensor]:
    """State of the network, mel excepted, from the published one.

    Args:
        state: float32 tensors under the keys of `published_shapes(size)`.
        size: sizes of the network.

    Returns:
        float32 tensors under the keys of `Conformer`; conv2d weights in channels_last order.
    """
    own = fold_front_end(state, size)
    for n in range(size.n_layers):
        for key, tensor in fold_layer(state, f"conformer.layers.{n}").items():
            own[f"layers.{n}.{key}"] = tensor
    for part in ("weight", "bias"):
        own[f"norm.{part}"] = state[f"conformer.layer_norm.{part}"]
    return own


def fold_front_end(state: Mapping[str, Tensor], size: ConformerSize) -> dict[str, Tensor]:
    """State of the two blocks and the projection, from the published keys `conv.*`."""
    own: dict[str, Tensor] = {}
    for block in (0, 1):
        for n in (1, 2, 3):
            published = f"conv.conv.{block}.conv{n}"
            weight, bias = fold_batch_norm(
                state[f"{published}.weight"],
                state[f"{published}.bias"],
                state,
                norm=f"conv.conv.{block}.bn{n}",
            )
            # The faster order on a CPU. On a GPU perhaps not, since cuDNN has no Winograd for it in
            # float32: decide by measurement when a card is at hand.
            own[f"blocks.{block}.conv{n}.weight"] = weight.to(memory_format=torch.channels_last)
            own[f"blocks.{block}.conv{n}.bias"] = bias

    # The published inputs are ordered (channel, band); in (band, channel) a channels_last map
    # needs no transposition.
    projection = state["conv.linear.weight"].view(size.dim, size.conv_dim, -1)
    own["project.weight"] = projection.transpose(1, 2).flatten(1)
    own["project.bias"] = state["conv.linear.bias"]
    return own


def fold_layer(state: Mapping[str, Tensor], layer: str) -> dict[str, Tensor]:
    """State of one `ConformerLayer` from the published keys that start with `layer`."""
    own: dict[str, Tensor] = {}
    for part in ("weight", "bias"):
        for name, published in LAYER_NAMES.items():
            own[f"{name}.{part}"] = state[f"{layer}.{published}.{part}"]

        # Each feed-forward module is added at half its output; a power of two, so this is exact.
        for ffn in ("ffn1", "ffn2"):
            own[f"{ffn}.outer.{part}"] = own[f"{ffn}.outer.{part}"] * 0.5

        query = state[f"{layer}.self_attn.linear_q.{part}"]
        key = state[f"{layer}.self_attn.linear_k.{part}"]
        own[f"attention.query_key.{part}"] = torch.cat([query, key])

    convolution = f"{layer}.conv_module"
    own["convolution.expand.weight"] = state[f"{convolution}.pointwise_conv1.weight"].squeeze(2)
    own["convolution.reduce.weight"] = state[f"{convolution}.pointwise_conv2.weight"].squeeze(2)

    depthwise = state[f"{convolution}.depthwise_conv.weight"]
    weight, bias = fold_batch_norm(depthwise, None, state, norm=f"{convolution}.batch_norm")
    own["convolution.depthwise.weight"] = weight.unsqueeze(2)
    own["convolution.depthwise.bias"] = bias
    return own


def fold_batch_norm(
    weight: Tensor,
    bias: Tensor | None,
    state: Mapping[str, Tensor],
    norm: str,
    *,
    eps: float = EPS,
) -> tuple[Tensor, Tensor]:
    """Weight and bias of a convolution that includes the BatchNorm `norm` after it.

    Computed in float64 and rounded once.
    """
    gain = state[f"{norm}.weight"].double()
    shift = state[f"{norm}.bias"].double()
    mean = state[f"{norm}.running_mean"].double()
    variance = state[f"{norm}.running_var"].double()

    scale = gain / torch.sqrt(variance + eps)
    scale_of_weight = scale.view(-1, *[1] * (weight.ndim - 1))  # (n_out, 1, 1, ...)
    folded = weight.double() * scale_of_weight
    centre = -mean if bias is None else bias.double() - mean
    return folded.to(weight.dtype), (centre * scale + shift).to(weight.dtype)
