"""How much there is of some audio, before it is decoded: clips, rows, hours, bytes.

Conventions: lengths are what headers announce; of many files a sample is looked at, and what it
holds is scaled up.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from datamodules.audio.clips import cut_positions
from datamodules.audio.loader import lengths_s
from datamodules.features.grid import n_parts
from datamodules.task import TaskDataModule
from datamodules.tracks import Track

_MOST_HEADERS = 2000  # that are read before the work: a second, or ten on a network


@dataclass(frozen=True)
class AudioSize:
    """What some tracks give.

    Attributes:
        audio_s: their length, in s.
        n_clips: by the cutting rule.
        n_rows: that are stored: one for each clip or part of one, or one for each frame of the
            label grid.
    """

    audio_s: float
    n_clips: int
    n_rows: int


def audio_size(
    tracks: Sequence[Track],
    data: TaskDataModule,
    sample_rate: int,
    *,
    row_rate: float | None = None,
) -> AudioSize:
    """The size of some tracks, by their headers and the cutting rule.

    Args:
        tracks: to look at; of many a sample.
        data: gives the cutting rule and the label grid.
        sample_rate: of the backbone, in Hz.
        row_rate: rows a second that are kept of a clip, in Hz; None for one row.
    """
    if not tracks:
        return AudioSize(0.0, 0, 0)
    some = tracks[:: max(1, len(tracks) // _MOST_HEADERS)]
    lengths = lengths_s(some)
    more = len(tracks) / len(some)

    n_samples = [round(length * sample_rate) for length in lengths]
    positions = [cut_positions(n, sample_rate, data.clip) for n in n_samples]
    clips_s = [length / sample_rate for of_track in positions for _, length in of_track]
    n_clips = len(clips_s)
    n_rows: float = n_clips
    if data.frame_rate is not None:
        n_rows = sum(lengths) * data.frame_rate
    elif row_rate is not None:
        n_rows = sum(n_parts(seconds, row_rate) for seconds in clips_s)
    return AudioSize(sum(lengths) * more, math.ceil(n_clips * more), math.ceil(n_rows * more))


def features_bytes(size: AudioSize, n_layers: int, dim: int) -> int:
    """Bytes of float16 features of layers 0..L, each `dim` wide.

    >>> features_bytes(AudioSize(60.0, 2, 2), n_layers=12, dim=1024)
    53248
    """
    return size.n_rows * (n_layers + 1) * dim * 2
