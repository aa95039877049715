"""Drawings: panels of numbers in, matplotlib figures out.

Conventions: layers run upwards from 0, the input of the first block. Scores are per cent. Colour
compares layers within one task, from that task's worst layer to its best; the printed number
compares tasks. A panel is one model under one protocol; in it only seeds are averaged. Heat maps
are drawn at the size they are printed at: as wide as a page of two columns, no letter below 6 pt.
"""

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure, SubFigure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

Array = NDArray[np.float64]

MAX_WIDTH = 7.2  # inches, a page; heat maps that do not fit beside each other stand below
CAPTION_WIDTH = 4.5  # inches; what the line below a figure takes
PLOT_WIDTH = 2.1  # inches; of the layer weights of one task
PLOTS_A_ROW = 6
CHARACTER_WIDTH = 0.0085  # inches per point of font size, in the mean of DejaVu Sans
NO_SCORE = "failed"
LEVELS = ("acoustic", "comprehensive", "semantic")  # paper 3.4, in the order of Figure 2
_NUMBERS, _NAMES, _TITLES = 6.5, 7, 8  # pt, in heat maps
_COLUMN, _ROW = 0.37, 0.165  # inches; of a number in a heat map
_BEST = "#c1121f"  # the paper marks the best layer in red
_BAR = "#4a7fb5"


@dataclass(frozen=True)
class LayerProfile:
    """Layers on one task by one metric, mean over seeds: a column of a panel.

    Attributes:
        task: its label, with what tells it apart from others of that label.
        metric: its name; empty where the task has just one.
        val: (L+1,) scores of the layers on val, in per cent; NaN for a layer without a score.
        test: (L+1,) scores on test.
        weights: (L,) softmax weights of layers 1..L at the start and at the end of training; None
            where there is no weighted sum, or where they stand in the profile of another metric.
        n_seeds: how many cells are averaged.
        level: of the task, one of `LEVELS`, or nothing.
        best_set: layers that may be the best on test, with 95 % confidence.
        task_name: in conf/.
        metric_name: in conf/, also where it is the only one.
        low: (L+1,) lower ends of the intervals of `test`, NaN where there is none.
        high: upper ends.
        chances: (L+1,) of each layer to be the best on test; None where nothing was scanned.
        last_lost: points that the last layer is below the chosen one, with the ends of the
            interval, NaN where there is none; None where nothing was scanned.
    """

    task: str
    metric: str
    val: Array
    test: Array
    weights: tuple[Array, Array] | None = None
    n_seeds: int = 1
    level: str = ""
    best_set: frozenset[int] = frozenset()
    task_name: str = ""
    metric_name: str = ""
    low: Array | None = None
    high: Array | None = None
    chances: Array | None = None
    last_lost: tuple[float, float, float] | None = None


@dataclass(frozen=True)
class Panel:
    """One model under one protocol, on its tasks."""

    title: str
    profiles: Sequence[LayerProfile]


def draw_heat_maps(panels: Sequence[Panel], *, demo: bool) -> Figure:
    """Draws Figure 2: a heat map per panel, layers x tasks, test scores.

    Args:
        panels: at least one, each with at least one profile.
        demo: whether to say that the data is the rendered stand-in.
    """
    sizes = [_heat_map_size(panel) for panel in panels]
    widths = [width for width, _ in sizes]
    rows = _fill_rows(widths)
    longest = max(sum(widths[place] for place in row) for row in rows)
    heights = [max(sizes[place][1] for place in row) for row in rows]

    stretch = max(CAPTION_WIDTH / longest, 1)
    size = (stretch * longest, sum(heights) + 0.3)
    figure = Figure(figsize=size, layout="constrained")
    parts = figure.subfigures(len(rows), 1, squeeze=False, height_ratios=heights)[:, 0]
    for part, row in zip(parts, rows, strict=True):
        axes = _side_by_side(part, [widths[place] for place in row], longest)
        axes[0].set_ylabel("layer", fontsize=_NAMES)
        for axis, place in zip(axes, row, strict=True):
            _draw_heat_map(axis, panels[place].profiles)
            title = panels[place].title + (" (demo data)" if demo else "")
            title = wrap(title, stretch * widths[place], fontsize=_TITLES)
            axis.set_title(title, fontsize=_TITLES, parse_math=False)

    seeds = describe_seeds(panels)
    label = f"test score in %, {seeds}; red: best on test; frame: chosen on val"
    profiles = [profile for panel in panels for profile in panel.profiles]
    if any(profile.best_set for profile in profiles):
        label += "\ndotted: one of these is the best, with 95 % confidence"
    if any(np.isnan(profile.test).any() for profile in profiles):
        label += f"; {NO_SCORE}: no score"
    figure.supxlabel(label, fontsize=_NAMES)
    return figure


