"""Audio, sizes and files of the golden numbers of MERT-v1, MERT2 and OMAR-RQ.

Source: ../shared/golden/backbones2/README.md.
"""

import hashlib
import json
import math
import zlib
from typing import Any

import numpy as np
import torch
from golden_recipe import DATA
from torch import Tensor

from mirprobe.backbones.mert import MERT95M, MERT330M
from mirprobe.backbones.mert2 import MERT2
from mirprobe.backbones.mert2_state import MERT2Size
from mirprobe.backbones.mert_state import MERTSize
from mirprobe.backbones.omar_rq import OmarRQ25Hz, OmarRQMel
from mirprobe.backbones.omar_rq_state import OmarSize
from mirprobe.backbones.published import PublishedBackbone
from mirprobe.backbones.random_weights import draw_state

N_LAYERS = 3
REDUCED = {"dim": 96, "n_layers": N_LAYERS, "n_heads": 4, "ffn_dim": 192}


class SmallMERT95M(MERT95M):
    size = MERTSize(conv_dim=32, **REDUCED)


class SmallMERT330M(MERT330M):
    size = MERTSize(conv_dim=32, pre_norm=True, **REDUCED)


class SmallMERT2(MERT2):
    size = MERT2Size(channels=(128, 64, 96), depths=(1, 2, 2), **REDUCED)


class SmallOmarRQ25Hz(OmarRQ25Hz):
    size = OmarSize(**REDUCED)


class SmallOmarRQMel(OmarRQMel):
    size = OmarSize(**REDUCED)


SMALL: dict[str, type[PublishedBackbone]] = {
    "mert95": SmallMERT95M,
    "mert330": SmallMERT330M,
    "mert2": SmallMERT2,
    "omar25": SmallOmarRQ25Hz,
    "omarbase": SmallOmarRQMel,
}
TOLERANCE = {"mert95": 2e-5, "mert330": 2e-5, "mert2": 4e-5, "omar25": 2e-5, "omarbase": 4e-5}


def waveform2(name: str) -> Tensor:
    """(1, S) float32; every sample is a 16-bit PCM value; `w1s16k` is 1 s at 16 kHz."""
    rate = 16_000 if name.endswith("16k") else 24_000
    t = np.arange(int(name[1]) * rate, dtype=np.float64) / rate
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


def golden_input2(case: str) -> Tensor:
    """Audio of a golden case: (1, S)."""
    name = case.removesuffix("_pad3s").removesuffix("_fsq").removesuffix("_fb2")
    audio = waveform2(name)
    if case.endswith("_pad3s"):
        return torch.nn.functional.pad(audio, (0, 2 * audio.shape[1]))
    return audio


def assert_golden(tag: str, case: str, states: Tensor) -> None:
    """Holds states of one clip, (1, 4, T, 96), against what the published code returned."""
    with np.load(DATA / f"{tag}_reduced.npz") as arrays:
        step = int(arrays[f"{case}/step"]) if f"{case}/step" in arrays else 1
        golden = np.stack([arrays[f"{case}/h{layer}"] for layer in range(N_LAYERS + 1)])
    found = states[0, :, ::step].cpu()
    torch.testing.assert_close(found, torch.from_numpy(golden), rtol=0, atol=TOLERANCE[tag])


def golden_array(tag: str, key: str) -> Tensor:
    with np.load(DATA / f"{tag}_reduced.npz") as arrays:
        return torch.from_numpy(arrays[key])


def checksums2() -> dict[str, Any]:
    """What the recipe's script printed."""
    content: dict[str, Any] = json.loads((DATA / "checksums2.json").read_text())
    return content


def digest_of(tag: str, shapes: dict[str, tuple[int, ...]]) -> str:
    """SHA-256 over keys and values of the drawn weights, as the recipe's script takes it."""
    digest = hashlib.sha256()
    for key, shape in sorted(shapes.items()):
        tensor = draw_state(tag, {key: shape})[key]  # one at a time: all take 2.5 GB
        digest.update(key.encode() + b"\0" + tensor.numpy().tobytes())
    return digest.hexdigest()
