"""A report as one HTML file: tables, charts and what the numbers are made of, without a network.

Conventions: everything is made of rows, as in the tables, and the same rows give the same bytes: no
clock, no chance, no path of this machine but those of the settings shown. Scores are per cent.
Charts are drawn by a script of the page as SVG, from numbers that lie in the page as JSON: a chart
library of a wheel would be ten times as large as all the rest, and draws neither intervals nor
layers that are chosen. Jinja2 escapes every text, in the table and in the JSON alike.
"""

from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

from jinja2 import Environment
from markupsafe import Markup

from mirprobe.cell import write_cell
from mirprobe.reporting.paper_table import make_paper_table
from mirprobe.reporting.table import PROBES, TableRow
from mirprobe.reporting.text import layers_text
from mirprobe.results import Probe, Row
from mirprobe.similarity.rows import SimilarityRow

_LEVELS = ("acoustic", "comprehensive", "semantic")  # the order of the paper, section 3.4
_DIGITS = 3  # of per cent: more than any interval resolves


def page_text(rows: Sequence[TableRow], similar: Sequence[SimilarityRow] = ()) -> str:
    """The page of a report.

    Args:
        rows: of its table, at least one.
        similar: rows of similarity of its models.
    """
    ordered = sorted(rows, key=lambda row: _LEVELS.index(row.cell.task.level))  # else as they come
    table = make_paper_table(ordered, strips=False)
    headings = [*table.task_headings]
    for model in table.models:
        headings += [f"{model}\n{heading}" for heading in table.model_headings]

    folder = resources.files("mirprobe.reporting")
    template = (folder / "page.html.j2").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, trim_blocks=False)
    return environment.from_string(template).render(
        title="mirprobe: what each layer knows",
        demo=any(row.any_row.demo for row in rows),
        overview=_overview(ordered),
        headings=[
            {"text": text, "is_number": number}
            for text, number in zip(headings, table.is_number, strict=True)
        ],
        lines=table.lines,
        notes=table.notes,
        made=[_made_of(row) for row in ordered],
        versions=_versions(ordered),
        configs=_configs(ordered),
        similarity=bool(similar),
        data={
            "entries": [_entry(row, len(_seeds(rows))) for row in ordered],
            "similarity": _similarity(similar),
        },
        script=Markup((folder / "page.js").read_text(encoding="utf-8")),  # our own,
    )


def _seeds(rows: Sequence[TableRow]) -> list[int]:
    return sorted({row.cell.seed for row in rows})


def _overview(rows: Sequence[TableRow]) -> list[tuple[str, str]]:
    """What the report is of, as names and numbers."""
    models = dict.fromkeys(row.cell.model_name for row in rows)
    tasks = dict.fromkeys(row.cell.task.name for row in rows)
    layers = {row.cell.model_name: len(row.layers) for row in rows}
    return [
        ("models", str(len(models))),
        ("tasks", str(len(tasks))),
        ("seeds", str(len(_seeds(rows)))),
        ("layers", " / ".join(str(n) for n in layers.values())),
        ("probes trained", str(sum(len(row.layers) + (row.weighted is not None) for row in rows))),
        ("tracks of test, of all tasks", str(sum(_tested(rows).values()))),
    ]


def _tested(rows: Sequence[TableRow]) -> dict[str, int]:
    """Tracks of test, by the labelled list that they are from."""
    return {row.any_row.tracks_hash: row.any_row.n_tracks["test"] for row in rows}


def _made_of(row: TableRow) -> dict[str, object]:
    """What tells one number's origin from another's."""
    one = row.any_row
    return {
        "model": row.cell.model_name,
        "task": one.task,
        "protocol": one.protocol,
        "seed": one.seed,
        "tracks": "/".join(str(n) for n in one.n_tracks.values()),
        "precision": one.precision,
        "config_hash": one.config_hash,
        "store_hash": one.store_hash,
        "weights": one.weights,
        "tracks_hash": one.tracks_hash,
    }


