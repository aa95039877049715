"""Scores of tags against scikit-learn, with and without ties, and under resamples."""

from collections.abc import Callable

import pytest
import sklearn.metrics
import torch
from torch import Tensor

from mirprobe.scoring.ranking import average_precision, roc_auc

Score = Callable[[Tensor, Tensor, Tensor], Tensor]
BOTH = pytest.mark.parametrize("score", [roc_auc, average_precision])


def tags(n_levels: int, n_tracks: int = 60, n_tags: int = 4) -> tuple[Tensor, Tensor]:
    """Two heads' probabilities with `n_levels` distinct values, so that there are ties."""
    generator = torch.Generator().manual_seed(n_levels)
    target = (torch.rand(n_tracks, n_tags, generator=generator) < 0.3).float()
    noisy = target * 0.4 + torch.rand(2, n_tracks, n_tags, generator=generator)
    return (noisy * n_levels).round() / n_levels, target


def once(score: Score, predicted: Tensor, target: Tensor) -> list[float]:
    """The score of every head, each track counted once."""
    return score(predicted, target, torch.ones(1, len(target)))[:, 0].tolist()


@pytest.mark.parametrize("n_levels", [2, 5, 10**6])
@pytest.mark.parametrize(
    ("score", "oracle"),
    [
        (roc_auc, sklearn.metrics.roc_auc_score),
        (average_precision, sklearn.metrics.average_precision_score),
    ],
)
def test_tag_scores_equal_scikit_learns_with_and_without_ties(
    score: Score, oracle: Callable[..., float], n_levels: int
) -> None:
    predicted, target = tags(n_levels)
    expected = [oracle(target, guess, average="macro") for guess in predicted]
    assert once(score, predicted, target) == pytest.approx(expected, abs=1e-6)


def test_constant_tag_scores_give_one_half_and_the_mean_prevalence() -> None:
    _, target = tags(5)
    flat = torch.full((1, *target.shape), 0.3)
    prevalence = target.mean().item()
    assert once(roc_auc, flat, target) == [0.5]
    assert once(average_precision, flat, target) == pytest.approx([prevalence], abs=1e-6)


@BOTH
def test_a_tag_without_positives_is_left_out_of_the_mean(score: Score) -> None:
    predicted, target = tags(10**6)
    without = target.clone()
    without[:, 2] = 0
    kept = [0, 1, 3]
    expected = once(score, predicted[..., kept], target[:, kept])
    assert once(score, predicted, without) == pytest.approx(expected, abs=1e-6)


def test_a_tag_without_negatives_has_no_area_but_a_precision() -> None:
    predicted, target = tags(10**6)
    full = target.clone()
    full[:, 2] = 1
    kept = [0, 1, 3]
    expected = once(roc_auc, predicted[..., kept], target[:, kept])
    assert once(roc_auc, predicted, full) == pytest.approx(expected, abs=1e-6)
    of_tag = once(average_precision, predicted[..., 2:3], full[:, 2:3])
    assert of_tag == pytest.approx([1.0, 1.0])


@BOTH
def test_a_resample_without_any_positive_has_no_score(score: Score) -> None:
    predicted, target = tags(7, n_tags=1)
    negatives_only = (target[:, 0] == 0).double()[None]
    assert score(predicted, target, negatives_only).isnan().all()


@BOTH
def test_a_track_drawn_twice_counts_as_two_tracks(score: Score) -> None:
    predicted, target = tags(5)
    rows = torch.randint(60, (3, 60), generator=torch.Generator().manual_seed(1))
    counts = torch.stack([torch.bincount(one, minlength=60) for one in rows]).double()
    scores = score(predicted, target, counts)
    for number, one in enumerate(rows):
        expected = once(score, predicted[:, one], target[one])
        assert scores[:, number].tolist() == pytest.approx(expected, abs=1e-6)
