"""Pooling: a clip's mean, and means over the frames of a label grid."""

import pytest
import torch

from datamodules.features.grid import last_share
from mirprobe.extraction.pooling import pool_clip, pool_parts, pool_to_grid

FRAMES = torch.randn(2, 3, 8, 4, generator=torch.Generator().manual_seed(0))  # (B, L+1, T, D)


def test_a_clip_is_the_mean_over_its_frames() -> None:
    pooled = pool_clip(FRAMES)
    assert pooled.shape == (2, 3, 1, 4)
    for clip, of_clip in enumerate(FRAMES):
        for layer, of_layer in enumerate(of_clip):
            torch.testing.assert_close(pooled[clip, layer, 0], of_layer.sum(dim=0) / 8)


def test_a_grid_frame_is_the_mean_over_its_own_time() -> None:
    """Eight frames of 0.25 s into two of 1 s."""
    pooled = pool_to_grid(FRAMES, hop=0.25, first_frame_s=0.125, seconds=2.0, frame_rate=1.0)
    assert pooled.shape == (2, 3, 2, 4)
    torch.testing.assert_close(pooled[:, :, 0], FRAMES[:, :, :4].mean(dim=2))
    torch.testing.assert_close(pooled[:, :, 1], FRAMES[:, :, 4:].mean(dim=2))


def test_a_backbone_frame_on_a_boundary_counts_for_both_by_its_share() -> None:
    """Three frames of 1 s into two of 1.5 s: the middle one is halved."""
    pooled = pool_to_grid(
        FRAMES[:, :, :3], hop=1.0, first_frame_s=0.5, seconds=3.0, frame_rate=1 / 1.5
    )
    first, middle, last = FRAMES[:, :, 0], FRAMES[:, :, 1], FRAMES[:, :, 2]
    torch.testing.assert_close(pooled[:, :, 0], (first + middle / 2) / 1.5)
    torch.testing.assert_close(pooled[:, :, 1], (middle / 2 + last) / 1.5)


def test_frames_centred_on_the_start_lie_half_a_hop_earlier() -> None:
    """Frames of 1 s centred on 0, 1 and 2 s, as MusicFM's are: the first has half a second left."""
    pooled = pool_to_grid(FRAMES[:, :, :3], hop=1.0, first_frame_s=0.0, seconds=2.0, frame_rate=1.0)
    first, middle, last = FRAMES[:, :, 0], FRAMES[:, :, 1], FRAMES[:, :, 2]
    torch.testing.assert_close(pooled[:, :, 0], (first + middle) / 2)
    torch.testing.assert_close(pooled[:, :, 1], (middle + last) / 2)


def test_states_repeat_where_the_grid_is_finer_than_the_backbone() -> None:
    pooled = pool_to_grid(FRAMES[:, :, :2], hop=1.0, first_frame_s=0.5, seconds=2.0, frame_rate=2.0)
    torch.testing.assert_close(pooled, FRAMES[:, :, [0, 0, 1, 1]])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_type_of_the_states_is_kept(dtype: torch.dtype) -> None:
    assert pool_clip(FRAMES.to(dtype)).dtype == dtype
    assert (
        pool_to_grid(
            FRAMES.to(dtype), hop=1.0, first_frame_s=0.5, seconds=8.0, frame_rate=2.0
        ).dtype
        == dtype
    )


def test_parts_are_means_over_their_own_time_and_the_last_one_over_less() -> None:
    """Eight frames over 2 s, in parts of 0.8 s: 3.2 frames each, and a rest of 1.6."""
    pooled = pool_parts(FRAMES, seconds=2.0, rate=1.25)
    assert pooled.shape == (2, 3, 3, 4)
    first = (FRAMES[:, :, :3].sum(dim=2) + 0.2 * FRAMES[:, :, 3]) / 3.2
    torch.testing.assert_close(pooled[:, :, 0], first)
    last = (0.6 * FRAMES[:, :, 6] + FRAMES[:, :, 7]) / 1.6
    torch.testing.assert_close(pooled[:, :, 2], last)
    assert last_share(2.0, 1.25) == 0.5


@pytest.mark.parametrize("seconds", [0.04, 0.3, 1.0, 2.9, 29.12])
@pytest.mark.parametrize("rate", [0.1, 1.0, 3.0, 40.0])
def test_parts_weighted_by_their_time_are_the_mean_of_the_clip(seconds: float, rate: float) -> None:
    pooled = pool_parts(FRAMES, seconds=seconds, rate=rate)
    weights = torch.ones(pooled.shape[2])
    weights[-1] = last_share(seconds, rate)
    assert 0 < weights[-1] <= 1 + 1e-6
    mean = (pooled * weights[:, None]).sum(dim=2, keepdim=True) / weights.sum()
    torch.testing.assert_close(mean, pool_clip(FRAMES), rtol=1e-5, atol=1e-6)
