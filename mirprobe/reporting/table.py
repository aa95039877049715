"""Table 1: rows of cells into lines of text.

Conventions: a cell of the table is plain text, without markup of any kind, so that every format can
be made of it; what is a terminal's own (colours, boxes) is added last.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rich.table import Table
from rich.text import Text

from datamodules.tracks import SPLITS
from mirprobe.cell import Cell
from mirprobe.provenance import Stamps, current_result, latest_result
from mirprobe.reporting.names import Differences, find_differences
from mirprobe.reporting.text import (
    FAILED,
    counts_text,
    interval_text,
    layer_text,
    problems,
    score_text,
)
from mirprobe.results import Row, read_rows
from mirprobe.scoring.selection import best_layer, by_metric, head_rows


@dataclass(frozen=True)
class TableRow:
    """One line of Table 1: a cell's rows of one metric, with the baseline beside it.

    Attributes:
        cell: that the rows are of.
        folder: that the rows lie in.
        rows: of every head, on val and test.
        baseline: test row of the baseline under the same settings.
        differs: in what the cell differs from others beside its names.
        is_current: whether what the rows were made of is still what is there.
    """

    cell: Cell
    folder: Path
    rows: list[Row]
    baseline: Row | None
    differs: Differences
    is_current: bool = True

    @property
    def any_row(self) -> Row:
        """A test row, for what all of them share: metric, tracks, constant."""
        return head_rows(self.rows, "test", single=True)[0]

    @property
    def chosen(self) -> Row | None:
        """Test row of the layer chosen on val; None where no layer has a score on val."""
        return best_layer(self.rows, "val")

    @property
    def oracle(self) -> Row | None:
        """Test row of the layer that is best on test; None where no layer has a score on test."""
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
    done: list[tuple[Cell, Path, list[Row]]] = []
    for cell in cells:
        result = current_result(cell, stamps)
        if result is None:
            stale.add(cell.key)
            result = latest_result(cell)
        if result is not None:
            found = read_rows(result.folder, cell.hash, cell.metrics)
            done += [(cell, result.folder, rows) for rows in by_metric(found).values()]

    baselines: dict[str, Row] = {}
    for cell, _, rows in done:
        if cell.is_baseline:
            # Of a baseline without any score its lowest layer stands for it, as failed.
            shown = best_layer(rows, "val") or head_rows(rows, "val", single=True)[0]
            baselines[_all_but_the_model(cell, rows)] = shown

    differences = find_differences([cell for cell, _, _ in done])
    models = [line for line in done if not line[0].is_baseline]
    return [
        TableRow(
            cell,
            folder,
            rows,
            baseline=baselines.get(_all_but_the_model(cell, rows)),
            differs=differences[cell.key],
            is_current=cell.key not in stale,
        )
        for cell, folder, rows in models or done
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
        Column("Constant", _constant),
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
    return row.any_row.metric


def _n_tracks(row: TableRow) -> str:
    """Tracks of train/val/test; where some are missing, a line for each split says of how many."""
    found, expected = row.any_row.n_tracks, row.any_row.n_expected
    if found == expected:
        text = counts_text(row.any_row)
        # Folded where a terminal is narrow, a number would read as two: long ones end in lines.
        return text if len(text) <= 12 else text.replace("/", "/\n")
    return "\n".join(f"{found[split]} of {expected[split]}" for split in SPLITS)


def _constant(row: TableRow) -> str:
    score = row.any_row.constant
    return "-" if score is None else f"{100 * score:.1f}"


def _baseline(row: TableRow) -> str:
    return "-" if row.baseline is None else _with_interval(row.baseline, "")


def _model(row: TableRow) -> str:
    return row.cell.model_name


def _seed(row: TableRow) -> str:
    return str(row.cell.seed)


def _setting(row: TableRow) -> str:
    return "\n".join((*row.differs.task, *row.differs.model, *row.differs.protocol))


def _state(row: TableRow) -> str:
    return "current" if row.is_current else "stale"


def _best_layer(row: TableRow) -> str:
    return FAILED if row.chosen is None else _with_interval(row.chosen, layer_text(row.chosen))


def _oracle(row: TableRow) -> str:
    return FAILED if row.oracle is None else _with_interval(row.oracle, layer_text(row.oracle))


def _weighted_sum(row: TableRow) -> str:
    return "-" if row.weighted is None else _with_interval(row.weighted, layer_text(row.weighted))


def _with_interval(row: Row, detail: str) -> str:
    """A score with what is to be said of it, and its interval below."""
    return f"{score_text(row, detail)}\n{interval_text(row)}".rstrip()


def make_table(rows: Sequence[TableRow]) -> Table:
    """Table 1 for a terminal.

    Per task the baseline, the layer chosen on val, the test oracle and the weighted sum.
    """
    columns = table_columns(rows)
    demo = " (demo data)" if any(row.any_row.demo for row in rows) else ""
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
        "n: tracks of train/val/test; where some are missing, of how many, a line for each split. "
        "Constant: what the best answer that is the same for all tracks scores on test.",
        "Test oracle: the layer that is best on test, optimistic. "
        "Weighted sum: the layer with the largest learned weight.",
        "Moved: the largest change of a softmax weight since the start. Where it is small, the "
        "largest weight says little about the layer.",
    ]
    text += _precisions(rows)
    text += _problems(rows)
    if any(row.any_row.demo for row in rows):
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


def _precisions(rows: Sequence[TableRow]) -> list[str]:
    """Says what features were computed in, where that is not float32 alone: numbers of a GPU and of
    a CPU differ a little, and must not be compared as if they were of one kind.
    """
    names: dict[str, dict[str, None]] = {}
    for row in rows:
        names.setdefault(row.any_row.precision, {})[f"{_model(row)} on {_task(row)}"] = None
        if row.baseline is not None:
            names.setdefault(row.baseline.precision, {})[f"baseline on {_task(row)}"] = None
    if set(names) <= {"float32"}:
        return []
    if len(names) == 1:
        return [f"Features in {next(iter(names))}."]
    parts = [f"{', '.join(which)}: {precision}" for precision, which in sorted(names.items())]
    return [f"Features of several precisions: {'; '.join(parts)}."]


def _problems(rows: Sequence[TableRow]) -> list[str]:
    """Names heads without a score or an interval, and says if resamples were left out."""
    text = []
    for row in rows:
        name = f"{_model(row)}, {_task(row)}, {_metric(row)}, seed {_seed(row)}"
        text += [f"{name}: {problem}." for problem in problems(row.rows)]
        if row.baseline is not None:
            text += [f"{name}: the baseline's {one}." for one in problems([row.baseline])]

    n_left_out = [one.n_left_out for row in rows for one in row.rows if one.ci_low is not None]
    if max(n_left_out, default=0) > 0:
        text.append(
            "Resamples in which a metric is not defined are left out of its interval: up to "
            f"{max(n_left_out)}."
        )
    return text


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
    banner = " Non-commercial use only." if "-NC" in card["licence"] and not is_control else ""
    return f"{cell.model_name}: {about}; licence {card['licence']}.{banner}"
