"""Layer weights described: largest, movement, entropy and ranks, against scipy and by hand."""

import numpy as np
import pytest
from scipy.stats import entropy, spearmanr

from mirprobe.scoring.layer_weights import largest, rank_correlation, weights_path


def test_the_largest_is_a_layer_from_1_and_equal_weights_have_none() -> None:
    assert largest(np.array([0.2, 0.5, 0.3])) == 2
    assert largest(np.full(12, 1 / 12)) is None
    assert largest(np.full(12, 1 / 12) + np.linspace(0, 1e-8, 12)) is None


def test_a_path_says_where_it_began_and_how_far_it_went() -> None:
    path = weights_path([0.5, 0.3, 0.2], [0.45, 0.15, 0.4], np.array([0.1, 0.2, 0.9]))
    assert (path.largest_start, path.largest_end, path.is_where_it_started) == (1, 1, True)
    assert path.moved == pytest.approx(0.2)
    assert (path.rank_start, path.rank_end) == (-1.0, -0.5)
    assert path.entropy == pytest.approx(entropy([0.45, 0.15, 0.4], base=3))

    left = weights_path([0.5, 0.3, 0.2], [0.1, 0.2, 0.7], np.array([0.1, 0.2, 0.9]))
    assert (left.largest_start, left.largest_end, left.is_where_it_started) == (1, 3, False)
    moved = weights_path([1 / 3] * 3, [0.0, 0.0, 1.0], np.array([0.1, 0.2, 0.9]))
    assert (moved.largest_start, moved.largest_end, moved.is_where_it_started) == (None, 3, False)
    assert moved.entropy == 0 and moved.rank_start is None


def test_rank_correlation_equals_scipys_with_ties_and_without_layers_that_failed() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        one, other = rng.integers(0, 4, 12).astype(float), rng.standard_normal(12)
        assert rank_correlation(one, other) == pytest.approx(spearmanr(one, other).statistic)
    with_gap = np.append(other, np.nan)
    assert rank_correlation(np.append(one, 9.0), with_gap) == rank_correlation(one, other)
    assert rank_correlation(one, np.full(12, 0.5)) is None
    assert rank_correlation(one[:1], other[:1]) is None
