"""Result rows: the one format that everything printed is made of.

Conventions: a row is one number: the score of one head of one cell on one split, with its interval,
its n and how it was chosen. A head that has no score has a row too, whose value is null and which
says why. A cell's rows are written at once, as JSON lines, when everything else of the cell is on
disk: `rows.jsonl` is the sign that a cell is done. Values are fractions; layers count as in design:
0 is the input of the first block.
"""

import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import product
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from datamodules.errors import UserError
from datamodules.files import write_text
from datamodules.tracks import SPLITS, Split

FILE = "rows.jsonl"
PROBES, PREDICTIONS = "probes.pt", "predictions.npz"  # what else a cell that is done has
SCANS = "scans.json"  # what its heads say together, see `scoring.scan`
SCORED: tuple[Split, ...] = ("val", "test")
Probe = Literal["mlp", "linear"]


@dataclass(frozen=True)
class Row:
    """One number and what it takes to read it.

    Attributes:
        model: backbone, such as `fcpe`.
        task: task, such as `nsynth_pitch`.
        metric: name of the metric.
        probe: `mlp`, of the bank, or `linear`, its closed-form twin.
        head: `layer_03`, `weighted` (mlp) or `mean_all` (linear), the mean of layers 1..L.
        layer: the head's layer; None for a head of several.
        split: `val` or `test`.
        seed: of the cell.
        protocol: of the cell.
        value: the score, as a fraction; None for a head that has none.
        failed: why there is no score; None where there is one.
        ci_low: lower end of the 95 % interval over tracks; None where there is none.
        ci_high: upper end.
        interval: the rule that made it, see `scoring.intervals`; None where there is none.
        no_interval: why a score has no interval; None where it has one.
        n_left_out: resamples in which the metric is not defined, which the interval leaves out.
        n_tracks: tracks of each split that the cell was trained and scored on.
        n_expected: tracks of each split of the complete dataset; those of `n_tracks` where that is
            unknown (demo).
        constant: score of the best constant answer on this split; None where it has none.
        epoch: the epoch the head kept; 0 for a head that never had a score on val; None for a head
            that is not trained in epochs.
        chosen: what else was chosen for the head, by name: the `penalty` of a linear one.
        selected_by: what chose the epoch, or the penalty.
        weights_start: softmax layer weights over layers 1..L before training (weighted heads that
            were trained).
        weights_end: the same at the chosen epoch.
        demo: whether the data is the rendered stand-in.
        config_hash: of the cell.
        store_hash: of the feature store.
        precision: that its features were computed in: `float32`, `tf32` or `bf16`.
        weights: fingerprint of the backbone.
        tracks_hash: of the labelled list: ids, splits, targets and the content of the audio.
        versions: software.

    Raises:
        ValueError: a field of another type, a number that is not finite, or fields that contradict
            each other, such as an interval that does not hold its value.
    """

    model: str
    task: str
    metric: str
    probe: Probe
    head: str
    layer: int | None
    split: Split
    seed: int
    protocol: str
    value: float | None
    failed: str | None
    ci_low: float | None
    ci_high: float | None
    interval: Literal["wilson", "cluster", "percentile"] | None
    no_interval: str | None
    n_left_out: int
    n_tracks: dict[Split, int]
    n_expected: dict[Split, int]
    constant: float | None
    epoch: int | None
    chosen: dict[str, float]
    selected_by: str
    weights_start: list[float] | None
    weights_end: list[float] | None
    demo: bool
    config_hash: str
    store_hash: str
    precision: str
    weights: str
    tracks_hash: str
    versions: dict[str, str]

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not _fits(value, field.type):
                raise ValueError(f"{field.name} is {_shorten(value)}")
        for name in ("n_tracks", "n_expected"):
            if set(getattr(self, name)) != set(SPLITS):
                raise ValueError(f"{name} does not count {', '.join(SPLITS)}")
        self._check_score()

    @property
    def head_name(self) -> str:
        """The head, and its probe where that is the twin: `layer_03`, `linear layer_03`."""
        return self.head if self.probe == "mlp" else f"{self.probe} {self.head}"

    def _check_score(self) -> None:
        """Raises ValueError unless there is a score in its interval, or a reason for what is
        missing.
        """
        if (self.value is None) != (self.failed is not None):
            raise ValueError("a row has either a value or a reason why it failed")

        if self.ci_low is None or self.ci_high is None:
            is_explained = self.value is None or self.no_interval is not None
            if self.ci_low is not self.ci_high or not is_explained:
                raise ValueError("an interval is missing, in whole or in part, without a reason")
        elif self.interval is None:
            raise ValueError("an interval does not name its rule")
        elif self.value is None or not self.ci_low <= self.value <= self.ci_high:
            raise ValueError(
                f"the interval [{self.ci_low}, {self.ci_high}] does not hold the value {self.value}"
            )


def _fits(value: object, kind: Any) -> bool:
    """Whether a value is of the type that a field of `Row` names; numbers must be finite."""
    parts = get_args(kind)
    origin = get_origin(kind)
    if origin in (UnionType, Union):  # the second of `Literal[...] | None`
        return any(_fits(value, part) for part in parts)
    if origin is Literal:
        return value in parts
    if origin is list:
        return isinstance(value, list) and all(_fits(item, parts[0]) for item in value)
    if origin is dict:
        return isinstance(value, dict) and all(
            _fits(key, parts[0]) and _fits(item, parts[1]) for key, item in value.items()
        )
    if kind is float:
        return type(value) in (float, int) and math.isfinite(value)  # type: ignore[arg-type]
    return type(value) is int if kind is int else isinstance(value, kind)


