"""The label grid: its frames, features brought to it, and the labels of its frames."""

import math

import numpy as np
import pytest
import torch

from datamodules.features.grid import frame_labels, grid_weights, n_grid_frames
from datamodules.tracks import Segment

INF = float("inf")

# -- the grid --------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [2.0, 1 / 0.192, 8.0, 25.0, 100.0])
def test_clips_of_a_track_cover_its_grid_once(rate: float) -> None:
    """24 s clips and a rest: the grids of the clips are the grid of the track."""
    for seconds in (5.3, 24.0, 100.07, 216.31, 47.999):
        starts = np.arange(0, max(1, seconds // 24)) * 24.0
        lengths = [24.0] * (len(starts) - 1) + [seconds - starts[-1]]
        counts = [n_grid_frames(length, rate) for length in lengths]
        assert sum(counts) == n_grid_frames(seconds, rate)
        np.testing.assert_allclose(np.cumsum([0, *counts[:-1]]) / rate, starts, atol=1e-9)


@pytest.mark.parametrize("seconds", [24.0, 5.317, 0.9])
@pytest.mark.parametrize("hop", [0.01, 0.04])
@pytest.mark.parametrize("rate", [2.0, 8.0, 25.0, 100.0])
@pytest.mark.parametrize("share_of_hop", [0.0, 0.5])
def test_features_on_the_grid_stand_for_their_time(
    seconds: float, hop: float, rate: float, share_of_hop: float
) -> None:
    """A feature that is the time itself comes out as the centres of the frames of the grid."""
    n_frames, n_grid = math.ceil(round(seconds / hop, 6)), n_grid_frames(seconds, rate)
    first_frame_s = share_of_hop * hop
    weights = grid_weights(n_frames, hop, n_grid, rate, first_frame_s=first_frame_s)
    assert weights.shape == (n_grid, n_frames)
    assert bool((weights >= 0).all())
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(n_grid))

    time = first_frame_s + torch.arange(n_frames) * hop
    centre = (torch.arange(n_grid) + 0.5) / rate
    inside = centre < time[-1] + hop / 2  # beyond the last frame of the backbone, that stands in
    inside[-1] = False  # the last frame of the grid may reach beyond the audio
    tolerance = hop / 2 + 1e-6  # of a frame in part of its cell, the whole counts
    torch.testing.assert_close((weights @ time)[inside], centre[inside], atol=tolerance, rtol=0)


def test_whole_numbers_of_frames_are_plain_means() -> None:
    frames = torch.randn(100, 5, generator=torch.Generator().manual_seed(0))
    expected = torch.nn.functional.adaptive_avg_pool1d(frames.T, 20).T  # what MusicFM's authors do
    weights = grid_weights(100, 0.04, 20, 5.0, first_frame_s=0.02)
    torch.testing.assert_close(weights @ frames, expected)


def test_frames_count_by_the_time_around_their_centres() -> None:
    """Frames of 40 ms centred on 0, 40, 80 ... ms, as MusicFM's, on a grid of 100 ms."""
    weights = grid_weights(6, 0.04, 2, 10.0, first_frame_s=0.0)
    expected = torch.tensor([[0.2, 0.4, 0.4, 0, 0, 0], [0, 0, 0, 0.4, 0.4, 0.2]])
    torch.testing.assert_close(weights, expected)


def test_a_first_frame_after_half_a_hop_stands_for_what_is_before_it() -> None:
    weights = grid_weights(2, 1.0, 4, 1.0, first_frame_s=2.5)
    assert weights.tolist() == [[1, 0], [1, 0], [1, 0], [0, 1]]


def test_a_backbone_that_gives_too_few_frames_repeats_the_last() -> None:
    weights = grid_weights(3, 0.5, 4, 1.0, first_frame_s=0.25)
    assert weights[2:].tolist() == [[0, 0, 1], [0, 0, 1]]


# -- labels ----------------------------------------------------------------------------------------


def test_labels_hold_at_the_centre_of_a_frame() -> None:
    segments = (Segment(0.5, 1.0, 2), Segment(1.0, 1.6, 0), Segment(2.0, INF, 1))
    # 0.125 0.375 | 0.625 0.875 | 1.125 1.375 | 1.625 1.875 | 2.125 2.375
    assert frame_labels(segments, 0.0, 10, 4.0).tolist() == [-1, -1, 2, 2, 0, 0, -1, -1, 1, 1]
    assert frame_labels(segments, 1.0, 6, 4.0).tolist() == [0, 0, -1, -1, 1, 1]


def test_a_centre_on_a_boundary_belongs_to_what_begins_there() -> None:
    segments = (Segment(0.0, 0.5, 0), Segment(0.5, 2.0, 1))
    assert frame_labels(segments, 0.0, 2, 1.0).tolist() == [1, 1]


def test_a_track_without_segments_is_ignored() -> None:
    assert frame_labels((), 0.0, 3, 8.0).tolist() == [-1, -1, -1]
