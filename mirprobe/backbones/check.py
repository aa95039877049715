"""`mirprobe check`: does a backbone keep the contract, and what moves its states?

Conventions: a finding with a bound is a must, `ok` or `FAILED`; one without is `info` and shows
what a choice costs. All signals are made here from fixed seeds, at most 4 s long except for speed
and memory. Numbers per layer are printed as smallest .. largest over layers 0..L. A relative rms is
that of the change over that of the reference state, both over clips, frames and features. The
reference runs in float32 without TF32.
"""

import ctypes
import hashlib
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from rich.table import Table
from torch import Tensor, nn

from datamodules.errors import UserError
from mirprobe.backbones.backbone import Backbone
from mirprobe.backbones.signals import chirp, music, noise
from mirprobe.progress import console

WHOLE_TRACK_SECONDS = 10.0  # clip length for speed and memory where the task takes whole tracks
BATCH_BOUND = {"float32": 1e-6}  # relative to the largest absolute state of the layer
COARSE_BATCH_BOUND = 2.0**-5  # of other precisions: 8 units in the last place of bfloat16
FLOAT16_MAX = torch.finfo(torch.float16).max
MODES = ("bf16 autocast", "fp16 autocast", "TF32")
PROC = Path("/proc/self")


@dataclass(frozen=True)
class Finding:
    """One row of the table.

    Attributes:
        what: what was looked at.
        value: what was found, for people.
        bound: what must hold; empty for information.
        verdict: `ok` or `FAILED` where there is a bound, else `info`.
        numbers: what was measured, per layer where that makes sense.
    """

    what: str
    value: str
    bound: str = ""
    verdict: Literal["ok", "FAILED", "info"] = "info"
    numbers: tuple[float, ...] = ()


def check(name: str, backbone: Backbone, clip_seconds: float | None) -> bool:
    """Prints the findings on a backbone, on the device it is on; True if every must holds.

    Args:
        name: of the model, for the table.
        backbone: frozen.
        clip_seconds: length of a clip of the task at hand, in s; None where it takes whole tracks.
    """
    found = findings(backbone, clip_seconds or WHOLE_TRACK_SECONDS)
    console().print(make_table(name, found))
    if clip_seconds is None:
        console().print(
            f"Whole tracks: speed and memory are of {WHOLE_TRACK_SECONDS:g} s.", style="dim"
        )

    musts = [finding for finding in found if finding.bound]
    failed = [finding.what for finding in found if finding.verdict == "FAILED"]
    if failed:
        console().print(f"{len(failed)} of {len(musts)} musts FAILED: {', '.join(failed)}")
    else:
        console().print(f"all {len(musts)} musts hold")
    return not failed


def findings(backbone: Backbone, clip_seconds: float) -> list[Finding]:
    """All findings on a backbone, on the device it is on.

    Args:
        backbone: frozen, as its class built it.
        clip_seconds: length of the clip for speed and memory, in s.
    """
    with _tf32(enabled=False):
        return [
            *_facts(backbone),
            *_frozen(backbone),
            *_repeats(backbone),
            _frames(backbone),
            *_values(backbone),
            _minimum_input(backbone),
            _padding(backbone),
            _wrong_rate(backbone),
            *_precisions(backbone),
            *_speed(backbone, clip_seconds),
        ]


def make_table(name: str, found: Sequence[Finding]) -> Table:
    """The findings, one row each."""
    table = Table(title=f"check of {name}")
    for heading in ("Finding", "Value", "Bound", "Verdict"):
        table.add_column(heading, overflow="fold")
    styles = {"ok": "green", "FAILED": "bold red", "info": "dim"}
    for one in found:
        table.add_row(one.what, one.value, one.bound, f"[{styles[one.verdict]}]{one.verdict}[/]")
    return table


def _facts(backbone: Backbone) -> list[Finding]:
    n_parameters = sum(parameter.numel() for parameter in backbone.parameters())
    keys = [(name, getattr(backbone, f"keys_{name}", None)) for name in ("matched", "ignored")]
    return [
        Finding("parameters", f"{n_parameters / 1e6:.1f} million", numbers=(n_parameters,)),
        Finding("fingerprint", backbone.fingerprint()),
        Finding("layers", f"0..{backbone.n_layers}, width {backbone.dim}, {backbone.precision}"),
        Finding("rate", f"{backbone.sample_rate} Hz in, a frame every {1000 * backbone.hop:g} ms"),
        *(
            Finding(f"checkpoint keys {name}", str(n), numbers=(float(n),))
            for name, n in keys
            if n is not None
        ),
    ]


