"""The network that MusicFM and MuQ share: log-mel, two residual conv2d blocks, rotary Conformer
layers, a LayerNorm.

Conventions: layer 0 is the output of the convolutional front end, layers 1..L-1 are what each
Conformer layer returns after its own last LayerNorm, and layer L has the encoder's additional
LayerNorm on top, as in both published packages. Frame k is centred on sample 960 k; T =
ceil(floor(S / 240) / 4). Masks are not supported: the clips of a batch have one length. M counts
mel frames (10 ms), T frames of the backbone (40 ms).

The weights are held in the form that runs fastest and computes the same (`layout.fold`). Source of
every size and step: ../shared/facts/backbones.md sections 1 and 2; the arithmetic is tested against
golden numbers of the published code.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal, cast, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchaudio import transforms

from datamodules.errors import UserError
from mirprobe.backbones.backbone import Backbone
from mirprobe.backbones.checkpoint import Layout, read_state, sha256, verify
from mirprobe.backbones.conformer_state import (
    EPS,
    IGNORED,
    INV_FREQ,
    STORED_MEL,
    ConformerSize,
    fold,
    published_shapes,
)
from mirprobe.backbones.hub import PublishedFile, locate
from mirprobe.backbones.random_weights import draw_state

Precision = Literal["float32", "bf16"]
SAMPLE_RATE, N_FFT, HOP_SAMPLES = 24_000, 2048, 240
FRONT_END_SAMPLES = (
    60 * SAMPLE_RATE
)  # the conv maps take 20 MB per second of audio, so a big batch passes them in parts
ROTARY_BASE = 10_000.0
ONEDNN: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]


class LogMel(nn.Module):
    """Normalised log-mel spectrogram, in float32 whatever the precision after it.

    Window and filter bank are part of the state dict only where the checkpoint brings them
    (`stored`, published keys); the computed ones follow from the constants. `statistics` are mean
    and std in dB.
    """

    statistics: Tensor

    def __init__(
        self, n_mels: int, statistics: tuple[float, float], stored: Mapping[str, Tensor]
    ) -> None:
        super().__init__()
        self.spectrogram = transforms.Spectrogram(n_fft=N_FFT, hop_length=HOP_SAMPLES, power=2.0)
        self.mel_scale = transforms.MelScale(n_mels, SAMPLE_RATE, n_stft=N_FFT // 2 + 1)
        self.decibel = transforms.AmplitudeToDB(
            "power"
        )  # top_db None: quiet frames keep their level
        for module, name, owner in (
            (self.spectrogram, "window", "spectrogram"),
            (self.mel_scale, "fb", "mel_scale"),
        ):
            tensor = stored.get(f"{STORED_MEL}.{owner}.{name}")
            computed = getattr(module, name)
            module.register_buffer(
                name, computed if tensor is None else tensor, persistent=tensor is not None
            )
        self.register_buffer("statistics", torch.tensor(statistics))

    def forward(self, audio: Tensor) -> Tensor:
        """(B, S) -> (B, n_mels, M); M = floor(S / 240), since the last of the centred frames is
        dropped.
        """
        mean, std = self.statistics
        decibels: Tensor = self.decibel(self.mel_scale(self.spectrogram(audio)[..., :-1]))
        return decibels.sub_(mean).div_(std)


class Linear(nn.Linear):
    """`nn.Linear`, followed by SiLU where `silu` is set; in float32 on a CPU both are one oneDNN
    call.
    """

    def __init__(self, n_in: int, n_out: int, *, bias: bool = True, silu: bool = False) -> None:
        super().__init__(n_in, n_out, bias)
        self.silu = silu

    def forward(self, x: Tensor) -> Tensor:
        """(..., n_in) -> (..., n_out)."""
        if ONEDNN and x.is_cpu and x.dtype == torch.float32 and not torch.compiler.is_compiling():
            # F.linear goes to MKL, which reaches 90 GFLOP/s on a core of an AMD EPYC where oneDNN
            # reaches 215. Inductor cannot compile this call with weights that are not packed.
            activation = "swish" if self.silu else "none"
            return cast(
                Tensor,
                torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, activation, [], ""),
            )
        y = F.linear(x, self.weight, self.bias)
        return F.silu(y, inplace=True) if self.silu else y


class ResidualBlock(nn.Module):
    """Two convolutions and a convolved shortcut that halve bands and frames; BatchNorm is in the
    weights.
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


