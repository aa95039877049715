"""Table 1 in files: the paper's shape in Markdown and LaTeX, one number a field in CSV."""

import csv
import io
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from toy_rows import layer_rows, make_scan, save_rows

from mirprobe.cell import Cell
from mirprobe.reporting.flat_table import csv_text
from mirprobe.reporting.paper_table import MISSING, latex_text, make_paper_table, markdown_text
from mirprobe.reporting.report import write_tables
from mirprobe.reporting.table import make_table_rows
from mirprobe.results import SCANS, read_rows, write_rows
from mirprobe.scoring.scan import scans_text

Compose = Callable[..., list[Cell]]
HOSTILE = r"A&B_100%$#{~^\|<script>"


def records(cells: Sequence[Cell]) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(csv_text(make_table_rows(cells)))))


def markdown_lines(cells: Sequence[Cell]) -> list[list[str]]:
    """The cells of each line of the table in Markdown, its headings first."""
    text = markdown_text(make_paper_table(make_table_rows(cells)))
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [re.split(r" (?<!\\)\| ", line[2:-2]) for line in lines]


@pytest.fixture
def two_models(compose: Compose) -> list[Cell]:
    """The baseline, fcpe and muq; fcpe on both tasks, muq on pitch alone."""
    cells = compose("task=nsynth_pitch,giantsteps_key", "model=fcpe,muq")
    for cell in cells:
        if cell.is_baseline:
            save_rows(cell, [0.4], [0.45])
        elif cell.model_name == "fcpe":
            save_rows(cell, [0.5, 0.9, 0.7], [0.4, 0.625, 0.708], weighted=0.667)
        elif cell.task.name == "nsynth_pitch":
            save_rows(cell, [0.5, 0.6, 0.9], [0.4, 0.5, 0.8])
    return cells


# -- the paper's shape -----------------------------------------------------------------------------


def test_models_stand_beside_each_other_on_the_line_of_their_task(two_models: list[Cell]) -> None:
    headings, pitch, key = markdown_lines(two_models)
    assert headings[:5] == ["Task", "Metric", "n", "Constant", "fbank\\_chroma"]
    assert headings[5::3] == ["fcpe: best layer (by val)", "muq: best layer (by val)"]
    assert pitch[0] == "Pitch" and key[0] == "Key"
    assert pitch[4:6] == [r"45.0<br>\[35.0, 55.0\]", r"62.5 (1)<br>\[52.5, 72.5\]"]
    assert pitch[6:8] == ["70.8 (2)", r"66.7 (2, moved 0.17)<br>\[61.7, 71.7\]"]
    assert pitch[8] == r"80.0 (2)<br>\[70.0, 90.0\]"
    assert key[8:] == [MISSING] * 3


def test_a_missing_model_is_named_with_what_computes_it(two_models: list[Cell]) -> None:
    notes = make_paper_table(make_table_rows(two_models)).notes
    (note,) = [note for note in notes if note.startswith("Missing")]
    assert note.startswith("Missing: muq on Key, key_weighted, seed 0. `mirprobe sweep`")


def test_seeds_and_settings_have_lines_of_their_own(compose: Compose) -> None:
    cells = compose("task=nsynth_pitch", "seed=0,1", "protocol.lr=1e-3,3e-4", "baseline=null")
    for number, cell in enumerate(cells):
        save_rows(cell, [0.1, 0.2], [0.3, 0.4 + 0.1 * number])
    headings, *lines = markdown_lines(cells)
    assert headings[4:6] == ["Seed", "Setting"]
    best = {(line[4], line[5]): line[6][:4] for line in lines}
    assert len(best) == 4
    assert set(best.values()) == {"40.0", "50.0", "60.0", "70.0"}


def test_a_stale_number_is_marked(compose: Compose) -> None:
    (cell,) = compose("task=nsynth_pitch", "baseline=null")
    save_rows(cell, [0.4, 0.5], [0.6, 0.5], current=False)
    assert markdown_lines([cell])[1][4].endswith("<br>stale")


def test_other_tracks_of_one_name_are_another_line(compose: Compose) -> None:
    cells = compose("task=nsynth_pitch", "model=fcpe,muq", "baseline=null")
    counts = {"train": 48, "val": 24, "test": 23}
    save_rows(cells[0], [0.1, 0.2], [0.3, 0.4])
    save_rows(cells[1], [0.1, 0.2], [0.3, 0.4], n_tracks=counts, n_expected=counts)
    _, one, other = markdown_lines(cells)
    assert (one[2], other[2]) == ("48/24/24", "48/24/23")


# -- every format ----------------------------------------------------------------------------------


