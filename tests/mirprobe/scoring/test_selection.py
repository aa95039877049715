"""Choice of rows: which layer is chosen, on val and on test."""

import math
import random
from dataclasses import replace

import numpy as np
import pytest
from toy_rows import ROW, WEIGHTED, failed, layer_rows, scored

from mirprobe.results import Row
from mirprobe.scoring.intervals import N_RESAMPLES, Array
from mirprobe.scoring.selection import (
    best_layer,
    best_set,
    by_metric,
    chance_of_best,
    head_rows,
    optimism,
)


def chosen_layers(rows: list[Row]) -> tuple[int | None, int | None]:
    """The layers chosen on val and on test; None where there is none."""
    chosen, oracle = best_layer(rows, "val"), best_layer(rows, "test")
    return chosen and chosen.layer, oracle and oracle.layer


def test_heads_of_a_split_come_sorted_by_layer_and_apart_from_weighted_sums() -> None:
    rows = [*layer_rows("test", *[0.1] * 12), *layer_rows("val", 0.2, 0.3), WEIGHTED]
    random.Random(0).shuffle(rows)
    assert [row.layer for row in head_rows(rows, "test", single=True)] == list(range(12))
    assert [row.value for row in head_rows(rows, "val", single=True)] == [0.2, 0.3]
    assert head_rows(rows, "test", single=False) == [WEIGHTED]
    assert head_rows(rows, "val", single=False) == []


def test_the_layer_chosen_on_val_is_reported_on_test() -> None:
    rows = [
        *layer_rows("val", 0.5, 0.9, 0.7),
        *layer_rows("test", 0.4, 0.6, 0.8),
        scored(WEIGHTED, 0.99),
    ]
    chosen = best_layer(rows, "val")
    assert chosen is not None
    assert (chosen.layer, chosen.split, chosen.value, chosen.epoch) == (1, "test", 0.6, 2)


def test_the_oracle_is_the_best_layer_on_test() -> None:
    rows = [*layer_rows("val", 0.5, 0.9, 0.7), *layer_rows("test", 0.4, 0.6, 0.8)]
    oracle = best_layer(rows, "test")
    assert oracle is not None
    assert (oracle.layer, oracle.value) == (2, 0.8)


@pytest.mark.parametrize("seed", range(4))
def test_of_equal_layers_the_lowest_is_chosen_whatever_the_order_of_rows(seed: int) -> None:
    rows = [*layer_rows("val", 0.5, 0.9, 0.9, 0.9), *layer_rows("test", 0.8, 0.6, 0.8, 0.1)]
    random.Random(seed).shuffle(rows)
    assert chosen_layers(rows) == (1, 0)


def test_a_weighted_sum_is_never_the_best_layer() -> None:
    rows = [
        *layer_rows("val", 0.1),
        scored(replace(WEIGHTED, split="val"), 0.9),
        *layer_rows("test", 0.2),
        scored(WEIGHTED, 0.9),
    ]
    assert chosen_layers(rows) == (0, 0)


@pytest.mark.parametrize("seed", range(4))
def test_a_layer_without_a_score_is_never_chosen(seed: int) -> None:
    """NaN in front of `max` would win over every number."""
    val, test = layer_rows("val", 0.5, -0.6, 0.7), layer_rows("test", 0.8, 0.6, 0.1)
    rows = [failed(val[0]), *val[1:], failed(test[0]), *test[1:]]
    random.Random(seed).shuffle(rows)
    assert chosen_layers(rows) == (2, 1)


def test_a_layer_is_chosen_on_val_even_if_it_has_no_score_on_test() -> None:
    val, test = layer_rows("val", 0.5, 0.9), layer_rows("test", 0.8, 0.6)
    rows = [*val, test[0], failed(test[1], "accuracy is not defined on test")]
    chosen = best_layer(rows, "val")
    assert chosen is not None and (chosen.layer, chosen.value) == (1, None)


def test_where_no_layer_has_a_score_none_is_chosen() -> None:
    rows = [failed(row) for row in layer_rows("val", 0.5, 0.9)]
    rows += [*layer_rows("test", 0.5, 0.9), replace(WEIGHTED, split="val"), WEIGHTED]
    assert chosen_layers(rows) == (None, 1)


def test_rows_come_apart_by_metric_in_the_order_they_were_written() -> None:
    r2, accuracy = replace(ROW, metric="r2"), replace(ROW, metric="accuracy")
    on_val = replace(r2, split="val")
    found = by_metric([r2, accuracy, on_val])
    assert list(found.items()) == [("r2", [r2, on_val]), ("accuracy", [accuracy])]


# -- how far a choice can be trusted ---------------------------------------------------------------


