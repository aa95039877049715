"""MERT-v1 (Li et al. 2024, arXiv 2306.00107), 95M and 330M: HuBERT's network, trained on music.

Conventions: 24 kHz in, 75 frames a second, nothing padded: frame k covers samples 320 k to
320 k + 399. The waveform is normalised over the clip. Layer 0 is the input of the first block; the
last layer of 330M, whose blocks normalise their input, has the encoder's LayerNorm on top, as in
all published results. The group norm and the attention see the whole clip. Source:
../shared/facts/backbones2.md section 1.
"""

from collections.abc import Mapping
from typing import ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mirprobe.backbones.backbone import Variant
from mirprobe.backbones.checkpoint import CheckpointSpec
from mirprobe.backbones.hub import PublishedFile
from mirprobe.backbones.layers import EPS, Linear, SelfAttention
from mirprobe.backbones.mert_state import (
    KERNELS,
    POSITION_GROUPS,
    POSITION_KERNEL,
    WEIGHT_NORM,
    MERTSize,
    fold,
    published_shapes,
)
from mirprobe.backbones.published import PublishedBackbone

SAMPLE_RATE = 24_000
STRIDES = (5, 2, 2, 2, 2, 2, 2)
HOP_SAMPLES = 320  # the product of the strides
WINDOW_SAMPLES = 400  # what one frame covers
# The first map takes 10 MB per second of audio: a big batch passes the front end in parts.
FRONT_END_SAMPLES = 60 * SAMPLE_RATE

MERT_95M_FILE = PublishedFile(
    model="mert_95m",
    repo="m-a-p/MERT-v1-95M",
    revision="12af15fef9d0ac838c3f475bfbbf26d2060dd4f5",
    name="pytorch_model.bin",
    n_bytes=377_552_987,
    sha256="a2b8b747f72c06e0595aeae41ae5473f4364938c6b39b2c58be38c48e6bd3fcd",
)
MERT_330M_FILE = PublishedFile(
    model="mert_330m",
    repo="m-a-p/MERT-v1-330M",
    revision="5240c2708a5acaee1007f43fb9735c7dcd0b78c9",
    name="pytorch_model.bin",
    n_bytes=None,  # 1.26 GB; the checksum says the rest
    sha256="0c03774d821a6ad972cb48220b128a10ebea2c790116bd0fd35e5a013f8017f6",
)


class Block(nn.Module):
    """Self-attention and feed-forward, each added to its input."""

    def __init__(self, size: MERTSize) -> None:
        super().__init__()
        self.pre_norm = size.pre_norm
        self.attention = SelfAttention(size.dim, size.n_heads)
        self.attention_norm = nn.LayerNorm(size.dim, EPS)
        self.inner = Linear(size.dim, size.ffn_dim, activation="gelu")
        self.outer = Linear(size.ffn_dim, size.dim)
        self.ffn_norm = nn.LayerNorm(size.dim, EPS)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        if self.pre_norm:
            x = self.attention(self.attention_norm(x)).add_(x)
            return cast(Tensor, self.outer(self.inner(self.ffn_norm(x))).add_(x))

        x = self.attention_norm(self.attention(x).add_(x))
        return cast(Tensor, self.ffn_norm(self.outer(self.inner(x)).add_(x)))


