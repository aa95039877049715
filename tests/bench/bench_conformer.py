"""Speed of mirprobe's Conformer beside a plain eager one and transformers' encoder, in one run.

    python tests/bench/bench_conformer.py [--seconds 10] [--batch 1] [--threads 2] [--repeat 3]
                                          [--dtype float32|bfloat16] [--device cpu|cuda]
                                          [--compile default|reduce-overhead|max-autotune]

Conventions: all rivals hold the same weights (golden recipe, MusicFM), hear the same audio and take
turns, so that what disturbs the machine disturbs all of them; the time of each is its best of
`repeat`. Work is counted once, on the eager implementation, with 2 FLOP per multiply-add.

`plain` is written from ../shared/facts/backbones.md as the published code runs: NCHW, BatchNorm and
each projection apart, softmax attention. In bfloat16 it and transformers run under autocast, as
MARBLE runs them. `x float32` is the speed relative to `plain` in float32, `x plain` relative to
`plain` in the dtype asked for. Errors are against `plain` in float32. The ceiling is the time the
same convolutions and matrix products would take at the speed of one large convolution and one large
matrix product, both measured here.
"""

import argparse
import importlib
import importlib.util
import re
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from mirprobe.backbones.conformer_state import ConformerSize, published_shapes
from mirprobe.backbones.layers import Linear
from mirprobe.backbones.log_mel import LogMel
from mirprobe.backbones.musicfm import MSD_STATISTICS, MusicFM
from mirprobe.backbones.random_weights import draw_state

SMALL = ConformerSize(conv_dim=32, dim=128, n_layers=3, n_heads=4, ffn_dim=256)


class SmallMusicFM(MusicFM):
    """MusicFM in the golden numbers' reduced size."""

    size = SMALL


