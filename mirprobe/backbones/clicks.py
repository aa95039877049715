"""Where the frames of a backbone lie in time, measured with clicks.

Conventions: times are in s from the start of the clip. Looked at is layer 0, which the front end
places: deeper layers look ahead or back as they learned to, by tens of milliseconds in FCPE.
"""

import torch
from torch import Tensor

from mirprobe.backbones.backbone import Backbone
from mirprobe.backbones.signals import noise

N_CLICKS = 8  # over one hop, since a click between two frames is near neither
CLICK = 0.5
QUIET = 0.01  # gain of the noise around it, which is then 54 dB below
# Of all that a click moves, what lies around it at least: 0.35 in MERT2, 0.54 in FCPE, 1 in most.
# Behind a positional convolution of 128 frames, whose weights say where, it was 0.2 at most.
LOCAL_SHARE = 0.3


def measure_first_frame(backbone: Backbone) -> float | None:
    """Where frame 0 is centred; None where clicks move all frames, so that nothing tells.

    Clicks are put into the middle of quiet noise, one a clip. The frames that one moves lie around
    it: the mean of their times, counted from frame 0, is the click's distance from that frame.
    """
    n_samples, at = _clicks(backbone)
    quiet = QUIET * noise(n_samples)
    clips = quiet.repeat(len(at) + 1, 1)
    clips[range(len(at)), at] += CLICK

    states = backbone(clips.to(backbone.device))[:, 0]
    weight = response(states[:-1], states[-1])
    everything = (states[:-1] - states[-1]).norm(dim=2).sum(dim=1)
    around = weight.sum(dim=1)
    if not bool((around > 0).all()) or (around / everything).mean() < LOCAL_SHARE:
        return None

    time_s = torch.arange(weight.shape[1], device=weight.device) * backbone.hop
    after_frame_0 = (weight @ time_s) / around
    click_s = torch.tensor(at, device=weight.device) / backbone.sample_rate
    return float((click_s - after_frame_0).mean())


def response(states: Tensor, quiet: Tensor) -> Tensor:
    """How much each frame is moved by a click: (B, T, D) with it, (T, D) without -> (B, T)."""
    change = (states - quiet).norm(dim=2)

    # A norm over time moves all frames a little, which would draw the mean to the clip's middle.
    everywhere = 2 * change.median(dim=1, keepdim=True).values
    local: Tensor = (change - everywhere).clamp(min=0)
    return local


def _clicks(backbone: Backbone) -> tuple[int, list[int]]:
    """Length of a clip, and the samples of the clicks: spread over the hop after its middle."""
    seconds = max(1.0, 40 * backbone.hop)
    n_samples = max(round(seconds * backbone.sample_rate), backbone.min_samples)

    hop_samples = backbone.hop * backbone.sample_rate
    shares = (torch.arange(N_CLICKS) + 0.5) / N_CLICKS
    return n_samples, (n_samples // 2 + shares * hop_samples).long().tolist()