class MERT(PublishedBackbone):
    """MERT-v1; a subclass is data only.

    Args:
        weights: `published`, or `random`, which draws all of them by the recipe of the golden
            numbers: the control that tells what training adds to the architecture.
        checkpoint: path of a file to read in place of the one in the local cache.
        seed: of the random weights; without effect on the others.

    Raises:
        UserError: unknown names, a missing file (the text says how to fetch it), or a file that
            does not fit.
    """

    sample_rate = SAMPLE_RATE
    hop = HOP_SAMPLES / SAMPLE_RATE
    first_frame_s = WINDOW_SAMPLES / 2 / SAMPLE_RATE
    min_samples = WINDOW_SAMPLES
    front_end: ClassVar[Mapping[str, object]] = {"waveform": "zero mean, unit variance, 1e-7"}
    one_by_one_on = ("cpu",)

    size: ClassVar[MERTSize]

    def __init__(
        self, weights: str = "published", checkpoint: str | None = None, seed: int = 0
    ) -> None:
        super().__init__(weights, checkpoint, seed)
        size = self.size
        self.n_layers, self.dim = size.n_layers, size.dim

        shapes = published_shapes(size)
        spec = CheckpointSpec(
            owner=type(self).__name__,
            needed=shapes,
            ignored=("masked_spec_embed",),
            renamed=WEIGHT_NORM,
            prefix="",
            is_bare=True,
        )
        file = self.published_file({"weights": weights})
        state = self.read_or_draw(
            spec, file, drawn=shapes, weights=weights, checkpoint=checkpoint, seed=seed
        )

        with torch.device("meta"):  # no memory and no drawing for weights that are assigned below
            widths = (1, *[size.conv_dim] * (len(KERNELS) - 1))
            convolutions = zip(widths, KERNELS, STRIDES, strict=True)
            self.convolutions = nn.ModuleList(
                nn.Conv1d(n_in, size.conv_dim, kernel, stride, bias=False)
                for n_in, kernel, stride in convolutions
            )
            self.group_norm = nn.GroupNorm(size.conv_dim, size.conv_dim, EPS)
            self.feature_norm = nn.LayerNorm(size.conv_dim, EPS)
            self.project = Linear(size.conv_dim, size.dim)
            self.position = nn.Conv1d(
                *(size.dim, size.dim, POSITION_KERNEL),
                padding=POSITION_KERNEL // 2,
                groups=POSITION_GROUPS,
            )
            self.norm = nn.LayerNorm(size.dim, EPS)
            self.layers = nn.ModuleList(Block(size) for _ in range(size.n_layers))
        self.load_state_dict(fold(state, size), assign=True)

    def states(self, audio: Tensor) -> Tensor:
        """States of layers 0..L for checked audio: (B, S) float32 -> (B, L+1, T, D) float32."""
        n_at_once = max(1, FRONT_END_SAMPLES // audio.shape[1])
        x = torch.cat([self.embed(part) for part in torch.split(audio, n_at_once)])

        states = x.new_empty(len(x), self.n_layers + 1, *x.shape[1:])
        states[:, 0] = x
        for layer, block in enumerate(self.layers, start=1):
            x = block(x)
            states[:, layer] = x
        if self.size.pre_norm:
            states[:, -1] = self.norm(x)
        return states

    def embed(self, audio: Tensor) -> Tensor:
        """State of layer 0, the input of the first block: (B, S) -> (B, T, D)."""
        centred = audio - audio.mean(dim=1, keepdim=True)
        variance = centred.square().mean(dim=1, keepdim=True)
        x = (centred / torch.sqrt(variance + 1e-7)).unsqueeze(1)

        for index, convolution in enumerate(self.convolutions):
            x = convolution(x)
            x = F.gelu(self.group_norm(x) if index == 0 else x)
        x = self.project(self.feature_norm(x.transpose(1, 2)))

        # The kernel is even: there is a frame more than there were.
        positions = F.gelu(self.position(x.transpose(1, 2))[..., :-1])
        x = x + positions.transpose(1, 2)
        return x if self.size.pre_norm else cast(Tensor, self.norm(x))


class MERT95M(MERT):
    """MERT-v1-95M: 12 blocks of width 768 that normalise their sums."""

    tag = "mert95"
    size = MERTSize()
    variants: ClassVar[Mapping[str, Variant]] = {
        "published": Variant(MERT_95M_FILE),
        "random": Variant(None),
    }


class MERT330M(MERT):
    """MERT-v1-330M: 24 blocks of width 1024 that normalise their input."""

    tag = "mert330"
    size = MERTSize(dim=1024, n_layers=24, n_heads=16, ffn_dim=4096, pre_norm=True)
    variants: ClassVar[Mapping[str, Variant]] = {
        "published": Variant(MERT_330M_FILE),
        "random": Variant(None),
    }