def _frozen(backbone: Backbone) -> list[Finding]:
    """What training or a forward pass could change; leaves the backbone in eval mode."""
    n_trainable = sum(parameter.requires_grad for parameter in backbone.parameters())
    backbone.train()
    n_training = sum(module.training for module in backbone.modules())
    nn.Module.train(backbone, False)
    before = _digests(backbone)
    backbone(_clip(backbone, 1.0))
    after = _digests(backbone)
    changed = [key for key in before if before[key] != after.get(key)]
    moved = f"{len(changed)} of {len(before)}" + (f" (first: {changed[0]})" if changed else "")
    return [
        _must("parameters with gradient", str(n_trainable), "0", n_trainable == 0, n_trainable),
        _must("modules training after .train()", str(n_training), "0", n_training == 0, n_training),
        _must("tensors a forward pass changes", moved, "0", not changed, len(changed)),
    ]


def _repeats(backbone: Backbone) -> list[Finding]:
    """Two identical calls, then three clips in one batch against one by one, which says nothing
    unless calls repeat.
    """
    clip, batch = _clip(backbone, 1.0), "batch of 3 against 3 of 1"
    change = _change(backbone(clip), backbone(clip)).max().item()
    identical = _must("two identical calls", f"differ by {change:.2g}", "0", change == 0, change)
    if change != 0:
        return [identical, Finding(batch, "not compared: identical calls differ")]
    n_samples = clip.shape[1]
    clips = torch.stack(
        [noise(n_samples), chirp(n_samples), music(n_samples, backbone.sample_rate)]
    ).to(clip)
    singles = torch.cat([backbone(one[None]) for one in clips])
    relative = _relative_max(backbone(clips), singles)
    bound = BATCH_BOUND.get(backbone.precision, COARSE_BATCH_BOUND)
    holds = bool((relative <= bound).all())
    return [
        identical,
        _must(batch, _span(relative), f"<= {bound:.2g} of largest", holds, *relative.tolist()),
    ]


def _frames(backbone: Backbone) -> Finding:
    """T against S / (sample_rate hop) at several lengths, and one T whatever the batch."""
    second = _n_samples(backbone, 1.0)
    lengths = [second, 3 * second, second + 1, round(1.37 * second) | 1, round(2.718 * second) | 1]
    n_frames = [backbone(noise(length)[None].to(_device(backbone))).shape[2] for length in lengths]
    in_batch = backbone(noise(second).expand(2, -1).to(_device(backbone))).shape[2]
    off = [
        abs(n - length / backbone.sample_rate / backbone.hop)
        for n, length in zip(n_frames, lengths, strict=True)
    ]
    value = f"{n_frames[0]} in {second} samples; off by {max(off):.2f} at most"
    value += "" if in_batch == n_frames[0] else f"; {in_batch} in a batch of 2"
    return _must(
        "frames as hop says", value, "<= 1 frame", max(off) <= 1 and in_batch == n_frames[0], *off
    )


def _values(backbone: Backbone) -> list[Finding]:
    n_samples = _n_samples(backbone, 1.0)
    signals = {
        "noise": noise(n_samples),
        "silence": torch.zeros(n_samples),
        "chirp": chirp(n_samples),
    }
    states = backbone(torch.stack(list(signals.values())).to(_device(backbone)))
    expected = (len(signals), backbone.n_layers + 1, states.shape[2], backbone.dim)
    fits = tuple(states.shape) == expected and states.dtype == torch.float32
    bad = [
        f"layer {layer} on {name}"
        for name, clip in zip(signals, states, strict=True)
        for layer, state in enumerate(clip)
        if not bool(state.isfinite().all())
    ]
    # Where a state is not finite, the row above says so; this one asks whether the others fit the
    # store.
    largest = states.nan_to_num(0.0, 0.0, 0.0).double().mean(2).abs().amax((0, 2))
    small = largest.max().item() <= FLOAT16_MAX
    return [
        _must(
            "shape and dtype of states",
            f"{tuple(states.shape)} {states.dtype}".replace("torch.", ""),
            f"{expected} float32",
            fits,
        ),
        _must(
            "states not finite",
            ", ".join(bad[:3]) or "none",
            "none on noise, silence, chirp",
            not bad,
            len(bad),
        ),
        _must(
            "largest time mean",
            _span(largest),
            f"<= {FLOAT16_MAX:g} (float16)",
            small,
            *largest.tolist(),
        ),
    ]


