"""The network that MusicFM and MuQ share: a Conformer with rotary positions on a log-mel.

Conventions: layer 0 is the output of the convolutional front end (log-mel, two residual conv2d
blocks, a projection), layers 1..L-1 are what each Conformer layer returns after its own last
LayerNorm, and layer L has the encoder's additional LayerNorm on top, as in both published packages.
Frame k is centred on sample 960 k; T = ceil(floor(S / 240) / 4). Masks are not supported: the clips
of a batch have one length. M counts mel frames (10 ms), T frames of the backbone (40 ms).

The weights are held in the form that runs fastest and computes the same (`conformer_state.fold`).
Source of every size and step: ../shared/facts/backbones.md sections 1 and 2; the arithmetic is
tested against golden numbers of the published code.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Self, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mirprobe.backbones.backbone import Variant
from mirprobe.backbones.checkpoint import CheckpointSpec
from mirprobe.backbones.conformer_state import (
    IGNORED,
    INV_FREQ,
    STORED_MEL,
    ConformerSize,
    fold,
    published_shapes,
)
from mirprobe.backbones.layers import (
    EPS,
    ROTARY_BASE,
    Convolution,
    FeedForward,
    Linear,
    Rotation,
    inverse_frequencies,
    rotate,
    rotation_of,
)
from mirprobe.backbones.log_mel import FRONT_END, HOP_SAMPLES, N_FFT, SAMPLE_RATE, LogMel
from mirprobe.backbones.published import PublishedBackbone

# The maps of the conv2d blocks take 20 MB per second of audio: a big batch passes them in parts.
FRONT_END_SAMPLES = 60 * SAMPLE_RATE


class ResidualBlock(nn.Module):
    """Two convolutions and a convolved shortcut that halve bands and frames.

    BatchNorm is in the weights.
    """

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(n_in, n_out, 3, stride=2, padding=1)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, padding=1)
        self.conv3 = nn.Conv2d(n_in, n_out, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, n_in, bands, M) -> (B, n_out, ceil(bands / 2), ceil(M / 2))."""
        y: Tensor = self.conv2(F.relu_(self.conv1(x)))
        return F.relu_(y.add_(self.conv3(x)))


