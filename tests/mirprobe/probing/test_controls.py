"""Scores of answers that have learned nothing."""

import pytest
import torch

from mirprobe.probing.controls import largest_class_score, largest_class_share
from mirprobe.scoring.metrics import METRICS

# Frames of three classes in three tracks: 9, 5 and 2 of 16.
FRAMES = torch.tensor([[6, 1, 0], [2, 3, 2], [1, 1, 0]])


def test_the_largest_class_is_a_share_of_tracks() -> None:
    target = torch.tensor([2, 0, 2, 2, 1])
    assert largest_class_share(METRICS["accuracy"], target) == 0.6
    assert largest_class_share(METRICS["accuracy"], torch.tensor([4])) == 1.0


def test_frames_taken_for_the_largest_class_are_scored_by_the_metric() -> None:
    assert largest_class_score(METRICS["frame_accuracy"], FRAMES) == pytest.approx(9 / 16)
    assert largest_class_score(METRICS["frame_accuracy_macro"], FRAMES) == pytest.approx(1 / 3)


def test_the_largest_class_is_that_of_all_tracks_together() -> None:
    """Class 1 leads in one track, class 0 over all."""
    frames = torch.tensor([[0, 5], [9, 1]])
    assert largest_class_score(METRICS["frame_accuracy"], frames) == pytest.approx(9 / 15)
