"""Numbers that others have published, beside ours.

Conventions: the numbers, their sources and what is doubtful about them are data, `published.yaml`.
Ours is the layer chosen on val, or the weighted sum, by the MLP; a number is compared where model,
task and metric match and our data is not the demo. Values are fractions, as in rows.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Literal

import yaml

from mirprobe.cell import Cell
from mirprobe.reporting.paper_table import PaperTable
from mirprobe.reporting.table import TableRow
from mirprobe.reporting.text import interval_text, layer_text, percent_text, score_text
from mirprobe.results import Row

_FILE = "published.yaml"
_VALUE = re.compile(r"(\d+\.\d)(?: \((\d+)\))?(?: ±(\d+\.\d))?(\*?)")
Head = Literal["layer", "weighted"]


@dataclass(frozen=True)
class Number:
    """A score that was published.

    Attributes:
        source: name of the source.
        model: name in conf/, or another's.
        task: name in conf/.
        metric: name in conf/.
        head: a single layer (or features without layers), or the weighted sum.
        value: the score, a fraction.
        layer: that it is of; of a weighted sum the one of the largest weight; None if not stated.
        spread: over runs, as the source gives it; None if it does not.
        is_quoted: whether the source has it from somewhere else.
    """

    source: str
    model: str
    task: str
    metric: str
    head: Head
    value: float
    layer: int | None
    spread: float | None
    is_quoted: bool

    @property
    def text(self) -> str:
        """As it is printed: `85.5 (5)`, `85.6 ±0.7`, `78.6*`."""
        layer = "" if self.layer is None else f" ({self.layer})"
        spread = "" if self.spread is None else f" ±{percent_text(self.spread)}"
        return f"{percent_text(self.value)}{layer}{spread}{'*' if self.is_quoted else ''}"


@dataclass(frozen=True)
class LayerNumbers:
    """What others found of a model's layers on a task or by a metric of their own, as printed.

    Attributes:
        model: name in conf/.
        where: it was published.
        task: with metric and protocol.
        scores: of the layers from 0; empty where only some were published.
        beside: what else was said.
    """

    model: str
    where: str
    task: str
    scores: tuple[float, ...]
    beside: str


@dataclass(frozen=True)
class Source:
    """Where numbers are from, and what to know of all of them."""

    title: str
    where: str
    note: str


@dataclass(frozen=True)
class Published:
    """All that is in the data file.

    Attributes:
        sources: by name.
        numbers: in the order of the file.
        doubts: by (task, metric).
        per_layer: in the order of the file.
    """

    sources: Mapping[str, Source]
    numbers: Sequence[Number]
    doubts: Mapping[tuple[str, str], str]
    per_layer: Sequence[LayerNumbers]


@dataclass(frozen=True)
class Comparison:
    """A published number and ours.

    Attributes:
        row: of the table.
        ours: the test row that is compared.
        number: that was published.
    """

    row: TableRow
    ours: Row
    number: Number

    @property
    def difference(self) -> float | None:
        """Ours minus the published one; None where ours failed."""
        return None if self.ours.value is None else self.ours.value - self.number.value

    @property
    def is_inside(self) -> bool | None:
        """Whether it lies in our interval, at the digits that are printed; None without one."""
        low, high = self.ours.ci_low, self.ours.ci_high
        if low is None or high is None:
            return None
        return round(100 * low, 1) <= round(100 * self.number.value, 1) <= round(100 * high, 1)


@cache
def published() -> Published:
    """The published numbers; the file is read once."""
    content = yaml.safe_load(files(__package__).joinpath(_FILE).read_text(encoding="utf-8"))
    numbers: list[Number] = []
    for table in content["tables"]:
        numbers += _numbers(table)

    doubts = {}
    for key, text in content["doubts"].items():
        task, metric = key.split()
        doubts[task, metric] = text
    return Published(
        {name: Source(**source) for name, source in content["sources"].items()},
        numbers,
        doubts,
        [_layer_numbers(entry) for entry in content["per_layer"]],
    )


def _numbers(table: Mapping[str, Any]) -> list[Number]:
    numbers = []
    for name, line in table["rows"].items():
        values = [text.strip() for text in str(line).split("|")]
        for column, text in zip(table["columns"], values, strict=True):
            model, task = (column, name) if table["across"] == "models" else (name, column)
            if text != "-":
                numbers.append(_number(table["source"], model, task, text))
    return numbers


def _number(source: str, model: str, task: str, text: str) -> Number:
    match = _VALUE.fullmatch(text)
    if match is None:
        raise ValueError(f"{_FILE}: {source}, {model}, {task}: {text!r} is no number")
    score, layer, spread, star = match.groups()
    name, _, weighted = model.partition(" ")
    task_name, metric = task.split()
    return Number(
        source,
        name,
        task_name,
        metric,
        "weighted" if weighted else "layer",
        float(score) / 100,
        None if layer is None else int(layer),
        None if spread is None else float(spread) / 100,
        bool(star),
    )


def _layer_numbers(entry: Mapping[str, str]) -> LayerNumbers:
    scores = tuple(float(score) for score in entry["scores"].split())
    return LayerNumbers(entry["model"], entry["where"], entry["task"], scores, entry["beside"])


# -- beside ours -----------------------------------------------------------------------------------


def compare_published(rows: Sequence[TableRow]) -> list[Comparison]:
    """Every published number that a row can be held against, the baseline's included."""
    found: dict[str, Comparison] = {}
    for row in rows:
        if row.any_row.demo:
            continue
        mlp = row.chosen()
        ours = {
            (published_name(row.cell), "layer"): mlp,
            (published_name(row.cell), "weighted"): row.weighted,
            (str(row.cell.baseline), "layer"): row.baseline.get("mlp"),
        }
        for number in published().numbers:
            one = ours.get((number.model, number.head))
            same = (number.task, number.metric) == (row.cell.task.name, row.any_row.metric)
            if same and one is not None:
                comparison = Comparison(row, one, number)
                # The baseline stands beside each model: once is enough.
                found.setdefault(repr((one, number, _differing(comparison))), comparison)
    return list(found.values())


