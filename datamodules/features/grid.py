"""The label grid: arithmetic of frames."""

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


def grid_weights(n_frames: int, hop: float, n_grid: int, frame_rate: float) -> Tensor:
    """How a backbone's frames make the frames of the grid: each is the mean over the time it
    covers.

    Args:
        n_frames: of the backbone; frame t covers t * hop to (t + 1) * hop seconds.
        hop: of the backbone, in s.
        n_grid: frames of the grid.
        frame_rate: of the grid, in Hz.

    Returns:
        (n_grid, n_frames) float32, rows sum to 1. Where the grid is finer than the backbone's
        frames, these repeat; beyond the last one it stands for the rest.

    >>> grid_weights(4, 0.5, 2, 1.0)
    tensor([[0.5000, 0.5000, 0.0000, 0.0000],
            [0.0000, 0.0000, 0.5000, 0.5000]])
    """
    start = torch.arange(n_frames, dtype=torch.float64) * hop
    end = start + hop
    end[-1] = torch.inf
    wanted = torch.arange(n_grid, dtype=torch.float64)[:, None] / frame_rate
    shared = (torch.minimum(end, wanted + 1 / frame_rate) - torch.maximum(start, wanted)).clamp(
        min=0
    )
    return (shared / shared.sum(dim=1, keepdim=True)).float()


def frame_labels(
    segments: tuple[Segment, ...], start_s: float, n_grid: int, frame_rate: float
) -> NDArray[np.int64]:
    """(n_grid,) labels of a clip that starts at `start_s` s, by the centres of the frames; -1
    outside every segment.

    >>> frame_labels((Segment(0.5, 2.0, 4), Segment(3.0, float("inf"), 1)), 0.0, 5, 1.0).tolist()
    [4, 4, -1, 1, 1]
    """
    if not segments:
        return np.full(n_grid, -1)
    starts = np.array([segment.start_s for segment in segments])
    ends = np.array([segment.end_s for segment in segments])
    labels = np.array([segment.label for segment in segments])
    centre = start_s + (np.arange(n_grid) + 0.5) / frame_rate
    place = np.searchsorted(starts, centre + 1e-9, side="right") - 1
    return np.where((place >= 0) & (centre + 1e-9 < ends[place]), labels[place], -1)
