"""The page of a report: one HTML file with all numbers, its styles and its script inside.

Conventions: made of rows and scans alone, and of no clock, so that the same results give the same
bytes. Charts are SVG that the page's own script makes of the rows' numbers. A chart library would
be ten times the rest of the page and know neither intervals nor best-layer sets; what is drawn here
are lines, bands and squares. The page asks for nothing over a network, and its policy forbids it
to.

Every text of a table is escaped by Jinja2; every text of a chart is set as text, never as markup.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from datamodules.errors import encodable
from datamodules.files import write_text
from mirprobe.cell import Cell
from mirprobe.reporting.notes import notes
from mirprobe.reporting.page_data import (
    TextTable,
    make_curves,
    make_data_table,
    make_key_table,
    make_missing_table,
    make_model_table,
    make_scan_table,
    read_similarity_rows,
)
from mirprobe.reporting.table import TableRow, table_columns

PAGE = "report.html"


def write_page(cells: Sequence[Cell], rows: Sequence[TableRow], folder: Path) -> Path:
    """Writes the page of all cells asked for, those without rows as missing; returns its path."""
    path = folder / PAGE
    write_text(path, encodable(page_text(cells, rows)))
    return path


def page_text(cells: Sequence[Cell], rows: Sequence[TableRow]) -> str:
    """The page as HTML.

    Args:
        cells: that were asked for.
        rows: of Table 1, of those cells that have results; at least one.
    """
    environment = Environment(
        loader=PackageLoader("mirprobe", "reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    template = environment.get_template("page.html.jinja")
    numbers = {
        "curves": [asdict(curves) for curves in make_curves(rows)],
        "similarity": read_similarity_rows(rows),
    }
    return template.render(
        demo=any(row.any_row.demo for row in rows),
        facts=_facts(rows),
        table=_table_1(rows),
        scans=make_scan_table(rows),
        data=make_data_table(rows),
        models=make_model_table(cells, rows),
        keys=make_key_table(rows),
        missing=make_missing_table(cells, rows),
        notes=notes(rows),
        has_weights=any(curves["end"] for curves in numbers["curves"]),
        has_similarity=bool(numbers["similarity"]),
        numbers=embed(numbers),
        style=_source(environment, "page.css"),
        script=_source(environment, "page.js"),
    )


def embed(value: Any) -> Markup:
    r"""JSON that can stand in a script element: no text in it can end the element.

    >>> embed("</script>")
    Markup('"\\u003c/script\\u003e"')

    Raises:
        ValueError: a number that is not finite.
    """
    # All but ASCII is escaped by `dumps`, U+2028 with it, which would end a line of a script.
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return Markup(text)


def _source(environment: Environment, name: str) -> Markup:
    """A file of ours beside the template, as it is."""
    assert environment.loader is not None
    return Markup(environment.loader.get_source(environment, name)[0])


def _facts(rows: Sequence[TableRow]) -> list[tuple[str, str]]:
    """What the page is about, in a few words."""
    listed = {
        "Models": dict.fromkeys(row.cell.model_name for row in rows),
        "Baseline": dict.fromkeys(one.model for row in rows for one in row.baseline.values()),
        "Tasks": dict.fromkeys(row.cell.task.label for row in rows),
        "Seeds": dict.fromkeys(str(row.cell.seed) for row in rows),
        "Protocols": dict.fromkeys(row.cell.protocol.name for row in rows),
        "Features in": dict.fromkeys(row.any_row.precision for row in rows),
    }
    facts = [(name, ", ".join(values)) for name, values in listed.items() if values]
    n_rows = sum(len(row.rows) for row in rows)
    return [*facts, ("Results", f"{len({row.folder for row in rows})} cells, {n_rows} rows")]


def _table_1(rows: Sequence[TableRow]) -> TextTable:
    columns = table_columns(rows)
    return TextTable(
        [column.heading for column in columns],
        [column.is_number for column in columns],
        [[column.text(row) for column in columns] for row in rows],
    )
