"""Sums over the frames of one clip, and what shifts them.

Conventions: T frames of a clip, D values of a frame, N clips. All in float64.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_BLOCK = 256  # rows of a symmetric product that are computed at once; what lies below is left out


@dataclass(frozen=True)
class ClipSums:
    """A clip that was counted.

    Attributes:
        audio_id: of its track, see `datamodules.tracks.audio_id`.
        index: its place in the track.
        track: what it is a piece of: the unit of folds and of centring.
        fold: 0 .. K-1, of the track.
        n_frames: T.
        means: (D,) of each view, over its frames.
        angles: of each view, the sum of the angles between successive steps, in radians, at the
            frames that count.
        n_angles: of each view, how many angles that is.
        n_clips: how many clips the track gives.
    """

    audio_id: str
    index: int
    track: str
    fold: int
    n_frames: int
    means: Mapping[str, NDArray[np.float64]]
    angles: Mapping[str, float]
    n_angles: Mapping[str, int]
    n_clips: int = 1

    @property
    def key(self) -> tuple[str, int]:
        """Tells it from all other clips."""
        return (self.audio_id, self.index)


@dataclass(frozen=True)
class SampledClip:
    """A clip that waits to be counted.

    Attributes:
        audio_id: of its track.
        index: its place in the track.
        track: what it is a piece of.
        fold: of that track.
        frames: of each view, (T, D): the frames that count.
        angles: as in `ClipSums`: at these frames, between the steps from and to their neighbours.
        n_angles: likewise.
        n_clips: how many clips the track gives.
    """

    audio_id: str
    index: int
    track: str
    fold: int
    frames: Mapping[str, Tensor]
    angles: Mapping[str, float]
    n_angles: Mapping[str, int]
    n_clips: int = 1

    @property
    def key(self) -> tuple[str, int]:
        """Tells it from all other clips."""
        return (self.audio_id, self.index)

    @property
    def n_frames(self) -> int:
        """Frames that count."""
        return len(next(iter(self.frames.values())))


@dataclass
class SquareSums:
    """Sums with squared lengths of frames, which debiased CKA needs, about one origin.

    x and y are frames minus the origin of their view.

    Attributes:
        xy: sum of |x|^2 |y|^2.
        x: (Dx,) sum of x |y|^2.
        y: (Dy,) sum of y |x|^2.
    """

    xy: Tensor
    x: Tensor
    y: Tensor


@dataclass(frozen=True)
class Raw:
    """Sums over n frames of two views about some centre.

    Attributes:
        n: number of frames.
        x: (Dx,) sum of x.
        y: (Dy,) sum of y.
        xy: (Dx, Dy) sum of x y'.
    """

    n: int
    x: Tensor
    y: Tensor
    xy: Tensor


def add_gram(total: Tensor, values: Tensor) -> None:
    """Adds the upper part of values' values to `total`: (T, D) into (D, D).

    Of the part below the diagonal only what falls into a block is filled: a third less work.
    """
    for start in range(0, values.shape[1], _BLOCK):
        rows = values[:, start : start + _BLOCK]
        total[start : start + _BLOCK, start:].addmm_(rows.T, values[:, start:])


def symmetric(upper: Tensor) -> Tensor:
    """The symmetric matrix whose upper part is given.

    >>> symmetric(torch.tensor([[1.0, 2.0], [0.0, 3.0]]))
    tensor([[1., 2.],
            [2., 3.]])
    """
    return upper.triu() + upper.triu(1).T


def stack_means(clips: Sequence[ClipSums], name: str, dim: int = 0) -> Tensor:
    """(N, D) means of one view of some clips."""
    if not clips:
        return torch.zeros((0, dim), dtype=torch.float64)
    return torch.from_numpy(np.stack([clip.means[name] for clip in clips]))


def shift_squares(
    sums: SquareSums, raw: Raw, power: tuple[float, float], shift: tuple[Tensor, Tensor]
) -> SquareSums:
    """Sums with squared lengths of x - a and y - b, from those of x and y.

    |x - a|^2 = |x|^2 - 2 a'x + |a|^2, multiplied out.

    Args:
        sums: of x and y.
        raw: first and second moments of x and y.
        power: sum of |x|^2, and of |y|^2.
        shift: a, (Dx,), and b, (Dy,).
    """
    (p, r), (a, b) = power, shift
    x, y, xy = sums.x.cpu(), sums.y.cpu(), sums.xy.cpu()
    aa, bb = a @ a, b @ b

    power_x = p - 2 * (a @ raw.x) + raw.n * aa
    power_y = r - 2 * (b @ raw.y) + raw.n * bb
    new_xy = xy - 2 * (a @ x) + aa * r - 2 * (b @ y) + bb * p + 4 * (a @ raw.xy @ b)
    new_xy += raw.n * aa * bb - 2 * aa * (b @ raw.y) - 2 * bb * (a @ raw.x)
    new_x = x - 2 * raw.xy @ b + bb * raw.x - power_y * a
    new_y = y - 2 * raw.xy.T @ a + aa * raw.y - power_x * b

    device = sums.xy.device
    return SquareSums(new_xy.to(device), new_x.to(device), new_y.to(device))


def scramble(values: Tensor, phases: Tensor) -> Tensor:
    """A clip's frames with another time course and the same spectra.

    Every frequency of all columns is turned by one phase: the covariance of any two columns at any
    (circular) lag stays what it was, and what they share with anything else is left to chance
    (Prichard and Theiler 1994, doi:10.1103/PhysRevLett.73.951). So a clip stands in for one of
    another track, whichever process sees which clips; pairing clips as they come would make the
    result depend on how tracks were dealt to ranks.

    Args:
        values: (T, D) real, of mean zero.
        phases: (T // 2 + 1,) in radians.
    """
    turned = torch.fft.rfft(values, dim=0)
    turned *= torch.polar(torch.ones_like(phases), phases).to(turned)[:, None]
    scrambled: Tensor = torch.fft.irfft(turned, n=len(values), dim=0)
    return scrambled


def phases_of(audio_id: str, index: int, n_frames: int) -> Tensor:
    """Phases that follow from a clip's name; none where a real signal has none."""
    digest = hashlib.sha256(f"{audio_id} {index}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
    nphases_of = n_frames // 2 + 1
    phases = 2 * math.pi * torch.rand(nphases_of, generator=generator, dtype=torch.float64)

    phases[0] = 0
    if n_frames % 2 == 0:
        # At half the frame rate there is only a sign.
        phases[-1] = math.pi * (phases[-1] > math.pi)
    return phases


def turning(values: Tensor, first: int = 0, step: int = 1) -> tuple[Tensor, Tensor]:
    """How much a trajectory of frames turns: sum of the angles between steps, and their number.

    The curvature of Hosseini and Fedorenko 2023 (arXiv 2311.04930) is the mean of these angles: 0
    for a straight line, 90 degrees for a walk of independent steps, 120 for independent frames. A
    step of length zero has no direction and gives no angle.

    Args:
        values: (T, D).
        first: frame that is looked at first; the two at the ends have no angle.
        step: one frame of so many is looked at, with its two neighbours.

    Returns:
        In radians, and the count.

    >>> turning(torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0]]))
    (tensor(1.5708), tensor(1))
    """
    n, start = len(values), first if first > 0 else step
    here = values[start : n - 1 : step]
    to_here = here - values[start - 1 : n - 2 : step]
    from_here = values[start + 1 : n : step] - here
    products = to_here.norm(dim=1) * from_here.norm(dim=1)
    has_angle = products > 0

    cosines = (to_here * from_here).sum(dim=1) / products.masked_fill(~has_angle, 1.0)
    angles = torch.arccos(cosines.clamp(-1, 1))
    return torch.where(has_angle, angles, 0.0).sum(), has_angle.sum()
