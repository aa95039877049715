"""Layers as curves: what is drawn of panels made by hand, and of the rows of a study."""

from collections.abc import Callable

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from toy_rows import save_study

from mirprobe.cell import Cell
from mirprobe.reporting.curves import draw_chances, draw_curves, draw_last_layer, draw_models
from mirprobe.reporting.figures import LayerProfile, Panel
from mirprobe.reporting.report import make_curves
from mirprobe.reporting.table import make_table_rows

Compose = Callable[..., list[Cell]]


def profile(task: str, val: list[float], test: list[float]) -> LayerProfile:
    return LayerProfile(
        task,
        "",
        np.array(val),
        np.array(test),
        (np.full(len(val) - 1, 0.5), np.array([0.2, 0.8])),
        low=np.array(test) - 5,
        high=np.array(test) + 7,
        chances=np.array([0.1, 0.7, 0.2]),
        last_lost=(12.0, 3.0, 20.0),
        best_set=frozenset({1, 2}),
    )


PITCH = profile("Pitch", [50, 90, 70], [40, 62, 71])
TWIN = profile("Pitch", [80, 20, 10], [30, 22, 11])


def curves_of(axis: Axes) -> list[list[float]]:
    """Heights of the lines of more than one point, and of the marks."""
    return [np.asarray(line.get_ydata()).tolist() for line in axis.lines]


def plots_of(figure: Figure) -> list[Axes]:
    """The plots without the scales of the weights beside them."""
    return [axis for axis in figure.axes if axis.get_title()]


def test_both_probes_are_curves_with_their_intervals_and_chosen_layers() -> None:
    figure = draw_curves(Panel("fcpe", [PITCH]), Panel("fcpe linear", [TWIN]), demo=True)
    (axis,) = plots_of(figure)
    assert curves_of(axis) == [[40, 62, 71], [62], [30, 22, 11], [30]]
    heights = [band.get_paths()[0].vertices[:, 1] for band in axis.collections]
    assert [(min(one), max(one)) for one in heights] == [(35, 78), (6, 37)]
    beside = next(one for one in figure.axes if one is not axis)
    assert [bar.get_height() for bar in beside.patches] == [0.2, 0.8]
    assert curves_of(beside) == [[0.5, 0.5]]
    assert "demo data" in figure.get_suptitle()


def test_models_of_any_depth_run_from_0_to_1() -> None:
    deep = LayerProfile("Pitch", "", np.arange(5.0), np.arange(5.0))
    other = LayerProfile("Key", "", np.arange(5.0), np.arange(5.0))
    panels = [Panel("fcpe", [PITCH]), Panel("muq", [deep, other])]
    pitch, key = plots_of(draw_models(panels, demo=False))
    depths = [np.asarray(line.get_xdata()).tolist() for line in pitch.lines]
    assert depths == [[0, 0.5, 1], [0.5], [0, 0.25, 0.5, 0.75, 1], [1]]
    assert len(key.lines) == 2
    looks = {(str(line.get_color()), line.get_linestyle()) for line in pitch.lines[::2]}
    assert len(looks) == 2


def test_what_the_last_layer_loses_is_a_point_on_its_interval() -> None:
    nothing = LayerProfile("Key", "", np.arange(3.0), np.arange(3.0))
    (axis,) = draw_last_layer([Panel("fcpe", [PITCH, nothing])], demo=False).axes
    interval, point, zero = axis.lines
    assert np.asarray(interval.get_xdata()).tolist() == [3, 20]
    assert np.asarray(point.get_xdata()).tolist() == [12]
    assert np.asarray(zero.get_xdata()).tolist() == [0, 0]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["Pitch"]


def test_chances_are_strips_with_dots_on_the_layers_that_may_be_the_best() -> None:
    (axis,) = draw_chances([Panel("fcpe", [PITCH])], demo=False).axes
    assert np.asarray(axis.images[0].get_array()).tolist() == [[0.1, 0.7, 0.2]]
    assert np.asarray(axis.lines[0].get_xdata()).tolist() == [1, 2]


def test_a_layer_without_a_score_is_a_gap() -> None:
    nan = float("nan")
    partly = LayerProfile("Pitch", "", np.array([nan, 1.0]), np.array([nan, 2.0]))
    nothing = LayerProfile("Key", "", np.array([nan, nan]), np.array([nan, nan]))
    one, other = plots_of(draw_curves(Panel("fcpe", [partly, nothing]), None, demo=False))
    assert curves_of(one)[1] == [2.0]
    assert len(curves_of(other)) == 1


@pytest.mark.parametrize("draw", [draw_models, draw_last_layer, draw_chances])
def test_names_from_users_are_no_formulas(draw: Callable[..., Figure]) -> None:
    odd = profile("$x^2$ [x]", [50, 90, 70], [40, 62, 71])
    figure = draw([Panel("A$AP $\\nothing$", [odd])], demo=False)
    figure.draw_without_rendering()


def test_figures_of_a_study_are_named_and_can_be_read(compose: Compose) -> None:
    cells = compose("task=nsynth_pitch,emomusic_emotion", "model=fcpe,muq")
    save_study(cells, {"fcpe": 7, "muq": 13})
    figures = dict(make_curves(make_table_rows(cells)))
    assert list(figures) == [
        "layer_curves-fcpe",
        "layer_curves-muq",
        "models_over_depth",
        "last_layer",
        "best_layer_chances",
    ]
    first, *others = plots_of(figures["layer_curves-fcpe"])
    assert [axis.get_title() for axis in (first, *others)] == [
        "Pitch",
        "Emotion, r2_valence",
        "Emotion, r2_arousal",
    ]
    assert len(first.lines) == 4  # two probes, each with its mark
    for figure in figures.values():
        texts = [text for text in figure.findobj(Text) if text.get_text()]
        assert min(text.get_fontsize() for text in texts) >= 6
        assert figure.get_figwidth() <= 7.2
