"""Paired differences, against exact tests, and what a test set can show."""

import math

import numpy as np
import pytest
from scipy.stats import ttest_rel

from mirprobe.scoring.intervals import Array, Clusters, resample
from mirprobe.scoring.significance import (
    Scored,
    compare,
    compare_all,
    detectable_difference,
    holm,
    seed_spread,
    standard_error,
)


def scored(values: Array, clusters: Clusters) -> Scored:
    """A score that is the mean of (N,) values."""
    drawn = resample(lambda counts: values[None] @ counts.T / counts.sum(axis=1), clusters)
    return Scored(float(values.mean()), drawn[0])


def right(n: int, wrong: range) -> Scored:
    is_right = np.ones(n, bool)
    is_right[list(wrong)] = False
    return Scored(float(is_right.mean()), np.zeros(1), is_right)


def test_mcnemar_counts_only_tracks_on_which_one_of_two_is_right() -> None:
    """Nine against one of ten: two tails of a fair coin, 2 (1 + 10) / 1024."""
    first, second = right(100, range(0, 1)), right(100, range(1, 10))
    found = compare(first, second, Clusters.of_independent(100))
    assert found.rule == "mcnemar"
    assert found.value == pytest.approx(0.08)
    assert found.p == pytest.approx(22 / 1024)

    other_way = compare(second, first, Clusters.of_independent(100))
    assert (other_way.value, other_way.low) == pytest.approx((-0.08, -found.high))


def test_the_interval_of_a_paired_share_is_that_of_bonett_and_price() -> None:
    """Worked by hand: (9 + 1) / 102 and (1 + 1) / 102."""
    found = compare(right(100, range(1)), right(100, range(1, 10)), Clusters.of_independent(100))
    gain, loss = 10 / 102, 2 / 102
    spread = 1.959964 * math.sqrt((gain + loss - (gain - loss) ** 2) / 102)
    assert found.low == pytest.approx(gain - loss - spread, abs=1e-6)
    assert found.high == pytest.approx(gain - loss + spread, abs=1e-6)


def test_two_that_are_right_on_the_same_tracks_still_have_a_width() -> None:
    same = right(50, range(5))
    found = compare(same, same, Clusters.of_independent(50))
    assert (found.value, found.p) == (0, 1)
    assert found.low == -found.high and found.high > 0.02


def test_a_bootstrapped_difference_of_means_is_close_to_the_paired_t_test() -> None:
    generator = np.random.default_rng(3)
    song = generator.standard_normal(80)
    first = song + 0.12 + 0.3 * generator.standard_normal(80)
    second = song + 0.3 * generator.standard_normal(80)
    clusters = Clusters.of_independent(80)

    found = compare(scored(first, clusters), scored(second, clusters), clusters)
    expected = ttest_rel(first, second)
    interval = expected.confidence_interval()
    assert found.rule == "bootstrap"
    assert found.p == pytest.approx(expected.pvalue, abs=0.02)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), abs=0.015)


def test_the_difference_of_a_score_to_itself_is_nothing() -> None:
    clusters = Clusters.of_independent(30)
    one = scored(np.linspace(0, 1, 30), clusters)
    found = compare(one, one, clusters)
    assert (found.value, found.low, found.high, found.p) == (0, 0, 0, 1)


def test_copies_of_tracks_make_no_difference_more_certain() -> None:
    generator = np.random.default_rng(0)
    first, second = generator.random(40) + 0.1, generator.random(40)
    alone = Clusters.of_independent(40)
    pairs = Clusters(np.arange(80) // 2)
    once = compare(scored(first, alone), scored(second, alone), alone)
    twice = compare(scored(first.repeat(2), pairs), scored(second.repeat(2), pairs), pairs)
    assert (twice.low, twice.high, twice.p) == pytest.approx((once.low, once.high, once.p))


def test_nothing_is_said_of_one_cluster_or_of_no_score() -> None:
    one = Clusters(np.zeros(30, int))
    found = compare(scored(np.ones(30), one), scored(np.zeros(30), one), one)
    assert (found.value, found.low, found.p) == (1, None, 1)

    without = Scored(0.5, np.full(10, np.nan))
    found = compare(without, without, Clusters.of_independent(30))
    assert (found.low, found.p) == (None, 1)


def test_holm_multiplies_the_smallest_by_all_and_never_falls() -> None:
    """R's p.adjust(c(0.01, 0.02, 0.03, 0.04, 0.5), "holm")."""
    assert holm([0.01, 0.02, 0.03, 0.04, 0.5]) == pytest.approx([0.05, 0.08, 0.09, 0.09, 0.5])
    assert holm([0.5, 0.01]) == pytest.approx([0.5, 0.02])
    assert holm([0.9, 0.8]) == [1, 1]
    assert holm([]) == []


def test_comparisons_that_are_made_together_are_corrected_together() -> None:
    best, worse, other = right(100, range(0)), right(100, range(9)), right(100, range(6))
    found = compare_all([(best, worse), (best, other)], [Clusters.of_independent(100)] * 2)
    plain = [2 / 2**9, 2 / 2**6]
    assert [one.p for one in found] == pytest.approx(plain)
    assert [one.p_holm for one in found] == pytest.approx([2 * plain[0], plain[1]])


def test_a_detectable_difference_is_found_as_often_as_said() -> None:
    difference = detectable_difference(1.0, power=0.8)
    drawn = difference + np.random.default_rng(0).standard_normal(20_000)
    assert (abs(drawn) > 1.959964).mean() == pytest.approx(0.8, abs=0.01)


def test_the_standard_error_leaves_out_what_has_no_score() -> None:
    assert standard_error(np.array([0.1, 0.3, np.nan])) == pytest.approx(0.1 * math.sqrt(2))
    assert standard_error(np.array([np.nan, 0.3])) == 0


def test_one_seed_has_no_spread() -> None:
    with pytest.raises(ValueError, match="one seed"):
        seed_spread([0.5])
