"""Table 1: rows into a table."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from rich.table import Table

from mirprobe.cell import Cell
from mirprobe.results import Row, read_rows
from mirprobe.scoring.selection import best_layer, by_metric, head_rows


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


def make_lines(cells: Sequence[Cell]) -> list[Line]:
    """A line for every cell with rows and every metric; the baseline's cells only make lines where
    nothing else does.
    """
    done = [(cell, rows) for cell in cells for rows in by_metric(read_rows(cell.folder)).values()]
    baselines = {
        _beside(cell, rows): best_layer(rows, "val") for cell, rows in done if cell.is_baseline
    }
    models = [(cell, rows) for cell, rows in done if not cell.is_baseline] or done
    return [Line(cell, rows, baselines.get(_beside(cell, rows))) for cell, rows in models]


def _beside(cell: Cell, rows: Sequence[Row]) -> str:
    """What a line and its baseline have in common: all but the model."""
    return repr(
        ({key: value for key, value in cell.identity().items() if key != "model"}, rows[0].metric)
    )


def make_table(lines: Sequence[Line]) -> Table:
    """Table 1: per task the baseline, the layer chosen on val, the test oracle and the weighted
    sum.
    """
    demo = " (demo data)" if any(line.chosen.demo for line in lines) else ""
    table = Table(title=f"Table 1: test scores in %{demo}", show_lines=True)
    columns = [
        (heading, fill)
        for heading, fill in _columns(lines)
        if heading not in _without_content(lines)
    ]
    for heading, _ in columns:
        table.add_column(
            heading, justify="left" if heading in ("Task", "Metric", "Model") else "right"
        )
    for line in lines:
        table.add_row(*(fill(line) for _, fill in columns))
    return table


def _columns(lines: Sequence[Line]) -> list[tuple[str, Callable[[Line], str]]]:
    return [
        ("Task", lambda line: line.cell.task.label),
        ("Metric", lambda line: line.chosen.metric),
        ("n", lambda line: _n(line.chosen)),
        (
            "Majority",
            lambda line: (
                "-" if line.chosen.majority is None else f"{100 * line.chosen.majority:.1f}"
            ),
        ),
        (str(lines[0].cell.baseline), lambda line: _score(line.baseline)),
        ("Model", lambda line: line.cell.model_name),
        ("Seed", lambda line: str(line.cell.seed)),
        ("Cell", lambda line: line.cell.hash[:6]),
        ("Best layer\n(by val)", lambda line: _score(line.chosen, line.chosen.layer)),
        ("Test\noracle", lambda line: _score(line.oracle, line.oracle.layer)),
        ("Weighted\nsum", lambda line: _score(line.weighted, _heaviest(line.weighted))),
    ]


def _without_content(lines: Sequence[Line]) -> set[str]:
    """Headings of columns that would say nothing: a single seed, cells that their names tell apart,
    no baseline.
    """
    names = {
        (line.cell.model_name, line.cell.task.name, line.cell.seed, line.chosen.metric)
        for line in lines
    }
    empty = {"Seed"} if len({line.cell.seed for line in lines}) == 1 else set()
    empty |= {"Cell"} if len(names) == len(lines) else set()
    return empty | (
        {str(lines[0].cell.baseline)} if all(line.baseline is None for line in lines) else set()
    )


def _n(row: Row) -> str:
    return (
        f"{row.n_tracks}" if row.n_tracks == row.n_expected else f"{row.n_tracks}/{row.n_expected}"
    )


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
        f"(layer) and 95 % interval over tracks; seed {seeds}; protocol {protocol.name}; epoch and "
        "layer chosen on val. "
        "Layer 0 is the input of the first block.",
        "Test oracle: the layer that is best on test, optimistic. Weighted sum: the layer with the "
        "largest learned weight.",
    ]
    if any(line.chosen.demo for line in lines):
        text.append(
            "Demo data: rendered or synthesised, in the datasets' layouts. Nothing here is a "
            "result on the real datasets."
        )
    return text + [
        _card(cell)
        for cell in {line.cell.model_name: line.cell for line in lines}.values()
        if "card" in cell.model
    ]


def _card(cell: Cell) -> str:
    """What is known of a backbone; of random weights only that."""
    card, control = cell.model["card"], cell.model.get("weights") == "random"
    return f"{cell.model_name}: {'random weights, the control' if control else card['note']}; licence {card['licence']}."