class Attention(nn.Module):
    """LayerNorm and self-attention over all frames.

    The input of the query and key projections is rotated, not queries and keys themselves; values
    see no rotation.
    """

    def __init__(self, size: ConformerSize) -> None:
        super().__init__()
        self.n_heads = size.n_heads
        self.norm = nn.LayerNorm(size.dim, EPS)
        self.query_key = Linear(size.dim, 2 * size.dim)
        self.value = Linear(size.dim, size.dim)
        self.out = Linear(size.dim, size.dim)

    def forward(self, x: Tensor, rotation: Rotation) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        h: Tensor = self.norm(x)
        rotated = rotate(self._heads(h), rotation).flatten(2)
        query, key = self.query_key(rotated).chunk(2, dim=-1)

        mixed = F.scaled_dot_product_attention(
            self._heads(query).transpose(1, 2),
            self._heads(key).transpose(1, 2),
            self._heads(self.value(h)).transpose(1, 2),
        )
        return cast(Tensor, self.out(mixed.transpose(1, 2).flatten(2)))

    def _heads(self, x: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, heads, d)."""
        return x.view(*x.shape[:2], self.n_heads, -1)


class ConformerLayer(nn.Module):
    """Feed-forward, attention, convolution, feed-forward, each added to its input; a LayerNorm."""

    def __init__(self, size: ConformerSize) -> None:
        super().__init__()
        self.ffn1 = FeedForward(size.dim, size.ffn_dim)
        self.attention = Attention(size)
        # The BatchNorm of the published layer is in the weights of the depthwise convolution.
        self.convolution = Convolution(size.dim, size.dim, size.kernel, bias=False)
        self.ffn2 = FeedForward(size.dim, size.ffn_dim)
        self.norm = nn.LayerNorm(size.dim, EPS)

    def forward(self, x: Tensor, rotation: Rotation) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        x = self.ffn1(x).add_(x)
        x = self.attention(x, rotation).add_(x)
        x = self.convolution(x).add_(x)
        return cast(Tensor, self.norm(self.ffn2(x).add_(x)))


@dataclass(frozen=True)
class ConformerVariant(Variant):
    """Weights and what their log-mel is normalised by.

    Attributes:
        file: the published file; None where all weights are drawn at random.
        mean: of the log-mel of the training data, in dB.
        std: likewise.
    """

    mean: float
    std: float


class Conformer(PublishedBackbone):
    """Backbone of `LogMel`, two `ResidualBlock`, a projection and L `ConformerLayer`.

    A subclass is data only.

    Attributes:
        size: sizes of the network.
        stored: further keys of the checkpoint that are used, with their shapes.
        ignored: further keys of the checkpoint that are not used, as regular expressions.
    """

    sample_rate = SAMPLE_RATE
    hop = 4 * HOP_SAMPLES / SAMPLE_RATE
    first_frame_s = 0.0
    min_samples = N_FFT // 2 + 1  # reflected by half a window
    front_end: ClassVar[Mapping[str, object]] = {**FRONT_END, "rotary_base": ROTARY_BASE}
    autocasts = False
    one_by_one_on = ("cpu",)  # a batch is no faster there from 4 s on, and moves states by 1e-6
    variants: ClassVar[Mapping[str, ConformerVariant]]

    size: ClassVar[ConformerSize] = ConformerSize()
    stored: ClassVar[Mapping[str, tuple[int, ...]]] = {}
    ignored: ClassVar[tuple[str, ...]] = ()
    inv_freq: Tensor
    _exact: Mapping[str, Tensor]  # float32 weights, while others are at work

    def __init__(self, weights: str, checkpoint: str | None = None, seed: int = 0) -> None:
        super().__init__(weights, checkpoint, seed)
        size, variant = self.size, self.variants[weights]
        self.n_layers, self.dim = size.n_layers, size.dim

        head_dim = size.dim // size.n_heads
        self.register_buffer("inv_freq", inverse_frequencies(head_dim), persistent=False)

        state = self._published_state(weights, checkpoint, seed)
        self.mel = LogMel(
            size.n_mels,
            torch.tensor((variant.mean, variant.std)),
            window=state.get(f"{STORED_MEL}.spectrogram.window"),
            filters=state.get(f"{STORED_MEL}.mel_scale.fb"),
        )
        with torch.device("meta"):  # no memory and no drawing for weights that are assigned below
            blocks = [ResidualBlock(n_in, size.conv_dim) for n_in in (1, size.conv_dim)]
            self.blocks = nn.ModuleList(blocks)
            self.project = Linear(size.conv_dim * (size.n_mels // 4), size.dim)
            self.layers = nn.ModuleList([ConformerLayer(size) for _ in range(size.n_layers)])
            self.norm = nn.LayerNorm(size.dim, EPS)

        mel_state = {f"mel.{key}": tensor for key, tensor in self.mel.state_dict().items()}
        self.load_state_dict(mel_state | fold(state, size), assign=True)

    def at(self, precision: str) -> Self:
        """As for every backbone; in bfloat16 all but the mel front end holds its weights in it,
        which is faster than autocast: nothing is cast on the way.
        """
        before = self.precision
        super().at(precision)
        parts = nn.ModuleList([self.blocks, self.project, self.layers, self.norm])
        if precision == "bf16" != before:
            self._exact = dict(parts.state_dict())
            parts.to(torch.bfloat16)
        if before == "bf16" != precision:
            device = self.device
            parts.load_state_dict(self._exact, assign=True)
            self._exact = {}
            parts.to(device)
        return self

    def _published_state(
        self, weights: str, checkpoint: str | None, seed: int
    ) -> dict[str, Tensor]:
        """Tensors in the published layout, drawn or read."""
        shapes = published_shapes(self.size)
        spec = CheckpointSpec(
            owner=type(self).__name__,
            needed=shapes | dict(self.stored),
            ignored=IGNORED + self.ignored,
            equal={INV_FREQ: self.inv_freq},
        )
        return self.read_or_draw(
            spec,
            self.variants[weights].file,
            drawn=shapes,
            weights=weights,
            checkpoint=checkpoint,
            seed=seed,
        )

    def states(self, audio: Tensor) -> Tensor:
        """States of layers 0..L for checked audio: (B, S) float32 -> (B, L+1, T, D) float32."""
        n_at_once = max(1, FRONT_END_SAMPLES // audio.shape[1])
        parts = [self.embed(part) for part in torch.split(audio, n_at_once)]
        x = parts[0] if len(parts) == 1 else torch.cat(parts)  # of one part it would be a copy
        rotation = rotation_of(x, self.inv_freq)

        states = torch.empty((len(x), self.n_layers + 1, *x.shape[1:]), device=x.device)
        states[:, 0] = x
        for layer, module in enumerate(self.layers, start=1):
            x = module(x, rotation)
            states[:, layer] = x if layer < self.n_layers else self.norm(x)
        return states

    def embed(self, audio: Tensor) -> Tensor:
        """State of layer 0, the input of the first Conformer layer: (B, S) -> (B, T, D)."""
        x = self.mel(audio).unsqueeze(1).to(self.project.weight.dtype)
        for block in self.blocks:
            x = block(x)
        return cast(Tensor, self.project(x.permute(0, 3, 2, 1).flatten(2)))
