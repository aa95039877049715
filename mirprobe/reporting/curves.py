"""Layers as curves: one model by two probes, models beside each other, and what a choice costs.

Conventions: as in `figures`, of which panels and profiles are; scores are per cent on test, a band
is a 95 % interval over tracks. Models differ in colour, in marker and in line, so that no colour
has to be told from another. Drawn at print size, no letter below 6 pt.
"""

import math
import re
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from mirprobe.reporting.figures import Array, LayerProfile, Panel, describe_seeds, wrap

_PAGE, _COLUMN = 7.2, 3.5  # inches: a page of two columns, and one of them
_A_ROW = 4  # plots beside each other
_PLOT = 1.35  # inches, its height
_LETTERS, _SMALL = 7, 6.5  # pt
_GREY = "#999999"
# Okabe & Ito's colours, which the colour-blind tell apart.
_LOOKS = (
    ("#0072B2", "o", "-"),
    ("#D55E00", "s", "--"),
    ("#009E73", "^", "-."),
    ("#CC79A7", "D", ":"),
    ("#E69F00", "v", "-"),
    ("#000000", "x", "--"),
)


def file_name(kind: str, title: str, taken: set[str]) -> str:
    """A figure's name that no other has, without signs that a folder may not hold.

    >>> taken = set()
    >>> file_name("curves", "muq lr=0.1", taken), file_name("curves", "muq lr/0.1", taken)
    ('curves-muq_lr_0.1', 'curves-muq_lr_0.1-2')
    """
    name = f"{kind}-{re.sub(r'[^A-Za-z0-9.+-]+', '_', title)[:80]}"
    number, first = 1, name
    while name in taken:
        number += 1
        name = f"{first}-{number}"
    taken.add(name)
    return name


