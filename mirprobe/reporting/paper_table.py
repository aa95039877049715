"""Table 1 in the paper's shape: a line a task, and beside each other what each model says of it.

Conventions: a cell is plain text of one or more lines, made by the columns of `table`; each format
escapes it in its own way. The same rows give the same bytes.
"""

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from rich.table import Table
from rich.text import Text

from mirprobe.reporting.notes import notes
from mirprobe.reporting.table import TableRow, model_columns, task_columns

MISSING = "missing"
_TITLE = "Table 1: test scores in %"
_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "±": r"$\pm$",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    **{sign: f"{{{sign}}}" for sign in "[]"},  # after a line's end they would be an option
}


@dataclass(frozen=True)
class PaperTable:
    """Text of a table, whatever its format.

    Attributes:
        title: what it shows.
        models: that stand beside each other.
        task_headings: of the columns that are said once a line.
        model_headings: of the columns that each model has.
        lines: the cells of each line, in the order of the headings.
        is_number: for each column, whether it ends on the right.
        notes: what to know beside it.
    """

    title: str
    models: list[str]
    task_headings: list[str]
    model_headings: list[str]
    lines: list[list[str]]
    is_number: list[bool]
    notes: list[str]


def make_paper_table(rows: Sequence[TableRow], *, strips: bool = True) -> PaperTable:
    """Sets rows of several models beside each other, by task, metric, seed and setting.

    Args:
        rows: at least one.
        strips: whether notes may draw bars, see `notes`.
    """
    of_task, of_model = task_columns(rows), model_columns()
    models = list(dict.fromkeys(_model(row) for row in rows))
    several_seeds = len({row.cell.seed for row in rows}) > 1
    any_setting = any(_setting(row) for row in rows)

    lines = []
    for beside in _lines(rows):
        first = next(iter(beside.values()))
        line = [column.text(first) for column in of_task]
        line += [str(first.cell.seed)] if several_seeds else []
        line += [_setting(first)] if any_setting else []
        for model in models:
            row = beside.get(model)
            line += [_cell(row, column.text(row)) if row else MISSING for column in of_model]
        lines.append(line)

    extra = ["Seed"] * several_seeds + ["Setting"] * any_setting
    demo = " (demo data)" if any(row.any_row.demo for row in rows) else ""
    return PaperTable(
        _TITLE + demo,
        models,
        [_one_line(column.heading) for column in of_task] + extra,
        [_one_line(column.heading) for column in of_model],
        lines,
        [column.is_number for column in of_task]
        + [heading == "Seed" for heading in extra]
        + [column.is_number for _ in models for column in of_model],
        notes(rows, strips=strips) + _missing_notes(rows, models),
    )


def _lines(rows: Sequence[TableRow]) -> list[dict[str, TableRow]]:
    """For each line of the table, its row of each model."""
    lines: dict[tuple[str, ...], list[dict[str, TableRow]]] = {}
    for row in rows:
        cell = row.cell
        # Other tracks of the same name would otherwise share one n and one baseline.
        counted = repr((row.any_row.n_tracks, row.any_row.n_expected))
        key = (cell.task.name, _setting(row), row.any_row.metric, str(cell.seed), counted)
        same = lines.setdefault(key, [])
        model = _model(row)
        free = next((line for line in same if model not in line), None)
        if free is None:
            same.append({model: row})
        else:
            free[model] = row
    return [line for same in lines.values() for line in same]


def _model(row: TableRow) -> str:
    return " ".join((row.cell.model_name, *row.differs.model))


def _setting(row: TableRow) -> str:
    return "\n".join((*row.differs.task, *row.differs.protocol))


def _cell(row: TableRow, text: str) -> str:
    """A model's text, marked where its number is of other files than those that are there."""
    return text if row.is_current or text == "-" else f"{text}\nstale"


def _missing_notes(rows: Sequence[TableRow], models: Sequence[str]) -> list[str]:
    """Says which models have no row where others have one, and how to get it."""
    text = []
    for beside in _lines(rows):
        first = next(iter(beside.values()))
        absent = [model for model in models if model not in beside]
        if absent:
            where = f"{first.cell.task.label}, {first.any_row.metric}, seed {first.cell.seed}"
            text.append(
                f"Missing: {', '.join(absent)} on {where}. `mirprobe sweep` with the settings of "
                "this report computes what is missing, and nothing else."
            )
    return text


def _one_line(text: str) -> str:
    return " ".join(text.split())


