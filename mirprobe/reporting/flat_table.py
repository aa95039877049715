"""Table 1 as CSV: a line for each row of the table and each probe, a number in each field.

Conventions: scores are per cent with one digit, as everywhere; a field is empty where there is
nothing to say. The layer is chosen on val.
"""

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mirprobe.reporting.table import PROBES, TableRow
from mirprobe.reporting.text import layers_text, percent_text
from mirprobe.results import Probe, Row

Field = Callable[["Reading"], object]


@dataclass(frozen=True)
class Reading:
    """A row of the table by one probe."""

    row: TableRow
    probe: Probe

    @property
    def chosen(self) -> Row | None:
        """Test row of the layer chosen on val."""
        return self.row.chosen(self.probe)

    @property
    def oracle(self) -> Row | None:
        """Test row of the layer that is best on test."""
        return self.row.oracle(self.probe)

    @property
    def weighted(self) -> Row | None:
        """Test row of the weighted sum, which the linear twin has not."""
        return self.row.weighted if self.probe == "mlp" else None

    @property
    def baseline(self) -> Row | None:
        """Test row of the baseline by the same probe."""
        return self.row.baseline.get(self.probe)


def csv_text(rows: Sequence[TableRow]) -> str:
    """The rows as CSV, with a heading."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    fields = _fields()
    writer.writerow(fields)
    for row in rows:
        for probe in PROBES if row.has_linear else PROBES[:1]:
            writer.writerow([field(Reading(row, probe)) for field in fields.values()])
    return out.getvalue()


def _fields() -> dict[str, Field]:
    """The columns, in order."""
    return {
        "task": _task,
        "label": _label,
        "level": _level,
        "metric": _metric,
        "model": _model,
        "probe": _probe,
        "seed": _seed,
        "protocol": _protocol,
        "setting": _setting,
        "state": _state,
        "data": _data,
        "n_train": _n_train,
        "n_val": _n_val,
        "n_test": _n_test,
        "n_test_expected": _n_test_expected,
        "constant": _constant,
        "baseline": _baseline,
        "baseline_low": _baseline_low,
        "baseline_high": _baseline_high,
        "best_layer": _best_layer,
        "best": _best,
        "best_low": _best_low,
        "best_high": _best_high,
        "interval": _interval,
        "layer_chosen_by": _layer_chosen_by,
        "fit_chosen_by": _fit_chosen_by,
        "best_layer_set": _best_layer_set,
        "oracle_layer": _oracle_layer,
        "oracle": _oracle,
        "optimism": _optimism,
        "weighted": _weighted,
        "weighted_low": _weighted_low,
        "weighted_high": _weighted_high,
        "largest_weight_layer": _largest_weight_layer,
        "failed": _failed,
        "precision": _precision,
        "config_hash": _config_hash,
    }


def _percent(score: float | None) -> str:
    return "" if score is None else percent_text(score)


def _task(reading: Reading) -> str:
    return reading.row.cell.task.name


def _label(reading: Reading) -> str:
    return reading.row.cell.task.label


def _level(reading: Reading) -> str:
    return reading.row.cell.task.level


def _metric(reading: Reading) -> str:
    return reading.row.any_row.metric


def _model(reading: Reading) -> str:
    return reading.row.cell.model_name


def _probe(reading: Reading) -> str:
    return reading.probe


def _seed(reading: Reading) -> int:
    return reading.row.cell.seed


def _protocol(reading: Reading) -> str:
    return reading.row.cell.protocol.name


def _setting(reading: Reading) -> str:
    return " ".join(reading.row.settings)


def _state(reading: Reading) -> str:
    return "current" if reading.row.is_current else "stale"


def _data(reading: Reading) -> str:
    return "demo" if reading.row.any_row.demo else "real"


def _n_train(reading: Reading) -> int:
    return reading.row.any_row.n_tracks["train"]


def _n_val(reading: Reading) -> int:
    return reading.row.any_row.n_tracks["val"]


def _n_test(reading: Reading) -> int:
    return reading.row.any_row.n_tracks["test"]


def _n_test_expected(reading: Reading) -> int:
    return reading.row.any_row.n_expected["test"]


def _constant(reading: Reading) -> str:
    return _percent(reading.row.any_row.constant)


def _baseline(reading: Reading) -> str:
    return _percent(reading.baseline.value) if reading.baseline else ""


def _baseline_low(reading: Reading) -> str:
    return _percent(reading.baseline.ci_low) if reading.baseline else ""


def _baseline_high(reading: Reading) -> str:
    return _percent(reading.baseline.ci_high) if reading.baseline else ""


def _best_layer(reading: Reading) -> object:
    return reading.chosen.layer if reading.chosen else ""


def _best(reading: Reading) -> str:
    return _percent(reading.chosen.value) if reading.chosen else ""


def _best_low(reading: Reading) -> str:
    return _percent(reading.chosen.ci_low) if reading.chosen else ""


def _best_high(reading: Reading) -> str:
    return _percent(reading.chosen.ci_high) if reading.chosen else ""


def _interval(reading: Reading) -> str:
    return (reading.chosen.interval or "") if reading.chosen else ""


def _layer_chosen_by(reading: Reading) -> str:
    return f"val/{reading.row.any_row.metric}"


def _fit_chosen_by(reading: Reading) -> str:
    """What chose the epoch, or the penalty of the twin."""
    return reading.chosen.selected_by if reading.chosen else ""


def _best_layer_set(reading: Reading) -> str:
    scan = reading.row.scan(reading.probe)
    return layers_text(scan.best_set) if scan else ""


def _oracle_layer(reading: Reading) -> object:
    return reading.oracle.layer if reading.oracle else ""


def _oracle(reading: Reading) -> str:
    return _percent(reading.oracle.value) if reading.oracle else ""


def _optimism(reading: Reading) -> str:
    scan = reading.row.scan(reading.probe)
    return _percent(scan.optimism) if scan else ""


def _weighted(reading: Reading) -> str:
    return _percent(reading.weighted.value) if reading.weighted else ""


def _weighted_low(reading: Reading) -> str:
    return _percent(reading.weighted.ci_low) if reading.weighted else ""


def _weighted_high(reading: Reading) -> str:
    return _percent(reading.weighted.ci_high) if reading.weighted else ""


def _largest_weight_layer(reading: Reading) -> object:
    """The layer of the largest weight; weights are of layers 1..L."""
    weights = reading.weighted.weights_end if reading.weighted else None
    return 1 + weights.index(max(weights)) if weights else ""


def _failed(reading: Reading) -> str:
    """Why there is no score, or why it has no interval."""
    chosen = reading.chosen
    if chosen is None:
        return "no layer has a score on val"
    return chosen.failed or chosen.no_interval or ""


def _precision(reading: Reading) -> str:
    return reading.row.any_row.precision


def _config_hash(reading: Reading) -> str:
    return reading.row.cell.hash
