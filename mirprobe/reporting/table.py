"""Table 1: rows of cells into lines of text.

Conventions: a cell of the table is plain text, without markup of any kind, so that every format can
be made of it; what is a terminal's own (colours, boxes) is added last.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from rich.table import Table
from rich.text import Text

from mirprobe.cell import Cell
from mirprobe.provenance import Stamps, current_result, latest_result
from mirprobe.reporting.names import Differences, find_differences
from mirprobe.results import Row, read_rows
from mirprobe.scoring.selection import best_layer, by_metric, head_rows


@dataclass(frozen=True)
class TableRow:
    """One line of Table 1: a cell's rows of one metric, with the baseline beside it.

    Attributes:
        cell: that the rows are of.
        rows: of every head, on val and test.
        baseline: test row of the baseline under the same settings.
        differs: in what the cell differs from others beside its names.
        is_current: whether what the rows were made of is still what is there.
    """

    cell: Cell
    rows: list[Row]
    baseline: Row | None
    differs: Differences
    is_current: bool = True

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


@dataclass(frozen=True)
class Column:
    """A column of Table 1: its heading, and what it says of a row; numbers end on the right."""

    heading: str
    text: Callable[[TableRow], str]
    is_number: bool = True


def make_table_rows(cells: Sequence[Cell]) -> list[TableRow]:
    """A row for every cell with results and every metric.

    The baseline's cells are only rows of their own where nothing else is.
    """
    stamps = Stamps()
    stale: set[tuple[str, ...]] = set()
    done: list[tuple[Cell, list[Row]]] = []
    for cell in cells:
        result = current_result(cell, stamps)
        if result is None:
            stale.add(cell.key)
            result = latest_result(cell)
        if result is not None:
            done += [(cell, rows) for rows in by_metric(read_rows(result.folder)).values()]

    baselines: dict[str, Row] = {}
    for cell, rows in done:
        if cell.is_baseline:
            baselines[_all_but_the_model(cell, rows)] = best_layer(rows, "val")

    differences = find_differences([cell for cell, _ in done])
    models = [(cell, rows) for cell, rows in done if not cell.is_baseline]
    return [
        TableRow(
            cell,
            rows,
            baseline=baselines.get(_all_but_the_model(cell, rows)),
            differs=differences[cell.key],
            is_current=cell.key not in stale,
        )
        for cell, rows in models or done
    ]


def _all_but_the_model(cell: Cell, rows: Sequence[Row]) -> str:
    """Settings that a row and its baseline share, as text that can be looked up."""
    shared = {key: value for key, value in cell.identity().items() if key != "model"}
    return repr((shared, cell.data_places, rows[0].metric))


def table_columns(rows: Sequence[TableRow]) -> list[Column]:
    """The columns that have something to say of these rows, in order.

    No baseline, a single seed, and rows that their names tell apart leave theirs out.
    """
    columns = [
        Column("Task", _task, is_number=False),
        Column("Metric", _metric, is_number=False),
        Column("n", _n_tracks),
        Column("Majority", _majority),
    ]
    if any(row.baseline is not None for row in rows):
        columns.append(Column(str(rows[0].cell.baseline), _baseline))
    columns.append(Column("Model", _model, is_number=False))
    if len({row.cell.seed for row in rows}) > 1:
        columns.append(Column("Seed", _seed))
    if any(_setting(row) for row in rows):
        columns.append(Column("Setting", _setting, is_number=False))
    if not all(row.is_current for row in rows):
        columns.append(Column("State", _state, is_number=False))
    return [
        *columns,
        Column("Best layer\n(by val)", _best_layer),
        Column("Test\noracle", _oracle),
        Column("Weighted\nsum", _weighted_sum),
    ]


def _task(row: TableRow) -> str:
    return row.cell.task.label


def _metric(row: TableRow) -> str:
    return row.chosen.metric


def _n_tracks(row: TableRow) -> str:
    """Tracks scored, with what the complete split has where some are missing."""
    found, expected = row.chosen.n_tracks, row.chosen.n_expected
    return f"{found}" if found == expected else f"{found}/{expected}"


def _majority(row: TableRow) -> str:
    share = row.chosen.majority
    return "-" if share is None else f"{100 * share:.1f}"


def _baseline(row: TableRow) -> str:
    return "-" if row.baseline is None else _score(row.baseline)


def _model(row: TableRow) -> str:
    return row.cell.model_name


def _seed(row: TableRow) -> str:
    return str(row.cell.seed)


def _setting(row: TableRow) -> str:
    return "\n".join((*row.differs.task, *row.differs.model, *row.differs.protocol))


def _state(row: TableRow) -> str:
    return "current" if row.is_current else "stale"


def _best_layer(row: TableRow) -> str:
    return _score(row.chosen, row.chosen.layer)


def _oracle(row: TableRow) -> str:
    return _score(row.oracle, row.oracle.layer)


def _weighted_sum(row: TableRow) -> str:
    """Its score, with the layer that has the largest weight; weights are of layers 1..L."""
    if row.weighted is None:
        return "-"
    weights = row.weighted.weights_end
    return _score(row.weighted, int(np.argmax(weights)) + 1 if weights else None)


def _score(row: Row, layer: int | None = None) -> str:
    """A score with its layer, and its interval below."""
    number = f"{100 * row.value:.1f}"
    if layer is not None:
        number += f" ({layer})"
    return f"{number}\n[{100 * row.ci_low:.1f}, {100 * row.ci_high:.1f}]"


def make_table(rows: Sequence[TableRow]) -> Table:
    """Table 1 for a terminal.

    Per task the baseline, the layer chosen on val, the test oracle and the weighted sum.
    """
    columns = table_columns(rows)
    demo = " (demo data)" if any(row.chosen.demo for row in rows) else ""
    table = Table(title=f"Table 1: test scores in %{demo}", show_lines=True)

    # `Text` is printed as it is; in a plain string rich would take `[x]` for a style of that name.
    # Long words are folded where a terminal is narrow: cut off, two settings would read the same.
    for column in columns:
        side: Literal["right", "left"] = "right" if column.is_number else "left"
        table.add_column(Text(column.heading), justify=side, overflow="fold")
    for row in rows:
        table.add_row(*(Text(column.text(row)) for column in columns))
    return table


def notes(rows: Sequence[TableRow]) -> list[str]:
    """Lists what a reader has to know to read the table, a line each."""
    seeds = ", ".join(str(seed) for seed in sorted({row.cell.seed for row in rows}))
    text = [
        f"(layer) and 95 % interval over tracks; seed {seeds}; {_protocols(rows)}; "
        "epoch and layer chosen on val. Layer 0 is the input of the first block.",
        "Test oracle: the layer that is best on test, optimistic. "
        "Weighted sum: the layer with the largest learned weight.",
    ]
    if any(row.chosen.demo for row in rows):
        text.append(
            "Demo data: rendered or synthesised, in the datasets' layouts. "
            "Nothing here is a result on the real datasets."
        )

    if not all(row.is_current for row in rows):
        text.append(
            "Stale: files of labels, audio or weights are not those that the number was made of. "
            "`mirprobe sweep` looks at them, and computes anew what changed."
        )

    by_model = {row.cell.model_name: row.cell for row in rows}
    return text + [_card(cell) for cell in by_model.values() if "card" in cell.model]


def _protocols(rows: Sequence[TableRow]) -> str:
    """Names every protocol of the table, with the settings in which those of one name differ."""
    names: dict[str, None] = {}  # in the order of the table
    for row in rows:
        name = row.cell.protocol.name
        settings = [text for text in row.differs.protocol if text != f"protocol={name}"]
        names[" ".join((name, *settings))] = None
    return f"protocol{'s' if len(names) > 1 else ''} {', '.join(names)}"


def _card(cell: Cell) -> str:
    """Says what is known of a backbone; of random weights only that."""
    card = cell.model["card"]
    is_control = cell.model.get("weights") == "random"
    about = "random weights, the control" if is_control else card["note"]
    return f"{cell.model_name}: {about}; licence {card['licence']}."