def _shorten(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def write_rows(folder: Path, rows: Iterable[Row]) -> None:
    """Writes all rows of a cell, atomically."""
    # NaN is not JSON: other readers than Python's would refuse the line.
    lines = (json.dumps(asdict(row), allow_nan=False) + "\n" for row in rows)
    write_text(folder / FILE, "".join(lines))


def is_done(folder: Path) -> bool:
    """Whether a cell's folder has rows, which are written last."""
    return (folder / FILE).exists()


def missing_files(folder: Path) -> list[str]:
    """What a cell that is done should have beside its rows, and has not."""
    return [name for name in (PROBES, PREDICTIONS, SCANS) if not (folder / name).is_file()]


def read_rows(folder: Path, config_hash: str, metrics: Sequence[str]) -> list[Row]:
    """Reads the rows of a cell; none if it is not done.

    Args:
        folder: of its results.
        config_hash: of the cell, which all rows must name.
        metrics: of the cell: each has a row on val and on test for every head of every probe.

    Raises:
        UserError: the file is broken, incomplete, of another cell or of another version.
    """
    if not is_done(folder):
        return []

    path = folder / FILE
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        rows = [_parse(line, number) for number, line in enumerate(lines, start=1)]
        _check_whole(rows, config_hash, metrics)
    except (OSError, ValueError, RecursionError) as error:
        raise _not_rows(path, error) from error
    return rows


def read_rows_below(folder: Path) -> list[Row]:
    """The rows of all cells below a folder, current or not, cell after cell.

    Raises:
        UserError: there is no such folder, or a file of rows is broken or incomplete.
    """
    if not folder.is_dir():
        raise UserError(f"no results: {folder} is not a folder. Give that of paths.runs")
    rows: list[Row] = []
    for path in sorted(folder.rglob(FILE)):
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
            found = [_parse(line, number) for number, line in enumerate(lines, start=1)]
            first = found[0].config_hash if found else ""
            _check_whole(found, first, list(dict.fromkeys(row.metric for row in found)))
        except (OSError, ValueError, RecursionError) as error:
            raise _not_rows(path, error) from error
        rows += found
    return rows


def rows_table(rows: Sequence[Row]) -> Any:
    """Rows as a pandas DataFrame, with a column for each field.

    Raises:
        UserError: pandas is not installed.
    """
    try:
        import pandas as pd
    except ImportError as error:
        raise UserError(
            "a table of rows needs pandas, which is not installed: pip install pandas, or take the "
            "list (table=False)"
        ) from error
    return pd.DataFrame(
        [asdict(row) for row in rows], columns=[field.name for field in fields(Row)]
    )


def _not_rows(path: Path, error: Exception) -> UserError:
    reason = " ".join(str(error).split())
    return UserError(
        f"{path} is not a list of result rows ({reason}): delete it and run the same command again"
    )


def _parse(line: str, number: int) -> Row:
    """A row of a line of text.

    Raises:
        ValueError: the line holds no row, or one of another version.
    """
    try:
        entry = json.loads(line)
        if not isinstance(entry, dict):
            raise ValueError("it is no object")

        known = {field.name for field in fields(Row)}
        missing, unknown = sorted(known - set(entry)), sorted(set(entry) - known)
        if missing or unknown:
            parts = [f"without {', '.join(missing)}"] if missing else []
            parts += [f"with {', '.join(unknown)}"] if unknown else []
            raise ValueError(f"it is of another version, {' and '.join(parts)}")
        return Row(**entry)
    except ValueError as error:
        raise ValueError(f"line {number}: {error}") from error


def _check_whole(rows: Sequence[Row], config_hash: str, metrics: Sequence[str]) -> None:
    """Raises ValueError unless these are all rows of a cell, and no others."""
    if not rows:
        raise ValueError("it is empty")
    foreign = [row.config_hash for row in rows if row.config_hash != config_hash]
    if foreign:
        raise ValueError(f"{len(foreign)} of {len(rows)} rows are of another cell, {foreign[0]}")

    for probe in dict.fromkeys(row.probe for row in rows):
        layers = {row.layer for row in rows if row.probe == probe and row.layer is not None}
        gaps = sorted(set(range(max(layers, default=0))) - layers)
        if gaps or not layers:
            name = "row" if probe == "mlp" else f"{probe} row"
            raise ValueError(f"it has no {name} of layer {gaps[0] if gaps else 0}")

    heads = dict.fromkeys(row.head_name for row in rows)
    expected = Counter(product(metrics, SCORED, heads))
    found = Counter((row.metric, row.split, row.head_name) for row in rows)
    missing, surplus = expected - found, found - expected
    if missing:
        first = " ".join(next(iter(missing)))
        raise ValueError(f"{missing.total()} rows are missing, first: {first}")
    if surplus:
        raise ValueError(f"{surplus.total()} rows too many, first: {' '.join(next(iter(surplus)))}")
