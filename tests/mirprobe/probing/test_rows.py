"""What heads say, made into scores and scans: which layer is compared."""

import numpy as np

from mirprobe.probing.rows import HeadScores, ProbedHead, ProbedHeads, make_scan
from mirprobe.scoring.intervals import N_RESAMPLES, Clusters, Interval


def scores(split: str, *values: float) -> HeadScores:
    """Scores of heads whose resamples vary alike."""
    drawn = np.random.default_rng(0).standard_normal((len(values), N_RESAMPLES)) / 50
    return HeadScores(
        metric="r2",
        split=split,  # type: ignore[arg-type]
        values=np.array(values),
        failed=[None] * len(values),
        intervals=[Interval(0.0, 1.0, "percentile")] * len(values),
        resamples=np.array(values)[:, None] + drawn,
        right=None,
        clusters=Clusters.of_independent(30),
        constant=0.0,
    )


def heads(*layers: int | None) -> ProbedHeads:
    """Heads of these layers; None is one of several."""
    names = ["weighted" if layer is None else f"layer_{layer:02d}" for layer in layers]
    made = [ProbedHead(name, layer) for name, layer in zip(names, layers, strict=True)]
    return ProbedHeads("mlp", tuple(made), {}, {})


def test_the_layer_that_is_compared_was_chosen_on_val() -> None:
    scan = make_scan(heads(0, 1, 2), scores("val", 0.5, 0.7, 0.6), scores("test", 0.9, 0.4, 0.6))
    assert (scan.chosen, scan.oracle) == ("layer_01", "layer_00")


def test_of_equal_layers_the_lowest_is_chosen_as_in_the_table() -> None:
    scan = make_scan(heads(0, 1, 2), scores("val", 0.5, 0.7, 0.7), scores("test", 0.1, 0.2, 0.3))
    assert scan.chosen == "layer_01"


def test_neither_a_weighted_sum_nor_a_head_without_a_score_is_chosen() -> None:
    val, test = scores("val", np.nan, 0.7, 0.9), scores("test", 0.1, 0.2, 0.3)
    assert make_scan(heads(0, 1, None), val, test).chosen == "layer_01"
    assert make_scan(heads(0, None, None), val, test).chosen is None
