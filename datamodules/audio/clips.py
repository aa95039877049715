"""Clips, and the rule that cuts a track into them.

Conventions: clips follow each other without overlap from the first sample; positions are samples of
the resampled audio. No track is ever dropped by a cutting rule: a track shorter than one clip is
one clip of its own length.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from datamodules.tracks import ClipPlace


@dataclass(frozen=True)
class ClipRule:
    """How a track is cut.

    Attributes:
        seconds: length of a clip in s; None takes the whole track as one clip.
        tail_seconds: the shortest rest at the end of a track that is kept as a clip, in s; None
            keeps no rest.
        join_rest: what becomes of a rest that is not kept: joined to the clip before it instead of
            dropped.
    """

    seconds: float | None = None
    tail_seconds: float | None = None
    join_rest: bool = False

    def describe(self) -> str:
        """Readable form for file names: `whole`, `30s`, `30s-tail5s` or `30s-tail5s-joined`."""
        if self.seconds is None:
            return "whole"
        tail = "" if self.tail_seconds is None else f"-tail{self.tail_seconds:g}s"
        return f"{self.seconds:g}s{tail}{'-joined' if self.join_rest else ''}"


@dataclass(frozen=True)
class Clip:
    """One piece of a track, ready for a backbone.

    Attributes:
        place: which piece of which audio it is.
        audio: (S,) float32, mono, at the backbone's sample rate.
        track_id: a track that has it, for people.
    """

    place: ClipPlace
    audio: NDArray[np.float32]
    track_id: str = ""


def cut_positions(n_samples: int, sample_rate: int, rule: ClipRule) -> list[tuple[int, int]]:
    """Start and length, in samples, of every clip of a track.

    >>> cut_positions(70, 10, ClipRule(seconds=3.0))
    [(0, 30), (30, 30)]
    >>> cut_positions(70, 10, ClipRule(seconds=3.0, tail_seconds=1.0))
    [(0, 30), (30, 30), (60, 10)]
    >>> cut_positions(20, 10, ClipRule(seconds=3.0))
    [(0, 20)]
    >>> cut_positions(70, 10, ClipRule(seconds=3.0, join_rest=True))
    [(0, 30), (30, 40)]
    """
    length = n_samples if rule.seconds is None else round(rule.seconds * sample_rate)
    if n_samples <= length:
        return [(0, n_samples)]

    positions = [(start, length) for start in range(0, n_samples - length + 1, length)]
    rest = n_samples - len(positions) * length

    if rule.tail_seconds is not None and rest >= max(1, round(rule.tail_seconds * sample_rate)):
        positions.append((len(positions) * length, rest))
    elif rule.join_rest:
        positions[-1] = (positions[-1][0], length + rest)

    return positions


def cut_clips(
    audio: NDArray[np.float32],
    sample_rate: int,
    rule: ClipRule,
    *,
    audio_id: str,
    track_id: str = "",
) -> list[Clip]:
    """Clips of one decoded track, in order; views of `audio`, (S,) float32 at `sample_rate` Hz."""
    positions = cut_positions(len(audio), sample_rate, rule)

    clips = []
    for index, (start, length) in enumerate(positions):
        place = ClipPlace(audio_id, index, len(positions), start / sample_rate)
        clips.append(Clip(place, audio[start : start + length], track_id))
    return clips