def test_names_of_users_are_escaped_everywhere(compose: Compose) -> None:
    (cell,) = compose("task=nsynth_pitch", "baseline=null", f"task.label='{HOSTILE}'")
    save_rows(cell, [0.4, 0.5], [0.6, 0.5])
    assert records([cell])[0]["label"] == HOSTILE

    table = make_paper_table(make_table_rows([cell]))
    markdown = markdown_text(table)
    assert "<script>" not in markdown
    assert r"A&amp;B\_100%$\#{\~^\\\|&lt;script&gt;" in markdown
    latex = r"A\&B\_100\%\$\#\{\textasciitilde{}\textasciicircum{}\textbackslash{}\textbar{}"
    assert latex + r"\textless{}script\textgreater{}" in latex_text(table)


def test_latex_has_as_many_cells_in_every_line_as_columns(two_models: list[Cell]) -> None:
    text = latex_text(make_paper_table(make_table_rows(two_models), strips=False))
    columns = re.search(r"\\begin\{tabular\}\{([lr]+)\}", text)
    assert columns and columns[1] == "llrrr" + 6 * "r"
    body = text.partition("\\midrule\n")[2].partition("\\bottomrule")[0]
    assert [len(re.findall(r"(?<!\\)&", line)) for line in body.splitlines()] == [10, 10]
    assert r"\multicolumn{3}{c}{fcpe} & \multicolumn{3}{c}{muq} \\" in text
    assert r"\cmidrule(lr){6-8}\cmidrule(lr){9-11}" in text
    assert r"\shortstack[r]{45.0 \\ {[}35.0, 55.0{]}}" in text
    for kind in ("table*", "tabular", "minipage"):
        assert text.count(f"\\begin{{{kind}}}") == text.count(f"\\end{{{kind}}}") == 1
    assert text.count("{") - text.count("\\{") == text.count("}") - text.count("\\}")


def test_latex_of_a_scan_is_plain_ascii(compose: Compose) -> None:
    (cell,) = compose("task=nsynth_pitch", "baseline=null")
    result = save_rows(cell, [0.4, 0.5, 0.6], [0.6, 0.5, 0.5])
    (result.folder / SCANS).write_text(scans_text([make_scan("mlp")]))
    text = latex_text(make_paper_table(make_table_rows([cell]), strips=False))
    assert text.isascii()
    assert "the best layer is among 0-1; over the last layer +12.3" in text


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs pdflatex")
def test_latex_compiles(two_models: list[Cell], tmp_path: Path) -> None:
    write_tables(make_table_rows(two_models), tmp_path)
    document = tmp_path / "document.tex"
    document.write_text(
        "\\documentclass{article}\\usepackage{booktabs,graphicx}\\begin{document}"
        "\\input{table1}\\end{document}"
    )
    command = ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", document.name]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    assert document.with_suffix(".pdf").stat().st_size > 5000


def test_identical_rows_give_identical_files(two_models: list[Cell], tmp_path: Path) -> None:
    one = write_tables(make_table_rows(two_models), tmp_path / "one")
    other = write_tables(make_table_rows(two_models), tmp_path / "other")
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in other]
    assert [path.name for path in one] == ["table1.md", "table1.csv", "table1.tex"]


# -- CSV -------------------------------------------------------------------------------------------


def test_csv_has_a_line_for_each_probe_and_a_number_in_each_field(compose: Compose) -> None:
    (cell,) = compose("task=nsynth_pitch", "baseline=null")
    result = save_rows(cell, [0.5, 0.9, 0.7], [0.4, 0.625, 0.708], weighted=0.667)
    rows = read_rows(result.folder, cell.hash, cell.metrics)
    twin = replace(rows[0], probe="linear")
    rows += layer_rows("val", 0.3, 0.2, 0.1, like=twin)
    rows += layer_rows("test", 0.35, 0.2, 0.1, like=twin)
    write_rows(result.folder, rows)
    (result.folder / SCANS).write_text(scans_text([make_scan("mlp")]))

    mlp, lin = records([cell])
    assert (mlp["probe"], mlp["best_layer"], mlp["best"]) == ("mlp", "1", "62.5")
    assert (mlp["best_low"], mlp["best_high"]) == ("52.5", "72.5")
    assert (mlp["oracle_layer"], mlp["oracle"], mlp["optimism"]) == ("2", "70.8", "2.0")
    assert (mlp["weighted"], mlp["largest_weight_layer"]) == ("66.7", "2")
    assert (mlp["best_layer_set"], mlp["layer_chosen_by"]) == ("0-1", "val/accuracy")
    assert (mlp["n_train"], mlp["n_val"], mlp["n_test"]) == ("48", "24", "24")
    assert (mlp["data"], mlp["state"], mlp["seed"]) == ("demo", "current", "0")
    assert (lin["probe"], lin["best_layer"], lin["best"]) == ("linear", "0", "35.0")
    assert (lin["weighted"], lin["best_layer_set"], lin["baseline"]) == ("", "", "")
