"""MERT2 (MERT-v2-30s and -FullSong): ConvNeXt stages on a log-mel, then a Conformer.

Conventions: 24 kHz in, 25 frames a second, T = floor(S / 960); frame k stands for four mel frames
and is centred 15 ms after 40 k ms. Layer 0 is the output of the subsampling, layers 1..24 the block
outputs, each of which ends in its own LayerNorm. The checkpoint's own window, mel filter bank and
statistics of each band are used. Response normalisation and attention see the whole clip. Source:
../shared/facts/backbones2.md section 2.
"""

from collections.abc import Mapping
from typing import ClassVar, cast

import torch
from torch import Tensor, nn

from mirprobe.backbones.backbone import Variant
from mirprobe.backbones.checkpoint import CheckpointSpec
from mirprobe.backbones.convnext import Stage
from mirprobe.backbones.hub import PublishedFile
from mirprobe.backbones.layers import (
    EPS,
    ROTARY_BASE,
    Convolution,
    FeedForward,
    Rotation,
    SelfAttention,
    inverse_frequencies,
    rotation_of,
)
from mirprobe.backbones.log_mel import FRONT_END, HOP_SAMPLES, N_FFT, SAMPLE_RATE, LogMel
from mirprobe.backbones.mert2_state import (
    FILTERS,
    MEL_MEAN,
    MEL_STD,
    WINDOW,
    MERT2Size,
    fold,
    published_shapes,
)
from mirprobe.backbones.published import PublishedBackbone

LEAST_STD = 1e-5  # dB
N_BYTES = 2_529_812_848

CLIPS_OF_30_S = PublishedFile(
    model="mert2_30s",
    repo="m-a-p/MERT-v2-30s",
    revision="12130d22fd947c24b0299c9368900fb06a608512",
    name="model.safetensors",
    n_bytes=N_BYTES,
    sha256=None,  # not known to us: `mirprobe fetch` says what the hub has
)
FULL_SONG = PublishedFile(
    model="mert2_fullsong",
    repo="m-a-p/MERT-v2-FullSong",
    revision="d8ba1c745e733b3908ce6ad16ebeb17ac7600a42",
    name="model.safetensors",
    n_bytes=N_BYTES,
    sha256="e6dd2ab187d6dd62b6521cd7d8f932e237acf0c5757745a7232082e28391350d",
)


class Block(nn.Module):
    """Feed-forward, attention, convolution, feed-forward, each added to its input; a LayerNorm.

    Unlike MusicFM's, queries and keys themselves are rotated, and the convolution is normalised
    over channels.
    """

    def __init__(self, size: MERT2Size) -> None:
        super().__init__()
        self.ffn1 = FeedForward(size.dim, size.ffn_dim, activation="gelu")
        self.attention_norm = nn.LayerNorm(size.dim, EPS)
        self.attention = SelfAttention(size.dim, size.n_heads)
        self.convolution = Convolution(
            *(size.dim, size.dim, size.kernel), bias=False, activation="gelu", inner_norm=True
        )
        self.ffn2 = FeedForward(size.dim, size.ffn_dim, activation="gelu")
        self.norm = nn.LayerNorm(size.dim, EPS)

    def forward(self, x: Tensor, rotation: Rotation) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        x = self.ffn1(x).add_(x)
        x = self.attention(self.attention_norm(x), rotation).add_(x)
        x = self.convolution(x).add_(x)
        return cast(Tensor, self.norm(self.ffn2(x).add_(x)))


class MERT2(PublishedBackbone):
    """MERT2 with the weights `30s`, `fullsong` or `random`; one network, no chunks.

    Args:
        weights: `30s` and `fullsong` are the published ones; `random` draws all of them by the
            recipe of the golden numbers: the control that tells what training adds to the
            architecture.
        checkpoint: path of a file to read in place of the one in the local cache.
        seed: of the random weights; without effect on the others.
        revision: commit in place of ours, 40 hex digits.
        sha256: checksum in place of ours, 64 hex digits; of `30s` we know none.

    Raises:
        UserError: unknown names, a missing file (the text says how to fetch it), or a file that
            does not fit.
    """

    sample_rate = SAMPLE_RATE
    hop = 4 * HOP_SAMPLES / SAMPLE_RATE
    first_frame_s = 1.5 * HOP_SAMPLES / SAMPLE_RATE
    min_samples = N_FFT // 2 + 1  # reflected by half a window
    front_end: ClassVar[Mapping[str, object]] = {**FRONT_END, "rotary_base": ROTARY_BASE}
    one_by_one_on = ("cpu",)
    variants: ClassVar[Mapping[str, Variant]] = {
        "30s": Variant(CLIPS_OF_30_S),
        "fullsong": Variant(FULL_SONG),
        "random": Variant(None),
    }

    tag = "mert2"
    size: ClassVar[MERT2Size] = MERT2Size()
    inv_freq: Tensor

    def __init__(
        self,
        weights: str = "30s",
        checkpoint: str | None = None,
        seed: int = 0,
        revision: str | None = None,
        sha256: str | None = None,
    ) -> None:
        super().__init__(weights, checkpoint, seed)
        size = self.size
        self.n_layers, self.dim, n_mels = size.n_layers, size.dim, size.channels[0]
        self.register_buffer(
            "inv_freq", inverse_frequencies(size.dim // size.n_heads), persistent=False
        )

        shapes = published_shapes(size)
        stored = {WINDOW: (N_FFT,), FILTERS: (N_FFT // 2 + 1, n_mels)}
        spec = CheckpointSpec(type(self).__name__, shapes | stored, prefix="", is_bare=True)
        pins = {"weights": weights, "revision": revision, "sha256": sha256}
        state = self.read_or_draw(
            *(spec, self.published_file(pins)),
            drawn=shapes,
            weights=weights,
            checkpoint=checkpoint,
            seed=seed,
        )

        statistics = torch.stack([state[MEL_MEAN], state[MEL_STD].clamp(min=LEAST_STD)])
        self.mel = LogMel(
            *(n_mels, statistics.unsqueeze(2)), window=state.get(WINDOW), filters=state.get(FILTERS)
        )
        with torch.device("meta"):  # no memory and no drawing for weights that are assigned below
            widths = zip((n_mels, *size.channels), size.channels, size.depths, strict=False)
            stages = [Stage(*sizes, halves=s > 0) for s, sizes in enumerate(widths)]
            self.stages = nn.Sequential(*stages)
            self.layers = nn.ModuleList(Block(size) for _ in range(size.n_layers))
        mel_state = {f"mel.{key}": tensor for key, tensor in self.mel.state_dict().items()}
        self.load_state_dict(mel_state | fold(state, size), assign=True)

    def states(self, audio: Tensor) -> Tensor:
        """States of layers 0..L for checked audio: (B, S) float32 -> (B, L+1, T, D) float32."""
        x: Tensor = self.stages(self.mel(audio).transpose(1, 2))
        rotation = rotation_of(x, self.inv_freq)

        states = x.new_empty(len(x), self.n_layers + 1, *x.shape[1:])
        states[:, 0] = x
        for layer, block in enumerate(self.layers, start=1):
            x = block(x, rotation)
            states[:, layer] = x
        return states
