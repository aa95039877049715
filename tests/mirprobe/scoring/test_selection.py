"""Choice of rows: which layer is chosen, on val and on test."""

import random
from dataclasses import replace

import pytest
from toy_rows import ROW, WEIGHTED, failed, layer_rows, scored

from mirprobe.results import Row
from mirprobe.scoring.selection import best_layer, by_metric, head_rows


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
