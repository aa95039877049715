"""Figure 2 and the layer weights: what is drawn of panels made by hand, and of rows."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from toy_rows import save_rows, save_study

from mirprobe.cell import Cell
from mirprobe.reporting.figures import LayerProfile, Panel, draw_heat_maps, draw_layer_weights
from mirprobe.reporting.report import make_figures
from mirprobe.reporting.table import make_table_rows

Compose = Callable[..., list[Cell]]

RED = "#c1121f"


def profile(
    task: str,
    val: Sequence[float],
    test: Sequence[float],
    weights: Sequence[float] | None = None,
    *,
    metric: str = "",
    n_seeds: int = 1,
) -> LayerProfile:
    """A profile whose weights, if any, start equal."""
    pair = None
    if weights is not None:
        pair = (np.full(len(weights), 1 / len(weights)), np.array(weights))
    return LayerProfile(task, metric, np.array(val), np.array(test), pair, n_seeds)


PITCH = profile("Pitch", [50.0, 90.0, 70.0], [40.0, 62.54, 70.8], [0.4, 0.6])
KEY = profile("Key", [80.0, 10.0, 20.0], [75.0, 20.0, 30.0], [0.7, 0.3])


@dataclass(frozen=True)
class Marks:
    """What a heat map shows at which (column, layer): red numbers, frames, all numbers."""

    red: set[tuple[int, int]]
    framed: set[tuple[int, int]]
    numbers: dict[tuple[int, int], str]


def marks(figure: Figure, panel: int = 0) -> Marks:
    axis = figure.axes[panel]
    texts = {}
    for text in axis.texts:
        column, layer = text.get_position()
        texts[round(column), round(layer)] = text
    assert len(texts) == len(axis.texts), "no two numbers stand in one place"

    framed = set()
    for frame in bars_of(axis):
        column, layer = frame.get_center()
        framed.add((round(column), round(layer)))
    return Marks(
        red={place for place, text in texts.items() if to_hex(str(text.get_color())) == RED},
        framed=framed,
        numbers={place: text.get_text() for place, text in texts.items()},
    )


def bars_of(axis: Axes) -> list[Rectangle]:
    return [patch for patch in axis.patches if isinstance(patch, Rectangle)]


def words_of(figure: Figure) -> list[str]:
    """Titles of panels and plots, and the line below the figure."""
    titles = [axis.get_title() for axis in figure.axes]
    subfigures = [part.get_suptitle() for part in figure.subfigs]
    words = [*titles, *subfigures, figure.get_supxlabel()]
    return [" ".join(text.split()) for text in words if text]


# -- the heat map ----------------------------------------------------------------------------------


def test_the_heat_map_marks_the_best_layer_on_test_red_and_frames_the_layer_chosen_on_val() -> None:
    figure = draw_heat_maps([Panel("fcpe", [PITCH, KEY])], demo=False)
    shown = marks(figure)
    assert shown.red == {(0, 2), (1, 0)}
    assert shown.framed == {(0, 1), (1, 0)}
    pitch = {(0, 0): "40.0", (0, 1): "62.5", (0, 2): "70.8"}
    key = {(1, 0): "75.0", (1, 1): "20.0", (1, 2): "30.0"}
    assert shown.numbers == pitch | key

    axis = figure.axes[0]
    assert [label.get_text() for label in axis.get_xticklabels()] == ["Pitch", "Key"]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["0", "1", "2"]
    assert axis.get_ylim()[0] < axis.get_ylim()[1], "layer 0 is at the bottom"
    bold = {text.get_text() for text in axis.texts if text.get_fontweight() == "bold"}
    assert bold == {"70.8", "75.0"}


def test_colour_runs_from_the_worst_to_the_best_layer_of_each_task() -> None:
    flat = profile("Key", [1.0] * 3, [50.0] * 3)
    panel = Panel("fcpe", [profile("Pitch", [1.0, 2.0, 3.0], [80.0, 90.0, 85.0]), flat])
    image = draw_heat_maps([panel], demo=False).axes[0].images[0].get_array()
    assert image is not None
    np.testing.assert_allclose(np.asarray(image), [[0, 0], [1, 0], [0.5, 0]])


def test_of_equal_layers_the_lowest_is_marked_as_in_the_table() -> None:
    panel = Panel("fcpe", [profile("Pitch", [50.0, 90.0, 90.0], [70.0, 40.0, 70.0])])
    shown = marks(draw_heat_maps([panel], demo=False))
    assert (shown.red, shown.framed) == ({(0, 0)}, {(0, 1)})


def test_a_layer_without_a_score_is_written_so_and_neither_red_nor_framed() -> None:
    nan = float("nan")
    partly = profile("Pitch", [nan, 50.0, 70.0], [nan, 60.0, 40.0])
    nothing = profile("Key", [nan] * 3, [nan] * 3)
    figure = draw_heat_maps([Panel("fcpe", [partly, nothing])], demo=False)
    figure.draw_without_rendering()
    shown = marks(figure)
    assert (shown.red, shown.framed) == ({(0, 1)}, {(0, 2)})
    pitch = {(0, 0): "failed", (0, 1): "60.0", (0, 2): "40.0"}
    assert shown.numbers == pitch | {(1, layer): "failed" for layer in range(3)}
    assert figure.get_supxlabel().endswith("; failed: no score")

    image = figure.axes[0].images[0].get_array()
    assert image is not None
    shades = np.ma.filled(image, nan)
    np.testing.assert_allclose(shades, [[nan, nan], [1, nan], [0, nan]])
    whole = draw_heat_maps([Panel("fcpe", [PITCH])], demo=False)
    assert "failed" not in whole.get_supxlabel()


def test_every_panel_has_its_own_numbers_of_layers_and_tasks() -> None:
    shallow = profile("Pitch", [2.0, 1.0], [2.0, 1.0])
    panels = [Panel("fcpe", [PITCH, KEY]), Panel("other", [shallow])]
    figure = draw_heat_maps(panels, demo=False)
    assert [axis.get_title() for axis in figure.axes] == ["fcpe", "other"]
    assert marks(figure, 0).red == {(0, 2), (1, 0)}
    assert marks(figure, 1).red == {(0, 0)}


def test_panels_of_one_title_stay_apart() -> None:
    panels = [Panel("fcpe", [PITCH]), Panel("fcpe", [KEY])]
    assert len(draw_heat_maps(panels, demo=False).axes) == 2
    assert len(draw_layer_weights(panels, demo=False).axes) == 2


def test_many_panels_stand_below_each_other_with_columns_of_similar_width() -> None:
    twelve = [profile(f"Task {number}", [1.0, 2.0], [1.0, 2.0]) for number in range(12)]
    panels = [Panel(f"model {number}", twelve) for number in range(3)]
    figure = draw_heat_maps([*panels, Panel("small", twelve[:2])], demo=False)
    assert figure.get_figwidth() < 15
    figure.draw_without_rendering()
    widths = [axis.get_window_extent().width for axis in figure.axes]
    columns = [len(axis.get_xticks()) for axis in figure.axes]
    assert columns == [12, 12, 12, 2]
    per_column = [width / n for width, n in zip(widths, columns, strict=True)]
    assert per_column == pytest.approx([per_column[0]] * 4, rel=0.6)


# -- the layer weights -----------------------------------------------------------------------------


def test_layer_weights_are_bars_over_layers_from_one_with_the_largest_in_red() -> None:
    weighted = profile("Pitch", [0.0] * 4, [0.0] * 4, [0.2, 0.5, 0.3])
    axis = draw_layer_weights([Panel("fcpe", [weighted])], demo=False).axes[0]
    bars = bars_of(axis)
    assert [round(bar.get_center()[0]) for bar in bars] == [1, 2, 3]
    assert [bar.get_height() for bar in bars] == pytest.approx([0.2, 0.5, 0.3])
    assert [to_hex(bar.get_facecolor()) == RED for bar in bars] == [False, True, False]
    start = np.asarray(axis.lines[0].get_ydata())
    assert start.tolist() == pytest.approx([1 / 3] * 4)


def test_weights_are_drawn_on_one_scale_in_rows_of_six() -> None:
    panels = [Panel("fcpe", [PITCH] * 8), Panel("other", [KEY])]
    figure = draw_layer_weights(panels, demo=False)
    assert len(figure.axes) == 9
    assert figure.get_figwidth() < 15
    tops = [axis.get_ylim()[1] for axis in figure.axes]
    assert tops == pytest.approx([1.05 * 0.7] * 9)


# -- words -----------------------------------------------------------------------------------------

BOTH = pytest.mark.parametrize("draw", [draw_heat_maps, draw_layer_weights])


@BOTH
@pytest.mark.parametrize("demo", [True, False])
def test_figures_say_that_their_data_is_a_demo(draw: Callable[..., Figure], demo: bool) -> None:
    words = words_of(draw([Panel("fcpe", [PITCH])], demo=demo))
    assert any("demo data" in text for text in words) is demo


@BOTH
@pytest.mark.parametrize(
    ("seeds", "text"),
    [((1, 1), "1 seed"), ((3, 3), "mean of 3 seeds"), ((3, 1), "mean of 1 to 3 seeds")],
)
def test_figures_say_over_how_many_seeds_they_average(
    draw: Callable[..., Figure], seeds: tuple[int, int], text: str
) -> None:
    profiles = [profile("Pitch", [1, 2, 3], [1, 2, 3], [0.4, 0.6], n_seeds=n) for n in seeds]
    assert text in draw([Panel("fcpe", profiles)], demo=False).get_supxlabel()


@BOTH
def test_names_from_users_are_no_formulas(draw: Callable[..., Figure]) -> None:
    odd = profile("$x^2$ [x]", [1, 2, 3], [1, 2, 3], [0.4, 0.6])
    figure = draw([Panel("A$AP $\\nothing$", [odd])], demo=False)
    figure.draw_without_rendering()
    texts = [*words_of(figure), *(text.get_text() for text in figure.axes[0].get_xticklabels())]
    assert "$x^2$ [x]" in texts and "A$AP $\\nothing$" in texts


@BOTH
def test_long_names_leave_room_for_the_drawing(draw: Callable[..., Figure]) -> None:
    long = profile(f"Own data\nfile={'songs_' * 12}.csv", [1, 2, 3], [1, 2, 3], [0.4, 0.6])
    title = "fcpe layer_weights_init=normal hidden=256 lr=0.0003"
    figure = draw([Panel(title, [long, PITCH])] * 2, demo=False)
    figure.draw_without_rendering()
    for axis in figure.axes:
        assert axis.get_window_extent().width > 0.8 * figure.dpi
        assert axis.get_window_extent().height > 0.7 * figure.dpi


# -- of rows ---------------------------------------------------------------------------------------


def test_figures_are_made_of_the_rows(pitch: list[Cell]) -> None:
    figures = dict(make_figures(make_table_rows(pitch)))
    assert set(figures) == {"figure2", "layer_weights"}
    shown = marks(figures["figure2"])
    assert (shown.red, shown.framed) == ({(0, 2)}, {(0, 1)})
    assert list(shown.numbers.values()) == ["40.0", "62.5", "70.8"]
    bars = bars_of(figures["layer_weights"].axes[0])
    assert [bar.get_height() for bar in bars] == pytest.approx([1 / 3, 2 / 3])


def test_figures_show_the_mean_over_seeds(compose: Compose) -> None:
    cells = compose("task=nsynth_pitch", "seed=0,1", "baseline=null")
    save_rows(cells[0], [0.9, 0.5, 0.1], [0.2, 0.4, 0.6], weighted=0.5)
    save_rows(cells[1], [0.1, 0.7, 0.1], [0.4, 0.6, 0.2], weighted=0.5)
    shown = marks(dict(make_figures(make_table_rows(cells)))["figure2"])
    assert list(shown.numbers.values()) == ["30.0", "50.0", "40.0"]
    assert (shown.red, shown.framed) == ({(0, 1)}, {(0, 1)})


def test_a_backbone_of_one_block_has_a_heat_map(compose: Compose) -> None:
    cells = compose("task=nsynth_pitch", "baseline=null")
    save_rows(cells[0], [0.4, 0.5], [0.6, 0.5])
    shown = marks(dict(make_figures(make_table_rows(cells)))["figure2"])
    assert (shown.red, shown.framed) == ({(0, 0)}, {(0, 1)})


def test_tasks_stand_by_level_and_layers_that_may_be_the_best_are_outlined(
    compose: Compose,
) -> None:
    cells = compose("task=gtzan_genre,giantsteps_key,nsynth_pitch", "baseline=null")
    save_study(cells, {"fcpe": 5})
    figures = dict(make_figures(make_table_rows(cells)))
    assert set(figures) == {"figure2", "figure2_linear", "layer_weights"}
    mlp, linear = (figures[name].axes[0] for name in ("figure2", "figure2_linear"))
    assert (mlp.get_title(), linear.get_title()) == ("fcpe (demo data)", "fcpe linear (demo data)")
    for axis in (mlp, linear):
        assert [label.get_text() for label in axis.get_xticklabels()] == ["Pitch", "Key", "Genre"]
        (above,) = (child for child in axis.child_axes)
        groups = [label.get_text() for label in above.get_xticklabels()]
        assert groups == ["acoustic", "comprehensive", "semantic"]
    assert [text.get_text() for text in mlp.texts][:2] == ["65.5", "78.0"]
    assert [text.get_text() for text in linear.texts][:2] == ["57.5", "70.0"]

    # Of the pitch task layer 3 is the best, and no other has a chance.
    outlined = [
        collection.get_segments()
        for collection in mlp.collections
        if isinstance(collection, LineCollection)
    ]
    heights = {float(point[1]) for segment in outlined[0] for point in segment}
    assert (min(heights), max(heights)) == (2.5, 3.5)
    assert "dotted" in figures["figure2"].get_supxlabel()


@pytest.mark.trial
def test_no_letter_of_a_study_is_too_small_to_print(compose: Compose) -> None:
    cells = compose("task=all", "model=fcpe,muq,mert_330m", "baseline=null")
    save_study(cells, {"fcpe": 13, "muq": 13, "mert_330m": 25})
    figure = dict(make_figures(make_table_rows(cells)))["figure2"]
    assert figure.get_figwidth() <= 7.3
    texts = [text for axis in figure.axes for text in axis.findobj(Text) if text.get_text()]
    assert min(text.get_fontsize() for text in texts) >= 6

    figure.draw_without_rendering()
    for axis in figure.axes:
        column = axis.get_window_extent().width / len(axis.get_xticks())
        assert max(text.get_window_extent().width for text in axis.texts) < column