def _versions(rows: Sequence[TableRow]) -> str:
    found = {f"{name} {version}" for row in rows for name, version in row.any_row.versions.items()}
    return ", ".join(sorted(found))


def _configs(rows: Sequence[TableRow]) -> list[dict[str, str]]:
    """Every setting of every cell, each cell once."""
    texts: dict[tuple[str, ...], dict[str, str]] = {}
    for row in rows:
        cell = row.cell
        name = f"{cell.model_name}, {cell.task.name}, {cell.protocol.name}, seed {cell.seed}"
        texts.setdefault(cell.key, {"name": f"{name} ({cell.hash})", "text": write_cell(cell)})
    return list(texts.values())


# -- numbers for the charts ------------------------------------------------------------------------


def _entry(row: TableRow, n_seeds: int) -> dict[str, Any]:
    """A row of the table with all of its layers."""
    one, cell = row.any_row, row.cell
    is_one_of_several = len(cell.metrics) > 1
    return {
        "model": " ".join((cell.model_name, *row.differs.model)),
        "name": f"{cell.task.label} {one.metric}" if is_one_of_several else cell.task.label,
        "metric": one.metric,
        "setting": " ".join((*row.differs.task, *row.differs.protocol)),
        "seed": cell.seed,
        "seeds": n_seeds,
        "n": dict(one.n_tracks),
        "stale": not row.is_current,
        "baseline": {probe: _score(base) for probe, base in row.baseline.items()},
        "probes": {
            probe: _probe(row, probe)
            for probe in (PROBES if row.has_linear else PROBES[:1])
            if any(found.probe == probe for found in row.rows)
        },
        "weighted": _weighted(row),
    }


def _score(row: Row) -> dict[str, object]:
    """A score with its interval; None for what there is not."""
    return {
        "value": _percent(row.value),
        "low": _percent(row.ci_low),
        "high": _percent(row.ci_high),
        "failed": row.failed,
    }


def _percent(value: float | None) -> float | None:
    return None if value is None else round(100 * value, _DIGITS)


def _probe(row: TableRow, probe: Probe) -> dict[str, Any]:
    """All layers of a probe, and what the test set says of them together."""
    chosen, scan = row.chosen(probe), row.scan(probe)
    on_val = {one.layer: one.value for one in _layers(row, "val", probe)}
    layers = [
        {"layer": one.layer, "val": _percent(on_val.get(one.layer)), **_score(one)}
        for one in _layers(row, "test", probe)
    ]
    found: dict[str, Any] = {"layers": layers, "chosen": chosen.layer if chosen else None}
    if scan is not None:
        of_head = {one.head: one.layer for one in _layers(row, "test", probe)}
        found |= {
            "optimism": _percent(scan.optimism),
            "best_set": layers_text(scan.best_set),
            "chances": {of_head[name]: chance for name, chance in scan.chance_of_best.items()},
        }
    return found


def _layers(row: TableRow, split: str, probe: Probe) -> list[Row]:
    return [
        one
        for one in row.rows
        if one.split == split and one.probe == probe and one.layer is not None
    ]


def _weighted(row: TableRow) -> dict[str, object] | None:
    one = row.weighted
    if one is None:
        return None
    return {**_score(one), "start": one.weights_start, "end": one.weights_end}


def _similarity(rows: Sequence[SimilarityRow]) -> list[dict[str, Any]]:
    """Each model against each input, by measure and layer."""
    found: dict[tuple[str, str, str], dict[str, Any]] = {}
    for row in rows:
        if row.input is None:
            continue
        place = (row.model, row.input, row.made_of)
        one = found.setdefault(
            place,
            {
                "model": row.model,
                "input": row.input,
                "datasets": row.datasets,
                "n_tracks": row.n_tracks,
                "n_frames": row.n_frames,
                "measures": {},
            },
        )
        measures: dict[str, list[Mapping[str, object]]] = one["measures"]
        point = {"layer": row.layer, "value": row.value}
        measures.setdefault(row.measure, []).append(point)
    return [one for one in found.values() if "pwcca" in one["measures"]]
