"""Choice of rows: the layer chosen on val, one metric at a time.

Conventions: a head without a score is never chosen.
"""

from collections.abc import Sequence
from operator import attrgetter

from datamodules.tracks import Split
from mirprobe.results import Row


def head_rows(rows: Sequence[Row], split: Split, *, single: bool) -> list[Row]:
    """The rows of one split: of single layers, in order, or of weighted sums."""
    wanted = [row for row in rows if row.split == split and (row.layer is not None) == single]
    return sorted(wanted, key=lambda row: (row.layer or 0, row.head))


def best_layer(rows: Sequence[Row], chosen_on: Split) -> Row | None:
    """The test row of the layer with the best score on `chosen_on`; of equals the lowest layer.

    None where no layer has a score on `chosen_on`.
    """
    layers = head_rows(rows, chosen_on, single=True)
    scored = [row for row in layers if row.value is not None]
    if not scored:
        return None

    # Layers come in order, and max keeps the first of equals.
    best = max(scored, key=attrgetter("value"))
    on_test = head_rows(rows, "test", single=True)
    return next(row for row in on_test if row.layer == best.layer)


def by_metric(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """The rows of a cell apart by metric, in the order they were written."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row.metric, []).append(row)
    return found
