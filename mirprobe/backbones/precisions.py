"""A backbone's states in other precisions than its own, for comparison.

Conventions: a mode is bfloat16 or TF32 as extraction computes in them (`extract.precision`), or
autocast to float16.
"""

from typing import cast

import torch
from torch import Tensor

from mirprobe.backbones.backbone import Backbone

MODES = ("bf16", "tf32", "fp16 autocast")  # the first two are choices of `extract.precision`


def states_in(mode: str, backbone: Backbone, clip: Tensor) -> Tensor:
    """States of all layers in a mode, as float32.

    Raises:
        RuntimeError: the backbone or the device cannot do it.
    """
    if mode == "fp16 autocast":  # `forward` switches autocast off, so `states` is called
        with torch.no_grad(), torch.autocast(clip.device.type, torch.float16):
            return backbone.states(clip).float()

    before = backbone.precision
    try:
        return cast(Tensor, backbone.at(mode)(clip))
    finally:
        backbone.at(before)


def why_not(mode: str, backbone: Backbone) -> str | None:
    """Why a mode cannot be compared with float32 here; None if it can."""
    device = backbone.device
    if backbone.precision != "float32":
        return f"the backbone itself is {backbone.precision}"
    if device.type == "cuda":
        old = mode != "fp16 autocast" and torch.cuda.get_device_capability(device) < (8, 0)
        return "needs compute capability 8.0" if old else None
    if mode != "bf16":
        return "needs a CUDA device"

    capability = torch.backends.cpu.get_cpu_capability()
    if not capability.startswith("AVX512"):
        return f"PyTorch has no fast bf16 on this CPU ({capability})"
    return None
