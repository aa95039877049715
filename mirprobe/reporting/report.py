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
from typing import Literal

import numpy as np
from matplotlib.figure import Figure
from rich.text import Text

from datamodules.errors import encodable
from datamodules.files import atomic, write_text
from datamodules.tracks import Split
from mirprobe.cell import Cell
from mirprobe.progress import console
from mirprobe.reporting.curves import (
    draw_chances,
    draw_curves,
    draw_last_layer,
    draw_models,
    file_name,
)
from mirprobe.reporting.figure3 import draw_similarity
from mirprobe.reporting.figures import (
    LEVELS,
    Array,
    LayerProfile,
    Panel,
    draw_heat_maps,
    draw_layer_weights,
)
from mirprobe.reporting.flat_table import csv_text
from mirprobe.reporting.guide import guide_json, guide_text, make_guide
from mirprobe.reporting.notes import notes
from mirprobe.reporting.page import write_page
from mirprobe.reporting.paper_table import (
    latex_text,
    make_paper_table,
    make_plain_table,
    markdown_text,
    plain_csv_text,
)
from mirprobe.reporting.published import published_name, published_table
from mirprobe.reporting.table import TableRow, make_table, make_table_rows
from mirprobe.results import FILE, Probe, missing_files
from mirprobe.scoring.selection import head_rows


def report(cells: Sequence[Cell]) -> None:
    """Prints the table of all cells with rows; writes tables and figures to `<runs>/report`."""
    rows = make_table_rows(cells)
    if not rows:
        return

    out = console()
    out.print(make_table(rows))
    for note in [*notes(rows), *_missing(rows)]:
        out.print(Text(note, style="dim"), soft_wrap=True)

    beside = published_table(rows)
    if beside is not None:
        out.print(make_plain_table(beside))
        for note in beside.notes:
            out.print(Text(note, style="dim"), soft_wrap=True)

    folder = Path(cells[0].paths.runs) / "report"
    written = [*write_tables(rows, folder), *write_guide(rows, folder)]
    out.print(Text(f"tables: {', '.join(str(path) for path in written)}"), soft_wrap=True)
    written = []
    for name, figure in [*make_figures(rows), *make_curves(rows)]:
        written += save_figure(figure, folder / name)
    if written:
        names = ", ".join(str(path) for path in written)
        out.print(Text(f"figures: {names}"), soft_wrap=True)
    draw_similarity(cells, _probe_curves(rows))

    out.print(Text(f"page: {write_page(cells, rows, folder)}"), soft_wrap=True)


def _probe_curves(rows: Sequence[TableRow]) -> dict[str, dict[str, Array]]:
    """Test scores over the layers, of each model by task and metric; of the first protocol."""
    curves: dict[str, dict[str, Array]] = {}
    for row in rows:
        scores = head_rows(row.rows, "test", single=True)
        name = row.cell.task.label
        if len(row.cell.metrics) > 1:
            name = f"{name} {row.any_row.metric}"
        values = np.array([math.nan if one.value is None else one.value for one in scores])
        curves.setdefault(row.cell.model_name, {}).setdefault(name, values)
    return curves


def write_tables(rows: Sequence[TableRow], folder: Path) -> list[Path]:
    """Writes Table 1, and published numbers beside it, as Markdown, CSV and LaTeX.

    Returns:
        Where they are.
    """
    texts = {
        "table1.md": markdown_text(make_paper_table(rows)),
        "table1.csv": csv_text(rows),
        "table1.tex": latex_text(make_paper_table(rows, strips=False)),
    }
    beside = published_table(rows)
    if beside is not None:
        texts["published.md"] = markdown_text(beside)
        texts["published.csv"] = plain_csv_text(beside)
        texts["published.tex"] = latex_text(beside)
    for name, text in texts.items():
        write_text(folder / name, encodable(text))
    return [folder / name for name in texts]


