"""The curve of a notebook: numbers, drawing and HTML, from rows."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from toy_rows import WEIGHTED, failed, layer_rows, scored

from mirprobe.reporting.curve import Curve
from mirprobe.results import Row

VAL, TEST = (0.2, 0.7, 0.6), (0.3, 0.5, 0.8)


def rows() -> list[Row]:
    return [*layer_rows("val", *VAL), *layer_rows("test", *TEST), scored(WEIGHTED, 0.65)]


def curve(*more: Row) -> Curve:
    return Curve((*rows(), *more))


def test_the_layer_is_chosen_on_val_and_reported_on_test() -> None:
    best = curve().best
    assert best is not None and (best.layer, best.split, best.value) == (1, "test", 0.5)
    assert str(curve()) == (
        "fcpe, nsynth_pitch, n=48/24/24: layer 1 chosen on val, test accuracy 50.0 [40.0, 60.0]"
    )


def test_values_and_intervals_are_of_the_split_that_is_asked_for_in_order_of_layers() -> None:
    shuffled = Curve(tuple(reversed(rows())))
    np.testing.assert_array_equal(shuffled.values(), TEST)
    np.testing.assert_array_equal(shuffled.values("val"), VAL)
    ends = [[value - 0.1, value + 0.1] for value in TEST]
    np.testing.assert_allclose(shuffled.intervals(), ends, rtol=0, atol=1e-12)
    assert shuffled.weighted is not None and shuffled.weighted.value == 0.65


def test_other_metrics_and_the_twin_have_numbers_of_their_own() -> None:
    others = [replace(row, metric="top3") for row in layer_rows("test", 0.9, 0.9, 0.9)]
    twin = [replace(row, probe="linear", epoch=None) for row in layer_rows("test", 0.1, 0.2, 0.4)]
    both = curve(*others, *twin)
    np.testing.assert_array_equal(both.values(), TEST)
    np.testing.assert_array_equal(both.values(probe="linear"), (0.1, 0.2, 0.4))
    assert [line.get_label() for line in both.plot().axes[0].lines][:2] == [
        "linear twin",
        "probe, 95 % interval",
    ]


def test_what_is_drawn_are_the_scores_in_per_cent_with_their_intervals() -> None:
    axes = curve().plot().axes[0]
    np.testing.assert_allclose(axes.lines[0].get_ydata(), [30, 50, 80])
    (band,) = axes.collections
    heights = band.get_paths()[0].vertices[:, 1]
    np.testing.assert_allclose([heights.min(), heights.max()], [20, 90])
    assert axes.lines[1].get_xdata()[0] == 1, "the layer that val chose"


def test_twenty_five_layers_stay_legible() -> None:
    many = Curve((*layer_rows("val", *[0.5] * 25), *layer_rows("test", *[0.5] * 25)))
    figure = many.plot()
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    labels = [label for label in figure.axes[0].get_xticklabels() if label.get_text()]
    boxes = sorted((label.get_window_extent(renderer) for label in labels), key=lambda b: b.x0)
    assert len(boxes) >= 6
    assert all(left.x1 < right.x0 for left, right in pairwise(boxes))


def test_layers_without_a_score_are_gaps_and_are_never_chosen() -> None:
    nothing = Curve(tuple(failed(row) for row in rows()[:-1]))
    assert nothing.best is None and np.isnan(nothing.values()).all()
    assert np.isnan(nothing.intervals()).all()
    assert "no layer has a score on val by accuracy" in str(nothing)
    assert "failed" in nothing._repr_html_()


def test_a_notebook_shows_drawing_and_numbers_and_names_are_text() -> None:
    strange = Curve(tuple(replace(row, task="<b>own</b>") for row in rows()))
    shown = strange._repr_html_()
    assert shown.count("<svg") == 1 and "<b>" not in shown
    assert "<td>layer_02</td><td></td><td>80.0</td><td>[70.0, 90.0]</td>" in shown
    assert "largest: 3, moved 0.37" in shown
