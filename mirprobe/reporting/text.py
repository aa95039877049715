"""Numbers of rows in words: what tables and printed lines say alike.

Conventions: scores are per cent with one digit, layers stand in round brackets, intervals in square
ones. Everything is plain text.
"""

from collections.abc import Sequence

import numpy as np

from datamodules.tracks import SPLITS
from mirprobe.results import Row
from mirprobe.scoring.significance import Difference

FAILED, NO_INTERVAL = "failed", "no interval"


def percent_text(fraction: float, *, signed: bool = False) -> str:
    """A score or a difference in per cent: the one place where such numbers are rounded.

    >>> percent_text(0.9357), percent_text(-0.0004), percent_text(0.123, signed=True)
    ('93.6', '0.0', '+12.3')
    """
    rounded = round(100 * fraction, 1) or 0.0  # never "-0.0"
    return f"{rounded:+.1f}" if signed else f"{rounded:.1f}"


def score_text(row: Row, detail: str = "") -> str:
    """A score, and what to say of it in brackets: `93.6 (3)`; `failed (3)` without a score."""
    number = FAILED if row.value is None else percent_text(row.value)
    return f"{number} ({detail})" if detail else number


def interval_text(row: Row) -> str:
    """The interval of a score; nothing for a head without a score."""
    if row.value is None:
        return ""
    if row.ci_low is None or row.ci_high is None:
        return NO_INTERVAL
    return f"[{percent_text(row.ci_low)}, {percent_text(row.ci_high)}]"


def counts_text(row: Row) -> str:
    """Tracks of train, val and test, and those of the complete dataset where some are missing.

    They are `443/197/290`, or `442/197/290 of 443/197/290`.
    """
    found, expected = (
        "/".join(str(counts[split]) for split in SPLITS)
        for counts in (row.n_tracks, row.n_expected)
    )
    return found if found == expected else f"{found} of {expected}"


def layer_text(row: Row) -> str:
    """The layer of a head; of a weighted sum the one of the largest weight, and how far it moved.

    `2, moved 0.03` says that of the softmax weights, which sum to 1, the one that changed most is
    0.03 from its start. Weights are of layers 1..L.
    """
    if row.layer is not None:
        return str(row.layer)
    if row.weights_start is None or row.weights_end is None:
        return ""
    start, end = np.array(row.weights_start), np.array(row.weights_end)
    return f"{end.argmax() + 1}, moved {abs(end - start).max():.2f}"


def points_text(difference: Difference) -> str:
    """A difference in points, its interval: `+12.3 [+8.1, +16.0]`."""
    number = percent_text(difference.value, signed=True)
    if difference.low is None or difference.high is None:
        return number
    low = percent_text(difference.low, signed=True)
    return f"{number} [{low}, {percent_text(difference.high, signed=True)}]"


def strip_text(shares: Sequence[float]) -> str:
    """Shares as a strip of bars, one a layer; a dot is less than 0.5 %.

    >>> strip_text([0.0, 0.1, 0.75, 0.15])
    '.▁▇▂'
    """
    bars = "▁▂▃▄▅▆▇█"
    return "".join("." if share < 0.005 else bars[min(7, int(8 * share))] for share in shares)


def layers_text(heads: Sequence[str]) -> str:
    """Layers by their heads' names, neighbours joined.

    >>> layers_text(["layer_00", "layer_02", "layer_03", "layer_04"])
    '0, 2-4'
    """
    layers = [int(name.removeprefix("layer_")) for name in heads]
    runs: list[list[int]] = []
    for layer in layers:
        if runs and layer == runs[-1][-1] + 1:
            runs[-1].append(layer)
        else:
            runs.append([layer])
    return ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)


def problems(rows: Sequence[Row]) -> list[str]:
    """What is missing of these rows, and why: a line for each reason, with all heads it is of."""
    heads: dict[str, dict[str, None]] = {}
    for row in rows:
        if row.failed is not None:
            heads.setdefault(f"failed: {row.failed}", {})[row.head_name] = None
        elif row.no_interval is not None:
            heads.setdefault(f"no interval on {row.split}: {row.no_interval}", {})[
                row.head_name
            ] = None
    return [f"{', '.join(names)} {reason}" for reason, names in heads.items()]
