"""The label grid of tasks that are scored by frames.

Conventions: the grid has `frame_rate` frames a second, counted from the start of the track; frame k
covers k / frame_rate to (k + 1) / frame_rate seconds and has the label that holds at its centre.
Features are brought to the grid before they are stored (paper 4.1).
"""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from datamodules.tracks import Segment


def n_grid_frames(seconds: float, frame_rate: float) -> int:
    """Frames of a grid whose centres lie within a clip of this length, at least one.

    >>> n_grid_frames(24.0, 8.0), n_grid_frames(4.07, 8.0), n_grid_frames(0.01, 8.0)
    (192, 33, 1)
    """
    return max(1, math.ceil(round(seconds * frame_rate - 0.5, 6)))


def n_parts(seconds: float, rate: float) -> int:
    """Parts of 1 / rate seconds that a clip has, of which the last may be shorter; at least one.

    >>> n_parts(30.0, 1.0), n_parts(29.1, 1.0), n_parts(0.3, 1.0)
    (30, 30, 1)
    """
    return max(1, math.ceil(round(seconds * rate, 6)))


def part_weights(n_frames: int, seconds: float, rate: float) -> Tensor:
    """Shares of a backbone's frames in each part of a clip.

    Frames are spread evenly over the whole clip, wherever a backbone centres them: so the mean of
    the parts, weighted by the time that they cover, is the mean of all frames.

    Args:
        n_frames: of the backbone.
        seconds: length of the clip.
        rate: parts a second, in Hz.

    Returns:
        (n_parts, n_frames) float32, rows sum to 1.

    >>> part_weights(3, 1.5, 1.0)
    tensor([[0.5000, 0.5000, 0.0000],
            [0.0000, 0.0000, 1.0000]])
    """
    edges = torch.arange(n_frames + 1, dtype=torch.float64) * (seconds / n_frames)
    part_start = torch.arange(n_parts(seconds, rate), dtype=torch.float64)[:, None] / rate
    shared = _shared_s(edges[:-1], edges[1:], part_start, part_start + 1 / rate)
    return (shared / shared.sum(dim=1, keepdim=True)).float()


def last_share(seconds: float, rate: float) -> float:
    """What the last part of a clip covers of 1 / rate seconds, above 0 and at most 1.

    >>> last_share(29.25, 1.0), last_share(30.0, 1.0), last_share(0.25, 2.0)
    (0.25, 1.0, 0.5)
    """
    return seconds * rate - (n_parts(seconds, rate) - 1)


def grid_weights(
    n_frames: int, hop: float, n_grid: int, frame_rate: float, *, first_frame_s: float
) -> Tensor:
    """Shares of a backbone's frames in each frame of the grid, which is the mean over its time.

    Args:
        n_frames: of the backbone; a frame covers half a hop on each side of its centre.
        hop: of the backbone, in s.
        n_grid: frames of the grid.
        frame_rate: of the grid, in Hz.
        first_frame_s: where the backbone's frame 0 is centred, in s from the start of the clip.

    Returns:
        (n_grid, n_frames) float32, rows sum to 1. Where the grid is finer than the backbone's
        frames, these repeat; before the first one and beyond the last, these stand for the rest.

    >>> grid_weights(4, 0.5, 2, 1.0, first_frame_s=0.25)
    tensor([[0.5000, 0.5000, 0.0000, 0.0000],
            [0.0000, 0.0000, 0.5000, 0.5000]])
    >>> grid_weights(4, 0.5, 2, 1.0, first_frame_s=0.0)  # frame 0 covers -0.25 to 0.25 s
    tensor([[0.2500, 0.5000, 0.2500, 0.0000],
            [0.0000, 0.0000, 0.2500, 0.7500]])
    """
    start = (first_frame_s - hop / 2) + torch.arange(n_frames, dtype=torch.float64) * hop
    end = start + hop
    start[0], end[-1] = -torch.inf, torch.inf  # every frame of the grid needs a value

    grid_start = torch.arange(n_grid, dtype=torch.float64)[:, None] / frame_rate
    grid_end = grid_start + 1 / frame_rate
    shared = _shared_s(start, end, grid_start, grid_end)
    return (shared / shared.sum(dim=1, keepdim=True)).float()


def _shared_s(start: Tensor, end: Tensor, other_start: Tensor, other_end: Tensor) -> Tensor:
    """How long two stretches of time overlap, in s; shapes broadcast."""
    shared = torch.minimum(end, other_end) - torch.maximum(start, other_start)
    return shared.clamp(min=0)


def frame_labels(
    segments: tuple[Segment, ...], start_s: float, n_grid: int, frame_rate: float
) -> NDArray[np.int64]:
    """Labels of a clip's frames, by their centres.

    Args:
        segments: of the track, in order of time, without overlap.
        start_s: where the clip starts in the track, in s.
        n_grid: frames of the clip.
        frame_rate: of the grid, in Hz.

    Returns:
        (n_grid,) classes; -1 outside every segment.

    >>> frame_labels((Segment(0.5, 2.0, 4), Segment(3.0, float("inf"), 1)), 0.0, 5, 1.0).tolist()
    [4, 4, -1, 1, 1]
    """
    if not segments:
        return np.full(n_grid, -1)

    starts = np.array([segment.start_s for segment in segments])
    ends = np.array([segment.end_s for segment in segments])
    labels = np.array([segment.label for segment in segments])

    # A centre that is on a boundary but for the last bit belongs to the segment that begins there.
    centre = start_s + (np.arange(n_grid) + 0.5) / frame_rate + 1e-9
    place = np.searchsorted(starts, centre, side="right") - 1
    is_inside = (place >= 0) & (centre < ends[place])
    return np.where(is_inside, labels[place], -1)