class PlainBlock(nn.Module):
    """Residual conv2d block as published: NCHW, BatchNorm apart."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(n_in, n_out, 3, stride=2, padding=1)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, padding=1)
        self.conv3 = nn.Conv2d(n_in, n_out, 3, stride=2, padding=1)
        self.bn1 = nn.BatchNorm2d(n_out)
        self.bn2 = nn.BatchNorm2d(n_out)
        self.bn3 = nn.BatchNorm2d(n_out)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        return torch.relu(y.add(self.bn3(self.conv3(x))))


class PlainFeedForward(nn.Module):
    """Linear, SiLU, linear."""

    def __init__(self, dim: int, ffn_dim: int) -> None:
        super().__init__()
        self.intermediate_dense = nn.Linear(dim, ffn_dim)
        self.output_dense = nn.Linear(ffn_dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.output_dense(F.silu(self.intermediate_dense(x)))
        return y


class PlainAttention(nn.Module):
    """Softmax attention with four projections; queries and keys are made from the rotated input."""

    def __init__(self, dim: int, n_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.linear_q = nn.Linear(dim, dim)
        self.linear_k = nn.Linear(dim, dim)
        self.linear_v = nn.Linear(dim, dim)
        self.linear_out = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        n_clips, n_frames, dim = x.shape
        heads = x.view(n_clips, n_frames, self.n_heads, -1)
        half = heads.shape[-1] // 2

        steps = torch.arange(0, 2 * half, 2, device=x.device) / (2 * half)
        frames = torch.arange(n_frames, device=x.device).float()
        angles = torch.outer(frames, 1.0 / 10000.0**steps)
        angles = torch.cat((angles, angles), dim=-1)[:, None].to(x.dtype)
        turned = torch.cat((-heads[..., half:], heads[..., :half]), dim=-1)
        rotated = (heads * angles.cos() + turned * angles.sin()).reshape(n_clips, n_frames, dim)

        query = self.linear_q(rotated).view(heads.shape).transpose(1, 2)
        key = self.linear_k(rotated).view(heads.shape).transpose(1, 2)
        value = self.linear_v(x).view(heads.shape).transpose(1, 2)
        weights = torch.softmax(query @ key.transpose(-2, -1) / (2 * half) ** 0.5, dim=-1)
        mixed = (weights @ value).transpose(1, 2).reshape(n_clips, n_frames, dim)
        y: Tensor = self.linear_out(mixed)
        return y


class PlainConvolution(nn.Module):
    """Convolution module on (B, D, T), as published."""

    def __init__(self, dim: int, kernel: int) -> None:
        super().__init__()
        self.layer_norm = nn.LayerNorm(dim)
        self.pointwise_conv1 = nn.Conv1d(dim, 2 * dim, 1, bias=False)
        self.depthwise_conv = nn.Conv1d(
            dim, dim, kernel, padding=kernel // 2, groups=dim, bias=False
        )
        self.batch_norm = nn.BatchNorm1d(dim)
        self.pointwise_conv2 = nn.Conv1d(dim, dim, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = F.glu(self.pointwise_conv1(self.layer_norm(x).transpose(1, 2)), dim=1)
        y: Tensor = self.pointwise_conv2(F.silu(self.batch_norm(self.depthwise_conv(x))))
        return y.transpose(1, 2)


class PlainLayer(nn.Module):
    """One Conformer layer."""

    def __init__(self, size: ConformerSize) -> None:
        super().__init__()
        self.ffn1_layer_norm = nn.LayerNorm(size.dim)
        self.ffn1 = PlainFeedForward(size.dim, size.ffn_dim)
        self.self_attn_layer_norm = nn.LayerNorm(size.dim)
        self.self_attn = PlainAttention(size.dim, size.n_heads)
        self.conv_module = PlainConvolution(size.dim, size.kernel)
        self.ffn2_layer_norm = nn.LayerNorm(size.dim)
        self.ffn2 = PlainFeedForward(size.dim, size.ffn_dim)
        self.final_layer_norm = nn.LayerNorm(size.dim)

    def forward(self, x: Tensor) -> Tensor:
        x = x + 0.5 * self.ffn1(self.ffn1_layer_norm(x))
        x = x + self.self_attn(self.self_attn_layer_norm(x))
        x = x + self.conv_module(x)
        y: Tensor = self.final_layer_norm(x + 0.5 * self.ffn2(self.ffn2_layer_norm(x)))
        return y


class PlainFrontEnd(nn.Module):
    """Two blocks and a projection: (B, n_mels, M) -> (B, T, D)."""

    def __init__(self, size: ConformerSize) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            PlainBlock(1, size.conv_dim), PlainBlock(size.conv_dim, size.conv_dim)
        )
        self.linear = nn.Linear(size.conv_dim * (size.n_mels // 4), size.dim)

    def forward(self, mel: Tensor) -> Tensor:
        y: Tensor = self.linear(self.conv(mel.unsqueeze(1)).permute(0, 3, 1, 2).flatten(2))
        return y


class PlainEncoder(nn.Module):
    """Conformer layers and the last LayerNorm: (B, T, D) -> L + 1 states (B, T, D)."""

    def __init__(self, size: ConformerSize) -> None:
        super().__init__()
        self.layers = nn.ModuleList([PlainLayer(size) for _ in range(size.n_layers)])
        self.layer_norm = nn.LayerNorm(size.dim)

    def forward(self, x: Tensor) -> list[Tensor]:
        states = [x]
        for layer in self.layers:
            states.append(layer(states[-1]))
        return [*states[:-1], self.layer_norm(states[-1])]


def build_published_encoder(size: ConformerSize) -> nn.Module:
    """transformers' Wav2Vec2ConformerEncoder, configured as in both published packages."""
    published = importlib.import_module(
        "transformers.models.wav2vec2_conformer.modeling_wav2vec2_conformer"
    )
    config = published.Wav2Vec2ConformerConfig(
        hidden_size=size.dim,
        num_hidden_layers=size.n_layers,
        num_attention_heads=size.n_heads,
        intermediate_size=size.ffn_dim,
        hidden_act="swish",
        position_embeddings_type="rotary",
        conv_depthwise_kernel_size=size.kernel,
        layerdrop=0.0,
    )
    config._attn_implementation = "sdpa"
    encoder: nn.Module = published.Wav2Vec2ConformerEncoder(config)
    return encoder


