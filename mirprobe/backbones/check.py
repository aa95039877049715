"""`mirprobe check`: does a backbone keep the contract, and what moves its states?

Conventions: a finding with a bound is a must, `ok` or `FAILED`; one without is `info` and shows
what a choice costs. All signals are made here from fixed seeds, at most 4 s long except for speed
and memory. Numbers per layer are printed as smallest .. largest over layers 0..L. A relative rms is
that of the change over that of the reference state, both over clips, frames and features. The
reference runs in float32 without TF32.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Literal

import torch
import torch.nn.functional as F
from rich.table import Table
from torch import Tensor, nn

from datamodules.errors import UserError
from mirprobe.backbones.arithmetic import tf32
from mirprobe.backbones.backbone import Backbone, bytes_of
from mirprobe.backbones.clicks import measure_first_frame
from mirprobe.backbones.comparing import absolute_change, relative_max, relative_rms, span
from mirprobe.backbones.measuring import measure_forward
from mirprobe.backbones.precisions import MODES, states_in, why_not
from mirprobe.backbones.signals import chirp, music, noise
from mirprobe.progress import console

WHOLE_TRACK_SECONDS = 10.0  # clip length for speed and memory where the task takes whole tracks
# What a batch may move, relative to the largest absolute state of the layer; nothing where clips
# pass one by one.
BATCH_BOUND = {"float32": 1e-6}
# Likewise of the one pass that a GPU makes, looked at on a CPU, where it sums in another order and
# no features come of it: 1.1e-6 was measured for FCPE, MusicFM and MuQ, a mistake moves far more.
UNUSED_PASS_BOUND = {"float32": 1e-5}
COARSE_BATCH_BOUND = 2.0**-5  # of other precisions: 8 units in the last place of bfloat16
FLOAT16_MAX = torch.finfo(torch.float16).max
STYLES = {"ok": "green", "FAILED": "bold red", "info": "dim"}


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
        backbone: frozen, as `make_backbone` builds it.
        clip_seconds: length of the clip for speed and memory, in s.
    """
    with tf32(enabled=False):
        return [
            *_facts(backbone),
            *_frozen(backbone),
            *_repeats(backbone),
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
    for one in found:
        table.add_row(one.what, one.value, one.bound, f"[{STYLES[one.verdict]}]{one.verdict}[/]")
    return table


def _facts(backbone: Backbone) -> list[Finding]:
    n_parameters = sum(parameter.numel() for parameter in backbone.parameters())
    found = [
        Finding("parameters", f"{n_parameters / 1e6:.1f} million", numbers=(n_parameters,)),
        Finding("fingerprint", backbone.fingerprint()),
        Finding("layers", f"0..{backbone.n_layers}, width {backbone.dim}, {backbone.precision}"),
        Finding("rate", f"{backbone.sample_rate} Hz in, a frame every {1000 * backbone.hop:g} ms"),
    ]

    n_keys = {"matched": backbone.keys_matched, "ignored": backbone.keys_ignored}
    for kind, n in n_keys.items():
        if n is not None:
            found.append(Finding(f"checkpoint keys {kind}", str(n), numbers=(float(n),)))
    return found


# -- what must hold --------------------------------------------------------------------------------


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
    first = f" (first: {changed[0]})" if changed else ""
    moved = f"{len(changed)} of {len(before)}{first}"

    return [
        _must("parameters with gradient", str(n_trainable), "0", n_trainable == 0, n_trainable),
        _must("modules training after .train()", str(n_training), "0", n_training == 0, n_training),
        _must("tensors a forward pass changes", moved, "0", not changed, len(changed)),
    ]


def _digests(module: nn.Module) -> dict[str, bytes]:
    """SHA-256 of every parameter and buffer, those outside the state dict included."""
    tensors = chain(module.named_parameters(), module.named_buffers())
    return {name: hashlib.sha256(bytes_of(tensor)).digest() for name, tensor in tensors}


def _repeats(backbone: Backbone) -> list[Finding]:
    """Two identical calls, then what says nothing unless calls repeat: batches, and clicks."""
    clip = _clip(backbone, 1.0)
    change = absolute_change(backbone(clip), backbone(clip)).max().item()
    identical = _must("two identical calls", f"differ by {change:.2g}", "0", change == 0, change)
    repeats = change == 0
    return [identical, *_batches(backbone, compare=repeats), *_times(backbone, compare=repeats)]


def _batches(backbone: Backbone, *, compare: bool) -> list[Finding]:
    """Three clips together against one by one: as extraction passes them here, and all at once.

    A backbone may pass them one by one on a CPU, exactly, and all at once on a GPU: what it does
    there is looked at on any machine.
    """
    used, at_once = "batch of 3 against 3 of 1", "batch of 3 in one pass"
    if not compare:
        skipped = "not compared: identical calls differ"
        return [Finding(used, skipped), Finding(at_once, skipped)]

    n_samples = _n_samples(backbone, 1.0)
    signals = [noise(n_samples), chirp(n_samples), music(n_samples, backbone.sample_rate)]
    clips = torch.stack(signals).to(backbone.device)
    singles = torch.cat([backbone(clip[None]) for clip in clips])
    with torch.no_grad():
        states_at_once = backbone.states(clips)

    one_by_one = clips.device.type in backbone.one_by_one_on
    bounds = UNUSED_PASS_BOUND if one_by_one else BATCH_BOUND
    bound = bounds.get(backbone.precision, COARSE_BATCH_BOUND)
    return [
        _same_states(used, backbone(clips), singles, 0.0 if one_by_one else bound),
        _same_states(at_once, states_at_once, singles, bound),
    ]


def _same_states(what: str, states: Tensor, reference: Tensor, bound: float) -> Finding:
    relative = relative_max(states, reference)
    holds = bool((relative <= bound).all())
    return _must(what, span(relative), f"<= {bound:.2g} of largest", holds, *relative.tolist())


def _times(backbone: Backbone, *, compare: bool) -> list[Finding]:
    """How many frames there are, and where the first one lies, which needs their number."""
    frames, what = _frames(backbone), "first frame's centre"
    if not compare:
        return [frames, Finding(what, "not measured: identical calls differ")]
    if frames.verdict == "FAILED":
        return [frames, Finding(what, "not measured: frames are not as hop says")]
    return [frames, _first_frame(backbone, what)]


def _frames(backbone: Backbone) -> Finding:
    """T against S / (sample_rate hop) at several lengths, and one T whatever the batch.

    A backbone that pads nothing has no frames where their window would end after the clip; the
    window of frame 0 is twice as long as its centre is late.
    """
    second = _n_samples(backbone, 1.0)
    lengths = [second, 3 * second, second + 1, round(1.37 * second) | 1, round(2.718 * second) | 1]

    n_frames, off = [], []
    for length in lengths:
        n = backbone(noise(length)[None].to(backbone.device)).shape[2]
        n_frames.append(n)
        off.append(abs(n - length / backbone.sample_rate / backbone.hop))
    in_batch = backbone(noise(second).expand(2, -1).to(backbone.device)).shape[2]

    value = f"{n_frames[0]} in {second} samples; off by {max(off):.2f} at most"
    if in_batch != n_frames[0]:
        value += f"; {in_batch} in a batch of 2"
    most = max(1.0, 2 * backbone.first_frame_s / backbone.hop)
    holds = max(off) <= most + 1e-9 and in_batch == n_frames[0]
    bound = "<= 1 frame" if most == 1 else f"<= {most:g} frames, of its window"
    return _must("frames as hop says", value, bound, holds, *off)


def _first_frame(backbone: Backbone, what: str) -> Finding:
    """Where clicks say that frame 0 is centred, against what the backbone says.

    Half a hop is what a mistake is worth: a quarter tells it from weights that are not symmetric.
    """
    said_s = backbone.first_frame_s
    measured_s = measure_first_frame(backbone)
    if measured_s is None:
        return Finding(what, f"not measured: a click moves all frames; {1000 * said_s:g} ms said")

    value = f"{1000 * measured_s:.1f} ms measured, {1000 * said_s:g} ms said"
    bound_s = backbone.hop / 4
    holds = abs(measured_s - said_s) <= bound_s
    return _must(what, value, f"within {1000 * bound_s:g} ms", holds, measured_s)


def _values(backbone: Backbone) -> list[Finding]:
    """Shape, dtype and range of the states of signals that a dataset may hold."""
    n_samples = _n_samples(backbone, 1.0)
    signals = {
        "noise": noise(n_samples),
        "silence": torch.zeros(n_samples),
        "chirp": chirp(n_samples),
    }
    states = backbone(torch.stack(list(signals.values())).to(backbone.device))

    expected = (len(signals), backbone.n_layers + 1, states.shape[2], backbone.dim)
    fits = tuple(states.shape) == expected and states.dtype == torch.float32
    shape = f"{tuple(states.shape)} {states.dtype}".replace("torch.", "")

    bad = []
    for name, clip in zip(signals, states, strict=True):
        for layer, state in enumerate(clip):
            if not bool(state.isfinite().all()):
                bad.append(f"layer {layer} on {name}")
    not_finite = ", ".join(bad[:3]) or "none"

    # Where a state is not finite, the row above says so; this one asks whether the others fit the
    # store.
    finite = states.nan_to_num(0.0, 0.0, 0.0)
    largest = finite.double().mean(2).abs().amax((0, 2))
    fits_store = largest.max().item() <= FLOAT16_MAX
    store_bound = f"<= {FLOAT16_MAX:g} (float16)"

    finite_bound = "none on noise, silence, chirp"
    return [
        _must("shape and dtype of states", shape, f"{expected} float32", fits),
        _must("states not finite", not_finite, finite_bound, not bad, len(bad)),
        _must("largest time mean", span(largest), store_bound, fits_store, *largest.tolist()),
    ]


def _minimum_input(backbone: Backbone) -> Finding:
    shortest = backbone.min_samples
    accepts_it = _accepts(backbone, shortest)
    accepts_less = _accepts(backbone, shortest - 1)

    verbs = {True: "accepted", False: "refused"}
    value = f"{shortest} {verbs[accepts_it]}, {shortest - 1} {verbs[accepts_less]}"
    holds = accepts_it and not accepts_less
    return _must("minimum input in samples", value, "accepted, one less refused", holds, shortest)


def _accepts(backbone: Backbone, n_samples: int) -> bool:
    try:
        states: Tensor = backbone(noise(n_samples)[None].to(backbone.device))
    except (UserError, RuntimeError, ValueError):
        return False
    return states.shape[2] > 0


# -- what choices cost -----------------------------------------------------------------------------


def _padding(backbone: Backbone) -> Finding:
    clip = _clip(backbone, 2.0)
    plain = backbone(clip)
    padded = backbone(F.pad(clip, (0, clip.shape[1])))
    change = relative_rms(padded[:, :, : plain.shape[2]], plain)
    value = f"real frames move by {span(change)} rms"
    return Finding("zeros appended, clip doubled", value, numbers=tuple(change.tolist()))


def _wrong_rate(backbone: Backbone) -> Finding:
    """The same music sampled at 2/3 of the rate, as if a resampling had been forgotten.

    The backbone hears it a fifth higher and 1.5 times as fast.
    """
    right = _clip(backbone, 3.0)
    wrong = music(round(right.shape[1] * 2 / 3), backbone.sample_rate * 2 / 3)[None].to(right)

    # Time means, since the frames of the two do not correspond.
    expected = backbone(right).mean(2, keepdim=True)
    change = relative_rms(backbone(wrong).mean(2, keepdim=True), expected)
    value = f"time means move by {span(change)} rms"
    return Finding("audio at 2/3 of the rate", value, numbers=tuple(change.tolist()))


def _precisions(backbone: Backbone) -> list[Finding]:
    clip = _clip(backbone, 1.0)
    exact = backbone(clip)
    return [_precision(backbone, mode, clip, exact) for mode in MODES]


def _precision(backbone: Backbone, mode: str, clip: Tensor, exact: Tensor) -> Finding:
    what = f"error of {mode}"
    reason = why_not(mode, backbone)
    if reason:
        return Finding(what, f"not measured: {reason}")
    try:
        states = states_in(mode, backbone, clip)
    except RuntimeError as error:
        return Finding(what, f"not possible: {' '.join(str(error).split())[:80]}")

    rms, largest = relative_rms(states, exact), relative_max(states, exact)
    numbers = (*rms.tolist(), *largest.tolist())
    return Finding(what, f"rms {span(rms)}, max {span(largest)}", numbers=numbers)


def _speed(backbone: Backbone, clip_seconds: float) -> list[Finding]:
    """Time and memory of one clip of the task."""
    device, clip = backbone.device, _clip(backbone, clip_seconds)
    cost = measure_forward(backbone, clip)

    on_gpu = device.type == "cuda"
    cpu = f"CPU, {torch.get_num_threads()} threads"
    place = torch.cuda.get_device_name(device) if on_gpu else cpu
    factor = clip.shape[1] / backbone.sample_rate / cost.seconds
    value = f"{factor:.3g} x real time ({cost.seconds:.3g} s a clip, batch 1, {place})"
    speed = Finding(f"speed at {clip_seconds:g} s", value, numbers=(factor,))

    what = f"peak memory at {clip_seconds:g} s"
    more, before = cost.n_bytes_more, cost.n_bytes_before
    if before is None:
        return [speed, Finding(what, "not measured: the system does not tell")]
    value = f"{more / 1e9:.2f} GB on top of {before / 1e9:.2f} GB in use"
    return [speed, Finding(what, value, numbers=(more, before))]


def _must(what: str, value: str, bound: str, holds: bool, *numbers: float) -> Finding:
    return Finding(what, value, bound, "ok" if holds else "FAILED", tuple(numbers))


def _n_samples(backbone: Backbone, seconds: float) -> int:
    return max(round(seconds * backbone.sample_rate), backbone.min_samples)


def _clip(backbone: Backbone, seconds: float) -> Tensor:
    """(1, S) music on the backbone's device."""
    return music(_n_samples(backbone, seconds), backbone.sample_rate)[None].to(backbone.device)