def _heat_map_size(panel: Panel) -> tuple[float, float]:
    """Width and height in inches, with room for the title and for the slanted names of tasks."""
    labels = [_column_label(profile) for profile in panel.profiles]
    longest = max(len(line) for label in labels for line in label.split("\n"))
    name = _NAMES * CHARACTER_WIDTH * longest
    column = max(_COLUMN, 0.2 * max(label.count("\n") + 1 for label in labels))
    title = _TITLES * CHARACTER_WIDTH * max(len(word) for word in panel.title.split())

    # Names end below their column, at 35 degrees: they reach out to the left as well as down.
    left = max(0.5, 0.35 + 0.82 * name - column / 2)
    n_layers = max(len(profile.test) for profile in panel.profiles)
    width = max(left + column * len(labels), 0.3 + title)
    return width, 0.7 + max(_ROW * n_layers, 0.9) + 0.57 * name


def _column_label(profile: LayerProfile) -> str:
    label = f"{profile.task}\n{profile.metric}" if profile.metric else profile.task
    return wrap(label, 1.4, fontsize=_NAMES)


def wrap(text: str, inches: float, *, fontsize: float) -> str:
    """Breaks lines, and words, that are longer than the space there is."""
    n_characters = max(8, int(inches / (CHARACTER_WIDTH * fontsize)))
    lines = [
        textwrap.fill(line, n_characters, break_on_hyphens=False) for line in text.splitlines()
    ]
    return "\n".join(lines)


def _fill_rows(widths: Sequence[float]) -> list[list[int]]:
    """Places of panels, in order, in rows that are no wider than `MAX_WIDTH`.

    >>> _fill_rows([3.0, 3.0, 3.0, 20.0])
    [[0, 1], [2], [3]]
    """
    rows: list[list[int]] = [[]]
    for place, width in enumerate(widths):
        taken = sum(widths[other] for other in rows[-1])
        if rows[-1] and taken + width > MAX_WIDTH:
            rows.append([])
        rows[-1].append(place)
    return rows


def _side_by_side(part: SubFigure, widths: Sequence[float], longest: float) -> list[Axes]:
    """Axes of these widths; a shorter row ends in empty space, so that columns stay alike."""
    rest = longest - sum(widths)
    ratios = [*widths, rest] if rest > 0.1 else [*widths]
    axes = part.subplots(1, len(ratios), squeeze=False, width_ratios=ratios)[0]
    for spare in axes[len(widths) :]:
        spare.remove()
    return list(axes[: len(widths)])


def _draw_heat_map(axis: Axes, profiles: Sequence[LayerProfile]) -> None:
    scores = np.stack([profile.test for profile in profiles], axis=1)  # (L+1, tasks)
    # Of numbers beside NaN, fmin and fmax take the numbers.
    lowest, highest = np.fmin.reduce(scores, axis=0), np.fmax.reduce(scores, axis=0)
    span = highest - lowest
    shade = (scores - lowest) / np.where(span > 0, span, 1)

    # Only the lighter half of the blues, on which black and red numbers can be read.
    axis.imshow(shade, cmap="Blues", vmin=0, vmax=2.2, aspect="auto", origin="lower")
    for column, profile in enumerate(profiles):
        _draw_numbers(axis, column, profile.test)
        chosen = _best(profile.val)
        if chosen is not None:
            _draw_frame(axis, column, chosen)
        _draw_set(axis, column, profile.best_set)
    _draw_levels(axis, [profile.level for profile in profiles])

    labels = [_column_label(profile) for profile in profiles]
    axis.set_xticks(range(len(labels)), labels, fontsize=_NAMES, parse_math=False)
    axis.tick_params("x", rotation=35)
    for label in axis.get_xticklabels():
        label.set(ha="right", rotation_mode="anchor")
    axis.set_yticks(range(len(scores)), [str(layer) for layer in range(len(scores))])
    axis.tick_params("y", labelsize=_NUMBERS)
    axis.tick_params(length=0)


def _best(scores: Array) -> int | None:
    """The layer with the highest score, of equals the lowest; None where none has a score."""
    return None if np.isnan(scores).all() else int(np.nanargmax(scores))


def _draw_numbers(axis: Axes, column: int, scores: Array) -> None:
    best = _best(scores)
    for layer, score in enumerate(scores):
        axis.text(
            column,
            layer,
            NO_SCORE if np.isnan(score) else f"{score:.1f}",
            ha="center",
            va="center",
            fontsize=_NUMBERS,
            color=_BEST if layer == best else "black",
            fontweight="bold" if layer == best else "normal",
        )


def _draw_frame(axis: Axes, column: int, layer: int) -> None:
    corner = (column - 0.47, layer - 0.45)
    axis.add_patch(Rectangle(corner, 0.94, 0.9, fill=False, edgecolor="black", linewidth=1.2))


