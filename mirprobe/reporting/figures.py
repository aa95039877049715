"""Drawings: arrays in, matplotlib figures out.

Conventions: layers run upwards from 0, the input of the first block. Scores are per cent. Colour
compares layers within one task, from that task's worst layer to its best; the printed number
compares tasks.
"""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

Array = NDArray[np.float64]
_BEST = "#c1121f"  # the paper marks the best layer in red


def draw_heat_maps(
    models: Mapping[str, Mapping[str, tuple[Array, Array]]], *, demo: bool
) -> Figure:
    """Figure 2: one panel per model, layers x tasks, test scores.

    Args:
        models: model -> task -> (L+1,) scores on val and on test, in per cent.
        demo: whether to say that the data is the rendered stand-in.
    """
    widths = [1.1 + 0.85 * len(tasks) for tasks in models.values()]
    height = 1.4 + 0.34 * max(len(test) for tasks in models.values() for _, test in tasks.values())
    figure = Figure(figsize=(max(sum(widths), 4.2), height), layout="constrained")
    axes = figure.subplots(1, len(models), squeeze=False, gridspec_kw={"width_ratios": widths})[0]
    for axis, (model, tasks) in zip(axes, models.items(), strict=True):
        _heat_map(axis, tasks)
        axis.set_title(model + (" (demo data)" if demo else ""), fontsize=10)
    axes[0].set_ylabel("layer")
    figure.supxlabel("test score in %; red: best on test; frame: chosen on val", fontsize=8)
    return figure


def _heat_map(axis: Axes, tasks: Mapping[str, tuple[Array, Array]]) -> None:
    test = np.stack([test for _, test in tasks.values()], axis=1)  # (L+1, tasks)
    span = np.ptp(test, axis=0)
    shade = (test - test.min(axis=0)) / np.where(span > 0, span, 1)
    axis.imshow(shade, cmap="Blues", vmin=0, vmax=2.2, aspect="auto", origin="lower")
    for column, (val, scores) in enumerate(tasks.values()):
        best, chosen = int(scores.argmax()), int(val.argmax())
        for layer, score in enumerate(scores):
            colour, weight = (_BEST, "bold") if layer == best else ("black", "normal")
            axis.text(
                column,
                layer,
                f"{score:.1f}",
                ha="center",
                va="center",
                fontsize=8,
                color=colour,
                fontweight=weight,
            )
        axis.add_patch(
            Rectangle(
                (column - 0.47, chosen - 0.45),
                0.94,
                0.9,
                fill=False,
                edgecolor="black",
                linewidth=1.2,
            )
        )
    axis.set_xticks(range(len(tasks)), list(tasks), rotation=30, ha="right", fontsize=9)
    axis.set_yticks(range(len(test)), [str(layer) for layer in range(len(test))], fontsize=8)
    axis.tick_params(length=0)


def draw_layer_weights(
    models: Mapping[str, Mapping[str, tuple[Array, Array]]], *, demo: bool
) -> Figure:
    """Learned weights of the weighted sum over layers 1..L: bars at the end, a line at the start of
    training.

    Args:
        models: model -> task -> (L,) softmax weights at start and at end.
        demo: whether to say that the data is the rendered stand-in.
    """
    n_columns = max(len(tasks) for tasks in models.values())
    figure = Figure(
        figsize=(max(2.3 * n_columns, 4.2), 0.5 + 1.9 * len(models)), layout="constrained"
    )
    grid = figure.subplots(len(models), n_columns, squeeze=False, sharey=True)
    for row, (model, tasks) in zip(grid, models.items(), strict=True):
        for axis in row[len(tasks) :]:
            axis.set_visible(False)
        for axis, (task, (start, end)) in zip(row, tasks.items(), strict=False):
            layers = np.arange(1, len(end) + 1)
            colours = [_BEST if layer == end.argmax() + 1 else "#4a7fb5" for layer in layers]
            axis.bar(layers, end, color=colours, width=0.75)
            axis.step(
                np.append(layers - 0.5, layers[-1] + 0.5),
                np.append(start, start[-1]),
                where="post",
                color="black",
                linestyle="--",
                linewidth=1,
            )
            axis.set_title(task, fontsize=9)
            axis.set_xticks(layers[:: max(1, len(layers) // 6)])
            axis.tick_params(labelsize=8)
        row[0].set_ylabel(f"{model}\nsoftmax weight", fontsize=8)
    figure.supxlabel(
        "layer (dashed: start, red: largest)" + ("; demo data" if demo else ""), fontsize=8
    )
    return figure
