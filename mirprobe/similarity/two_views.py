"""The moments of two views about their means, as the measures take them.

Conventions: scatter matrices are sums over frames, not divided by n; no measure depends on that.
Dx and Dy values of a frame. Float64 on the CPU.
"""

import hashlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor

from datamodules.errors import UserError
from mirprobe.similarity.clip_sums import ClipSums, stack_means
from mirprobe.similarity.moments import Moments, Pair


@dataclass(frozen=True)
class TwoViews:
    """Two views on the same n frames.

    Attributes:
        n: number of frames, less one for each mean that was taken out beyond the first.
        mean_x: (Dx,) mean of the first view.
        mean_y: (Dy,) mean of the second.
        xx: (Dx, Dx) scatter of the first about its mean.
        xy: (Dx, Dy) scatter of the first with the second.
        yy: (Dy, Dy) scatter of the second.
    """

    n: int
    mean_x: Tensor
    mean_y: Tensor
    xx: Tensor
    xy: Tensor
    yy: Tensor


def mean_of(moments: Moments, view: str, folds: Collection[int] | None = None) -> Tensor:
    """(D,) mean of a view over the frames of some folds, or of all."""
    clips = moments.sorted_clips(folds)
    counts = _frames_of(clips)
    return counts @ stack_means(clips, view) / counts.sum()


def about_means(moments: Moments, pair: Pair, folds: Collection[int] | None = None) -> TwoViews:
    """Two views about their means over the frames of some folds, or of all."""
    x, y = pair
    centre = {name: mean_of(moments, name, folds) for name in pair}
    xy = moments.about(pair, centre, folds)
    xx = moments.about((x, x), centre, folds).xy
    yy = xx if x == y else moments.about((y, y), centre, folds).xy
    return TwoViews(xy.n, centre[x], centre[y], xx, xy.xy, yy)


def within_tracks(moments: Moments, pair: Pair) -> TwoViews:
    """Two views about the mean of each track: what is constant in a track is taken out."""
    x, y = pair
    clips = moments.sorted_clips()
    counts = _frames_of(clips)[:, None]
    number_of = {name: number for number, name in enumerate({clip.track: 0 for clip in clips})}
    track = torch.tensor([number_of[clip.track] for clip in clips])

    apart = {name: _from_track(stack_means(clips, name), counts, track) for name in pair}
    xx, xy, yy = (
        moments.within((a, b)) + (counts * apart[a]).T @ apart[b]
        for a, b in ((x, x), (x, y), (y, y))
    )
    n = moments.n_frames - len(number_of) + 1
    return TwoViews(n, mean_of(moments, x), mean_of(moments, y), xx, xy, yy)


def _from_track(means: Tensor, counts: Tensor, track: Tensor) -> Tensor:
    """(N, D) means of clips, from the mean of their track.

    Args:
        means: (N, D).
        counts: (N, 1) frames of each clip.
        track: (N,) number of its track.
    """
    n_tracks = int(track.max()) + 1
    sums = means.new_zeros(n_tracks, means.shape[1]).index_add_(0, track, counts * means)
    frames = means.new_zeros(n_tracks, 1).index_add_(0, track, counts)
    return means - (sums / frames)[track]


def unrelated(moments: Moments, pair: Pair) -> TwoViews:
    """Two views as they would be if they had nothing to do with each other: the null.

    Each clip's layer stands beside the input of a clip of another track: its mean exactly, its time
    course by one of the same spectra (`clip_sums.scramble`). Both views keep their own moments.

    Raises:
        UserError: there is only one track.
    """
    x, y = pair
    whole = about_means(moments, pair)
    clips = [clip for track in _shuffled_tracks(moments) for clip in track]
    shift = max(len(track) for track in _shuffled_tracks(moments))
    others = clips[shift:] + clips[:shift]

    counts = torch.sqrt(_frames_of(clips) * _frames_of(others))[:, None]
    of_x, of_y = stack_means(others, x) - whole.mean_x, stack_means(clips, y) - whole.mean_y
    xy = moments.scrambled[pair].cpu() + (counts * of_x).T @ of_y
    return TwoViews(whole.n, whole.mean_x, whole.mean_y, whole.xx, xy, whole.yy)


def _shuffled_tracks(moments: Moments) -> list[list[ClipSums]]:
    """Tracks in an order that only their names decide.

    Raises:
        UserError: there is only one.
    """
    tracks = _by_track(moments.sorted_clips())
    if len(tracks) < 2:
        raise UserError(
            f"the null pairs each track with another one, found {len(tracks)}: set a larger "
            "similarity.n_tracks"
        )
    return sorted(tracks, key=lambda clips: hashlib.sha256(clips[0].track.encode()).digest())


def _by_track(clips: list[ClipSums]) -> list[list[ClipSums]]:
    def track(clip: ClipSums) -> str:
        return clip.track

    groups: Iterator[tuple[str, Iterator[ClipSums]]] = groupby(sorted(clips, key=track), track)
    return [list(group) for _, group in groups]


def _frames_of(clips: list[ClipSums]) -> Tensor:
    return torch.tensor([clip.n_frames for clip in clips], dtype=torch.float64)