def _draw_set(axis: Axes, column: int, layers: frozenset[int]) -> None:
    """A dotted line around each run of layers."""
    edges = []
    for layer in layers:
        low, high = layer - 0.5, layer + 0.5
        edges += [[(column + side, low), (column + side, high)] for side in (-0.47, 0.47)]
        for end, neighbour in ((low, layer - 1), (high, layer + 1)):
            if neighbour not in layers:
                edges.append([(column - 0.47, end), (column + 0.47, end)])
    axis.add_collection(LineCollection(edges, colors="black", linewidths=0.7, linestyles=":"))


def _draw_levels(axis: Axes, levels: Sequence[str]) -> None:
    """The name of each group of tasks above its columns, and a white line between groups."""
    groups = [
        level for place, level in enumerate(levels) if place == 0 or level != levels[place - 1]
    ]
    if not any(groups):
        return
    centres, start = [], 0
    for level in groups:
        n_columns = levels.count(level)
        centres.append(start + (n_columns - 1) / 2)
        start += n_columns
        axis.axvline(start - 0.5, color="white", linewidth=3, zorder=0.5)
    above = axis.secondary_xaxis("top")
    above.set_xticks(centres, groups, fontsize=_NUMBERS)
    above.tick_params(length=0, pad=1)
    above.spines["top"].set_visible(False)


def draw_layer_weights(panels: Sequence[Panel], *, demo: bool) -> Figure:
    """Draws the learned weights of the weighted sum over layers 1..L, a plot per task.

    Bars are the end of training, a dashed line is its start.

    Args:
        panels: each with at least one profile, and all profiles with weights.
        demo: whether to say that the data is the rendered stand-in.
    """
    n_columns = min(PLOTS_A_ROW, max(len(panel.profiles) for panel in panels))
    n_rows = [math.ceil(len(panel.profiles) / n_columns) for panel in panels]
    plots = [1.4 + 0.15 * _most_title_lines(panel) for panel in panels]
    heights = [0.4 + rows * plot for rows, plot in zip(n_rows, plots, strict=True)]

    size = (max(CAPTION_WIDTH, PLOT_WIDTH * n_columns), sum(heights) + 0.3)
    figure = Figure(figsize=size, layout="constrained")
    parts = figure.subfigures(len(panels), 1, squeeze=False, height_ratios=heights)[:, 0]
    for part, panel, rows in zip(parts, panels, n_rows, strict=True):
        title = wrap(panel.title, size[0], fontsize=10)
        part.suptitle(title, fontsize=10, parse_math=False)
        _draw_plots(part.subplots(rows, n_columns, squeeze=False, sharey=True), panel.profiles)

    largest = max(_largest_weight(panel) for panel in panels)
    for axis in figure.axes:
        axis.set_ylim(0, 1.05 * largest)  # one scale for all plots, so that they can be compared

    seeds = describe_seeds(panels)
    label = f"layer ({seeds}; dashed: start, red: largest)" + ("; demo data" if demo else "")
    figure.supxlabel(label, fontsize=8)
    return figure


def _plot_title(profile: LayerProfile) -> str:
    return wrap(profile.task, PLOT_WIDTH - 0.2, fontsize=9)


def _most_title_lines(panel: Panel) -> int:
    return max(_plot_title(profile).count("\n") + 1 for profile in panel.profiles)


def _largest_weight(panel: Panel) -> float:
    weights = [profile.weights for profile in panel.profiles if profile.weights is not None]
    return max(float(np.max(pair)) for pair in weights)


def _draw_plots(grid: NDArray[Any], profiles: Sequence[LayerProfile]) -> None:
    """A plot per profile, row by row; places of the grid that are left over stay empty."""
    for row in grid:
        row[0].set_ylabel("softmax weight", fontsize=8)
    for axis, profile in zip(grid.flat, profiles, strict=False):
        _draw_weights(axis, profile)
    for spare in grid.flat[len(profiles) :]:
        spare.remove()


def _draw_weights(axis: Axes, profile: LayerProfile) -> None:
    assert profile.weights is not None
    start, end = profile.weights
    layers = np.arange(1, len(end) + 1)

    colours = [_BEST if layer == end.argmax() + 1 else _BAR for layer in layers]
    axis.bar(layers, end, color=colours, width=0.75)

    # The start is drawn as steps as wide as the bars stand apart, so that its last has a width too.
    edges = np.append(layers - 0.5, layers[-1] + 0.5)
    steps = np.append(start, start[-1])
    axis.step(edges, steps, where="post", color="black", linestyle="--", linewidth=1)

    axis.set_title(_plot_title(profile), fontsize=9, parse_math=False)
    axis.set_xticks(layers[:: max(1, len(layers) // 6)])
    axis.tick_params(labelsize=8)


def describe_seeds(panels: Sequence[Panel]) -> str:
    """Says over how many seeds the numbers are averaged."""
    numbers: set[int] = set()
    for panel in panels:
        numbers |= {profile.n_seeds for profile in panel.profiles}

    fewest, most = min(numbers), max(numbers)
    if most == 1:
        return "1 seed"
    return f"mean of {most} seeds" if fewest == most else f"mean of {fewest} to {most} seeds"