def make_plain_table(table: PaperTable) -> Table:
    """A table without models beside each other, for a terminal."""
    shown = Table(title=table.title)
    for heading, is_number in zip(table.task_headings, table.is_number, strict=True):
        side: Literal["right", "left"] = "right" if is_number else "left"
        shown.add_column(Text(heading), justify=side, overflow="fold")
    for line in table.lines:
        shown.add_row(*(Text(text) for text in line))
    return shown


# -- formats ---------------------------------------------------------------------------------------


def markdown_text(table: PaperTable) -> str:
    """The table in Markdown with its notes below; a model is named in each of its headings."""
    headings = [*table.task_headings]
    for model in table.models:
        headings += [f"{model}: {heading.lower()}" for heading in table.model_headings]

    lines = [f"# {table.title}", ""]
    lines += [*markdown_lines(headings, table.lines, table.is_number), ""]
    lines += [f"- {escape_markdown(_one_line(note))}" for note in table.notes]
    return "\n".join(lines) + "\n"


def markdown_lines(
    headings: Sequence[str], lines: Sequence[Sequence[str]], is_number: Sequence[bool]
) -> list[str]:
    """A table's lines in Markdown; numbers end on the right."""
    rule = "|" + "|".join("--:" if number else "---" for number in is_number) + "|"
    return [_markdown_line(headings), rule, *(_markdown_line(line) for line in lines)]


def _markdown_line(cells: Sequence[str]) -> str:
    texts = ["<br>".join(escape_markdown(line) for line in text.split("\n")) for text in cells]
    return "| " + " | ".join(texts) + " |"


def escape_markdown(text: str) -> str:
    r"""Text that Markdown shows as it is.

    >>> escape_markdown("a|b <script> x_y [1, 2]")
    'a\\|b &lt;script&gt; x\\_y \\[1, 2\\]'
    """
    for sign, safe in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")):
        text = text.replace(sign, safe)
    return re.sub(r"([\\`*_\[\]|~#])", r"\\\1", text)


def latex_text(table: PaperTable) -> str:
    r"""The table in LaTeX, to be used by `\input`; it needs the packages booktabs and graphicx."""
    n_task, n_model = len(table.task_headings), len(table.model_headings)
    sides = "".join("r" if number else "l" for number in table.is_number)

    # Each model's name stands over its columns, with a rule of that width below.
    names, rules = [""] * n_task, []
    for place, model in enumerate(table.models):
        start = n_task + place * n_model + 1
        names.append(f"\\multicolumn{{{n_model}}}{{c}}{{{escape_latex(model)}}}")
        rules.append(f"\\cmidrule(lr){{{start}-{start + n_model - 1}}}")
    headings = [*table.task_headings, *(table.model_headings * len(table.models))]

    body = [" & ".join(_latex_cell(text) for text in line) + r" \\" for line in table.lines]
    lines = [
        "% \\usepackage{booktabs,graphicx}",
        r"\begin{table*}",
        r"\centering",
        f"\\caption{{{escape_latex(table.title)}}}",
        r"\resizebox{\textwidth}{!}{%",
        f"\\begin{{tabular}}{{{sides}}}",
        r"\toprule",
        *([" & ".join(names) + r" \\", "".join(rules)] if table.models else []),
        " & ".join(escape_latex(heading) for heading in headings) + r" \\",
        r"\midrule",
        *body,
        r"\bottomrule",
        r"\end{tabular}}",
        r"\par\medskip\begin{minipage}{\textwidth}\footnotesize",
        *(f"{escape_latex(note)}\\par" for note in table.notes),
        r"\end{minipage}",
        r"\end{table*}",
    ]
    return "\n".join(lines) + "\n"


def plain_csv_text(table: PaperTable) -> str:
    """The table as CSV; a cell of several lines becomes one line."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(table.task_headings)
    writer.writerows([_one_line(text) for text in line] for line in table.lines)
    return out.getvalue()


def _latex_cell(text: str) -> str:
    lines = [escape_latex(line) for line in text.split("\n")]
    if len(lines) == 1:
        return lines[0]
    return "\\shortstack[r]{" + r" \\ ".join(lines) + "}"


def escape_latex(text: str) -> str:
    r"""Text that LaTeX sets as it is, in one line.

    >>> escape_latex("50 % of a_b & c\\d")
    '50 \\% of a\\_b \\& c\\textbackslash{}d'
    """
    return "".join(_LATEX.get(sign, sign) for sign in _one_line(text))
