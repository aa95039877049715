"""What is left of a score when its control is taken off: shuffled labels, a random network.

Conventions: a control is a result of the same settings in all but one: `data.labels=shuffled`, or
`model.weights=random`. Both scores are those of the layer chosen on val, in per cent on test; a
control chooses a layer of its own.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from mirprobe.cell import Cell
from mirprobe.reporting.table import TableRow

SHUFFLED, RANDOM = "shuffled", "random"


def control_notes(rows: Sequence[TableRow]) -> list[str]:
    """A line for each row that has a control among the others, and none for the controls."""
    by_identity = {_key(row, row.cell.identity()): row for row in rows}
    lines = []
    for row in rows:
        if _is_control(row.cell):
            continue
        parts = []
        for what, identity in _controls(row.cell.identity()).items():
            control = by_identity.get(_key(row, identity))
            text = None if control is None else _less(row, control)
            if text is not None:
                parts.append(f"{text} {what}")
        if parts:
            name = f"{row.cell.model_name}, {row.cell.task.label}, {row.any_row.metric}"
            lines.append(f"{name}, seed {row.cell.seed}: {'; '.join(parts)}.")
    return lines


def _is_control(cell: Cell) -> bool:
    return cell.data.labels == SHUFFLED or cell.model.get("weights") == RANDOM


def _controls(identity: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The settings of each control of a cell, by what is said of it."""
    controls = {
        "with shuffled labels (selectivity)": {
            **identity,
            "data": {**identity["data"], "labels": SHUFFLED},
        }
    }
    if "weights" in identity["model"]:
        model = {**identity["model"], "weights": RANDOM}
        controls["of the network with random weights"] = {**identity, "model": model}
    return controls


def _key(row: TableRow, identity: Mapping[str, Any]) -> str:
    """Looks up a row by its settings, metric and the place of its data."""
    flat = {
        section: sorted(value.items()) if isinstance(value, Mapping) else value
        for section, value in identity.items()
    }
    return repr((flat, row.any_row.metric, row.cell.data_places))


def _less(row: TableRow, control: TableRow) -> str | None:
    """`+65.2, 77.9 less 12.7`; None where either has no score."""
    score, other = row.chosen(), control.chosen()
    if score is None or other is None or score.value is None or other.value is None:
        return None
    difference = 100 * (score.value - other.value)
    return f"{difference:+.1f}, which is {100 * score.value:.1f} less {100 * other.value:.1f}"
