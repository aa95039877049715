"""Weights in the published layout, read from a checkpoint file and checked against it.

Conventions: a checkpoint is a PyTorch zip file with a dict `state_dict` or of tensors alone, or a
safetensors file; its content tells which, not its name. Every key starts with the prefix of its
kind, such as `model.`, which is stripped. The check is strict both ways: each needed key is there
with its shape, and each other key is on the list of ignored ones. Nothing in a file is ever
executed.
"""

import hashlib
import pickle
import re
import struct
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from datamodules.errors import UserError

ZIP_START = b"PK\x03\x04"
NEVER = "(?!)"  # the regular expression that matches nothing
# What torch's readers of zip directories, pickles and tensors raise where a file is damaged.
DAMAGED = (
    *(RuntimeError, OSError, EOFError, MemoryError, struct.error, ValueError, ArithmeticError),
    *(LookupError, TypeError, AttributeError, AssertionError),
)


@dataclass(frozen=True)
class CheckpointSpec:
    """What a checkpoint of `owner` holds; keys without the prefix.

    Attributes:
        owner: name of the backbone, for error texts.
        needed: keys that are read, with their shapes.
        ignored: regular expressions of the keys that may be there and are not read.
        equal: tensors that are computed, not read; where the file has one, it must be the same to
            1e-5.
        renamed: other spellings of needed keys, which a file may have in their place.
        prefix: how every key of the file starts.
        is_bare: whether a zip file holds the tensors themselves, not a dict `state_dict`.
    """

    owner: str
    needed: Mapping[str, tuple[int, ...]]
    ignored: tuple[str, ...] = ()
    equal: Mapping[str, Tensor] = field(default_factory=dict)
    renamed: Mapping[str, str] = field(default_factory=dict)
    prefix: str = "model."
    is_bare: bool = False


def with_bias(key: str, *weight: int) -> dict[str, tuple[int, ...]]:
    """Keys and shapes of a weight and of the bias beside it.

    >>> with_bias("out", 3, 4)
    {'out.weight': (3, 4), 'out.bias': (3,)}
    """
    return {f"{key}.weight": weight, f"{key}.bias": weight[:1]}


def sha256(path: Path) -> str:
    """SHA-256 of a file in 64 hex digits (1.3 GB take about a second)."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def is_file(path: Path) -> bool:
    """Whether there is a file; no error where a name is longer than the system takes."""
    try:
        return path.is_file()
    except OSError:
        return False


@contextmanager
def readable(path: Path, remedy: str) -> Iterator[None]:
    """What reads a file stands in here: one that may not be read is a user's error."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}). {remedy}") from error


def verify(path: Path, *, n_bytes: int | None, digest: str | None, remedy: str) -> None:
    """Checks size and SHA-256 of a published file, as far as they are known.

    Raises:
        UserError: the file is not the published one; the text ends with `remedy`.
    """
    with readable(path, remedy):
        found = path.stat().st_size
        fits = n_bytes is None or found == n_bytes
        is_other = fits and digest is not None and sha256(path) != digest
    if not fits:
        raise UserError(
            f"{path} is not the published file: it has {found:,} bytes instead of {n_bytes:,}. "
            f"{remedy}"
        )
    if is_other:
        raise UserError(
            f"{path} is not the published file: its SHA-256 is not {str(digest)[:12]}... {remedy}"
        )


def read_state(path: Path, spec: CheckpointSpec, *, remedy: str) -> tuple[dict[str, Tensor], int]:
    """Needed tensors of a checkpoint, and how many others it holds.

    Returns:
        float32 copies in memory under keys without the prefix; number of tensors that are not read.

    Raises:
        UserError: see `read_tensors`; or the keys are not those of `spec`.
    """
    tensors = _renamed(read_tensors(path, is_bare=spec.is_bare, remedy=remedy), spec)
    problems = _problems(tensors, spec)
    if problems:
        raise UserError(
            f"{path} does not hold {spec.owner} weights: {'; '.join(problems)}. {remedy}"
        )

    state = {}
    for key in spec.needed:
        state[key] = tensors[spec.prefix + key].detach().to(torch.float32, copy=True)
    return state, len(tensors) - len(state)


def _renamed(tensors: Mapping[str, Tensor], spec: CheckpointSpec) -> dict[str, Tensor]:
    """The tensors under the spelling that is needed; of two spellings the other stays unknown."""
    named = {}
    for key, tensor in tensors.items():
        other = spec.prefix + spec.renamed.get(key.removeprefix(spec.prefix), "")
        is_other = other != spec.prefix and other not in tensors
        named[other if is_other else key] = tensor
    return named


