"""A backbone's states in other precisions than its own, for comparison.

Conventions: a mode is autocast to bfloat16 or float16, or TF32 in the matrix products and
convolutions of a GPU.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from mirprobe.backbones.backbone import Backbone

MODES = ("bf16 autocast", "fp16 autocast", "TF32")


def states_in(mode: str, backbone: Backbone, clip: Tensor) -> Tensor:
    """States of all layers in a mode, as float32.

    Raises:
        RuntimeError: the backbone or the device cannot do it.
    """
    dtype = torch.float16 if mode.startswith("fp16") else torch.bfloat16
    autocast = torch.autocast(clip.device.type, dtype, enabled=mode != "TF32")
    # `forward` switches autocast off, so `states` is called.
    with torch.no_grad(), tf32(enabled=mode == "TF32"), autocast:
        return backbone.states(clip).float()


def why_not(mode: str, backbone: Backbone) -> str | None:
    """Why a mode cannot be compared with float32 here; None if it can."""
    device = backbone.device
    if backbone.precision != "float32":
        return f"the backbone itself is {backbone.precision}"
    if device.type == "cuda":
        old = mode != "fp16 autocast" and torch.cuda.get_device_capability(device) < (8, 0)
        return "needs compute capability 8.0" if old else None
    if mode != "bf16 autocast":
        return "needs a CUDA device"

    capability = torch.backends.cpu.get_cpu_capability()
    if not capability.startswith("AVX512"):
        return f"PyTorch has no fast bf16 on this CPU ({capability})"
    return None


@contextmanager
def tf32(*, enabled: bool) -> Iterator[None]:
    """Switches TF32 on or off, and back as it was."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32 = cudnn.allow_tf32 = enabled
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before
