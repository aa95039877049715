"""Table 1 and Figure 2, made of rows and of nothing else.

Conventions: scores are per cent here and nowhere else. A layer is chosen on val and reported on test; the test oracle (the
layer that is best on test, which is what the paper's Table 1 appears to show) stands beside it. Layer numbers stand in round
brackets, 95 % intervals over tracks in square ones.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from rich.table import Table

from datamodules.clips import Split
from datamodules.files import atomic
from mirprobe.cell import Cell
from mirprobe.figures import Array, draw_heat_maps, draw_layer_weights
from mirprobe.progress import console
from mirprobe.results import Row, best_layer, by_metric, head_rows, read_rows


@dataclass(frozen=True)
class Line:
    """One line of Table 1: a cell, the baseline's cell beside it, and their rows."""

    cell: Cell
    rows: list[Row]
    baseline: Row | None

    @property
    def chosen(self) -> Row:
        """Test row of the layer chosen on val."""
        return best_layer(self.rows, "val")

    @property
    def oracle(self) -> Row:
        """Test row of the layer that is best on test."""
        return best_layer(self.rows, "test")

    @property
    def weighted(self) -> Row | None:
        """Test row of the learned weighted sum."""
        return next(iter(head_rows(self.rows, "test", single=False)), None)


def report(cells: Sequence[Cell]) -> None:
    """Prints the table of all cells that have rows and writes the figures to `<runs>/report`."""
    lines = make_lines(cells)
    if not lines:
        return
    console().print(make_table(lines))
    for note in notes(lines):
        console().print(note, style="dim", soft_wrap=True)
    folder = Path(cells[0].paths.runs) / "report"
    written = [path for name, figure in make_figures(lines) for path in _save(figure, folder / name)]
    if written:
        console().print("figures: " + ", ".join(str(path) for path in written), soft_wrap=True)


def make_lines(cells: Sequence[Cell]) -> list[Line]:
    """A line for every cell with rows and every metric; the baseline's cells only make lines where nothing else does."""
    done = [(cell, rows) for cell in cells for rows in by_metric(read_rows(cell.folder)).values()]
    baselines = {_beside(cell, rows): best_layer(rows, "val") for cell, rows in done if cell.is_baseline}
    models = [(cell, rows) for cell, rows in done if not cell.is_baseline] or done
    return [Line(cell, rows, baselines.get(_beside(cell, rows))) for cell, rows in models]


def _beside(cell: Cell, rows: Sequence[Row]) -> str:
    """What a line and its baseline have in common: all but the model."""
    return repr(({key: value for key, value in cell.identity().items() if key != "model"}, rows[0].metric))


def make_table(lines: Sequence[Line]) -> Table:
    """Table 1: per task the baseline, the layer chosen on val, the test oracle and the weighted sum."""
    demo = " (demo data)" if any(line.chosen.demo for line in lines) else ""
    table = Table(title=f"Table 1: test scores in %{demo}", show_lines=True)
    columns = [(heading, fill) for heading, fill in _columns(lines) if heading not in _without_content(lines)]
    for heading, _ in columns:
        table.add_column(heading, justify="left" if heading in ("Task", "Metric", "Model") else "right")
    for line in lines:
        table.add_row(*(fill(line) for _, fill in columns))
    return table


def _columns(lines: Sequence[Line]) -> list[tuple[str, Callable[[Line], str]]]:
    return [
        ("Task", lambda line: line.cell.task.label),
        ("Metric", lambda line: line.chosen.metric),
        ("n", lambda line: _n(line.chosen)),
        ("Majority", lambda line: "-" if line.chosen.majority is None else f"{100 * line.chosen.majority:.1f}"),
        (str(lines[0].cell.baseline), lambda line: _score(line.baseline)),
        ("Model", lambda line: line.cell.model_name),
        ("Seed", lambda line: str(line.cell.seed)),
        ("Cell", lambda line: line.cell.hash[:6]),
        ("Best layer\n(by val)", lambda line: _score(line.chosen, line.chosen.layer)),
        ("Test\noracle", lambda line: _score(line.oracle, line.oracle.layer)),
        ("Weighted\nsum", lambda line: _score(line.weighted, _heaviest(line.weighted))),
    ]


