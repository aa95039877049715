"""Random weights by the recipe of the golden numbers: the control that tells what training adds."""

import math
import zlib
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor


def draw_state(
    tag: str, shapes: Mapping[str, tuple[int, ...]], *, seed: int = 0
) -> dict[str, Tensor]:
    """Random weights by the recipe of the golden numbers, the same on every machine.

    Each tensor has its own PCG64 stream, seeded by the CRC-32 of `tag/key` (seed 0) or
    `tag/key/seed`. With v uniform in [-1, 1): running_var 1 + v/2, running_mean v/5, scales of
    norms 1 + v/5, biases v/10, all else sqrt(3 / fan_in) v,
    which keeps the variance. Source: ../shared/golden/backbones/README.md, weight recipe.

    Args:
        tag: name of the backbone.
        shapes: keys without `model.`, and shapes.
        seed: 0 gives the golden weights.

    Returns:
        float32 tensors under the keys of `shapes`.

    >>> draw_state("muq", {"conformer.layers.0.self_attn.linear_q.weight": (128, 128)}).popitem()[1][0, :2]
    tensor([0.0532, 0.0468])
    """
    ending = f"/{seed}" if seed else ""
    return {key: _draw(f"{tag}/{key}{ending}", key, shape) for key, shape in shapes.items()}


def _draw(text: str, key: str, shape: tuple[int, ...]) -> Tensor:
    values = np.random.Generator(np.random.PCG64(zlib.crc32(text.encode()))).random(shape)
    values *= 2.0
    values -= 1.0
    if key.endswith("running_var"):
        offset, scale = 1.0, 0.5
    elif key.endswith("running_mean"):
        offset, scale = 0.0, 0.2
    elif len(shape) == 1 and key.endswith("weight"):
        offset, scale = 1.0, 0.2
    elif len(shape) == 1:
        offset, scale = 0.0, 0.1
    else:
        offset, scale = 0.0, math.sqrt(3.0 / math.prod(shape[1:]))
    values *= scale
    values += offset
    return torch.from_numpy(values.astype(np.float32))
