"""Choice of rows: which layer is chosen, on val and on test."""

import random
from dataclasses import replace

import pytest
from toy_rows import ROW, WEIGHTED, layer_rows

from mirprobe.scoring.selection import best_layer, by_metric, head_rows


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
        replace(WEIGHTED, value=0.99),
    ]
    chosen = best_layer(rows, "val")
    assert (chosen.layer, chosen.split, chosen.value, chosen.epoch) == (1, "test", 0.6, 2)


def test_the_oracle_is_the_best_layer_on_test() -> None:
    rows = [*layer_rows("val", 0.5, 0.9, 0.7), *layer_rows("test", 0.4, 0.6, 0.8)]
    oracle = best_layer(rows, "test")
    assert (oracle.layer, oracle.value) == (2, 0.8)


@pytest.mark.parametrize("seed", range(4))
def test_of_equal_layers_the_lowest_is_chosen_whatever_the_order_of_rows(seed: int) -> None:
    rows = [*layer_rows("val", 0.5, 0.9, 0.9, 0.9), *layer_rows("test", 0.8, 0.6, 0.8, 0.1)]
    random.Random(seed).shuffle(rows)
    assert best_layer(rows, "val").layer == 1
    assert best_layer(rows, "test").layer == 0


def test_a_weighted_sum_is_never_the_best_layer() -> None:
    rows = [
        *layer_rows("val", 0.1),
        replace(WEIGHTED, split="val", value=0.9),
        *layer_rows("test", 0.2),
        replace(WEIGHTED, value=0.9),
    ]
    assert best_layer(rows, "val").head == "layer_00"
    assert best_layer(rows, "test").head == "layer_00"


def test_rows_come_apart_by_metric_in_the_order_they_were_written() -> None:
    r2, accuracy = replace(ROW, metric="r2"), replace(ROW, metric="accuracy")
    on_val = replace(r2, split="val")
    found = by_metric([r2, accuracy, on_val])
    assert list(found.items()) == [("r2", [r2, on_val]), ("accuracy", [accuracy])]
