"""Pooling: a clip's mean, and means over the frames of a label grid."""

import pytest
import torch

from mirprobe.extraction.pooling import pool_clip, pool_to_grid

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
