"""The figure of the study of layer weights: arrays in, a matplotlib figure out.

Conventions: layers run to the right from 1; scores are per cent. A row is a model on a task: first
the scores of single layers, then for each start the weights of every seed.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

Array = NDArray[np.float64]

WIDTH, HEIGHT = 2.9, 2.3  # inches of a plot
_BEST, _END, _START = "#c1121f", "#4a7fb5", "#888888"


@dataclass(frozen=True)
class StartPlot:
    """Weights of several seeds from one start.

    Attributes:
        label: of the start.
        before: (seeds, L) softmax weights before training.
        after: (seeds, L) at the kept epoch.
    """

    label: str
    before: Array
    after: Array


@dataclass(frozen=True)
class StudyPlot:
    """One model on one task.

    Attributes:
        title: of the row.
        curve: (L,) scores of single layers in per cent.
        best: the best layer, from 1.
        starts: a plot each.
    """

    title: str
    curve: Array
    best: int
    starts: Sequence[StartPlot]


def draw_study(plots: Sequence[StudyPlot], *, demo: bool) -> Figure:
    """Draws the weights of every seed beside the scores of single layers.

    Args:
        plots: a row each, at least one.
        demo: whether to say that the data is the rendered stand-in.
    """
    n_columns = 1 + max(len(plot.starts) for plot in plots)
    size = (WIDTH * n_columns, HEIGHT * len(plots) + 0.4)
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(len(plots), n_columns, squeeze=False)

    most = max(float(each.max()) for plot in plots for start in plot.starts for each in _all(start))
    for row, plot in zip(grid, plots, strict=True):
        _draw_curve(row[0], plot)
        for axis, start in zip(row[1:], plot.starts, strict=False):
            _draw_start(axis, start, plot.best)
            axis.set_ylim(0, 1.05 * most)  # one scale, so that starts can be compared
        for spare in row[1 + len(plot.starts) :]:
            spare.remove()

    label = "layer (red: best layer; dashed: before training; dot: largest weight of a seed)"
    figure.supxlabel(label + ("; demo data" if demo else ""), fontsize=8)
    return figure


def _all(start: StartPlot) -> tuple[Array, Array]:
    return start.before, start.after


def _draw_curve(axis: Axes, plot: StudyPlot) -> None:
    layers = np.arange(1, len(plot.curve) + 1)
    axis.plot(layers, plot.curve, color="black", marker="o", markersize=3, linewidth=1)
    axis.set_title(plot.title, fontsize=9, parse_math=False)
    axis.set_ylabel("test score in %", fontsize=8)
    _finish(axis, plot.best)


def _draw_start(axis: Axes, start: StartPlot, best: int) -> None:
    layers = np.arange(1, start.after.shape[1] + 1)
    for before, after in zip(start.before, start.after, strict=True):
        axis.plot(layers, before, color=_START, linestyle="--", linewidth=0.7, alpha=0.6)
        axis.plot(layers, after, color=_END, linewidth=0.9, alpha=0.8)
        axis.plot(after.argmax() + 1, after.max(), color=_END, marker="o", markersize=4)
    axis.set_title(f"start: {start.label}", fontsize=9, parse_math=False)
    axis.set_ylabel("softmax weight", fontsize=8)
    _finish(axis, best)


def _finish(axis: Axes, best: int) -> None:
    axis.axvline(best, color=_BEST, linewidth=4, alpha=0.25)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.tick_params(labelsize=8)
