"""Figure 3: how much each layer is like the input, beside what chance gives; layers without labels.

Conventions: made of rows of similarity and of nothing else. A curve is the plug-in value, the
dashed one below it the value on tracks that the directions were not fitted to: together they
bracket the truth. The band reaches from 0 to what unrelated views of the same frames give. Layer 0
is hollow, since it is no block's output; against `h0` it is 1 by definition.
"""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from rich.text import Text

from datamodules.errors import encodable
from datamodules.files import atomic, write_text
from mirprobe.cell import Cell
from mirprobe.progress import console
from mirprobe.reporting.rank_correlation import Correlation, rank_correlation
from mirprobe.similarity.rows import SimilarityRow, read_similarity, sources_of

Array = NDArray[np.float64]

LABELS = {
    "mel": "log-mel",
    "mel_stack": "log-mel, 4 frames stacked",
    "mel_center": "log-mel, middle frame",
    "fbank": "FBANK, 80 bands",
    "h0": "layer 0",
}
WITHOUT_LABELS = {
    "effective_rank": "effective rank",
    "entropy": "matrix entropy (nats)",
    "isotropy": "isotropy",
    "curvature": "curvature (degrees)",
}
_COLOURS = ("#1d4e89", "#c1121f", "#2a7f62", "#b5651d", "#6a4c93")
COLUMNS = ("model", "layer", "input", "pwcca", "held_out", "null", "within", "mean_cca", "cka")


@dataclass(frozen=True)
class Curve:
    """One input over the layers of one model; NaN where there is no number.

    Attributes:
        input: its name.
        value: (L+1,) PWCCA.
        held_out: (L+1,) on tracks that the directions were not fitted to.
        null: (L+1,) of unrelated views.
    """

    input: str
    value: Array
    held_out: Array
    null: Array


@dataclass(frozen=True)
class SimilarityPanel:
    """One model.

    Attributes:
        title: its name.
        rows: all of its rows.
        probes: of each task, (L+1,) test scores of its layers.
    """

    title: str
    rows: Sequence[SimilarityRow]
    probes: Mapping[str, Array]

    @property
    def n_layers(self) -> int:
        """L + 1."""
        return 1 + max(row.layer for row in self.rows)

    def series(self, measure: str, given: str | None) -> Array:
        """(L+1,) values of a measure; NaN where there is none."""
        values = np.full(self.n_layers, np.nan)
        for row in self.rows:
            if row.measure == measure and row.input == given and row.value is not None:
                values[row.layer] = row.value
        return values

    def curves(self) -> list[Curve]:
        """Of every input that layers were held against."""
        inputs = dict.fromkeys(row.input for row in self.rows if row.measure == "pwcca")
        return [
            Curve(
                name,
                self.series("pwcca", name),
                self.series("held_out", name),
                self.series("null", name),
            )
            for name in inputs
            if name is not None
        ]


def draw_similarity(
    cells: Sequence[Cell], probes: Mapping[str, Mapping[str, Array]] | None = None
) -> None:
    """Writes Figure 3 and the measures without labels of all cells that have such rows.

    Args:
        cells: of which the models are drawn.
        probes: of each model, the test scores of the layers on each task.
    """
    panels = []
    for source in sources_of(cells):
        rows = read_similarity(source.path)
        if rows:
            name = source.cells[0].model_name
            panels.append(SimilarityPanel(name, rows, (probes or {}).get(name, {})))
    if not panels:
        return

    folder = Path(cells[0].paths.runs) / "report"
    written = []
    if any(panel.curves() for panel in panels):
        written += _save(draw_figure3(panels), folder / "figure3")
        if len({panel.n_layers for panel in panels}) > 1:  # models of other depths to compare with
            figure = draw_figure3(panels, relative_depth=True)
            written += _save(figure, folder / "figure3_over_depth")
    written += _save(draw_without_labels(panels), folder / "layers_without_labels")
    heat = draw_layer_pairs(panels)
    if heat is not None:
        written += _save(heat, folder / "layer_pairs")

    write_text(folder / "figure3.csv", encodable(make_csv(panels)))
    names = ", ".join(str(path) for path in [*written, folder / "figure3.csv"])
    console().print(Text(f"figures: {names}"), soft_wrap=True)
    for warning in dict.fromkeys(_warnings(panels)):
        console().print(Text(warning, style="dim"), soft_wrap=True)