def write_guide(rows: Sequence[TableRow], folder: Path) -> list[Path]:
    """Writes which layers to take of each model, and gives where that is; nothing of one layer."""
    names = {}
    for row in rows:
        names[_panel_title([row], "mlp")] = published_name(row.cell)
    demo = any(row.any_row.demo for row in rows)
    panels = make_panels(rows)
    guides = [make_guide(panel, names[panel.title], is_demo=demo) for panel in panels]
    guides = [guide for guide in guides if guide.choices]
    if not guides:
        return []
    write_text(folder / "guide.md", encodable(guide_text(guides)))
    write_text(folder / "guide.json", encodable(guide_json(guides)))
    return [folder / "guide.md", folder / "guide.json"]


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
    """Draws Figure 2 (layers x tasks) of each probe and the learned layer weights, each with its
    file's name.

    Models of one layer have nothing to draw, those of one block no weights.
    """
    panels = make_panels(rows)
    if not panels:
        return []

    demo = any(row.any_row.demo for row in rows)
    figures = [("figure2", draw_heat_maps(panels, demo=demo))]
    twins = make_panels(rows, "linear")
    if twins:
        figures.append(("figure2_linear", draw_heat_maps(twins, demo=demo)))
    weighted = _only_weighted(panels)
    if weighted:
        figures.append(("layer_weights", draw_layer_weights(weighted, demo=demo)))
    return figures


def make_curves(rows: Sequence[TableRow]) -> list[tuple[str, Figure]]:
    """Draws layers as curves, models beside each other, what the last layer loses, and the chances
    of layers to be the best; each with its file's name.
    """
    panels = make_panels(rows)
    twins = {panel.title: panel for panel in make_panels(rows, "linear")}
    demo = any(row.any_row.demo for row in rows)
    figures = []
    names: set[str] = set()
    for panel in panels:
        twin = twins.get(f"{panel.title} linear")
        name = file_name("layer_curves", panel.title, names)
        figures.append((name, draw_curves(panel, twin, demo=demo)))

    if len(panels) > 1:
        figures.append(("models_over_depth", draw_models(panels, demo=demo)))
    if any(one.last_lost is not None for panel in panels for one in panel.profiles):
        figures.append(("last_layer", draw_last_layer(panels, demo=demo)))
    if any(one.chances is not None for panel in panels for one in panel.profiles):
        figures.append(("best_layer_chances", draw_chances(panels, demo=demo)))
    return figures


def make_panels(rows: Sequence[TableRow], probe: Probe = "mlp") -> list[Panel]:
    """Sorts rows into panels (a model with its features, a protocol), profiles (a task, a metric)
    and seeds.

    A profile holds the rows of cells that are the same in all but the seed, and nothing else.
    Profiles are in the order of their tasks' levels, as in the paper's Figure 2.
    """
    panels: dict[str, dict[str, list[TableRow]]] = {}
    for row in rows:
        if len(head_rows(row.rows, "test", single=True, probe=probe)) > 1:
            identity = row.cell.identity()
            model = (row.cell.model_name, identity["model"], row.cell.model.get("checkpoint"))
            kept = (row.cell.extract.precision, row.cell.extract.pooling)
            panel = repr((model, kept, identity["protocol"]))
            places = (row.cell.places, row.any_row.metric)
            profile = repr((identity | {"seed": None}, places))
            panels.setdefault(panel, {}).setdefault(profile, []).append(row)

    made = []
    for profiles in panels.values():
        columns = [_make_profile(seeds, probe) for seeds in profiles.values()]
        columns.sort(key=_place_of_level)
        first = next(iter(profiles.values()))
        made.append(Panel(_panel_title(first, probe), columns))
    return made


def _place_of_level(profile: LayerProfile) -> int:
    """Of the paper's three, in their order; a level of a user's own comes last."""
    return LEVELS.index(profile.level) if profile.level in LEVELS else len(LEVELS)