def read_tensors(path: Path, *, is_bare: bool = False, remedy: str) -> dict[str, Tensor]:
    """All tensors of a checkpoint under their names in the file, on disk until they are used.

    Args:
        path: of the file.
        is_bare: whether a zip file holds the tensors themselves, not a dict `state_dict`.
        remedy: last sentence of error texts.

    Raises:
        UserError: no such file, may not be read, not a checkpoint, damaged, holds anything but
            tensors, or has no `state_dict` where there has to be one.
    """
    if not is_file(path):
        raise UserError(f"no checkpoint at {path}. {remedy}")
    with readable(path, remedy), path.open("rb") as stream:
        start = stream.read(16)

    if start.startswith(ZIP_START):
        return _read_zip(path, is_bare, remedy)
    if start[8:9] == b"{":  # after 8 bytes of length, safetensors starts with a table in JSON
        return _read_safetensors(path, remedy)
    raise UserError(
        f"{path} is neither a PyTorch zip file nor safetensors: it starts with {start!r}. {remedy}"
    )


def _read_safetensors(path: Path, remedy: str) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, *DAMAGED) as error:
        raise UserError(f"{path} is damaged or cut short ({_one_line(error)}). {remedy}") from error


def _read_zip(path: Path, is_bare: bool, remedy: str) -> dict[str, Tensor]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of sparse tensors: they are refused below
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path} holds Python code or objects besides tensors; refused, "
            f"and nothing of it was run. {remedy}"
        ) from error
    except DAMAGED as error:
        raise UserError(f"{path} is damaged or cut short ({_one_line(error)}). {remedy}") from error

    if is_bare:
        content = {"state_dict": content}
    state = content.get("state_dict") if isinstance(content, dict) else None
    if isinstance(state, dict) and all(map(_is_named_tensor, state.items())):
        return dict(state)

    found = _what_else(content)
    raise UserError(f"{path} has no state_dict of tensors (found: {found}). {remedy}")


def _is_named_tensor(item: tuple[object, object]) -> bool:
    key, value = item
    return isinstance(key, str) and isinstance(value, Tensor)


def _what_else(content: object) -> str:
    """What a file has in place of a `state_dict`, or the first that is wrong in it."""
    if not isinstance(content, dict):
        return type(content).__name__
    state = content.get("state_dict")
    if not isinstance(state, dict):
        return _one_line(", ".join(map(str, list(content)[:3])) or "nothing")

    key, value = next(item for item in state.items() if not _is_named_tensor(item))
    return _one_line(f"{type(value).__name__} under the key {key!r}")


def _one_line(what: object) -> str:
    """The text of something from outside: short, and without signs that break a line."""
    text = " ".join(str(what).split())
    text = text if text.isprintable() else ascii(text)
    return text if len(text) <= 100 else text[:97] + "..."


def _problems(tensors: Mapping[str, Tensor], spec: CheckpointSpec) -> list[str]:
    """What does not fit, one text for each kind of problem; empty if all fits."""
    missing = [key for key in spec.needed if spec.prefix + key not in tensors]
    kinds = {
        "missing": missing,
        "unknown": _unknown_keys(tensors, spec),
        "of another shape or value": [
            *_other_shapes(tensors, spec, set(missing)),
            *_other_values(tensors, spec),
        ],
    }
    return [
        f"{len(names)} keys {kind} (first: {_one_line(names[0])})"
        for kind, names in kinds.items()
        if names
    ]


def _unknown_keys(tensors: Mapping[str, Tensor], spec: CheckpointSpec) -> list[str]:
    known = {spec.prefix + key for key in (*spec.needed, *spec.equal)}
    ignored = re.compile("|".join(spec.ignored) or NEVER)

    unknown = []
    for key in tensors:
        starts = key.startswith(spec.prefix)
        is_ignored = starts and ignored.fullmatch(key, len(spec.prefix))
        if key not in known and not is_ignored:
            unknown.append(key)
    return unknown


def _other_shapes(
    tensors: Mapping[str, Tensor], spec: CheckpointSpec, missing: set[str]
) -> list[str]:
    wrong = []
    for key in sorted(spec.needed.keys() - missing):
        tensor, shape = tensors[spec.prefix + key], spec.needed[key]
        if not _is_plain(tensor):
            kind = f"{tensor.layout} {tensor.dtype} on {tensor.device}"
            wrong.append(f"{key} is {kind} instead of plain numbers")
        elif tuple(tensor.shape) != shape or not tensor.is_floating_point():
            wrong.append(f"{key} is {tensor.dtype} {tuple(tensor.shape)} instead of {shape}")
    return wrong


def _is_plain(tensor: Tensor) -> bool:
    """Whether a tensor holds all of its numbers: it is not sparse, not quantized, not on meta."""
    return tensor.layout == torch.strided and tensor.is_cpu and not tensor.is_quantized


def _other_values(tensors: Mapping[str, Tensor], spec: CheckpointSpec) -> list[str]:
    wrong = []
    for key, expected in spec.equal.items():
        found = tensors.get(spec.prefix + key)
        if found is None:
            continue
        comparable = _is_plain(found) and found.shape == expected.shape
        if not comparable or not torch.allclose(found.float(), expected, rtol=1e-5):
            wrong.append(f"{key} has other values")
    return wrong
