"""What the heads of a scan say together."""

import json
from dataclasses import replace

import numpy as np
import pytest

from mirprobe.scoring.intervals import Clusters, resample
from mirprobe.scoring.scan import ScannedHeads, parse_scans, scan_heads, scans_text
from mirprobe.scoring.significance import compare

NAMES = ["layer_00", "layer_01", "layer_02", "weighted"]
CLUSTERS = Clusters.of_independent(200)


def heads(*wrong: int) -> ScannedHeads:
    """Heads that are wrong on so many tracks; each on others, where there is room."""
    right = np.ones((len(wrong), 200), bool)
    for h, n_wrong in enumerate(wrong):
        right[h, (37 * h + np.arange(n_wrong)) % 200] = False
    shares = right.astype(float)
    drawn = resample(lambda counts: shares @ counts.T / 200, CLUSTERS)
    layers = [None if name == "weighted" else int(name[-2:]) for name in NAMES]
    return ScannedHeads(NAMES, layers, shares.mean(axis=1), drawn, right, CLUSTERS)


def test_the_chosen_layer_stands_beside_the_oracle_and_the_last() -> None:
    scan = scan_heads("mlp", "accuracy", heads(20, 18, 80, 10), chosen=0)
    assert (scan.chosen, scan.oracle) == ("layer_00", "layer_01")
    assert scan.best_set == ["layer_00", "layer_01"]
    assert list(scan.chance_of_best) == ["layer_00", "layer_01", "layer_02"]
    assert scan.last_layer is not None and scan.last_layer.value == pytest.approx(0.3)
    assert 0 < (scan.optimism or 0) < 0.02


def test_comparisons_are_corrected_among_themselves_and_the_last_layer_stands_alone() -> None:
    scan = scan_heads("mlp", "accuracy", heads(20, 18, 80, 10), chosen=0)
    assert list(scan.others) == ["layer_01", "layer_02", "weighted"]
    assert scan.last_layer is not None
    assert scan.last_layer.p_holm == scan.last_layer.p == scan.others["layer_02"].p
    assert scan.others["layer_02"].p_holm == pytest.approx(3 * scan.others["layer_02"].p)


def test_a_weighted_sum_is_no_layer_of_the_set() -> None:
    scan = scan_heads("mlp", "accuracy", heads(20, 18, 80, 0), chosen=1)
    assert scan.oracle == "layer_01" and "weighted" not in scan.best_set


def test_heads_without_a_score_are_left_out_wherever_they_stand() -> None:
    some = heads(20, 18, 80, 10)
    some.values[[1, 2]] = np.nan
    scan = scan_heads("mlp", "accuracy", some, chosen=0)
    assert (scan.oracle, scan.best_set, scan.last_layer) == ("layer_00", ["layer_00"], None)
    assert list(scan.others) == ["weighted"]
    assert scan.detectable_paired is None

    some.values[:] = np.nan
    nothing = scan_heads("mlp", "accuracy", some, chosen=0)
    assert (nothing.chosen, nothing.oracle, nothing.optimism, nothing.best_set) == (
        (None, None, None, [])
    )


def test_what_shows_follows_from_the_errors() -> None:
    """85 % of 200 tracks: 2.8 standard errors of a difference of two such scores."""
    scan = scan_heads("mlp", "accuracy", heads(30, 30, 30, 30), chosen=0)
    error = np.sqrt(2 * 0.85 * 0.15 / 200)
    assert scan.detectable_unpaired == pytest.approx(2.8016 * error, rel=0.1)

    perfect = scan_heads("mlp", "accuracy", heads(0, 0, 0, 0), chosen=0)
    assert perfect.detectable_paired is None and perfect.detectable_unpaired is None


def test_scans_are_the_same_when_they_are_read_again() -> None:
    scan = scan_heads("linear", "accuracy", heads(20, 18, 80, 10), chosen=0)
    other = replace(scan, last_layer=None, optimism=None)
    assert parse_scans(scans_text([scan, other])) == [scan, other]
    assert json.loads(scans_text([scan]))[0]["others"]["weighted"]["rule"] == "mcnemar"


def test_a_difference_is_that_of_compare() -> None:
    some = heads(20, 18, 80, 10)
    scan = scan_heads("mlp", "accuracy", some, chosen=1)
    expected = compare(some.scored(1), some.scored(2), CLUSTERS)
    assert scan.last_layer == expected
