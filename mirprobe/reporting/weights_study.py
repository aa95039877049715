"""The study of layer weights: are they the data's or the start's? From rows alone.

Conventions: a group holds the cells of one model, task and start that differ only in their seed.
The layer curve is the test score of each of layers 1..L alone, mean over all seeds and starts of
the task, and its best layer is the one that the largest weight should name. Layers are 1..L, as the
weights are.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.table import Table
from rich.text import Text

from mirprobe.cell import Cell
from mirprobe.progress import console
from mirprobe.reporting.report import save_figure
from mirprobe.reporting.table import TableRow, make_table_rows
from mirprobe.reporting.weights_figure import Array, StartPlot, StudyPlot, draw_study
from mirprobe.scoring.layer_weights import WeightsPath, weights_path

HEADINGS = (
    *("Task", "Model", "Start", "Seeds", "Largest at the end", "As at start", "Best layer"),
    *("In best set", "Moved", "Entropy", "Rank corr. start", "Rank corr. end"),
)


@dataclass(frozen=True)
class StartGroup:
    """Cells of one start that differ only in their seed.

    Attributes:
        label: of the start, such as `zeros`.
        rows: a row for every seed whose weighted sum was trained.
        paths: what training has made of the weights of each.
        n_failed: seeds whose weighted sum was not.
    """

    label: str
    rows: Sequence[TableRow]
    paths: Sequence[WeightsPath]
    n_failed: int

    @property
    def weights(self) -> tuple[Array, Array]:
        """(seeds, L) softmax weights before training, and at the kept epoch."""
        found = [row.weighted for row in self.rows]
        starts = [one.weights_start for one in found if one is not None]
        ends = [one.weights_end for one in found if one is not None]
        return np.array(starts, dtype=float), np.array(ends, dtype=float)

    def n_best(self, best: int) -> int:
        """Seeds whose largest weight is that of the best layer."""
        return sum(path.largest_end == best for path in self.paths)

    @property
    def n_in_best_set(self) -> int:
        """Seeds whose largest weight is that of a layer that may be the best (`scoring.scan`)."""
        n_inside = 0
        for row, path in zip(self.rows, self.paths, strict=True):
            scan = row.scan("mlp")
            names = scan.best_set if scan is not None else []
            n_inside += path.largest_end is not None and f"layer_{path.largest_end:02d}" in names
        return n_inside

    @property
    def n_as_started(self) -> int | None:
        """Seeds whose largest weight was the largest before training; None where none was."""
        if all(path.largest_start is None for path in self.paths):
            return None
        return sum(path.is_where_it_started for path in self.paths)


@dataclass(frozen=True)
class TaskStudy:
    """One model on one task.

    Attributes:
        task: its label.
        model: its name, with what tells it apart.
        curve: (L,) mean test scores of layers 1..L, as fractions; NaN for one without a score.
        groups: of each start.
        demo: whether the data is the rendered stand-in.
    """

    task: str
    model: str
    curve: Array
    groups: Sequence[StartGroup]
    demo: bool

    @property
    def best(self) -> int:
        """The best layer of the curve; of equals the lowest."""
        return int(np.nanargmax(self.curve)) + 1


def report_weights(cells: Sequence[Cell], lines: Sequence[str] = ()) -> None:
    """Prints the study's table and verdicts, and writes its figure to `<runs>/report`.

    Args:
        cells: of several seeds and starts; those without rows or without weights say nothing.
        lines: to print below.
    """
    studies = make_studies(cells)
    out = console()
    if studies:
        out.print(study_table(studies))
        for line in verdicts(studies):
            out.print(Text(line), soft_wrap=True)

        plots = [plot for plot in map(_plot, studies) if plot.starts]
        if plots:
            figure = draw_study(plots, demo=studies[0].demo)
            paths = save_figure(figure, Path(cells[0].paths.runs) / "report" / "weights_study")
            out.print(Text(f"figures: {', '.join(map(str, paths))}"), soft_wrap=True)
    else:
        out.print("no result has layer weights: a model of one layer has nothing to weigh")
    for line in lines:
        out.print(Text(line), soft_wrap=True)


def make_studies(cells: Sequence[Cell]) -> list[TaskStudy]:
    """Sorts the rows of cells into models, tasks and starts."""
    by_task: dict[str, list[TableRow]] = {}
    for row in make_table_rows(cells):
        is_first = row.any_row.metric == row.cell.metrics[0]  # weights are those of a cell
        if is_first and row.weighted is not None:
            identity = row.cell.identity()
            shared = {key: identity[key] for key in identity if key not in ("seed", "protocol")}
            by_task.setdefault(repr((row.cell.model_name, shared, row.cell.places)), []).append(row)

    studies = [_make_study(rows) for rows in by_task.values()]
    return [study for study in studies if np.isfinite(study.curve).any()]


def _make_study(rows: Sequence[TableRow]) -> TaskStudy:
    first = rows[0]
    scores = [
        [np.nan if layer.value is None else layer.value for layer in row.layers[1:]] for row in rows
    ]
    curve = np.mean(np.array(scores, dtype=float), axis=0)

    by_start: dict[str, list[TableRow]] = {}
    for row in rows:
        by_start.setdefault(_start_label(row, rows), []).append(row)
    groups = [_make_group(label, of_start, curve) for label, of_start in by_start.items()]

    task = " ".join((first.cell.task.label, *first.differs.task))
    model = " ".join((first.cell.model_name, *first.differs.model))
    return TaskStudy(task, model, curve, groups, first.any_row.demo)


def _start_label(row: TableRow, rows: Sequence[TableRow]) -> str:
    """The start, with what else of the protocol differs within a study."""
    init = f"layer_weights_init={row.cell.protocol.layer_weights_init}"
    others = [text for text in row.differs.protocol if text != init]
    return " ".join((row.cell.protocol.layer_weights_init, *others))


def _make_group(label: str, rows: Sequence[TableRow], curve: Array) -> StartGroup:
    trained, paths = [], []
    for row in rows:
        weighted = row.weighted
        if weighted is None or weighted.weights_start is None or weighted.weights_end is None:
            continue
        trained.append(row)
        paths.append(weights_path(weighted.weights_start, weighted.weights_end, curve))
    return StartGroup(label, trained, paths, len(rows) - len(trained))


def study_table(studies: Sequence[TaskStudy]) -> Table:
    """A line for each model, task and start; numbers are means over seeds."""
    title = "Layer weights" + (" (demo data)" if studies[0].demo else "")
    table = Table(title=title)
    for heading in HEADINGS:
        table.add_column(heading)
    for study in studies:
        for group in study.groups:
            table.add_row(*(Text(text) for text in _texts(study, group)))
        table.add_section()
    return table


def _texts(study: TaskStudy, group: StartGroup) -> list[str]:
    """A line of the table."""
    n_seeds, paths = len(group.paths), group.paths
    names = [study.task, study.model, group.label, str(n_seeds)]
    if not paths:
        return [*names, f"{group.n_failed} failed", *[""] * (len(HEADINGS) - len(names) - 1)]

    ends = Counter(path.largest_end or 0 for path in paths)
    largest = ", ".join(f"{layer or 'none'} x{n}" for layer, n in ends.most_common())
    as_started = group.n_as_started
    return [
        *names,
        largest,
        "all equal" if as_started is None else f"{as_started} of {n_seeds}",
        f"{study.best}: {group.n_best(study.best)} of {n_seeds}",
        f"{group.n_in_best_set} of {n_seeds}",
        f"{np.mean([path.moved for path in paths]):.2f}",
        f"{np.mean([path.entropy for path in paths]):.2f}",
        _mean_text([path.rank_start for path in paths]),
        _mean_text([path.rank_end for path in paths]),
    ]


def _mean_text(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{np.mean(known):+.2f}" if known else "-"


def verdicts(studies: Sequence[TaskStudy]) -> list[str]:
    """A line for each model and task that answers the question, then how to read the table."""
    lines = []
    for study in studies:
        parts = [_verdict(study, group) for group in study.groups if group.paths]
        score = f"{100 * study.curve[study.best - 1]:.1f} %"
        head = f"{study.model}, {study.task}: the best layer is {study.best} ({score} on test)"
        lines.append(f"{head}. {' '.join(parts)}")

    n_layers = sorted({len(study.curve) for study in studies})
    lines.append(
        f"By chance the largest weight is the best layer in 1 of {'/'.join(map(str, n_layers))} "
        "seeds. Best layer: of the test scores of layers 1..L, mean over seeds. Best set: the "
        "layers of which one is the best, with 95 % confidence."
    )
    lines.append(
        "Moved: the largest change of a softmax weight. Entropy: 1 is a plain mean of layers, 0 a "
        "single one. Rank corr.: of the weights with the layers' test scores."
    )
    if all(row.cell.protocol.standardize for study in studies for row in _rows(study)):
        lines.append(
            "Features are standardised, so that all layers have the same norm, and weight x norm "
            "orders layers as the weight does."
        )
    return lines


def _rows(study: TaskStudy) -> list[TableRow]:
    return [row for group in study.groups for row in group.rows]


def _verdict(study: TaskStudy, group: StartGroup) -> str:
    n_seeds = len(group.paths)
    text = f"From {group.label} the largest weight names it in {group.n_best(study.best)}"
    text += f" of {n_seeds} seeds"
    if group.n_as_started is not None:
        text += f", and is where it was before training in {group.n_as_started}"
    return f"{text}."


def _plot(study: TaskStudy) -> StudyPlot:
    """What the figure shows of a study."""
    starts = [StartPlot(group.label, *group.weights) for group in study.groups if group.paths]
    title = f"{study.model}, {study.task}"
    return StudyPlot(title, 100 * study.curve, study.best, starts)