def draws(values: list[float], deviation: float, correlation: float, seed: int = 0) -> Array:
    """(H, R) resamples about values, whose errors are correlated over heads."""
    generator = np.random.default_rng(seed)
    common = generator.standard_normal(N_RESAMPLES) * math.sqrt(correlation)
    own = generator.standard_normal((len(values), N_RESAMPLES)) * math.sqrt(1 - correlation)
    return np.array(values)[:, None] + deviation * (common + own)


def test_the_optimism_of_equal_layers_is_the_largest_of_their_errors() -> None:
    """The largest of 13 standard normal numbers is 1.668 on average (table of order statistics)."""
    equal = np.full(13, 0.8)
    found = optimism(equal, draws([0.8] * 13, deviation=0.03, correlation=0.6))
    assert found == pytest.approx(1.668 * 0.03 * math.sqrt(0.4), rel=0.05)


def test_a_layer_far_above_all_others_has_no_optimism() -> None:
    values = np.array([0.5, 0.9, 0.5])
    found = optimism(values, draws(list(values), deviation=0.02, correlation=0.0))
    assert found == pytest.approx(0, abs=0.002)


def test_a_bias_of_all_resamples_is_no_optimism() -> None:
    values = np.array([0.5, 0.9, 0.5])
    drawn = draws(list(values), deviation=0.02, correlation=0.0) + 0.1
    assert optimism(values, drawn) == pytest.approx(0, abs=0.002)


def test_equal_layers_share_the_chance_of_being_best() -> None:
    values = np.array([0.5, 0.5, 0.1])
    drawn = np.repeat(draws([0.5], 0.01, 0.0), 3, axis=0) - np.array([[0], [0], [0.4]])
    assert chance_of_best(values, drawn) == pytest.approx([0.5, 0.5, 0])


def test_chances_are_those_of_normal_numbers_and_sum_to_one() -> None:
    """Two independent errors of 0.03: the higher layer wins in Phi(0.03 / (0.03 sqrt 2))."""
    values = np.array([0.50, 0.53])
    found = chance_of_best(values, draws([0.50, 0.53], 0.03, 0.0))
    assert found[1] == pytest.approx(0.7602, abs=0.03)
    assert found.sum() == pytest.approx(1)


def test_layers_that_no_test_set_tells_apart_are_all_in_the_set() -> None:
    values = np.array([0.80, 0.81, 0.79, 0.60])
    drawn = draws(list(values), deviation=0.03, correlation=0.5)
    assert best_set(values, drawn) == [0, 1, 2]
    assert best_set(values, drawn[:, :0]) == [0, 1, 2, 3]


def test_pairs_that_move_together_are_told_apart_by_little() -> None:
    values = np.array([0.80, 0.81])
    assert best_set(values, draws([0.80, 0.81], 0.03, correlation=0.999)) == [1]
    assert best_set(values, draws([0.80, 0.81], 0.03, correlation=0.5)) == [0, 1]


def test_layers_that_are_right_on_the_same_tracks_stay_together() -> None:
    values = np.array([0.8, 0.8, 0.5])
    drawn = draws([0.8, 0.5], 0.02, 0.0)[[0, 0, 1]]
    assert best_set(values, drawn) == [0, 1]
    assert best_set(values[:2], drawn[:2]) == [0, 1]


def test_resamples_without_a_score_of_some_layer_are_left_out() -> None:
    values = np.array([0.5, 0.9])
    drawn = draws([0.5, 0.9], 0.02, 0.0)
    drawn[0, :500] = np.nan
    assert best_set(values, drawn) == [1]
    assert chance_of_best(values, drawn) == pytest.approx([0, 1])
    assert optimism(values, np.full((2, 5), np.nan)) == 0


def test_the_truly_best_layer_is_in_the_set_in_95_of_100_test_sets() -> None:
    """All layers equal but for 0.001: the hardest case. 300 test sets, so 3 errors are 3.8 %."""
    truth = np.array([0.8, 0.8, 0.8, 0.8, 0.801])
    generator = np.random.default_rng(5)
    n_kept = 0
    for seed in range(300):
        errors = generator.standard_normal(5) * math.sqrt(0.4) + generator.standard_normal()
        values = truth + 0.03 * errors
        n_kept += 4 in best_set(values, draws(list(values), 0.03 * math.sqrt(1.4), 1 / 1.4, seed))
    assert n_kept / 300 > 0.95 - 0.038


def test_a_linear_head_is_never_the_best_layer_of_the_probe_nor_the_other_way_round() -> None:
    rows = [*layer_rows("val", 0.5, 0.6), *layer_rows("test", 0.1, 0.2)]
    linear = replace(ROW, probe="linear")
    rows += [*layer_rows("val", 0.9, 0.8, like=linear), *layer_rows("test", 0.7, 0.9, like=linear)]
    best, twin = best_layer(rows, "val"), best_layer(rows, "val", "linear")
    assert best is not None and (best.layer, best.value) == (1, 0.2)
    assert twin is not None and (twin.layer, twin.value) == (0, 0.7)
