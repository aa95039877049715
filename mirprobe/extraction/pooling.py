"""States of frames into the rows that are stored.

Conventions: a clip has one row, the mean over its frames, or one row for each of its parts, or one
for every frame of a label grid. B clips of one length, L+1 layers, T frames, D features.
"""

from torch import Tensor

from datamodules.features.grid import grid_weights, n_grid_frames, part_weights


def pool_clip(frames: Tensor) -> Tensor:
    """Mean over time: (B, L+1, T, D) -> (B, L+1, 1, D)."""
    return frames.mean(dim=2, keepdim=True)


def pool_parts(frames: Tensor, *, seconds: float, rate: float) -> Tensor:
    """Means over the parts of a clip, 1 / rate s each: (B, L+1, T, D) -> (B, L+1, rows, D).

    Args:
        frames: states of clips of one length.
        seconds: length of the clips.
        rate: parts a second, in Hz.
    """
    return part_weights(frames.shape[2], seconds, rate).to(frames) @ frames


def pool_to_grid(
    frames: Tensor, *, hop: float, first_frame_s: float, seconds: float, frame_rate: float
) -> Tensor:
    """Means over the time of each frame of a label grid: (B, L+1, T, D) -> (B, L+1, rows, D).

    Args:
        frames: states of clips of one length.
        hop: of the backbone, in s.
        first_frame_s: where the backbone's frame 0 is centred, in s.
        seconds: length of the clips.
        frame_rate: of the grid, in Hz.
    """
    n_grid = n_grid_frames(seconds, frame_rate)
    weights = grid_weights(frames.shape[2], hop, n_grid, frame_rate, first_frame_s=first_frame_s)
    return weights.to(frames) @ frames
