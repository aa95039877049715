"""Random weights by the recipe of the golden numbers: the control that tells what training adds."""

import math
import zlib
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

STATISTICS = {  # offset and scale, by the end of the key
    "running_var": (1.0, 0.5),
    "running_mean": (0.0, 0.2),
    "mel_mean": (0.0, 10.0),  # dB
    "mel_std": (15.0, 5.0),  # dB
}


def draw_state(
    tag: str, shapes: Mapping[str, tuple[int, ...]], *, seed: int = 0
) -> dict[str, Tensor]:
    """Random weights by the recipe of the golden numbers, the same on every machine.

    Each tensor has its own PCG64 stream, seeded by the CRC-32 of `tag/key` (seed 0) or
    `tag/key/seed`. With v uniform in [-1, 1): running_var 1 + v/2, running_mean v/5, mel_mean 10 v
    and mel_std 15 + 5 v (dB), scales of norms 1 + v/5, biases v/10, all else sqrt(3 / fan_in) v,
    which keeps the variance. A scale or bias is a vector, also where it is stored as (1, 1, n).
    Source: ../shared/golden/backbones2/README.md, weight recipe.

    Args:
        tag: name of the backbone.
        shapes: keys without `model.`, and shapes.
        seed: 0 gives the golden weights.

    Returns:
        float32 tensors under the keys of `shapes`.

    >>> key = "conformer.layers.0.self_attn.linear_q.weight"
    >>> draw_state("muq", {key: (128, 128)})[key][0, :2]
    tensor([0.0532, 0.0468])
    """
    ending = f"/{seed}" if seed else ""
    return {key: _draw(f"{tag}/{key}{ending}", key, shape) for key, shape in shapes.items()}


def _draw(stream: str, key: str, shape: tuple[int, ...]) -> Tensor:
    """One tensor; its kind follows from the key and the number of dimensions."""
    generator = np.random.Generator(np.random.PCG64(zlib.crc32(stream.encode())))
    offset, scale = _offset_and_scale(key, shape)

    values = generator.random(shape)
    values *= 2.0
    values -= 1.0
    values *= scale
    values += offset
    return torch.from_numpy(values.astype(np.float32))


def _offset_and_scale(key: str, shape: tuple[int, ...]) -> tuple[float, float]:
    for ending, offset_and_scale in STATISTICS.items():
        if key.endswith(ending):
            return offset_and_scale

    is_vector = math.prod(shape) == shape[-1]
    if is_vector and key.endswith(("weight", "original0")):
        return 1.0, 0.2
    if is_vector:
        return 0.0, 0.1
    return 0.0, math.sqrt(3.0 / math.prod(shape[1:]))
