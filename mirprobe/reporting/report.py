"""Table 1 and Figure 2, made of rows and of nothing else.

Conventions: scores are per cent here and nowhere else. A layer is chosen on val and reported on
test; the test oracle (the layer that is best on test, which is what the paper's Table 1 appears to
show) stands beside it. Layer numbers stand in round brackets, 95 % intervals over tracks in square
ones.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from rich.text import Text

from datamodules.files import atomic
from datamodules.tracks import Split
from mirprobe.cell import Cell
from mirprobe.progress import console
from mirprobe.reporting.figures import (
    Array,
    LayerProfile,
    Panel,
    draw_heat_maps,
    draw_layer_weights,
)
from mirprobe.reporting.notes import notes
from mirprobe.reporting.table import TableRow, make_table, make_table_rows
from mirprobe.results import FILE, missing_files
from mirprobe.scoring.selection import head_rows


def report(cells: Sequence[Cell]) -> None:
    """Prints the table of all cells that have rows and writes the figures to `<runs>/report`."""
    rows = make_table_rows(cells)
    if not rows:
        return

    out = console()
    out.print(make_table(rows))
    for note in [*notes(rows), *_missing(rows)]:
        out.print(Text(note, style="dim"), soft_wrap=True)

    folder = Path(cells[0].paths.runs) / "report"
    written: list[Path] = []
    for name, figure in make_figures(rows):
        written += save_figure(figure, folder / name)
    if written:
        names = ", ".join(str(path) for path in written)
        out.print(Text(f"figures: {names}"), soft_wrap=True)


def _missing(rows: Sequence[TableRow]) -> list[str]:
    """Says which results have lost a file that should lie beside their rows."""
    text = []
    for folder in dict.fromkeys(row.folder for row in rows):
        missing = missing_files(folder)
        if missing:
            text.append(
                f"{folder} has lost {' and '.join(missing)}: delete its {FILE}, and the same sweep "
                "makes them anew."
            )
    return text


def make_figures(rows: Sequence[TableRow]) -> list[tuple[str, Figure]]:
    """Draws Figure 2 (layers x tasks) and the learned layer weights, each with its file's name.

    Models of one layer have nothing to draw, those of one block no weights.
    """
    panels = make_panels(rows)
    if not panels:
        return []

    demo = any(row.any_row.demo for row in rows)
    figures = [("figure2", draw_heat_maps(panels, demo=demo))]
    weighted = _only_weighted(panels)
    if weighted:
        figures.append(("layer_weights", draw_layer_weights(weighted, demo=demo)))
    return figures


def make_panels(rows: Sequence[TableRow]) -> list[Panel]:
    """Sorts rows into panels (a model with its
    features, a protocol), profiles (a task, a metric) and seeds.

    A profile holds the rows of cells that are the same in all but the seed, and nothing else.
    """
    panels: dict[str, dict[str, list[TableRow]]] = {}
    for row in rows:
        if len(head_rows(row.rows, "test", single=True)) > 1:
            identity = row.cell.identity()
            model = (row.cell.model_name, identity["model"], row.cell.model.get("checkpoint"))
            kept = (row.cell.extract.precision, row.cell.extract.pooling)
            panel = repr((model, kept, identity["protocol"]))
            places = (row.cell.places, row.any_row.metric)
            profile = repr((identity | {"seed": None}, places))
            panels.setdefault(panel, {}).setdefault(profile, []).append(row)

    return [
        Panel(_panel_title(profiles), [_make_profile(seeds) for seeds in profiles.values()])
        for profiles in panels.values()
    ]


def _panel_title(profiles: dict[str, list[TableRow]]) -> str:
    row = next(iter(profiles.values()))[0]
    return " ".join((row.cell.model_name, *row.differs.model, *row.differs.protocol))


def _make_profile(seeds: Sequence[TableRow]) -> LayerProfile:
    """The mean over rows that are the same in all but the seed."""
    row = seeds[0]
    metrics = row.cell.metrics
    return LayerProfile(
        task="\n".join((row.cell.task.label, *row.differs.task)),
        metric=row.any_row.metric if len(metrics) > 1 else "",
        val=_mean_scores(seeds, "val"),
        test=_mean_scores(seeds, "test"),
        weights=_mean_weights(seeds) if row.any_row.metric == metrics[0] else None,
        n_seeds=len(seeds),
    )


def _mean_scores(seeds: Sequence[TableRow], split: Split) -> Array:
    """(L+1,) scores of the layers in per cent; NaN for one that failed in any seed."""
    scores: list[list[float]] = []
    for seed in seeds:
        layers = head_rows(seed.rows, split, single=True)
        scores.append([math.nan if row.value is None else 100 * row.value for row in layers])
    mean: Array = np.mean(scores, axis=0)
    return mean


def _mean_weights(seeds: Sequence[TableRow]) -> tuple[Array, Array] | None:
    """(L,) softmax weights at start and at end.

    None where a single block has nothing to weigh, or where the weighted sum failed in any seed.
    """
    starts: list[list[float]] = []
    ends: list[list[float]] = []
    for seed in seeds:
        weighted = seed.weighted
        if weighted is None or weighted.weights_start is None or weighted.weights_end is None:
            return None
        starts.append(weighted.weights_start)
        ends.append(weighted.weights_end)
    return np.mean(starts, axis=0), np.mean(ends, axis=0)


def _only_weighted(panels: Sequence[Panel]) -> list[Panel]:
    """The panels with only those profiles that have weights; a panel without any is left out."""
    weighted: list[Panel] = []
    for panel in panels:
        profiles = [profile for profile in panel.profiles if profile.weights is not None]
        if profiles:
            weighted.append(replace(panel, profiles=profiles))
    return weighted


def save_figure(figure: Figure, path: Path) -> list[Path]:
    """Writes a figure as PNG and PDF, atomically; gives both paths."""
    targets = [path.with_suffix(".png"), path.with_suffix(".pdf")]
    for target in targets:
        with atomic(target) as temporary:
            figure.savefig(temporary, format=target.suffix[1:], dpi=200, bbox_inches="tight")
    return targets
