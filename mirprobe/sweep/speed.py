"""How fast a backbone and its decoders are on this machine, by a dry run on a few clips.

Conventions: speeds are s of audio for each s of work; nothing of a dry run is stored.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from datamodules.audio.clips import Clip
from datamodules.audio.loader import ClipLoader
from datamodules.errors import UserError
from mirprobe.assembly import Job
from mirprobe.backbones.backbone import Backbone
from mirprobe.extraction.module import AUTO_BATCH_SECONDS

N_DRY_CLIPS = 20
_DRY_RUN_S = 10.0  # of forward passes, after which a slow machine has shown enough


@dataclass(frozen=True)
class Speed:
    """What a dry run has measured; s of audio for each s of work.

    Attributes:
        decoding: of one core that reads, decodes and cuts.
        forward: of one device.
        device: `cpu` or `cuda`.
        n_clips: that passed.
    """

    decoding: float
    forward: float
    device: str
    n_clips: int

    @property
    def n_decoders(self) -> int:
        """Cores that decode as fast as one device runs the backbone."""
        return max(1, math.ceil(self.forward / self.decoding))

    @property
    def cpus_per_task(self) -> int:
        """Cores of one process so that decoding does not bind: the decoders', and its own."""
        return self.n_decoders + 1

    def hours(self, audio_s: float, n_cpus: int) -> float:
        """Hours of one device with `n_cpus` cores beside it.

        >>> Speed(decoding=100.0, forward=400.0, device="cuda", n_clips=20).hours(360000.0, 3)
        0.5
        """
        decoding = self.decoding * max(1, n_cpus - 1)
        return audio_s / min(decoding, self.forward) / 3600


def dry_run(job: Job, backbone: Backbone) -> Speed:
    """Decodes up to twenty clips of a job and runs a backbone on them, where it stands.

    Raises:
        UserError: no clip can be made of the files that were looked at.
    """
    tracks = job.tracks()
    some = tracks[:: max(1, len(tracks) // N_DRY_CLIPS)]
    loader = ClipLoader(some, job.data.clip, {}, backbone.sample_rate, backbone.min_samples, 1.0, 0)

    clips: list[Clip] = []
    start_s = time.perf_counter()
    for track in some:
        clips += loader.read([track]).clips
        if len(clips) >= N_DRY_CLIPS:
            break
    decoding_s = time.perf_counter() - start_s
    if not clips:
        raise UserError(f"none of the files of {job.data.dataset} that were tried can be used")

    decoded_s = sum(len(clip.audio) for clip in clips) / backbone.sample_rate
    forward, n_passed = _measure_forward(backbone, clips[:N_DRY_CLIPS])
    return Speed(decoded_s / decoding_s, forward, backbone.device.type, n_passed)


def _measure_forward(backbone: Backbone, clips: Sequence[Clip]) -> tuple[float, int]:
    """s of audio a s, and how many clips have passed; the first of them warms up."""
    most = round(AUTO_BATCH_SECONDS[backbone.device.type] * backbone.sample_rate)
    by_length: dict[int, list[Clip]] = {}
    for clip in clips:
        by_length.setdefault(len(clip.audio), []).append(clip)

    _pass(backbone, clips[:1])
    n_samples, n_passed, used_s = 0, 0, 0.0
    for length, group in by_length.items():
        size = max(1, most // length)
        for batch in (group[i : i + size] for i in range(0, len(group), size)):
            used_s += _pass(backbone, batch)
            n_samples += length * len(batch)
            n_passed += len(batch)
            if used_s > _DRY_RUN_S:
                break
    return n_samples / backbone.sample_rate / used_s, n_passed


def _pass(backbone: Backbone, clips: Sequence[Clip]) -> float:
    """Seconds that one forward pass takes, with the way of the audio there."""
    start_s = time.perf_counter()
    audio = torch.stack([torch.from_numpy(clip.audio) for clip in clips]).to(backbone.device)
    backbone(audio).sum().item()  # waits for the device
    return time.perf_counter() - start_s
