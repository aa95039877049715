"""Answers of something that has learned nothing: what a score is held against."""

import torch
from torch import Tensor

from mirprobe.scoring.metrics import TrackMetric, score_once


def largest_class_share(_metric: TrackMetric, target: Tensor) -> float:
    """Share of the tracks that have the most frequent class, from (N,) classes."""
    return target.bincount().max().item() / len(target)


def largest_class_score(metric: TrackMetric, target: Tensor) -> float:
    """Score of taking every frame for the most frequent class, from (N, C) frames of each class."""
    n_classes = target.shape[1]
    largest = target.sum(dim=0).argmax()
    confusion = torch.zeros(1, *target.shape, n_classes, dtype=torch.int64)
    confusion[..., largest] = target
    return score_once(metric, confusion, target).item()
