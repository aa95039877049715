"""Time and memory of a backbone's forward pass.

Conventions: bytes. A GPU counts what PyTorch has allocated; on a CPU the system counts the resident
set of the process, where it is Linux.
"""

import ctypes
import re
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from mirprobe.backbones.backbone import Backbone

PROC = Path("/proc/self")


@dataclass(frozen=True)
class ForwardCost:
    """What a forward pass of one batch takes.

    Attributes:
        seconds: best time of several passes.
        n_bytes_before: memory in use before; None where the system does not tell.
        n_bytes_more: memory on top of it, at most.
    """

    seconds: float
    n_bytes_before: int | None
    n_bytes_more: int


def measure_forward(backbone: Backbone, audio: Tensor) -> ForwardCost:
    """Runs a batch up to five times, or for a second, on the device that it is on."""
    before = _reset_peak(audio.device)
    runs_s: list[float] = []
    while not runs_s or (sum(runs_s) < 1.0 and len(runs_s) < 5):
        start_s = time.perf_counter()
        backbone(audio).sum().item()  # waits for the device
        runs_s.append(time.perf_counter() - start_s)

    more = 0 if before is None else _peak(audio.device) - before
    return ForwardCost(min(runs_s), before, more)


def _reset_peak(device: torch.device) -> int | None:
    """Bytes in use now, from which `_peak` counts on; None where the system does not tell."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)

    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)  # glibc keeps freed memory, in which a forward pass would hide
    try:
        (PROC / "clear_refs").write_text("5")  # VmHWM starts again at VmRSS: proc(5)
    except OSError:
        return None
    return _peak(device)


def _peak(device: torch.device) -> int:
    """Most bytes in use at once since `_reset_peak`."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    found = re.search(r"VmHWM:\s+(\d+) kB", (PROC / "status").read_text())
    assert found is not None
    return int(found.group(1)) * 1024
