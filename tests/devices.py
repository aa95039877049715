"""Devices that tests run on: the CPU, and a GPU where there is one."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

GPU = (
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
)
DEVICES = ("cpu", pytest.param("cuda", marks=GPU))


def accelerator(device: str) -> str:
    """What `launcher.accelerator` and Lightning call a device."""
    return "gpu" if device == "cuda" else "cpu"


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Allows a GPU products and convolutions of ten bits, or forbids them, for a while.

    monkeypatch cannot: it would delete what it has set, which these switches refuse.
    """
    switches = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [switch.allow_tf32 for switch in switches]
    for switch in switches:
        switch.allow_tf32 = allowed
    try:
        yield
    finally:
        for switch, value in zip(switches, before, strict=True):
            switch.allow_tf32 = value
