"""The arithmetic of a forward pass: full float32, TF32 on a GPU, or bfloat16.

Conventions: states come out as float32 whatever they were computed in. TF32 rounds the factors of
matrix products and convolutions to 10 bits of fraction and sums in float32; bfloat16 keeps 7 bits.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, get_args

import torch

from datamodules.errors import UserError

Precision = Literal["float32", "tf32", "bf16"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)


def can_tf32() -> bool:
    """Whether there is a GPU here that has TF32, as those since 2020 do."""
    return torch.cuda.is_available() and torch.cuda.get_device_capability() >= (8, 0)


def resolve_precision(setting: str, *, on_gpu: bool) -> Precision:
    """The precision that `extract.precision` means on this machine.

    Args:
        setting: `32`, `tf32`, `bf16`, or `auto`: TF32 on a GPU that has it, since plain float32
            leaves most of such a card unused, else float32.
        on_gpu: whether forward passes run on a GPU.

    Raises:
        UserError: the setting is unknown, or asks for TF32 where there is none.

    >>> resolve_precision("auto", on_gpu=False)
    'float32'
    """
    if setting == "auto":
        return "tf32" if on_gpu and can_tf32() else "float32"
    if setting == "tf32" and not (on_gpu and can_tf32()):
        raise UserError(
            "extract.precision=tf32 needs a GPU of compute capability 8.0 or more, and this "
            "extraction has none: set auto or 32"
        )
    words: dict[str, Precision] = {"32": "float32", "tf32": "tf32", "bf16": "bf16"}
    if setting not in words:
        raise UserError(f"unknown extract.precision {setting!r}. Known: auto, {', '.join(words)}")
    return words[setting]


@contextmanager
def arithmetic(precision: str, device_type: str, *, autocasts: bool) -> Iterator[None]:
    """Computes in a precision, whatever was set before, and leaves everything as it was.

    Args:
        precision: of matrix products and convolutions.
        device_type: where they run.
        autocasts: whether bfloat16 is reached by autocast; a network that holds its weights in
            bfloat16 itself needs none.
    """
    casts = autocasts and precision == "bf16"
    autocast = (
        torch.autocast(device_type, torch.bfloat16)
        if casts
        else torch.autocast(device_type, enabled=False)
    )
    with tf32(enabled=precision == "tf32"), autocast:
        yield


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
