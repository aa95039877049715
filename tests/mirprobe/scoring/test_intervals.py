"""Intervals: their rules, their widths, determinism, and the same draws for every head."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import binomtest, norm

from mirprobe.scoring.intervals import (
    N_RESAMPLES,
    Array,
    Clusters,
    Interval,
    draw_counts,
    interval_of,
    n_telling,
    resample,
    widened_tail,
    wilson,
)
from mirprobe.scoring.metrics import METRICS, score_of_counts, score_once

PAIRS = Clusters(np.arange(100) // 2)  # 50 singers of two tracks


def means(values: Array, clusters: Clusters) -> Array:
    """(H, R) resampled means of (H, N) values."""
    return resample(lambda counts: values @ counts.T / counts.sum(axis=1), clusters)


def interval(values: Array, clusters: Clusters, scale: str = "fraction") -> Interval:
    drawn = means(values[None], clusters)[0]
    return interval_of(float(values.mean()), drawn, clusters, scale, n_telling=len(values))  # type: ignore[arg-type]


def ends(found: Interval) -> tuple[float, float]:
    assert type(found.low) is float and type(found.high) is float, found.problem
    return found.low, found.high


# -- shares of independent tracks ------------------------------------------------------------------


@pytest.mark.parametrize(("n_right", "n"), [(0, 12), (12, 12), (1, 1), (248, 290), (47, 48)])
def test_a_share_of_independent_tracks_has_the_interval_of_scipy(n_right: int, n: int) -> None:
    expected = binomtest(n_right, n).proportion_ci(method="wilson")
    assert wilson(n_right / n, n) == pytest.approx((expected.low, expected.high), abs=1e-12)

    right = (np.arange(n) < n_right).astype(float)
    found = interval(right, Clusters.of_independent(n), "share")
    assert ends(found) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert found.rule == "wilson"


def test_gtzan_near_85_percent_has_the_half_width_of_the_facts() -> None:
    """facts/tasks 1.6: about 4.1 points on 290 songs."""
    low, high = wilson(248 / 290, 290)
    assert (high - low) / 2 == pytest.approx(0.041, abs=0.001)


def test_a_share_rounded_to_float32_lies_in_its_interval() -> None:
    for n in (3, 7, 290):
        for n_right in range(n + 1):
            share = float(np.float32(n_right / n))
            low, high = wilson(share, n)
            assert 0 <= low <= share <= high <= 1


# -- clusters --------------------------------------------------------------------------------------


def test_tracks_of_one_singer_are_drawn_together() -> None:
    counts = draw_counts(PAIRS)
    assert counts.shape == (N_RESAMPLES, 100)
    assert np.array_equal(counts[:, ::2], counts[:, 1::2])
    assert (counts.sum(axis=1) == 100).all()


def test_copies_of_tracks_do_not_narrow_an_interval() -> None:
    """Two equal tracks of each singer know no more than one: the width is that of 50 tracks."""
    right = (np.arange(50) < 40).astype(float)
    alone = interval(right, Clusters.of_independent(50))
    doubled = interval(np.repeat(right, 2), PAIRS)
    assert doubled.rule == "cluster" and alone.rule == "percentile"
    assert ends(doubled) == pytest.approx(ends(alone), abs=1e-12)


def test_few_clusters_make_a_wide_interval() -> None:
    """Of ten singers the width is that of Student's t with nine degrees of freedom."""
    assert widened_tail(10) == pytest.approx(norm.cdf(-math.sqrt(10 / 9) * 2.2621572), abs=1e-7)
    of_singer = np.linspace(0.2, 0.8, 10)
    low, high = ends(interval(of_singer.repeat(10), Clusters(np.arange(100) // 10)))
    student = 2.2621572 * of_singer.std(ddof=1) / math.sqrt(10)
    assert (high - low) / 2 == pytest.approx(student, rel=0.1)


def test_a_share_of_clusters_is_one_of_as_many_tracks_as_they_are_worth() -> None:
    """Ten singers of ten, each all right or all wrong, are worth ten tracks; one in 1 - 1/10 of
    the variance is what a sample of ten has less.
    """
    right = np.repeat([1.0] * 7 + [0.0] * 3, 10)
    found = interval(right, Clusters(np.arange(100) // 10), "share")
    assert found.rule == "cluster"
    assert ends(found) == pytest.approx(wilson(0.7, 9, quantile=2.2621572), abs=0.03)


# -- where no draw differs -------------------------------------------------------------------------


@pytest.mark.parametrize("scale", ["share", "fraction"])
def test_where_everything_is_right_the_interval_counts_clusters(scale: str) -> None:
    found = interval(np.ones(100), PAIRS, scale)
    assert ends(found) == wilson(1.0, 50)
    assert found.rule == "wilson"


def test_a_perfect_ranking_of_a_rare_tag_hangs_on_its_positives() -> None:
    target = torch.zeros(200, 2)
    target[:3, 0] = 1
    target[:80, 1] = 1
    assert n_telling(target.numpy()) == 3

    clusters = Clusters.of_independent(200)
    metric = METRICS["roc_auc"]
    drawn = resample(score_of_counts(metric, target[None], target), clusters)
    found = interval_of(1.0, drawn[0], clusters, metric.scale, n_telling=3)
    assert ends(found) == wilson(1.0, 3)
    assert found.n_left_out == np.isnan(drawn).sum()


def test_a_tag_that_no_track_has_tells_nothing() -> None:
    assert n_telling(np.array([[0, 1], [0, 1], [0, 0]])) == 1
    assert n_telling(np.zeros((5, 2))) == 5


def test_values_that_are_met_exactly_have_no_interval() -> None:
    clusters = Clusters.of_independent(20)
    found = interval_of(1.0, np.ones(N_RESAMPLES), clusters, "unbounded", n_telling=20)
    assert (found.low, found.rule, found.problem) == (None, None, "all resamples score alike")


def test_one_singer_alone_says_next_to_nothing() -> None:
    found = interval((np.arange(40) < 30).astype(float), Clusters(np.zeros(40, int)), "share")
    assert ends(found) == wilson(0.75, 1)


# -- draws -----------------------------------------------------------------------------------------


def test_the_same_tracks_are_drawn_for_every_head_and_every_model() -> None:
    """A head that is right exactly where another is wrong has the mirrored scores."""
    right = (np.arange(100) % 3 > 0).astype(float)
    clusters = Clusters.of_independent(100)
    drawn = means(np.stack([right, 1 - right, right]), clusters)
    assert np.array_equal(drawn[0], drawn[2])
    assert np.allclose(drawn[0] + drawn[1], 1)
    assert np.array_equal(means(right[None], clusters)[0], drawn[0])


def test_tracks_are_drawn_with_replacement_and_alike_often() -> None:
    counts = draw_counts(Clusters.of_independent(40))
    assert (counts.sum(axis=1) == 40).all()
    assert counts.mean(axis=0) == pytest.approx(np.ones(40), abs=5 / math.sqrt(N_RESAMPLES))
    assert counts.var() == pytest.approx(1 - 1 / 40, abs=0.03)


def test_the_metric_of_counts_is_the_metric() -> None:
    """At the border of numpy and torch nothing is transposed, and ones are the score itself."""
    generator = torch.Generator().manual_seed(0)
    predicted = torch.rand(3, 30, 4, generator=generator)
    target = (torch.rand(30, 4, generator=generator) > 0.6).float()
    metric = METRICS["average_precision"]
    once = score_of_counts(metric, predicted, target)(np.ones((1, 30)))
    assert once[:, 0] == pytest.approx(score_once(metric, predicted, target).numpy())


# -- resamples without a score ---------------------------------------------------------------------


def test_resamples_without_a_score_are_left_out_and_counted() -> None:
    """R2 of tracks that are all alike is minus infinity, or not a number: of four tracks, of which
    each is drawn alone in one of 64 resamples. The quantile of numbers beside -inf is NaN.
    """
    target = torch.tensor([[0.0], [1.0], [2.0], [3.0]])
    predicted = (target + torch.tensor([[0.4], [-0.3], [0.2], [-0.1]]))[None]
    metric, clusters = METRICS["r2"], Clusters.of_independent(4)
    drawn = resample(score_of_counts(metric, predicted, target), clusters)[0]
    n_left_out = np.isnan(drawn).sum()
    assert n_left_out == pytest.approx(N_RESAMPLES / 64, abs=3 * math.sqrt(N_RESAMPLES / 64))

    value = score_once(metric, predicted, target).item()
    found = interval_of(value, drawn, clusters, metric.scale, n_telling=4)
    low, high = ends(found)
    assert found.n_left_out == n_left_out
    assert low < value < high


def test_an_interval_needs_nine_of_ten_resamples() -> None:
    clusters = Clusters.of_independent(50)
    drawn = np.linspace(0.4, 0.6, N_RESAMPLES)
    drawn[:100] = np.nan
    assert interval_of(0.5, drawn, clusters, "fraction", n_telling=50).problem is None
    drawn[100] = np.nan
    without = interval_of(0.5, drawn, clusters, "fraction", n_telling=50)
    assert (without.low, without.high, without.n_left_out) == (None, None, 101)
    assert without.problem == "a score in 899 of 1000 resamples only"


def test_a_bias_of_the_resamples_moves_the_interval_back_over_its_score() -> None:
    """Average precision rises where a track is drawn twice: it stands beside its own copy.

    Each of 40 tags is on one track of 30, ranked second: its average precision is 0.5. Where the
    track is drawn k times, it is k / (k + 1) of those that stand above it and with it.
    """
    target = torch.zeros(30, 40)
    predicted = torch.rand(1, 30, 40, generator=torch.Generator().manual_seed(0)) / 2
    for tag in range(40):
        target[tag % 30, tag] = 1
        predicted[0, tag % 30, tag] = 0.8
        predicted[0, (tag + 1) % 30, tag] = 0.9

    metric, clusters = METRICS["average_precision"], Clusters.of_independent(30)
    drawn = resample(score_of_counts(metric, predicted, target), clusters)[0]
    assert np.quantile(drawn, 0.025) > 0.5
    low, high = ends(interval_of(0.5, drawn, clusters, metric.scale, n_telling=1))
    assert low < 0.5 < high
    assert (low + high) / 2 == pytest.approx(0.5, abs=0.02)


def test_an_interval_of_a_fraction_stays_between_0_and_1() -> None:
    clusters = Clusters.of_independent(30)
    drawn = np.linspace(0.9, 1.0, N_RESAMPLES)
    low, high = ends(interval_of(0.99, drawn, clusters, "fraction", n_telling=30))
    assert (low > 0.9, high) == (True, 1.0)
    low, _ = ends(interval_of(0.01, 1 - drawn, clusters, "fraction", n_telling=30))
    assert low == 0.0


def test_an_interval_that_does_not_hold_its_score_is_none() -> None:
    drawn = np.r_[np.full(10, 0.0), np.full(N_RESAMPLES - 10, 0.9)]
    found = interval_of(0.5, drawn, Clusters.of_independent(500), "fraction", n_telling=500)
    assert (found.low, found.rule) == (None, None)
    assert "all beside the score" in (found.problem or "")