def run_published_encoder(encoder: Any, x: Tensor) -> list[Tensor]:
    """L + 1 states from a loop over the encoder's layers.

    From transformers 5.16 on the encoder itself returns none.
    """
    states, positions = [x], encoder.embed_positions(x)
    for layer in encoder.layers:
        out = layer(states[-1], relative_position_embeddings=positions)
        states.append(out[0] if isinstance(out, tuple) else out)
    return [*states[:-1], encoder.layer_norm(states[-1])]


class Rival(nn.Module):
    """Log-mel, plain front end and an encoder, with weights in the published layout.

    Args:
        size: sizes of the network.
        state: weights under the published keys.
        published: whether the encoder is that of transformers.
    """

    def __init__(
        self, size: ConformerSize, state: Mapping[str, Tensor], *, published: bool = False
    ) -> None:
        super().__init__()
        self.mel = LogMel(size.n_mels, torch.tensor(MSD_STATISTICS))
        self.conv = PlainFrontEnd(size)
        self.conformer = build_published_encoder(size) if published else PlainEncoder(size)
        self.run = run_published_encoder if published else nn.Module.__call__
        missing, unknown = self.load_state_dict(state, strict=False, assign=True)
        not_drawn = (
            r"(mel|conformer\.pos_conv_embed|conformer\.embed_positions)\.|.*batches_tracked$"
        )
        left = [key for key in missing if not re.match(not_drawn, key)]
        if left or unknown:
            raise RuntimeError(f"weights do not fit: missing {left[:3]}, unknown {unknown[:3]}")

        self.eval().requires_grad_(False)

    def forward(self, audio: Tensor) -> Tensor:
        """(B, S) -> (B, L+1, T, D)."""
        with torch.autocast(audio.device.type, enabled=False):
            mel = self.mel(audio)
        return torch.stack(self.run(self.conformer, self.conv(mel)), dim=1)


def best_times(
    rivals: Mapping[str, Callable[[], object]], *, repeat: int, device: str
) -> dict[str, float]:
    """Best time of each in seconds, taken in turns after one warm-up each."""
    times: dict[str, list[float]] = {name: [] for name in rivals}
    for turn in range(repeat + 1):
        for name, call in rivals.items():
            synchronize(device)
            start = time.perf_counter()
            call()
            synchronize(device)
            if turn > 0:  # the first is the warm-up
                times[name].append(time.perf_counter() - start)
    return {name: min(values) for name, values in times.items()}


