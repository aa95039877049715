"""Models against each other and against the baseline, on the same tracks.

Conventions: of each model the layer chosen on val, by each probe. Two are compared where the
labelled list, the metric, the seed and the protocol are the same. P-values are corrected for all
comparisons of the report by one probe (Holm).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from mirprobe.reporting.table import PROBES, TableRow
from mirprobe.reporting.text import points_text
from mirprobe.results import Probe, Row
from mirprobe.scoring.intervals import Clusters
from mirprobe.scoring.scan import Scan
from mirprobe.scoring.significance import Scored, compare_all


@dataclass(frozen=True)
class _Side:
    """One of two that are compared: its name, the test row of its chosen layer, and its scan."""

    name: str
    row: Row
    scan: Scan

    @property
    def score(self) -> Scored | None:
        """None where it has no score, or is not what the scan speaks of."""
        if self.row.value is None or self.row.head != self.scan.chosen:
            return None
        return self.scan.chosen_score(self.row.value)


def difference_notes(rows: Sequence[TableRow]) -> list[str]:
    """A line for each two models on the same tracks, the baseline included."""
    lines: dict[str, list[str]] = {}
    for probe in PROBES:
        pairs = _pairs(rows, probe)
        for name, text in zip(pairs, _compare(list(pairs.values())), strict=True):
            lines.setdefault(name, []).append(text if probe == "mlp" else f"lin {text}")
    return [f"{name}: {', '.join(texts)}." for name, texts in lines.items()]


def _compare(pairs: Sequence[tuple[Scored, Scored, int]]) -> list[str]:
    """The differences as text, p-values corrected for their number."""
    found = compare_all(
        [(first, second) for first, second, _ in pairs],
        [Clusters.of_independent(n) for _, _, n in pairs],
    )
    return [f"{points_text(one)}, p {_p_text(one.p_holm)}" for one in found]


def _p_text(p: float) -> str:
    """Three digits at most.

    >>> _p_text(0.0004), _p_text(0.0312), _p_text(1.0)
    ('< 0.001', '0.031', '1.000')
    """
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _pairs(rows: Sequence[TableRow], probe: Probe) -> dict[str, tuple[Scored, Scored, int]]:
    """What is compared by a probe, by the line's name; with the number of independent units."""
    by_tracks: dict[str, list[_Side]] = {}
    settings: dict[str, str] = {}  # what tells apart comparisons of the same two models
    for row in rows:
        sides = by_tracks.setdefault(_same_tracks(row), [])
        differing = (*row.differs.task, *row.differs.protocol)
        settings[_same_tracks(row)] = "".join(f", {one}" for one in differing)
        of_baseline = row.baseline.get(probe)
        name = "" if of_baseline is None else of_baseline.model
        baseline = _side(name, of_baseline, row.baseline_scans, probe)
        known = [side.name for side in sides]  # the same tracks may lie in two folders
        if baseline is not None and baseline.name not in known:
            sides.append(baseline)
        name = " ".join((row.cell.model_name, *row.differs.model))
        model = _side(name, row.chosen(probe), row.scans, probe)
        if model is not None and model.name not in known:
            sides.append(model)

    pairs = {}
    for tracks, sides in by_tracks.items():
        for second, first in combinations(sides, 2):
            one, other = first.score, second.score
            if one is not None and other is not None:
                name = _name(first, second) + settings[tracks]
                pairs[name] = (one, other, first.scan.n_clusters)
    return pairs


def _same_tracks(row: TableRow) -> str:
    """What must be equal for two models to be compared."""
    identity = {key: value for key, value in row.cell.identity().items() if key != "model"}
    return repr((identity, row.any_row.tracks_hash, row.any_row.metric))


def _side(name: str, chosen: Row | None, scans: Sequence[Scan], probe: Probe) -> _Side | None:
    scan = next((scan for scan in scans if scan.probe == probe), None)
    return None if chosen is None or scan is None else _Side(name, chosen, scan)


def _name(first: _Side, second: _Side) -> str:
    row = first.row
    return f"{first.name} over {second.name}, {row.task}, {row.metric}, seed {row.seed}"