def _differing(comparison: Comparison) -> tuple[str, ...]:
    row, is_model = comparison.row, comparison.ours.model == comparison.row.cell.model_name
    return row.settings if is_model else (*row.differs.task, *row.differs.protocol)


def published_name(cell: Cell) -> str:
    """Name under which a backbone's numbers were published; weights decide, not settings' names."""
    if cell.model.get("name") == "musicfm" and cell.model.get("weights") == "fma":
        return "musicfm_fma"
    return cell.model_name


def published_table(rows: Sequence[TableRow]) -> PaperTable | None:
    """Published numbers beside ours, as text; None where there is nothing to compare."""
    comparisons = compare_published(rows)
    if not comparisons:
        return None
    headings = ["Task", "Metric", "Model", "Head", "Seed", "Setting"]
    headings += ["Ours", "95 % interval", "Source", "Published", "Ours - published", "Inside"]
    numeric = ("Seed", "Ours", "95 % interval", "Published", "Ours - published")
    return PaperTable(
        "Beside published numbers: test scores in %",
        [],
        headings,
        [],
        [_line(comparison) for comparison in comparisons],
        [heading in numeric for heading in headings],
        _notes(comparisons),
    )


def _line(comparison: Comparison) -> list[str]:
    row, ours, number = comparison.row, comparison.ours, comparison.number
    difference = comparison.difference
    inside = {True: "yes", False: "no", None: "-"}[comparison.is_inside]
    return [
        row.cell.task.label,
        ours.metric,
        ours.model,
        "weighted sum" if number.head == "weighted" else "best layer",
        str(row.cell.seed),
        " ".join(_differing(comparison)),
        score_text(ours, layer_text(ours)),
        interval_text(ours) or "-",
        number.source,
        number.text,
        "-" if difference is None else percent_text(difference, signed=True),
        inside,
    ]


def _notes(comparisons: Sequence[Comparison]) -> list[str]:
    """Where the numbers are from, and which of them are doubtful."""
    data = published()
    text = [
        "Ours: the layer chosen on val, by the MLP. Inside: whether the published number lies in "
        "our interval, which is over tracks: two numbers on the same tracks differ by less.",
    ]
    if any(comparison.number.is_quoted for comparison in comparisons):
        text.append("*: quoted by the source from somewhere else.")
    for name in dict.fromkeys(comparison.number.source for comparison in comparisons):
        source = data.sources[name]
        text.append(f"{name}: {source.title}, {source.where}; {source.note}.")

    doubts: dict[str, dict[str, None]] = {}
    for one in comparisons:
        doubt = data.doubts.get((one.number.task, one.number.metric))
        if doubt is not None:
            doubts.setdefault(doubt, {})[f"{one.row.cell.task.label}, {one.number.metric}"] = None
    text += [f"Doubtful: {'; '.join(where)}: {doubt}." for doubt, where in doubts.items()]
    return text


def layers_by_others(model: str) -> list[str]:
    """Lines on what others found of a model's layers, on tasks or by metrics of their own."""
    lines = []
    for entry in published().per_layer:
        if entry.model == model:
            scores = " ".join(f"{score:.3f}" for score in entry.scores)
            parts = [f"layers 0 to {len(entry.scores) - 1}: {scores}"] if scores else []
            parts += [entry.beside] if entry.beside else []
            lines.append(f"{entry.task}: {'; '.join(parts)} ({entry.where})")
    return lines
