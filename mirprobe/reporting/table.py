"""Table 1: rows of cells into lines of text.

Conventions: a cell of the table is plain text, without markup of any kind, so that every format can
be made of it; what is a terminal's own (colours, boxes) is added last.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rich.table import Table
from rich.text import Text

from datamodules.errors import UserError
from datamodules.tracks import SPLITS
from mirprobe.cell import Cell
from mirprobe.provenance import Stamps, current_result, latest_result
from mirprobe.reporting.names import Differences, find_differences
from mirprobe.reporting.text import (
    FAILED,
    counts_text,
    interval_text,
    layer_text,
    percent_text,
    score_text,
)
from mirprobe.results import FILE, SCANS, Probe, Row, read_rows
from mirprobe.scoring.scan import Scan, parse_scans
from mirprobe.scoring.selection import best_layer, by_metric, head_rows

PROBES: tuple[Probe, ...] = ("mlp", "linear")


@dataclass(frozen=True)
class TableRow:
    """One line of Table 1: a cell's rows of one metric, with the baseline beside it.

    Attributes:
        cell: that the rows are of.
        folder: that the rows lie in.
        rows: of every head, on val and test.
        scans: what the heads of each probe say together.
        baseline: test rows of the baseline under the same settings, by probe.
        baseline_scans: what its heads say together.
        differs: in what the cell differs from others beside its names.
        is_current: whether what the rows were made of is still what is there.
    """

    cell: Cell
    folder: Path
    rows: list[Row]
    scans: list[Scan]
    baseline: Mapping[Probe, Row]
    baseline_scans: list[Scan]
    differs: Differences
    is_current: bool = True

    @property
    def any_row(self) -> Row:
        """A test row, for what all of them share: metric, tracks, constant."""
        return head_rows(self.rows, "test", single=True)[0]

    @property
    def settings(self) -> tuple[str, ...]:
        """In what the cell differs from others beside its names, as `key=value`."""
        return (*self.differs.task, *self.differs.model, *self.differs.protocol)

    def chosen(self, probe: Probe = "mlp") -> Row | None:
        """Test row of the layer chosen on val; None where no layer has a score on val."""
        return best_layer(self.rows, "val", probe)

    def oracle(self, probe: Probe = "mlp") -> Row | None:
        """Test row of the layer that is best on test; None where no layer has a score on test."""
        return best_layer(self.rows, "test", probe)

    def scan(self, probe: Probe) -> Scan | None:
        """What the heads of a probe say together."""
        return next((scan for scan in self.scans if scan.probe == probe), None)

    @property
    def has_linear(self) -> bool:
        """Whether the linear twin is beside the probes."""
        return any(row.probe == "linear" for row in self.rows)

    @property
    def layers(self) -> list[Row]:
        """Test rows of the single layers."""
        return head_rows(self.rows, "test", single=True)

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

    baselines: dict[str, tuple[dict[Probe, Row], list[Scan]]] = {}
    for cell, folder, rows in done:
        if cell.is_baseline:
            probes = dict.fromkeys(row.probe for row in rows)
            shown = {probe: _shown(rows, probe) for probe in probes}
            baselines[_all_but_the_model(cell, rows)] = (shown, _scans_of(folder, rows))

    differences = find_differences([cell for cell, _, _ in done])
    models = [line for line in done if not line[0].is_baseline]
    table_rows = []
    for cell, folder, rows in models or done:
        baseline, baseline_scans = baselines.get(_all_but_the_model(cell, rows), ({}, []))
        table_rows.append(
            TableRow(
                cell,
                folder,
                rows,
                _scans_of(folder, rows),
                baseline,
                baseline_scans,
                differs=differences[cell.key],
                is_current=cell.key not in stale,
            )
        )
    return table_rows


def _shown(rows: Sequence[Row], probe: Probe) -> Row:
    """The baseline's row; without any score its lowest layer stands for it, as failed."""
    chosen = best_layer(rows, "val", probe)
    return chosen or head_rows(rows, "val", single=True, probe=probe)[0]


def _scans_of(folder: Path, rows: Sequence[Row]) -> list[Scan]:
    """The scans of a result by the metric of these rows; none where their file is lost, which the
    report says.

    Raises:
        UserError: the file is broken.
    """
    path = folder / SCANS
    if not path.is_file():
        return []
    try:
        scans = parse_scans(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path} cannot be read ({error}): delete the {FILE} beside it and run the same sweep "
            "again"
        ) from error
    return [scan for scan in scans if scan.metric == rows[0].metric]


def _all_but_the_model(cell: Cell, rows: Sequence[Row]) -> str:
    """Settings that a row and its baseline share, as text that can be looked up."""
    shared = {key: value for key, value in cell.identity().items() if key != "model"}
    return repr((shared, cell.data_places, rows[0].metric))


def task_columns(rows: Sequence[TableRow]) -> list[Column]:
    """What the table says of a task, whatever the model."""
    columns = [
        Column("Task", _task, is_number=False),
        Column("Metric", _metric, is_number=False),
        Column("n", _n_tracks),
        Column("Constant", _constant),
    ]
    if any(row.baseline for row in rows):
        columns.append(Column(str(rows[0].cell.baseline), _baseline))
    return columns


def table_columns(rows: Sequence[TableRow]) -> list[Column]:
    """The columns that have something to say of these rows, in order.

    No baseline, a single seed, and rows that their names tell apart leave theirs out.
    """
    columns = task_columns(rows)
    columns.append(Column("Model", _model, is_number=False))
    if len({row.cell.seed for row in rows}) > 1:
        columns.append(Column("Seed", _seed))
    if any(_setting(row) for row in rows):
        columns.append(Column("Setting", _setting, is_number=False))
    if not all(row.is_current for row in rows):
        columns.append(Column("State", _state, is_number=False))
    return [*columns, *model_columns()]


def model_columns() -> list[Column]:
    """What the table says of a model on a task."""
    return [
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
    return "-" if score is None else percent_text(score)


def _baseline(row: TableRow) -> str:
    scores = [_with_interval(row.baseline[probe], "") for probe in PROBES if probe in row.baseline]
    return _beside(scores) if scores else "-"


def _model(row: TableRow) -> str:
    return row.cell.model_name


def _seed(row: TableRow) -> str:
    return str(row.cell.seed)


def _setting(row: TableRow) -> str:
    return "\n".join(row.settings)


def _state(row: TableRow) -> str:
    return "current" if row.is_current else "stale"


def _best_layer(row: TableRow) -> str:
    chosen = [row.chosen(probe) for probe in _probes(row)]
    return _beside(
        [FAILED if one is None else _with_interval(one, layer_text(one)) for one in chosen]
    )


def _oracle(row: TableRow) -> str:
    """The best score on test and how optimistic it is: an interval around it would be as well."""
    scores = []
    for probe in _probes(row):
        oracle, scan = row.oracle(probe), row.scan(probe)
        score = FAILED if oracle is None else score_text(oracle, layer_text(oracle))
        if scan is not None and scan.optimism is not None:
            score += f"\noptimism {percent_text(scan.optimism)}"
        scores.append(score)
    return _beside(scores)


def _probes(row: TableRow) -> tuple[Probe, ...]:
    return PROBES if row.has_linear else PROBES[:1]


def _beside(scores: Sequence[str]) -> str:
    """The score of a probe, and that of its linear twin below it."""
    first, *twins = scores
    return "\n".join([first, *(f"lin {twin}" for twin in twins)])


def _weighted_sum(row: TableRow) -> str:
    if row.weighted is None:
        return "-"
    return _with_interval(row.weighted, layer_text(row.weighted))


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