def _minimum_input(backbone: Backbone) -> Finding:
    shortest = backbone.min_samples
    accepted, refused = _accepts(backbone, shortest), not _accepts(backbone, shortest - 1)
    value = f"{shortest} {'accepted' if accepted else 'refused'}, {shortest - 1} {'refused' if refused else 'accepted'}"
    return _must(
        "minimum input in samples",
        value,
        "accepted, one less refused",
        accepted and refused,
        shortest,
    )


def _accepts(backbone: Backbone, n_samples: int) -> bool:
    try:
        states: Tensor = backbone(noise(n_samples)[None].to(_device(backbone)))
    except (UserError, RuntimeError, ValueError):
        return False
    return states.shape[2] > 0


def _padding(backbone: Backbone) -> Finding:
    clip = _clip(backbone, 2.0)
    plain = backbone(clip)
    padded = backbone(F.pad(clip, (0, clip.shape[1])))[:, :, : plain.shape[2]]
    relative = _relative_rms(padded, plain)
    return Finding(
        "zeros appended, clip doubled",
        f"real frames move by {_span(relative)} rms",
        numbers=tuple(relative.tolist()),
    )


def _wrong_rate(backbone: Backbone) -> Finding:
    """The same music sampled at 2/3 of the rate: what a forgotten resampling does, a fifth up and
    1.5 times as fast.
    """
    right = _clip(backbone, 3.0)
    wrong = music(round(right.shape[1] * 2 / 3), backbone.sample_rate * 2 / 3)[None].to(right)
    relative = _relative_rms(
        backbone(wrong).mean(2, keepdim=True), backbone(right).mean(2, keepdim=True)
    )
    return Finding(
        "audio at 2/3 of the rate",
        f"time means move by {_span(relative)} rms",
        numbers=tuple(relative.tolist()),
    )


def _precisions(backbone: Backbone) -> list[Finding]:
    clip = _clip(backbone, 1.0)
    exact = backbone(clip)
    return [_precision(backbone, mode, clip, exact) for mode in MODES]


def _precision(backbone: Backbone, mode: str, clip: Tensor, exact: Tensor) -> Finding:
    reason = _why_not(backbone, mode)
    if reason:
        return Finding(f"error of {mode}", f"not measured: {reason}")
    dtype = torch.float16 if mode.startswith("fp16") else torch.bfloat16
    try:  # `forward` switches autocast off, so `states` is called
        with (
            torch.no_grad(),
            _tf32(enabled=mode == "TF32"),
            torch.autocast(clip.device.type, dtype, enabled=mode != "TF32"),
        ):
            states = backbone.states(clip).float()
    except RuntimeError as error:
        return Finding(f"error of {mode}", f"not possible: {' '.join(str(error).split())[:80]}")
    rms = _relative_rms(states, exact)
    largest = _relative_max(states, exact)
    return Finding(
        f"error of {mode}",
        f"rms {_span(rms)}, max {_span(largest)}",
        numbers=(*rms.tolist(), *largest.tolist()),
    )


def _why_not(backbone: Backbone, mode: str) -> str | None:
    """Why a precision cannot be compared with float32 here; None if it can."""
    device = _device(backbone)
    if backbone.precision != "float32":
        return f"the backbone itself is {backbone.precision}"
    if device.type == "cuda":
        old = mode != "fp16 autocast" and torch.cuda.get_device_capability(device) < (8, 0)
        return "needs compute capability 8.0" if old else None
    if mode != "bf16 autocast":
        return "needs a CUDA device"
    capability = torch.backends.cpu.get_cpu_capability()
    return (
        None
        if capability.startswith("AVX512")
        else f"PyTorch has no fast bf16 on this CPU ({capability})"
    )


