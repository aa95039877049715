"""Layout of the published MusicFM and MuQ checkpoints, and how the network's own state follows from
it.

Conventions: keys are given without the leading `model.`; layer n of a file (from 0) is layer n + 1
of the project. Own
state means: BatchNorm folded into the convolution before it, query and key projections in one
matrix, the factor 0.5 of the feed-forward modules in their output weights. Source: the table in
../shared/facts/backbones.md section 3.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

EPS = 1e-5  # of every BatchNorm and LayerNorm
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
    """Keys that the features need, without the leading `model.`, and their shapes in the published
    layout.
    """
    shapes: dict[str, tuple[int, ...]] = {}

    def add(key: str, *weight: int, bias: bool = True) -> None:
        shapes[f"{key}.weight"] = weight
        if bias:
            shapes[f"{key}.bias"] = weight[:1]

    def add_batch_norm(key: str, width: int) -> None:
        add(key, width)
        shapes[f"{key}.running_mean"] = shapes[f"{key}.running_var"] = (width,)

    dim, ffn_dim, channels = size.dim, size.ffn_dim, size.conv_dim
    for block, n_in in enumerate((1, channels)):
        for i, width in ((1, n_in), (2, channels), (3, n_in)):
            add(f"conv.conv.{block}.conv{i}", channels, width, 3, 3)
            add_batch_norm(f"conv.conv.{block}.bn{i}", channels)
    add("conv.linear", dim, channels * (size.n_mels // 4))
    add("conformer.layer_norm", dim)
    for layer in (f"conformer.layers.{n}" for n in range(size.n_layers)):
        for norm in (
            "ffn1_layer_norm",
            "self_attn_layer_norm",
            "conv_module.layer_norm",
            "ffn2_layer_norm",
        ):
            add(f"{layer}.{norm}", dim)
        add(f"{layer}.final_layer_norm", dim)
        for ffn in ("ffn1", "ffn2"):
            add(f"{layer}.{ffn}.intermediate_dense", ffn_dim, dim)
            add(f"{layer}.{ffn}.output_dense", dim, ffn_dim)
        for projection in ("q", "k", "v", "out"):
            add(f"{layer}.self_attn.linear_{projection}", dim, dim)
        add(f"{layer}.conv_module.pointwise_conv1", 2 * dim, dim, 1, bias=False)
        add(f"{layer}.conv_module.depthwise_conv", dim, 1, size.kernel, bias=False)
        add_batch_norm(f"{layer}.conv_module.batch_norm", dim)
        add(f"{layer}.conv_module.pointwise_conv2", dim, dim, 1, bias=False)
    return shapes


def fold_batch_norm(
    weight: Tensor, bias: Tensor | None, state: Mapping[str, Tensor], norm: str
) -> tuple[Tensor, Tensor]:
    """Weight and bias of a convolution that includes the BatchNorm `norm` after it; computed in
    float64.
    """
    gain, shift, mean, var = (
        state[f"{norm}.{part}"].double()
        for part in ("weight", "bias", "running_mean", "running_var")
    )
    scale = gain / torch.sqrt(var + EPS)
    centre = -mean if bias is None else bias.double() - mean
    folded = weight.double() * scale.view(-1, *[1] * (weight.ndim - 1))
    return folded.to(weight.dtype), (centre * scale + shift).to(weight.dtype)


def fold_layer(state: Mapping[str, Tensor], layer: str) -> dict[str, Tensor]:
    """State of one `ConformerLayer` from the published keys that start with `layer`."""
    own: dict[str, Tensor] = {}
    for part in ("weight", "bias"):
        for name, published in LAYER_NAMES.items():
            own[f"{name}.{part}"] = state[f"{layer}.{published}.{part}"]
        for ffn in ("ffn1", "ffn2"):
            own[f"{ffn}.outer.{part}"] = own[f"{ffn}.outer.{part}"] * 0.5
        query_key = [state[f"{layer}.self_attn.linear_{projection}.{part}"] for projection in "qk"]
        own[f"attention.query_key.{part}"] = torch.cat(query_key)
    convolution = f"{layer}.conv_module"
    own["convolution.expand.weight"] = state[f"{convolution}.pointwise_conv1.weight"].squeeze(2)
    own["convolution.reduce.weight"] = state[f"{convolution}.pointwise_conv2.weight"].squeeze(2)
    weight, bias = fold_batch_norm(
        state[f"{convolution}.depthwise_conv.weight"], None, state, f"{convolution}.batch_norm"
    )
    own["convolution.depthwise.weight"], own["convolution.depthwise.bias"] = (
        weight.unsqueeze(2),
        bias,
    )
    return own


def fold(state: Mapping[str, Tensor], size: ConformerSize) -> dict[str, Tensor]:
    """State of the network, mel excepted, from the published one.

    Args:
        state: float32 tensors under the keys of `published_shapes(size)`.
        size: sizes of the network.

    Returns:
        float32 tensors under the keys of `Conformer`; conv2d weights in channels_last order.
    """
    own: dict[str, Tensor] = {}
    for conv in (f"{block}.conv{i}" for block in (0, 1) for i in (1, 2, 3)):
        weight, bias = state[f"conv.conv.{conv}.weight"], state[f"conv.conv.{conv}.bias"]
        weight, bias = fold_batch_norm(
            weight, bias, state, f"conv.conv.{conv.replace('conv', 'bn')}"
        )
        own[f"blocks.{conv}.weight"], own[f"blocks.{conv}.bias"] = (
            weight.to(memory_format=torch.channels_last),
            bias,
        )
    # The published inputs are ordered (channel, band); in (band, channel) a channels_last map needs
    # no transposition.
    projection = state["conv.linear.weight"].view(size.dim, size.conv_dim, -1)
    own["project.weight"], own["project.bias"] = (
        projection.transpose(1, 2).flatten(1),
        state["conv.linear.bias"],
    )
    for n in range(size.n_layers):
        own |= {
            f"layers.{n}.{key}": tensor
            for key, tensor in fold_layer(state, f"conformer.layers.{n}").items()
        }
    return own | {
        f"norm.{part}": state[f"conformer.layer_norm.{part}"] for part in ("weight", "bias")
    }