def _panel_title(seeds: Sequence[TableRow], probe: Probe) -> str:
    row = seeds[0]
    twin = ["linear"] if probe == "linear" else []
    return " ".join((row.cell.model_name, *row.differs.model, *row.differs.protocol, *twin))


def _make_profile(seeds: Sequence[TableRow], probe: Probe) -> LayerProfile:
    """The mean over rows that are the same in all but the seed."""
    row = seeds[0]
    metrics = row.cell.metrics
    return LayerProfile(
        task="\n".join((row.cell.task.label, *row.differs.task)),
        metric=row.any_row.metric if len(metrics) > 1 else "",
        val=_mean_scores(seeds, "val", probe),
        test=_mean_scores(seeds, "test", probe),
        weights=_mean_weights(seeds) if row.any_row.metric == metrics[0] else None,
        n_seeds=len(seeds),
        level=row.cell.task.level,
        best_set=_best_set(seeds, probe),
        task_name=row.cell.task.name,
        metric_name=row.any_row.metric,
        low=_mean_ends(seeds, probe, "ci_low"),
        high=_mean_ends(seeds, probe, "ci_high"),
        chances=_mean_chances(seeds, probe),
        last_lost=_mean_lost(seeds, probe),
    )


def _best_set(seeds: Sequence[TableRow], probe: Probe) -> frozenset[int]:
    """Layers that may be the best by any seed; with several, none that a seed keeps is left out."""
    heads = {head for row in seeds for scan in [row.scan(probe)] if scan for head in scan.best_set}
    return frozenset(int(head.removeprefix("layer_")) for head in heads)


def _mean_ends(seeds: Sequence[TableRow], probe: Probe, end: Literal["ci_low", "ci_high"]) -> Array:
    """(L+1,) ends of the intervals on test in per cent, mean over seeds: of one seed's tracks, not
    of the mean's.
    """
    ends: list[list[float]] = []
    for seed in seeds:
        found = [
            getattr(row, end) for row in head_rows(seed.rows, "test", single=True, probe=probe)
        ]
        ends.append([math.nan if value is None else 100 * value for value in found])
    mean: Array = np.mean(ends, axis=0)
    return mean


def _mean_chances(seeds: Sequence[TableRow], probe: Probe) -> Array | None:
    """(L+1,) of each layer to be the best on test; None where a seed has no scan."""
    chances: list[list[float]] = []
    for seed in seeds:
        scan = seed.scan(probe)
        if scan is None:
            return None
        layers = head_rows(seed.rows, "test", single=True, probe=probe)
        chances.append([scan.chance_of_best.get(row.head, 0.0) for row in layers])
    mean: Array = np.mean(chances, axis=0)
    return mean


def _mean_lost(seeds: Sequence[TableRow], probe: Probe) -> tuple[float, float, float] | None:
    """Points that the last layer loses, with its interval; None where a seed does not know."""
    lost: list[tuple[float, float, float]] = []
    for seed in seeds:
        scan = seed.scan(probe)
        if scan is None or scan.last_layer is None:
            return None
        last = scan.last_layer
        ends = [math.nan if end is None else 100 * end for end in (last.low, last.high)]
        lost.append((100 * last.value, *ends))  # type: ignore[arg-type]
    value, low, high = np.mean(lost, axis=0).tolist()
    return value, low, high


def _mean_scores(seeds: Sequence[TableRow], split: Split, probe: Probe) -> Array:
    """(L+1,) scores of the layers in per cent; NaN for one that failed in any seed."""
    scores: list[list[float]] = []
    for seed in seeds:
        layers = head_rows(seed.rows, split, single=True, probe=probe)
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
    # The layout takes most of the time: once is enough for both files.
    figure.draw_without_rendering()
    figure.set_layout_engine("none")

    targets = [path.with_suffix(".png"), path.with_suffix(".pdf")]
    for target in targets:
        with atomic(target) as temporary:
            figure.savefig(temporary, format=target.suffix[1:], dpi=200, bbox_inches="tight")
    return targets
