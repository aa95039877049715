"""What the page of a report shows, taken from rows and scans: numbers for its charts, text for its
tables.

Conventions: numbers stay fractions and are not rounded, so that the page's CSV are the rows' own
numbers; the page makes per cent of them as the tables do. Nothing is averaged: every seed is a
curve of its own. Layers count as in rows, weights are of layers 1..L.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from datamodules.errors import UserError
from datamodules.tracks import SPLITS
from mirprobe.cell import Cell
from mirprobe.reporting.table import PROBES, TableRow
from mirprobe.reporting.text import counts_text, layers_text, points_text, strip_text
from mirprobe.results import SCORED, Probe, Row
from mirprobe.scoring.selection import head_rows
from mirprobe.similarity.rows import FILE, KIND

_MEASURES = ("pwcca", "held_out", "null")
_FIELDS = (
    "model",
    "datasets",
    "measure",
    "input",
    "layer",
    "value",
    "n_tracks",
    "n_frames",
    "made_of",
)


@dataclass(frozen=True)
class Heads:
    """Scores of heads of one probe on one split, each list in the same order.

    Attributes:
        value: fractions; None for a head without a score.
        low: ends of the intervals; None where there is none.
        high: as `low`.
        why: why a score or an interval is missing; None where both are there.
    """

    value: list[float | None]
    low: list[float | None]
    high: list[float | None]
    why: list[str | None]


@dataclass(frozen=True)
class Curves:
    """One row of Table 1 with all of its heads.

    Attributes:
        model: name, with the settings that tell it from its namesakes.
        task: label, with settings and metric where it needs them.
        level: of the task, such as `semantic`.
        metric: of all scores.
        seed: of the cell.
        is_current: whether what the rows were made of is still there.
        n: tracks of train, val and test, as text.
        n_test: tracks of test.
        n_val: tracks of val.
        constant: score of the best constant answer on test.
        layers: by `probe split`, such as `mlp test`.
        weighted: the weighted sum, by split; empty without one.
        baseline: on test, by probe; empty without one.
        start: softmax weights before training; None without any.
        end: at the chosen epoch.
        chosen: by probe, the layer chosen on val; None where no layer has a score.
        best_set: by probe, the layers of which one is the best.
    """

    model: str
    task: str
    level: str
    metric: str
    seed: int
    is_current: bool
    n: str
    n_test: int
    n_val: int
    constant: float | None
    layers: Mapping[str, Heads]
    weighted: Mapping[str, Heads]
    baseline: Mapping[str, Heads]
    start: list[float] | None
    end: list[float] | None
    chosen: Mapping[str, int | None]
    best_set: Mapping[str, list[int]]


@dataclass(frozen=True)
class TextTable:
    """A table of plain text: headings, which of them head numbers, and lines."""

    headings: Sequence[str]
    is_number: Sequence[bool]
    lines: Sequence[Sequence[str]]


def make_curves(rows: Sequence[TableRow]) -> list[Curves]:
    """The numbers of the charts, in the order of the table."""
    return [_curves(row) for row in rows]


def _curves(row: TableRow) -> Curves:
    weighted: dict[str, Heads] = {
        split: _heads(head_rows(row.rows, split, single=False))
        for split in SCORED
        if head_rows(row.rows, split, single=False)
    }
    layers = {
        f"{probe} {split}": _heads(head_rows(row.rows, split, single=True, probe=probe))
        for probe in _probes(row)
        for split in SCORED
    }
    chosen = {probe: row.chosen(probe) for probe in _probes(row)}

    return Curves(
        model=model_name(row),
        task=task_name(row),
        level=row.cell.task.level,
        metric=row.any_row.metric,
        seed=row.cell.seed,
        is_current=row.is_current,
        n=counts_text(row.any_row),
        n_test=row.any_row.n_tracks["test"],
        n_val=row.any_row.n_tracks["val"],
        constant=row.any_row.constant,
        layers=layers,
        weighted=weighted,
        baseline={probe: _heads([one]) for probe, one in row.baseline.items()},
        start=None if row.weighted is None else row.weighted.weights_start,
        end=None if row.weighted is None else row.weighted.weights_end,
        chosen={probe: None if one is None else one.layer for probe, one in chosen.items()},
        best_set={
            scan.probe: [int(head.removeprefix("layer_")) for head in scan.best_set]
            for scan in row.scans
        },
    )


def model_name(row: TableRow) -> str:
    """A model with the settings, of its features and protocol too, in which it differs."""
    return " ".join((row.cell.model_name, *row.differs.model, *row.differs.protocol))


def task_name(row: TableRow) -> str:
    """A task with the settings in which it differs, and the metric where it has several."""
    metric = (row.any_row.metric,) if len(row.cell.metrics) > 1 else ()
    return ", ".join((row.cell.task.label, *row.differs.task, *metric))


def _probes(row: TableRow) -> tuple[Probe, ...]:
    return PROBES if row.has_linear else PROBES[:1]


def _heads(rows: Sequence[Row]) -> Heads:
    return Heads(
        value=[row.value for row in rows],
        low=[row.ci_low for row in rows],
        high=[row.ci_high for row in rows],
        why=[row.failed or row.no_interval for row in rows],
    )


def make_scan_table(rows: Sequence[TableRow]) -> TextTable:
    """What each test set can say of the layers, a line for each probe."""
    lines = []
    for row in rows:
        for scan in row.scans:
            chosen = row.chosen(scan.probe)
            oracle = row.oracle(scan.probe)
            last = scan.last_layer
            lines.append(
                [
                    task_name(row),
                    model_name(row),
                    scan.probe,
                    str(row.cell.seed),
                    str(scan.n_clusters),
                    "-" if chosen is None else str(chosen.layer),
                    "-" if oracle is None else str(oracle.layer),
                    layers_text(scan.best_set),
                    strip_text(list(scan.chance_of_best.values())),
                    _points(scan.optimism),
                    "-" if last is None else points_text(last),
                    _points(scan.detectable_paired),
                    _points(scan.detectable_unpaired),
                ]
            )
    headings = [
        "Task",
        "Model",
        "Probe",
        "Seed",
        "Independent units",
        "Layer by val",
        "Test oracle",
        "Best layer is among",
        "P(layer is best)",
        "Optimism of oracle",
        "Over the last layer",
        "Shows between layers",
        "Shows to other tracks",
    ]
    return TextTable(headings, _numbers_after(headings, 3), lines)


def _points(value: float | None) -> str:
    return "-" if value is None else f"{abs(100 * value):.1f}"


def make_data_table(rows: Sequence[TableRow]) -> TextTable:
    """What rows know of the data of each task: counts, what is missing, hashes."""
    lines: dict[str, list[str]] = {}
    for row in rows:
        cell, any_row = row.cell, row.any_row
        found, expected = any_row.n_tracks, any_row.n_expected
        missing = sum(expected[split] - found[split] for split in SPLITS)
        line = [
            ", ".join((cell.task.label, *row.differs.task)),
            cell.task.level,
            cell.task.folder,
            "rendered stand-in" if any_row.demo else "real",
            *(str(found[split]) for split in SPLITS),
            str(missing),
            str(len(cell.data.exclude)),
            cell.task.select_by,
            any_row.tracks_hash,
        ]
        lines.setdefault(repr(line), line)
    headings = ["Task", "Level", "Dataset", "Data", *(f"Tracks, {split}" for split in SPLITS)]
    headings += ["Missing", "Excluded", "Chosen by", "Hash of the list"]
    is_number = [heading.startswith(("Tracks", "Missing", "Excl")) for heading in headings]
    return TextTable(headings, is_number, list(lines.values()))


def make_model_table(cells: Sequence[Cell], rows: Sequence[TableRow]) -> TextTable:
    """The card of each model, baseline included, its weights, features and software.

    Args:
        cells: that were asked for, among which is the baseline.
        rows: of Table 1.
    """
    models = {cell.model_name: cell.model for cell in cells}
    lines: dict[str, list[str]] = {}
    for row in rows:
        line = [model_name(row), *_card(row.cell.model), *_made_with(row.any_row)]
        lines.setdefault(repr(line), line)
        for baseline in row.baseline.values():
            card = _card(models.get(baseline.model, {}))
            line = [f"{baseline.model} (baseline)", *card, *_made_with(baseline)]
            lines.setdefault(repr(line), line)
    headings = ["Model", "What it is", "Licence", "Features in", "Weights", "Software"]
    return TextTable(headings, [False] * len(headings), list(lines.values()))


def _card(model: Mapping[str, Any]) -> list[str]:
    """What a model is, of random weights only that, and its licence."""
    card: Mapping[str, str] = model.get("card", {})
    is_control = model.get("weights") == "random"
    note = "random weights, the control" if is_control else card.get("note", "-")
    return [note, card.get("licence", "-")]


def _made_with(row: Row) -> list[str]:
    software = ", ".join(f"{name} {version}" for name, version in sorted(row.versions.items()))
    return [row.precision, row.weights, software]


def make_key_table(rows: Sequence[TableRow]) -> TextTable:
    """Every setting of all cells: a line for each value that it has, and where it has it."""
    cells = {row.cell.key: row.cell for row in rows}
    values: dict[str, dict[str, list[str]]] = {}
    for cell in cells.values():
        name = f"{cell.model_name} {cell.task.name} seed {cell.seed}"
        for key, setting in _flatten(asdict(cell)).items():
            values.setdefault(key, {}).setdefault(_as_text(setting), []).append(name)

    lines = []
    for key, places in sorted(values.items()):
        for value, where in places.items():
            is_everywhere = len(where) == len(cells)
            lines.append([key, value, "all" if is_everywhere else "; ".join(where)])
    return TextTable(["Key", "Value", "Cells"], [False] * 3, lines)


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _as_text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)


def make_missing_table(cells: Sequence[Cell], rows: Sequence[TableRow]) -> TextTable:
    """Cells that were asked for and have no result, with the command that makes it."""
    shown = {row.cell.key for row in rows}
    with_baseline = {row.cell.task.name for row in rows if row.baseline}
    lines = []
    for cell in cells:
        is_shown = cell.key in shown or (cell.is_baseline and cell.task.name in with_baseline)
        if not is_shown:
            lines.append([cell.model_name, cell.task.label, str(cell.seed), _command(cell)])
    headings = ["Model", "Task", "Seed", "Command, with the settings that were given"]
    return TextTable(headings, [False, False, True, False], lines)


def _command(cell: Cell) -> str:
    parts = [f"model={cell.model['name']}"]
    if cell.model.get("weights") == "random":
        parts.append("model.weights=random")
    parts += [f"task={cell.task.name}", f"protocol={cell.protocol.name}", f"seed={cell.seed}"]
    return f"mirprobe sweep {' '.join(parts)}"


def read_similarity_rows(rows: Sequence[TableRow]) -> list[dict[str, Any]]:
    """What the page draws of the similarity of a report's models, in the order of their files.

    Layers against each other are left out: they are more numbers than all others of the page.

    Raises:
        UserError: a file of them is broken.
    """
    found: list[dict[str, Any]] = []
    models = {(row.cell.paths.runs, row.cell.model_name): row.any_row.weights for row in rows}
    for (runs, model), weights in models.items():
        for path in sorted((Path(runs) / model / KIND).glob(f"*/{FILE}")):
            found += [
                {name: entry.get(name) for name in _FIELDS}
                for entry in _read_lines(path)
                if entry.get("weights") == weights and _is_drawn(entry)
            ]
    return found


def _is_drawn(entry: Mapping[str, Any]) -> bool:
    is_of_layers = re.fullmatch(r"h\d\d+", str(entry.get("input"))) is not None
    is_known = entry.get("kind") == KIND and entry.get("measure") in _MEASURES
    return is_known and not is_of_layers


def _read_lines(path: Path) -> list[dict[str, Any]]:
    try:
        entries = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        if not all(isinstance(entry, dict) for entry in entries):
            raise ValueError("a line is no object")
        return entries
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(
            f"{path} is not a list of similarity rows ({error}): delete it and run `mirprobe "
            "similarity` with the same settings"
        ) from error


def _numbers_after(headings: Sequence[str], n_texts: int) -> list[bool]:
    return [place >= n_texts for place in range(len(headings))]