def synchronize(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def count_flops(call: Callable[[], object]) -> tuple[float, float]:
    """GFLOP of the convolutions and of the matrix products of one call."""
    with FlopCounterMode(display=False) as counter:
        call()

    convolutions = products = 0.0
    for operation, flops in counter.get_flop_counts()["Global"].items():
        if "conv" in str(operation):
            convolutions += flops / 1e9
        else:
            products += flops / 1e9
    return convolutions, products


CONV_GFLOP = 2 * 512 * 512 * 9 * 64 * 256 / 1e9
MATMUL_GFLOP = 2 * 2048**3 / 1e9


def build_ceilings(dtype: torch.dtype, device: str) -> dict[str, Callable[[], object]]:
    """A large 3x3 convolution and a large matrix product, each in two ways; the faster counts."""
    maps = torch.randn(1, 512, 64, 256).to(device, dtype)
    kernel = torch.randn(512, 512, 3, 3).to(device, dtype)
    maps_last = maps.to(memory_format=torch.channels_last)
    kernel_last = kernel.to(memory_format=torch.channels_last)

    matrix = torch.randn(2048, 2048).to(device, dtype)
    linear = Linear(2048, 2048, bias=False).to(device, dtype).requires_grad_(False)
    return {
        "conv nchw": lambda: F.conv2d(maps, kernel, padding=1),
        "conv nhwc": lambda: F.conv2d(maps_last, kernel_last, padding=1),
        "matmul": lambda: matrix @ matrix,
        "linear": lambda: linear(matrix),
    }


def build_rivals(options: argparse.Namespace, audio: Tensor) -> dict[str, Callable[[], Tensor]]:
    """Calls by name; `plain float32` comes first."""
    backbone_class = SmallMusicFM if options.size == "small" else MusicFM
    drawn = draw_state("musicfm", published_shapes(backbone_class.size))
    state = {key: tensor.to(options.device) for key, tensor in drawn.items()}
    plain = Rival(backbone_class.size, state).to(options.device)
    half = options.dtype == "bfloat16"
    backbone = backbone_class(weights="random")
    backbone.freeze().at("bf16" if half else "float32").to(options.device)

    def autocast(model: nn.Module) -> Callable[[], Tensor]:
        def call() -> Tensor:
            with torch.autocast(options.device, torch.bfloat16, enabled=half):
                states: Tensor = model(audio)
                return states

        return call

    # A compiled one passes the clips of a batch at once also on a CPU, where `forward` parts them.
    rivals: dict[str, Callable[[], Tensor]] = {"plain float32": lambda: plain(audio)}
    if half:
        rivals["plain bf16 autocast"] = autocast(plain)
    if importlib.util.find_spec("transformers"):
        published = Rival(backbone_class.size, state, published=True).to(options.device)
        rivals["transformers"] = autocast(published)
    rivals["mirprobe"] = lambda: backbone(audio)
    if options.compile:
        compiled = torch.compile(backbone.states, mode=options.compile)
        rivals[f"mirprobe compiled ({options.compile})"] = lambda: compiled(audio)
    return rivals


def report(options: argparse.Namespace, rivals: Mapping[str, Callable[[], Tensor]]) -> None:
    """Times everything in turns and prints one line a rival."""
    convolutions, products = count_flops(rivals["plain float32"])
    work = convolutions + products
    reference = rivals["plain float32"]().float()
    errors = {name: (call().float() - reference).cpu() for name, call in rivals.items()}

    ceilings = build_ceilings(getattr(torch, options.dtype), options.device)
    times = best_times(ceilings | dict(rivals), repeat=options.repeat, device=options.device)
    conv_ceiling = CONV_GFLOP / min(times["conv nchw"], times["conv nhwc"])
    matmul_ceiling = MATMUL_GFLOP / min(times["matmul"], times["linear"])
    ideal = convolutions / conv_ceiling + products / matmul_ceiling

    print(
        f"{options.dtype} on {options.device}, {options.threads} threads, "
        f"{options.batch} clips of {options.seconds:g} s"
    )
    print(f"work: {convolutions:.1f} GFLOP in convolutions, {products:.1f} in matrix products")
    print(f"ceilings: {conv_ceiling:.0f} and {matmul_ceiling:.0f} GFLOP/s, together {ideal:.3f} s")
    print(
        f"{'':36}   time  x float32  x plain  x real time  GFLOP/s  of ceiling  max error      rms"
    )

    exact = times["plain float32"]
    same_dtype = times.get("plain bf16 autocast", exact)
    audio_seconds = options.batch * options.seconds
    for name in rivals:
        seconds, error = times[name], errors[name]
        speeds = (
            f"{exact / seconds:11.2f}{same_dtype / seconds:9.2f}{audio_seconds / seconds:13.2f}"
        )
        shares = f"{work / seconds:9.0f}{ideal / seconds:12.0%}"
        distances = f"{error.abs().max():11.1e}{error.pow(2).mean().sqrt():9.1e}"
        print(f"{name:36}{seconds:7.3f}{speeds}{shares}{distances}")


def main() -> None:
    """Reads the options, builds the rivals and prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=10.0, help="length of a clip")
    parser.add_argument("--batch", type=int, default=1, help="clips in a batch")
    parser.add_argument("--threads", type=int, default=2, help="threads on the CPU")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--repeat", type=int, default=3, help="timed calls of each rival")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--size", choices=("full", "small"), default="full")
    parser.add_argument(
        "--compile",
        choices=("default", "reduce-overhead", "max-autotune"),
        help="add a compiled one",
    )
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    n_samples = round(24_000 * options.seconds)
    audio = 0.1 * torch.randn(options.batch, n_samples, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        report(options, build_rivals(options, audio.to(options.device)))


if __name__ == "__main__":
    main()