def draw_curves(panel: Panel, twin: Panel | None, *, demo: bool) -> Figure:
    """Draws the scores of a model's layers, a plot per task and metric.

    The probe's curve and that of its linear twin, each with its chosen layer marked; learned layer
    weights as bars at the bottom, on a scale of their own, with their start dashed.

    Args:
        panel: of the MLP.
        twin: of the linear probe; None without one.
        demo: whether to say that the data is the rendered stand-in.
    """
    figure, plots = _grid(len(panel.profiles))
    linear = {_key(profile): profile for profile in (twin.profiles if twin else [])}
    for axis, profile in zip(plots, panel.profiles, strict=True):
        layers = np.arange(len(profile.test), dtype=np.float64)
        if profile.weights is not None:
            _draw_weights(axis, profile.weights)
        _draw_curve(axis, layers, profile, _LOOKS[0], band=True)
        other = linear.get(_key(profile))
        if other is not None:
            _draw_curve(axis, layers, other, _LOOKS[1], band=True)
        _name_plot(axis, profile)
        axis.set_xticks(range(0, len(layers), max(1, len(layers) // 6)))

    names = ["MLP, marked: chosen on val"] + (["linear twin"] if linear else [])
    _legend(figure, names)
    about = f"layer; test score in %, {describe_seeds([panel])}; bands: 95 % over tracks; "
    about += "bars: learned weights, dashed: their start"
    _finish(figure, panel.title, about, demo)
    return figure


def draw_models(panels: Sequence[Panel], *, demo: bool) -> Figure:
    """Draws models over relative depth, 0 the input of the first block and 1 the last layer.

    Args:
        panels: several, of the MLP.
        demo: whether to say that the data is the rendered stand-in.
    """
    found: dict[tuple[str, str], LayerProfile] = {}
    for panel in panels:
        for profile in panel.profiles:
            found.setdefault(_key(profile), profile)

    figure, plots = _grid(len(found))
    for axis, (key, first) in zip(plots, found.items(), strict=True):
        for place, panel in enumerate(panels):
            for profile in panel.profiles:
                if _key(profile) == key:
                    depth = np.linspace(0, 1, len(profile.test))
                    _draw_curve(axis, depth, profile, _look(place), band=len(panels) <= 3)
        _name_plot(axis, first)
        axis.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])

    _legend(figure, [panel.title for panel in panels])
    about = f"relative depth; test score in %, MLP, {describe_seeds(panels)}; marked: chosen on val"
    _finish(figure, "Models over depth", about, demo)
    return figure


def draw_last_layer(panels: Sequence[Panel], *, demo: bool) -> Figure:
    """Draws the points that the last layer is below the layer chosen on val, a line per task.

    Args:
        panels: of the MLP; profiles without a scan are left out.
        demo: whether to say that the data is the rendered stand-in.
    """
    names: dict[tuple[str, str], None] = {}
    for panel in panels:
        names |= {_key(one): None for one in panel.profiles if one.last_lost is not None}
    keys = list(names)

    figure = Figure(
        figsize=(_COLUMN, 0.8 + 0.15 * len(panels) + 0.22 * len(keys)), layout="constrained"
    )
    axis = figure.subplots()
    for place, panel in enumerate(panels):
        colour, marker, _ = _look(place)
        shift = 0.5 * (place / max(1, len(panels) - 1) - 0.5) if len(panels) > 1 else 0.0
        for profile in panel.profiles:
            if profile.last_lost is not None:
                value, low, high = profile.last_lost
                height = keys.index(_key(profile)) + shift
                axis.plot([low, high], [height, height], color=colour, linewidth=0.9)
                axis.plot(value, height, marker, color=colour, markersize=3)

    axis.axvline(0, color=_GREY, linewidth=0.8)
    labels = [" ".join(part for part in key if part) for key in keys]
    axis.set_yticks(range(len(keys)), labels, fontsize=_SMALL, parse_math=False)
    axis.set_ylim(len(keys) - 0.5, -0.5)
    axis.tick_params("x", labelsize=_SMALL)
    _legend(figure, [panel.title for panel in panels])
    _finish(figure, "Points lost at the last layer", "points, with 95 % intervals", demo)
    return figure


def draw_chances(panels: Sequence[Panel], *, demo: bool) -> Figure:
    """Draws the chance of each layer to be the best on test, a strip per task.

    Args:
        panels: of the MLP; profiles without a scan are left out.
        demo: whether to say that the data is the rendered stand-in.
    """
    shown = [
        Panel(panel.title, [one for one in panel.profiles if one.chances is not None])
        for panel in panels
    ]
    shown = [panel for panel in shown if panel.profiles]
    n_columns = min(2, len(shown))
    n_rows = math.ceil(len(shown) / n_columns)
    n_tasks = max(len(panel.profiles) for panel in shown)

    size = (_PAGE if n_columns > 1 else _COLUMN, n_rows * (0.6 + 0.15 * n_tasks) + 0.4)
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(n_rows, n_columns, squeeze=False)
    for spare in grid.flat[len(shown) :]:
        spare.remove()
    for axis, panel in zip(grid.flat, shown, strict=False):
        strips = np.stack([one.chances for one in panel.profiles if one.chances is not None])
        axis.imshow(strips, cmap="Greys", vmin=0, vmax=1, aspect="auto")
        _mark_sets(axis, panel.profiles)
        labels = [" ".join(part for part in _key(one) if part) for one in panel.profiles]
        axis.set_yticks(range(len(labels)), labels, fontsize=_SMALL, parse_math=False)
        n_layers = strips.shape[1]
        axis.set_xticks(range(0, n_layers, max(1, n_layers // 8)))
        axis.tick_params("x", labelsize=_SMALL)
        axis.tick_params(length=0)
        axis.set_title(
            wrap(panel.title, 2.5, fontsize=_LETTERS), fontsize=_LETTERS, parse_math=False
        )
    about = "layer; black: surely the best on test; dot: one of these is, with 95 % confidence"
    _finish(figure, "Which layer is the best?", about, demo)
    return figure


def _mark_sets(axis: Axes, profiles: Sequence[LayerProfile]) -> None:
    for place, profile in enumerate(profiles):
        layers = sorted(profile.best_set)
        axis.plot(layers, [place] * len(layers), ".", color="#D55E00", markersize=3)


# -- parts -----------------------------------------------------------------------------------------


def _key(profile: LayerProfile) -> tuple[str, str]:
    """What tells a plot from others: the task with its settings, and the metric."""
    return " ".join(profile.task.split()), profile.metric


def _look(place: int) -> tuple[str, str, str]:
    """Colour, marker and line of a model; of more than six some share one."""
    return _LOOKS[place % len(_LOOKS)]


def _grid(n_plots: int) -> tuple[Figure, list[Axes]]:
    n_columns = min(_A_ROW, n_plots)
    n_rows = math.ceil(n_plots / n_columns)
    width = max(_COLUMN, _PAGE * n_columns / _A_ROW)
    figure = Figure(figsize=(width, n_rows * _PLOT + 0.8), layout="constrained")
    grid = figure.subplots(n_rows, n_columns, squeeze=False)
    for spare in grid.flat[n_plots:]:
        spare.remove()
    return figure, list(grid.flat[:n_plots])


def _draw_curve(
    axis: Axes, x: Array, profile: LayerProfile, look: tuple[str, str, str], *, band: bool
) -> None:
    colour, marker, line = look
    axis.plot(x, profile.test, line, color=colour, linewidth=1)
    if band and profile.low is not None and profile.high is not None:
        axis.fill_between(x, profile.low, profile.high, color=colour, alpha=0.15, linewidth=0)
    if not np.isnan(profile.val).all():
        chosen = int(np.nanargmax(profile.val))
        axis.plot(x[chosen], profile.test[chosen], marker, color=colour, markersize=4)


def _draw_weights(axis: Axes, weights: tuple[Array, Array]) -> None:
    """Bars that take the lowest third of the plot."""
    start, end = weights
    beside = axis.twinx()
    beside.set_ylim(0, 3 * max(float(start.max()), float(end.max())))
    beside.set_yticks([])
    layers = np.arange(1, len(end) + 1)
    beside.bar(layers, end, color=_GREY, alpha=0.45, width=0.8)
    beside.plot(layers, start, "--", color="black", linewidth=0.7)


def _name_plot(axis: Axes, profile: LayerProfile) -> None:
    name = wrap(", ".join(part for part in _key(profile) if part), 1.6, fontsize=_LETTERS)
    axis.set_title(name, fontsize=_LETTERS, parse_math=False)
    axis.tick_params(labelsize=_SMALL, length=2)


def _legend(figure: Figure, names: Sequence[str]) -> None:
    handles = []
    for place, name in enumerate(names):
        colour, marker, line = _look(place)
        # A dollar sign of a user's name would begin a formula.
        label = name.replace("$", r"\$")
        handles.append(Line2D([], [], color=colour, marker=marker, ls=line, label=label))
    n_columns = 3 if figure.get_figwidth() > _COLUMN else 1
    figure.legend(handles=handles, loc="outside upper right", ncols=n_columns, fontsize=_SMALL)


def _finish(figure: Figure, title: str, about: str, demo: bool) -> None:
    """The title above, and what is shown below."""
    width = float(figure.get_figwidth())
    title = wrap(title + (" (demo data)" if demo else ""), width / 2, fontsize=8)
    figure.suptitle(title, fontsize=8, x=0.01, ha="left", parse_math=False)
    figure.supxlabel(wrap(about, width, fontsize=_SMALL), fontsize=_SMALL)
