"""Numbers of rows in words."""

from dataclasses import replace

import pytest
from toy_rows import ROW, WEIGHTED, failed, layer_rows, scored

from mirprobe.reporting.text import (
    counts_text,
    interval_text,
    layer_text,
    layers_text,
    points_text,
    problems,
    score_text,
    strip_text,
)
from mirprobe.scoring.significance import Difference

NO_INTERVAL = replace(ROW, ci_low=None, ci_high=None, no_interval="too few resamples")


def test_a_score_is_per_cent_with_what_is_to_be_said_of_it() -> None:
    assert score_text(ROW) == "50.0"
    assert score_text(scored(ROW, 0.9357), "3") == "93.6 (3)"
    assert score_text(failed(ROW), "3") == "failed (3)"
    assert score_text(failed(ROW)) == "failed"


def test_an_interval_stands_in_square_brackets() -> None:
    assert interval_text(ROW) == "[40.0, 60.0]"
    assert interval_text(NO_INTERVAL) == "no interval"
    assert interval_text(failed(ROW)) == ""


def test_counts_name_what_is_expected_where_some_are_missing() -> None:
    assert counts_text(ROW) == "48/24/24"
    row = replace(ROW, n_expected={"test": 24, "val": 24, "train": 49})
    assert counts_text(row) == "48/24/24 of 49/24/24"


@pytest.mark.parametrize(
    ("start", "end", "text"),
    [
        ([1 / 3] * 3, [0.1, 0.2, 0.7], "3, moved 0.37"),
        ([0.5, 0.5], [0.501, 0.499], "1, moved 0.00"),
        ([0.9, 0.1], [0.6, 0.4], "1, moved 0.30"),  # away from the layer that stays the largest
        ([0.9, 0.1], [0.9, 0.1], "1, moved 0.00"),
    ],
)
def test_the_largest_weight_stands_with_how_far_any_moved(
    start: list[float], end: list[float], text: str
) -> None:
    assert layer_text(replace(WEIGHTED, weights_start=start, weights_end=end)) == text


def test_a_single_layer_is_a_number_and_a_failed_sum_is_none() -> None:
    assert layer_text(replace(ROW, layer=7)) == "7"
    assert layer_text(failed(WEIGHTED)) == ""


def test_problems_are_a_line_for_each_reason() -> None:
    zero, one = layer_rows("val", 0.5, 0.6)
    test_zero, test_one = layer_rows("test", 0.5, 0.6)
    assert problems([zero, one, test_zero, test_one]) == []

    nothing = "too few resamples"
    bare = replace(test_zero, ci_low=None, ci_high=None, no_interval=nothing)
    assert problems([failed(one, "x"), bare, failed(test_one, "x"), failed(WEIGHTED, "x")]) == [
        "layer_01, weighted failed: x",
        "layer_00 no interval on test: too few resamples",
    ]


def test_a_difference_has_its_sign_and_its_interval() -> None:
    difference = Difference(-0.0123, -0.03, 0.004, 0.2, 0.4, "bootstrap")
    assert points_text(difference) == "-1.2 [-3.0, +0.4]"
    assert points_text(replace(difference, low=None, high=None)) == "-1.2"


def test_a_strip_has_a_bar_a_layer() -> None:
    assert strip_text([0.004, 0.005, 0.125, 0.5, 1.0]) == ".▁▂▅█"


def test_neighbouring_layers_are_joined() -> None:
    assert layers_text(["layer_00"]) == "0"
    heads = ["layer_01", "layer_02", "layer_05", "layer_11", "layer_12"]
    assert layers_text(heads) == "1-2, 5, 11-12"
    assert layers_text([]) == ""


def test_a_linear_head_says_so() -> None:
    linear = replace(ROW, probe="linear")
    assert problems([failed(linear, "x")]) == ["linear layer_00 failed: x"]