class FeedForward(nn.Module):
    """LayerNorm, linear, SiLU, linear; the factor 0.5 of the residual is in the weights."""

    def __init__(self, size: ConformerSize) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(size.dim, EPS)
        self.inner = Linear(size.dim, size.ffn_dim, silu=True)
        self.outer = Linear(size.ffn_dim, size.dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        return cast(Tensor, self.outer(self.inner(self.norm(x))))


def rotate(x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    """Rotates the pairs (i, i + d/2) of each head by the angles of the frame: (B, T, heads, d) ->
    (B, T, heads, d).

    >>> rotate(torch.tensor([[[[1.0, 2.0]]]]), (torch.zeros(1, 1, 1), torch.ones(1, 1, 1))).flatten()
    tensor([-2.,  1.])
    """
    cos, sin = rotation
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


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

    def forward(self, x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
        """(B, T, D) -> (B, T, D); `rotation` is (cos, sin), each (T, 1, d/2)."""
        h: Tensor = self.norm(x)
        rotated = rotate(self._heads(h), rotation).flatten(2)
        query, key = self.query_key(rotated).chunk(2, dim=-1)
        query, key, value = (
            self._heads(part).transpose(1, 2) for part in (query, key, self.value(h))
        )
        mixed = F.scaled_dot_product_attention(query, key, value)
        return cast(Tensor, self.out(mixed.transpose(1, 2).flatten(2)))

    def _heads(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], self.n_heads, -1)


class Convolution(nn.Module):
    """LayerNorm, gated pointwise, depthwise over time, SiLU, pointwise; BatchNorm is in the
    weights.
    """

    def __init__(self, size: ConformerSize) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(size.dim, EPS)
        self.expand = Linear(size.dim, 2 * size.dim, bias=False)
        # A conv2d, since (B, T, D) is a channels_last map one row high: no transposition, and 30
        # times conv1d's speed.
        self.depthwise = nn.Conv2d(
            size.dim, size.dim, (1, size.kernel), padding=(0, size.kernel // 2), groups=size.dim
        )
        self.reduce = Linear(size.dim, size.dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        gated = F.glu(self.expand(self.norm(x)), dim=-1)
        mixed = F.silu(self.depthwise(gated.unsqueeze(1).permute(0, 3, 1, 2)), inplace=True)
        return cast(Tensor, self.reduce(mixed.permute(0, 2, 3, 1).squeeze(1)))


class ConformerLayer(nn.Module):
    """Feed-forward, attention, convolution, feed-forward, each added to its input, then a
    LayerNorm.
    """

    def __init__(self, size: ConformerSize) -> None:
        super().__init__()
        self.ffn1, self.ffn2 = FeedForward(size), FeedForward(size)
        self.attention = Attention(size)
        self.convolution = Convolution(size)
        self.norm = nn.LayerNorm(size.dim, EPS)

    def forward(self, x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
        """(B, T, D) -> (B, T, D); `rotation` is (cos, sin), each (T, 1, d/2)."""
        x = self.ffn1(x).add_(x)
        x = self.attention(x, rotation).add_(x)
        x = self.convolution(x).add_(x)
        return cast(Tensor, self.norm(self.ffn2(x).add_(x)))


@dataclass(frozen=True)
class Variant:
    """One set of weights: its published file (None: drawn at random), and mean and std, in dB, of
    its log-mel input.
    """

    file: PublishedFile | None
    mean: float
    std: float


class Conformer(Backbone):
    """Backbone of `LogMel`, two `ResidualBlock`, a projection and L `ConformerLayer`; a subclass is
    data only.

    Attributes:
        tag: name of the backbone in the recipe of the random weights.
        size: sizes of the network.
        variants: what `weights` may be.
        stored: further keys of the checkpoint that are used, with their shapes.
        ignored: further keys of the checkpoint that are not used, as regular expressions.
    """

    sample_rate, hop, min_samples = SAMPLE_RATE, 4 * HOP_SAMPLES / SAMPLE_RATE, N_FFT // 2 + 1
    front_end: ClassVar[Mapping[str, object]] = {
        "n_fft": N_FFT, "hop": HOP_SAMPLES, "window": "periodic Hann", "padding": "centred, reflect", "f_max": 12000,
        "mel": "HTK, no area norm", "level": "10 log10(max(power, 1e-10)), no top_db", "rotary_base": ROTARY_BASE,
    }  # fmt: skip
    tag: ClassVar[str]
    size: ClassVar[ConformerSize] = ConformerSize()
    variants: ClassVar[Mapping[str, Variant]]
    stored: ClassVar[Mapping[str, tuple[int, ...]]] = {}
    ignored: ClassVar[tuple[str, ...]] = ()
    inv_freq: Tensor

    def __init__(
        self, *, weights: str, checkpoint: str | None, seed: int, precision: Precision
    ) -> None:
        super().__init__()
        _require("weights", weights, tuple(self.variants))
        _require("precision", precision, get_args(Precision))
        self.precision = precision
        size, variant = self.size, self.variants[weights]
        self.n_layers, self.dim = size.n_layers, size.dim
        head_dim = size.dim // size.n_heads
        self.register_buffer(
            "inv_freq",
            1.0 / ROTARY_BASE ** (torch.arange(0, head_dim, 2) / head_dim),
            persistent=False,
        )
        state = self._published_state(weights, checkpoint, seed)
        self.mel = LogMel(size.n_mels, (variant.mean, variant.std), state)
        with torch.device("meta"):
            self.blocks = nn.ModuleList(
                [ResidualBlock(n_in, size.conv_dim) for n_in in (1, size.conv_dim)]
            )
            self.project = Linear(size.conv_dim * (size.n_mels // 4), size.dim)
            self.layers = nn.ModuleList([ConformerLayer(size) for _ in range(size.n_layers)])
            self.norm = nn.LayerNorm(size.dim, EPS)
        mel_state = {f"mel.{key}": tensor for key, tensor in self.mel.state_dict().items()}
        self.load_state_dict(mel_state | fold(state, size), assign=True)
        if precision == "bf16":
            for module in (self.blocks, self.project, self.layers, self.norm):
                module.to(torch.bfloat16)
        self.freeze()

    def _published_state(
        self, weights: str, checkpoint: str | None, seed: int
    ) -> dict[str, Tensor]:
        shapes, file = published_shapes(self.size), self.variants[weights].file
        if file is None:
            if checkpoint is not None:
                raise UserError(
                    f"model.weights={weights} reads no file, found model.checkpoint={checkpoint}: "
                    "drop one"
                )
            return draw_state(self.tag, shapes, seed=seed)
        if checkpoint is None:
            path = locate(file)
            verify(path, n_bytes=file.n_bytes, digest=file.sha256, remedy=file.remedy)
        else:
            path = Path(checkpoint)
            self._refuse_other_variant(path, weights)
        needed = shapes | dict(self.stored)
        layout = Layout(
            type(self).__name__, needed, IGNORED + self.ignored, equal={INV_FREQ: self.inv_freq}
        )
        state, self.keys_ignored = read_state(path, layout, remedy=file.remedy)
        self.keys_matched = len(state)
        return state

    def _refuse_other_variant(self, path: Path, weights: str) -> None:
        """Variants have the same keys and other input statistics: only the checksum can tell them
        apart.
        """
        for name, variant in self.variants.items():
            file = variant.file
            if (
                file is None
                or name == weights
                or not path.is_file()
                or path.stat().st_size != file.n_bytes
            ):
                continue
            if sha256(path) == file.sha256:
                raise UserError(
                    f"{path} is the published {file.name}, not {weights}: set model={file.model}"
                )

    def embed(self, audio: Tensor) -> Tensor:
        """State of layer 0, the input of the first Conformer layer: (B, S) -> (B, T, D)."""
        x = self.mel(audio).unsqueeze(1).to(self.project.weight.dtype)
        for block in self.blocks:
            x = block(x)
        return cast(Tensor, self.project(x.permute(0, 3, 2, 1).flatten(2)))

    def states(self, audio: Tensor) -> Tensor:
        """States of layers 0..L for checked audio: (B, S) float32 -> (B, L+1, T, D) float32.

        On a CPU the clips pass one by one: a batch is no faster from 4 s on, and sums in another
        order (1e-6 relative).
        """
        return torch.cat(
            [self._states(part) for part in torch.split(audio, 1 if audio.is_cpu else len(audio))]
        )

    def _states(self, audio: Tensor) -> Tensor:
        parts = torch.split(audio, max(1, FRONT_END_SAMPLES // audio.shape[1]))
        x = torch.cat([self.embed(part) for part in parts])
        out = torch.empty((len(x), self.n_layers + 1, *x.shape[1:]), device=x.device)
        out[:, 0] = x
        angles = torch.arange(x.shape[1], device=x.device).unsqueeze(1) * self.inv_freq
        rotation = (angles.cos().to(x.dtype).unsqueeze(1), angles.sin().to(x.dtype).unsqueeze(1))
        for layer, module in enumerate(self.layers, start=1):
            x = module(x, rotation)
            out[:, layer] = x if layer < self.n_layers else self.norm(x)
        return out


def _require(key: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise UserError(f"unknown model.{key}={value}: set it to one of {', '.join(known)}")
