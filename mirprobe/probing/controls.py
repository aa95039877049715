"""What a score is held against: the answers of something that has learned nothing."""

import torch
from torch import Tensor

from mirprobe.scoring.metrics import TrackMetric, score_once


def majority(metric: TrackMetric, target: Tensor) -> float | None:
    """Share of the largest class; for frames the score of always saying it; None where there are no
    classes.
    """
    if metric.kind == "classification":
        return target.bincount().max().item() / len(target)
    if metric.kind == "frames":
        said = torch.zeros(1, *target.shape, target.shape[1], dtype=torch.int64)
        said[..., target.sum(dim=0).argmax()] = target
        return score_once(metric, said, target).item()
    return None