def _warnings(panels: Sequence[SimilarityPanel]) -> list[str]:
    """What to beware of, the worst of each model and input, and what could not be computed."""
    lines = []
    for panel in panels:
        for row in panel.rows:
            if row.failed is not None:
                lines.append(f"{panel.title}: layer {row.layer}, {row.measure}: {row.failed}")
        for curve in panel.curves():
            warned = [
                row
                for row in panel.rows
                if row.input == curve.input and row.measure == "pwcca" and row.n_effective
            ]
            worst = min(warned, key=lambda row: row.n_effective or 0.0, default=None)
            if worst is not None and worst.warning is not None:
                lines.append(f"{panel.title} against {LABELS[curve.input]}: {worst.warning}")
    return lines


def _save(figure: Figure, path: Path) -> list[Path]:
    targets = [path.with_suffix(".png"), path.with_suffix(".pdf")]
    for target in targets:
        with atomic(target) as temporary:
            figure.savefig(temporary, format=target.suffix[1:], dpi=200, bbox_inches="tight")
    return targets


def make_csv(panels: Sequence[SimilarityPanel]) -> str:
    """The numbers of Figure 3, a line for each model, input and layer."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    numbers = ("n_tracks", "n_frames", "n_effective", "rank_input", "rank_layer")
    writer.writerow([*COLUMNS, *numbers, "weights_of", "demo", "made_of"])
    for panel in panels:
        for curve in panel.curves():
            series = {name: panel.series(name, curve.input) for name in COLUMNS[3:]}
            rows = {
                row.layer: row
                for row in panel.rows
                if row.input == curve.input and row.measure == "pwcca"
            }
            for layer, row in sorted(rows.items()):
                values = [series[name][layer] for name in COLUMNS[3:]]
                said = ["" if math.isnan(value) else f"{value:.6f}" for value in values]
                place = [panel.title, layer, curve.input]
                counts = [getattr(row, name) for name in numbers]
                writer.writerow([*place, *said, *counts, row.weights_of, row.demo, row.made_of])
    return text.getvalue()


# -- drawing ---------------------------------------------------------------------------------------


def draw_figure3(panels: Sequence[SimilarityPanel], *, relative_depth: bool = False) -> Figure:
    """Draws Figure 3: PWCCA of every layer against the inputs, a panel for each model.

    Args:
        panels: at least one with a curve.
        relative_depth: layers from 0 to 1, to compare models of unequal depth.
    """
    drawn = [panel for panel in panels if panel.curves()]
    size = (max(4.5, 4.2 * len(drawn)), 3.6)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(1, len(drawn), squeeze=False, sharey=True)[0]
    axes[0].set_ylabel("PWCCA")
    for axis, panel in zip(axes, drawn, strict=True):
        _draw_panel(axis, panel, relative_depth=relative_depth)
        axis.set_ylim(0, 1.03)

    label = "relative depth" if relative_depth else "layer"
    figure.supxlabel(
        f"{label} (solid: plug-in; dashed: held-out tracks; band: unrelated views, that is chance)",
        fontsize=8,
    )
    return figure


def _draw_panel(axis: Axes, panel: SimilarityPanel, *, relative_depth: bool) -> None:
    layers = np.arange(panel.n_layers, dtype=np.float64)
    if relative_depth:
        layers /= panel.n_layers - 1
    for colour, curve in zip(_COLOURS, panel.curves(), strict=False):
        axis.fill_between(layers, 0, curve.null, color=colour, alpha=0.13, linewidth=0)
        axis.plot(layers, curve.held_out, "--", color=colour, linewidth=1)
        axis.plot(layers, curve.value, "-", color=colour, linewidth=1.5)
        axis.plot(layers[1:], curve.value[1:], "o", color=colour, markersize=4)
        label = LABELS.get(curve.input, curve.input)
        (first,) = axis.plot(layers[:1], curve.value[:1], "o", color=colour, label=label)
        first.set(markerfacecolor="white", markersize=4.5)

    row = panel.rows[0]
    demo = " (demo data)" if row.demo else ""
    title = f"{panel.title}{demo}\n{row.n_frames} frames of {row.n_tracks} tracks"
    axis.set_title(title, fontsize=9, parse_math=False)
    axis.legend(fontsize=7, loc="best")
    axis.grid(alpha=0.2)
    axis.tick_params(labelsize=8)


def draw_without_labels(panels: Sequence[SimilarityPanel]) -> Figure:
    """Draws measures of single layers, a row for each model, beside how they rank layers.

    Below each stand the rank correlations with the probes' test scores, so that nobody takes a
    measure for a way to choose a layer.
    """
    n_tasks = max(len(panel.probes) for panel in panels)
    height = 2.3 + 0.16 * n_tasks
    figure = Figure(figsize=(11, height * len(panels)), layout="constrained")
    grid = figure.subplots(len(panels), len(WITHOUT_LABELS), squeeze=False)
    for line, panel in zip(grid, panels, strict=True):
        line[0].set_ylabel(panel.title + ("\n(demo data)" if panel.rows[0].demo else ""))
        for axis, (measure, label) in zip(line, WITHOUT_LABELS.items(), strict=True):
            values = panel.series(measure, None)
            axis.plot(values, "-o", color=_COLOURS[0], markersize=3.5, linewidth=1.2)
            axis.plot([0], values[:1], "o", color=_COLOURS[0], markerfacecolor="white")
            axis.set_title(label, fontsize=9)
            axis.tick_params(labelsize=7)
            axis.grid(alpha=0.2)
            axis.set_xlabel(_correlations(values, panel.probes), fontsize=7)
    if n_tasks:
        figure.supxlabel(
            "Spearman correlation over layers with the test scores of probes, 95 % interval: few "
            "layers say little, none of this chooses a layer",
            fontsize=8,
        )
    return figure


def _correlations(values: Array, probes: Mapping[str, Array]) -> str:
    lines = ["layer"]
    for task, scores in probes.items():
        lines.append(f"{task}: {correlation_text(rank_correlation(values, scores))}")
    return "\n".join(lines)


def correlation_text(found: Correlation | None) -> str:
    """A correlation with its interval.

    >>> correlation_text(Correlation(0.5, -0.25, 0.875, 13))
    '.50 [-.25, .88]'
    >>> correlation_text(None)
    'too few layers'
    """
    if found is None:
        return "too few layers"
    value, low, high = (
        f"{number:.2f}".replace("0.", ".", 1) for number in (found.value, found.low, found.high)
    )
    return f"{value} [{low}, {high}]"


def draw_layer_pairs(panels: Sequence[SimilarityPanel]) -> Figure | None:
    """Draws linear CKA of every layer with every other; None where no pairs were counted."""
    drawn = [panel for panel in panels if not np.isnan(_layer_pairs(panel)).all()]
    if not drawn:
        return None

    figure = Figure(figsize=(3.8 * len(drawn), 3.6), layout="constrained")
    axes = figure.subplots(1, len(drawn), squeeze=False)[0]
    for axis, panel in zip(axes, drawn, strict=True):
        image = axis.imshow(_layer_pairs(panel), vmin=0, vmax=1, origin="lower", cmap="magma")
        demo = " (demo data)" if panel.rows[0].demo else ""
        axis.set_title(f"{panel.title}{demo}: linear CKA of layers", fontsize=9)
        axis.tick_params(labelsize=7)
    figure.colorbar(image, ax=axes, shrink=0.8)
    return figure


def _layer_pairs(panel: SimilarityPanel) -> Array:
    """(L+1, L+1) linear CKA, 1 on the diagonal; all NaN where no pairs were counted."""
    values = np.full((panel.n_layers, panel.n_layers), np.nan)
    for row in panel.rows:
        is_pair = row.measure == "cka" and row.input is not None and row.input[1:].isdigit()
        if is_pair and row.input not in LABELS and row.value is not None:
            other = int(str(row.input)[1:])
            values[other, row.layer] = values[row.layer, other] = row.value
    if not np.isnan(values).all():
        np.fill_diagonal(values, 1.0)
    return values
