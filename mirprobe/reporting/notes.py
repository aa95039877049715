"""What a reader has to know beside Table 1, a line each.

Conventions: as in the table, scores and differences are per cent, and everything is plain text.
"""

from collections.abc import Sequence

from mirprobe.cell import Cell
from mirprobe.reporting.controls import control_notes
from mirprobe.reporting.differences import difference_notes
from mirprobe.reporting.table import TableRow
from mirprobe.reporting.text import (
    layers_text,
    percent_text,
    points_text,
    problems,
    strip_text,
)
from mirprobe.scoring.intervals import Z
from mirprobe.scoring.scan import Scan
from mirprobe.scoring.significance import seed_spread


def notes(rows: Sequence[TableRow], *, strips: bool = True) -> list[str]:
    """Lists what a reader has to know to read the table, a line each.

    Args:
        rows: of the table.
        strips: whether to draw the layers' chances as bars, which not every typesetter has.
    """
    seeds = ", ".join(str(seed) for seed in sorted({row.cell.seed for row in rows}))
    text = [
        f"(layer) and 95 % interval over tracks; seed {seeds}; {_protocols(rows)}; "
        "epoch and layer chosen on val. Layer 0 is the input of the first block.",
        "n: tracks of train/val/test; where some are missing, of how many, a line for each split. "
        "Constant: what the best answer that is the same for all tracks scores on test.",
        "Test oracle: the layer that is best on test, optimistic on average by what stands below. "
        "Weighted sum: the layer with the largest learned weight.",
        "Moved: the largest change of a softmax weight since the start. Where it is small, the "
        "largest weight says little about the layer.",
    ]
    if any(row.has_linear for row in rows):
        text.append(
            "lin: the linear twin, ridge regression on the same features, penalty chosen on val."
        )
    text += [
        _scan_note(row, scan, strips) for row in rows for scan in row.scans if len(row.layers) > 1
    ]
    text += difference_notes(rows)
    text += control_notes(rows)
    text += _seed_notes(rows)
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


def _scan_note(row: TableRow, scan: Scan, strips: bool) -> str:
    """What the test set can say of the layers: which may be the best, what the last one loses."""
    strip = f" {strip_text(list(scan.chance_of_best.values()))}" if strips else ""
    parts = [f"the best layer is among {layers_text(scan.best_set)}{strip}"]
    if scan.last_layer is not None:
        parts.append(f"over the last layer {points_text(scan.last_layer)}")
    if scan.detectable_paired is not None and scan.detectable_unpaired is not None:
        parts.append(
            f"differences that show: {percent_text(scan.detectable_paired)} between layers, "
            f"{percent_text(scan.detectable_unpaired)} to other test sets"
        )
    probe = "" if scan.probe == "mlp" else f", {scan.probe}"
    return f"{_name(row)}{probe}: {'; '.join(parts)}."


def _name(row: TableRow) -> str:
    cell = row.cell
    name = f"{cell.model_name}, {cell.task.label}, {row.any_row.metric}, seed {cell.seed}"
    return ", ".join((name, *row.settings))


def _seed_notes(rows: Sequence[TableRow]) -> list[str]:
    """Spread over seeds beside the error of sampling, where cells differ in nothing but the seed.

    Both are standard deviations of the score of the layer chosen on val.
    """
    groups: dict[str, list[TableRow]] = {}
    for row in rows:
        places = (row.cell.places, row.any_row.metric)
        groups.setdefault(repr((row.cell.identity() | {"seed": None}, places)), []).append(row)

    text = []
    for seeds in groups.values():
        chosen = [row.chosen() for row in seeds]
        values = [one.value for one in chosen if one is not None and one.value is not None]
        widths = [
            one.ci_high - one.ci_low
            for one in chosen
            if one is not None and one.ci_low is not None and one.ci_high is not None
        ]
        if len(values) > 1 and widths:
            row = seeds[0]
            name = f"{row.cell.model_name}, {row.cell.task.label}, {row.any_row.metric}"
            sampling = sum(widths) / len(widths) / (2 * Z)
            text.append(
                f"{name}: standard deviation "
                f"{percent_text(seed_spread(values))} over {len(values)} seeds, "
                f"{percent_text(sampling)} over tracks."
            )
    return text


def _precisions(rows: Sequence[TableRow]) -> list[str]:
    """Says what features were computed in, where that is not float32 alone: numbers of a GPU and of
    a CPU differ a little, and must not be compared as if they were of one kind.
    """
    names: dict[str, dict[str, None]] = {}
    for row in rows:
        where = f"{row.cell.model_name} on {row.cell.task.label}"
        names.setdefault(row.any_row.precision, {})[where] = None
        for baseline in row.baseline.values():
            where = f"baseline on {row.cell.task.label}"
            names.setdefault(baseline.precision, {})[where] = None
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
        name = _name(row)
        text += [f"{name}: {problem}." for problem in problems(row.rows)]
        of_baseline = problems(list(row.baseline.values()))
        text += [f"{name}: the baseline's {one}." for one in of_baseline]

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