def _speed(backbone: Backbone, clip_seconds: float) -> list[Finding]:
    device, clip = _device(backbone), _clip(backbone, clip_seconds)
    before = _reset_peak(device)
    runs_s: list[float] = []
    while not runs_s or (sum(runs_s) < 1.0 and len(runs_s) < 5):
        start_s = time.perf_counter()
        backbone(clip).sum().item()  # waits for the device
        runs_s.append(time.perf_counter() - start_s)
    factor = clip.shape[1] / backbone.sample_rate / min(runs_s)
    place = (
        torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else f"CPU, {torch.get_num_threads()} threads"
    )
    memory = Finding(f"peak memory at {clip_seconds:g} s", "not measured: the system does not tell")
    if before is not None:
        more = _peak(device) - before
        memory = Finding(
            memory.what,
            f"{more / 1e9:.2f} GB on top of {before / 1e9:.2f} GB in use",
            numbers=(more, before),
        )
    value = f"{factor:.3g} x real time ({min(runs_s):.3g} s a clip, batch 1, {place})"
    return [Finding(f"speed at {clip_seconds:g} s", value, numbers=(factor,)), memory]


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
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    found = re.search(r"VmHWM:\s+(\d+) kB", (PROC / "status").read_text())
    assert found is not None
    return int(found.group(1)) * 1024


@contextmanager
def _tf32(*, enabled: bool) -> Iterator[None]:
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = enabled
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def _must(what: str, value: str, bound: str, holds: bool, *numbers: float) -> Finding:
    return Finding(what, value, bound, "ok" if holds else "FAILED", tuple(numbers))


def _device(backbone: Backbone) -> torch.device:
    tensor = next(chain(backbone.parameters(), backbone.buffers()), None)
    return torch.device("cpu") if tensor is None else tensor.device


def _n_samples(backbone: Backbone, seconds: float) -> int:
    return max(round(seconds * backbone.sample_rate), backbone.min_samples)


def _clip(backbone: Backbone, seconds: float) -> Tensor:
    """(1, S) music on the backbone's device."""
    return music(_n_samples(backbone, seconds), backbone.sample_rate)[None].to(_device(backbone))


def _digests(module: nn.Module) -> dict[str, bytes]:
    """SHA-256 of every parameter and buffer, those outside the state dict included."""
    tensors = chain(module.named_parameters(), module.named_buffers())
    return {
        name: hashlib.sha256(
            tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data
        ).digest()
        for name, tensor in tensors
    }


def _change(states: Tensor, reference: Tensor) -> Tensor:
    """Absolute difference; 0 where both are the same infinity or both NaN, infinity throughout if
    the shapes differ.
    """
    if states.shape != reference.shape:
        return torch.full_like(reference, torch.inf)
    same = (states == reference) | (states.isnan() & reference.isnan())
    return torch.where(same, 0.0, states - reference).abs()


def _relative_rms(states: Tensor, reference: Tensor) -> Tensor:
    """(L+1,) rms of the change over rms of the reference, over all but the layers.

    >>> _relative_rms(torch.full((1, 2, 3, 4), 3.0), torch.full((1, 2, 3, 4), 2.0))
    tensor([0.5000, 0.5000])
    """
    change = _change(states, reference).square().mean((0, 2, 3)).sqrt()
    return change / _floor(reference.square().mean((0, 2, 3)).sqrt())


def _relative_max(states: Tensor, reference: Tensor) -> Tensor:
    """(L+1,) largest change over largest absolute reference, over all but the layers."""
    return _change(states, reference).amax((0, 2, 3)) / _floor(reference.abs().amax((0, 2, 3)))


def _floor(divisor: Tensor) -> Tensor:
    return divisor.clamp(min=torch.finfo(divisor.dtype).tiny)


def _span(per_layer: Tensor) -> str:
    """Smallest .. largest over the layers, and which layer has the largest.

    >>> _span(torch.tensor([0.5, 0.25, 0.125]))
    '0.12 .. 0.5 (layer 0)'
    """
    low, high = per_layer.min().item(), per_layer.max().item()
    return (
        f"{low:.2g}"
        if low == high
        else f"{low:.2g} .. {high:.2g} (layer {int(per_layer.argmax())})"
    )