def _without_content(lines: Sequence[Line]) -> set[str]:
    """Headings of columns that would say nothing: a single seed, cells that their names tell apart, no baseline."""
    names = {(line.cell.model_name, line.cell.task.name, line.cell.seed, line.chosen.metric) for line in lines}
    empty = {"Seed"} if len({line.cell.seed for line in lines}) == 1 else set()
    empty |= {"Cell"} if len(names) == len(lines) else set()
    return empty | ({str(lines[0].cell.baseline)} if all(line.baseline is None for line in lines) else set())


def _n(row: Row) -> str:
    return f"{row.n_tracks}" if row.n_tracks == row.n_expected else f"{row.n_tracks}/{row.n_expected}"


def _score(row: Row | None, layer: int | None = None) -> str:
    """A score with its layer, and its interval below."""
    if row is None:
        return "-"
    number = f"{100 * row.value:.1f}" + (f" ({layer})" if layer is not None else "")
    return f"{number}\n\\[{100 * row.ci_low:.1f}, {100 * row.ci_high:.1f}]"


def _heaviest(row: Row | None) -> int | None:
    return int(np.argmax(row.weights_end)) + 1 if row is not None and row.weights_end else None


def notes(lines: Sequence[Line]) -> list[str]:
    """What a reader has to know to read the table."""
    protocol = lines[0].cell.protocol
    seeds = ", ".join(sorted({str(line.cell.seed) for line in lines}))
    text = [
        f"(layer) and 95 % interval over tracks; seed {seeds}; protocol {protocol.name}; epoch and layer chosen on val. "
        "Layer 0 is the input of the first block.",
        "Test oracle: the layer that is best on test, optimistic. Weighted sum: the layer with the largest learned weight.",
    ]
    if any(line.chosen.demo for line in lines):
        text.append(
            "Demo data: rendered or synthesised, in the datasets' layouts. Nothing here is a result on the real datasets."
        )
    return text + [_card(cell) for cell in {line.cell.model_name: line.cell for line in lines}.values() if "card" in cell.model]


def _card(cell: Cell) -> str:
    """What is known of a backbone; of random weights only that."""
    card, control = cell.model["card"], cell.model.get("weights") == "random"
    return f"{cell.model_name}: {'random weights, the control' if control else card['note']}; licence {card['licence']}."


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
    return [*figures, ("layer_weights", draw_layer_weights(weights, demo=demo))] if weights else figures


def _name(line: Line) -> str:
    """A task's column in figures: its label, with the metric where there are several."""
    return line.cell.task.label if len(line.cell.metrics) == 1 else f"{line.cell.task.label}\n{line.chosen.metric}"


def _layer_scores(
    models: dict[str, dict[str, list[Line]]],
) -> dict[str, dict[str, tuple[Array, Array]]]:
    """Per model and task: (L+1,) scores on val and on test in per cent, mean over seeds and variants."""
    return {
        model: {task: (_mean_scores(lines, "val"), _mean_scores(lines, "test")) for task, lines in tasks.items()}
        for model, tasks in models.items()
    }


def _mean_scores(lines: Sequence[Line], split: Split) -> Array:
    scores = [[100 * row.value for row in head_rows(line.rows, split, single=True)] for line in lines]
    mean: Array = np.asarray(scores, dtype=np.float64).mean(axis=0)
    return mean


def _weights(
    models: dict[str, dict[str, list[Line]]],
) -> dict[str, dict[str, tuple[Array, Array]]]:
    """Per model and task: (L,) softmax weights at start and at end, mean over seeds and variants."""
    found: dict[str, dict[str, tuple[Array, Array]]] = {}
    for model, tasks in models.items():
        for task, lines in tasks.items():
            rows = [line.weighted for line in lines if line.weighted is not None and line.chosen.metric == line.cell.metrics[0]]
            if not rows:  # a single block has nothing to weigh; other metrics have the same weights
                continue
            start, end = (np.mean([getattr(row, f"weights_{when}") for row in rows], axis=0) for when in ("start", "end"))
            found.setdefault(model, {})[task] = (start, end)
    return found


def _save(figure: Figure, path: Path) -> list[Path]:
    """Writes a figure as PNG and PDF, atomically."""
    targets = [path.with_suffix(".png"), path.with_suffix(".pdf")]
    for target in targets:
        with atomic(target) as temporary:
            figure.savefig(temporary, format=target.suffix[1:], dpi=200, bbox_inches="tight")
    return targets
