"""Table 1 and Figure 2, made of rows and of nothing else.

Conventions: scores are per cent here and nowhere else. A layer is chosen on val and reported on
test; the test oracle (the layer that is best on test, which is what the paper's Table 1 appears to
show) stands beside it. Layer numbers stand in round brackets, 95 % intervals over tracks in square
ones.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from datamodules.files import atomic
from datamodules.tracks import Split
from mirprobe.cell import Cell
from mirprobe.progress import console
from mirprobe.reporting.figures import Array, draw_heat_maps, draw_layer_weights
from mirprobe.reporting.table import Line, make_lines, make_table, notes
from mirprobe.scoring.selection import head_rows


def report(cells: Sequence[Cell]) -> None:
    """Prints the table of all cells that have rows and writes the figures to `<runs>/report`."""
    lines = make_lines(cells)
    if not lines:
        return
    console().print(make_table(lines))
    for note in notes(lines):
        console().print(note, style="dim", soft_wrap=True)
    folder = Path(cells[0].paths.runs) / "report"
    written = [
        path for name, figure in make_figures(lines) for path in _save(figure, folder / name)
    ]
    if written:
        console().print("figures: " + ", ".join(str(path) for path in written), soft_wrap=True)


def make_figures(lines: Sequence[Line]) -> list[tuple[str, Figure]]:
    """Figure 2 (layers x tasks) and the learned layer weights, for models with more than one layer."""
    models: dict[str, dict[str, list[Line]]] = {}
    for line in lines:
        if len(head_rows(line.rows, "test", single=True)) > 1:
            models.setdefault(line.cell.model_name, {}).setdefault(_name(line), []).append(line)
    if not models:
        return []
    demo = any(line.chosen.demo for line in lines)
    weights = _weights(models)
    figures = [("figure2", draw_heat_maps(_layer_scores(models), demo=demo))]
    return (
        [*figures, ("layer_weights", draw_layer_weights(weights, demo=demo))]
        if weights
        else figures
    )


def _name(line: Line) -> str:
    """A task's column in figures: its label, with the metric where there are several."""
    return (
        line.cell.task.label
        if len(line.cell.metrics) == 1
        else f"{line.cell.task.label}\n{line.chosen.metric}"
    )


def _layer_scores(
    models: dict[str, dict[str, list[Line]]],
) -> dict[str, dict[str, tuple[Array, Array]]]:
    """Per model and task: (L+1,) scores on val and on test in per cent, mean over seeds and
    variants.
    """
    return {
        model: {
            task: (_mean_scores(lines, "val"), _mean_scores(lines, "test"))
            for task, lines in tasks.items()
        }
        for model, tasks in models.items()
    }


def _mean_scores(lines: Sequence[Line], split: Split) -> Array:
    scores = [
        [100 * row.value for row in head_rows(line.rows, split, single=True)] for line in lines
    ]
    mean: Array = np.asarray(scores, dtype=np.float64).mean(axis=0)
    return mean


def _weights(
    models: dict[str, dict[str, list[Line]]],
) -> dict[str, dict[str, tuple[Array, Array]]]:
    """Per model and task: (L,) softmax weights at start and at end, mean over seeds and variants."""
    found: dict[str, dict[str, tuple[Array, Array]]] = {}
    for model, tasks in models.items():
        for task, lines in tasks.items():
            rows = [
                line.weighted
                for line in lines
                if line.weighted is not None and line.chosen.metric == line.cell.metrics[0]
            ]
            if not rows:  # a single block has nothing to weigh; other metrics have the same weights
                continue
            start, end = (
                np.mean([getattr(row, f"weights_{when}") for row in rows], axis=0)
                for when in ("start", "end")
            )
            found.setdefault(model, {})[task] = (start, end)
    return found


def _save(figure: Figure, path: Path) -> list[Path]:
    """Writes a figure as PNG and PDF, atomically."""
    targets = [path.with_suffix(".png"), path.with_suffix(".pdf")]
    for target in targets:
        with atomic(target) as temporary:
            figure.savefig(temporary, format=target.suffix[1:], dpi=200, bbox_inches="tight")
    return targets
