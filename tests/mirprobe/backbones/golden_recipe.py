"""Audio, sizes and files of the golden numbers: ../shared/golden/backbones/README.md."""

import json
import math
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from mirprobe.backbones.conformer import Conformer, ConformerVariant
from mirprobe.backbones.conformer_state import ConformerSize, published_shapes
from mirprobe.backbones.muq import MuQ
from mirprobe.backbones.musicfm import FMA_STATISTICS, MusicFM

DATA = Path(__file__).parents[2] / "data"
REDUCED = ConformerSize(conv_dim=32, dim=128, n_layers=3, n_heads=4, ffn_dim=256)
N_SAMPLES = {"w1s": 24_000, "w3s": 72_000, "odd": 71_999}


class SmallMusicFM(MusicFM):
    """MusicFM in the reduced size."""

    size = REDUCED


class SmallMuQ(MuQ):
    """MuQ in the reduced size."""

    size = REDUCED


class SmallMusicFMFma(SmallMusicFM):
    """The recipe's weights behind FMA's statistics."""

    variants: ClassVar[Mapping[str, ConformerVariant]] = {
        "random": ConformerVariant(None, *FMA_STATISTICS)
    }


def waveform(name: str) -> Tensor:
    """(1, S) float32 at 24 kHz; every sample is a 16-bit PCM value."""
    t = np.arange(N_SAMPLES[name], dtype=np.float64) / 24_000
    generator = np.random.Generator(np.random.PCG64(zlib.crc32(f"wave/{name}".encode())))
    uniform = generator.random(len(t))

    tau, ln10 = 2.0 * math.pi, math.log(10.0)
    tone_level = np.exp(-0.75 * ln10 * (1.0 - np.cos(tau * 2.1 * t)))
    noise_level = np.exp(-0.50 * ln10 * (1.0 - np.cos(tau * 3.3 * t + 1.0)))

    tones = 0.30 * np.sin(tau * 220.0 * t)
    tones = tones + 0.20 * np.sin(tau * 554.365 * t + 0.5)
    tones = tones + 0.15 * np.sin(tau * (300.0 * t + 450.0 * t * t))

    x = tone_level * tones + 0.1 * noise_level * (2.0 * uniform - 1.0)
    return torch.from_numpy((np.round(x * 32767.0) / 32768.0).astype(np.float32))[None]


def golden_input(case: str) -> Tensor:
    """Audio of a golden case: (1, S)."""
    if case.startswith("w1s_pad3s"):
        return torch.cat([waveform("w1s"), torch.zeros(1, 48_000)], dim=1)
    return waveform(case[:3])


def three_clips() -> Tensor:
    """(3, S): two golden cases of one length, and the first of them backwards."""
    music = golden_input("w3s")
    return torch.cat([music, golden_input("w1s_pad3s"), music.flip(1)])


def golden_states(tag: str, case: str) -> Tensor:
    """(1, L+1, T, D) that the published code returned."""
    with np.load(DATA / f"{tag}_reduced.npz") as arrays:
        layers = [arrays[f"{case}/h{layer}"] for layer in range(REDUCED.n_layers + 1)]
    return torch.from_numpy(np.stack(layers))[None]


def checksums() -> dict[str, Any]:
    """What the recipe's script printed."""
    content: dict[str, Any] = json.loads((DATA / "checksums.json").read_text())
    return content


def published_checkpoint(backbone: Conformer, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """All that a published file holds: the keys of `state`, and more that are not read."""
    own = {key: state[key] for key in published_shapes(backbone.size)}
    own["conformer.embed_positions.inv_freq"] = backbone.inv_freq

    own["cls_token"] = torch.zeros(128)
    own["linear.weight"] = torch.zeros(64, 128)
    own["linear.bias"] = torch.zeros(64)
    for key in [key for key in own if key.endswith("running_mean")]:
        own[key.replace("running_mean", "num_batches_tracked")] = torch.tensor(95489)

    position = "conformer.pos_conv_embed.conv"
    own[f"{position}.bias"] = torch.zeros(128)
    own[f"{position}.parametrizations.weight.original0"] = torch.zeros(1, 1, 128)
    own[f"{position}.parametrizations.weight.original1"] = torch.zeros(128, 8, 128)

    if isinstance(backbone, MusicFM):
        mel = "preprocessor_melspec_2048.mel_stft"
        own[f"{mel}.spectrogram.window"] = backbone.mel.spectrogram.window
        own[f"{mel}.mel_scale.fb"] = backbone.mel.mel_scale.fb
        own["quantizer_melspec_2048_0.codebook"] = torch.zeros(64, 16)
    else:
        quantizers = "rvq.quantizers"
        own[f"{quantizers}.0.in_proj.weight_g"] = torch.zeros(16, 1, 1)
        own[f"{quantizers}.7.out_proj.parametrizations.weight.original1"] = torch.zeros(64, 16, 1)
        own[f"{quantizers}.7.codebook.weight"] = torch.zeros(64, 16)
        own[f"{quantizers}.7.stale_counter"] = torch.zeros(64)
    return {f"model.{key}": tensor.clone() for key, tensor in own.items()}
