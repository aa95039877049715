"""The page of a report: its numbers are those of the rows, and no name breaks out of it."""

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from toy_rows import make_scan, save_rows
from toy_similarity import save_similarity

from mirprobe.cell import Cell
from mirprobe.reporting.page import page_text
from mirprobe.reporting.table import TableRow, make_table_rows
from mirprobe.results import SCANS
from mirprobe.scoring.scan import scans_text
from mirprobe.settings import compose_cell

Settings = Callable[..., list[str]]
VAL, TEST = [0.5, 0.7, 0.6], [0.55, 0.65, 0.7]
EVIL = "</script><script>alert(1)</script>\u2028<b>&\"'"


@pytest.fixture
def cell(settings: Settings) -> Cell:
    return compose_cell(settings("task=nsynth_pitch", "logger.mode=disabled"))


def rows_of(cell: Cell, **changes: object) -> list[TableRow]:
    result = save_rows(cell, VAL, TEST, weighted=0.61, **changes)
    (result.folder / SCANS).write_text(scans_text([make_scan("mlp")]))
    return make_table_rows([cell])


def data_of(page: str) -> dict[str, list[dict[str, object]]]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)
    assert found is not None
    return json.loads(found[1])  # type: ignore[no-any-return]


def test_numbers_of_the_charts_are_those_of_the_rows(cell: Cell) -> None:
    (entry,) = data_of(page_text(rows_of(cell)))["entries"]
    probe = entry["probes"]["mlp"]  # type: ignore[index]
    assert [one["value"] for one in probe["layers"]] == [55.0, 65.0, 70.0]
    assert [one["val"] for one in probe["layers"]] == [50.0, 70.0, 60.0]
    assert [(one["low"], one["high"]) for one in probe["layers"]][1] == (55.0, 75.0)
    assert (probe["chosen"], probe["best_set"], probe["optimism"]) == (1, "0-1", 2.0)
    assert probe["chances"] == {"0": 0.6, "1": 0.4, "2": 0.0}
    assert entry["weighted"]["value"] == 61.0  # type: ignore[index]
    assert entry["n"] == {"train": 48, "val": 24, "test": 24}


def test_similarity_is_there_where_there_are_rows_of_it(cell: Cell) -> None:
    rows = rows_of(cell)
    assert "Similarity to the input" not in page_text(rows)
    page = page_text(rows, save_similarity(cell, [0.9, 0.8, 0.7]))
    against = {one["input"]: one["measures"] for one in data_of(page)["similarity"]}
    assert [point["value"] for point in against["mel"]["pwcca"]] == [0.9, 0.8, 0.7]  # type: ignore[index]
    assert list(against) == ["mel", "h0"]
    assert "Similarity to the input" in page


def test_no_name_breaks_out_of_its_place(settings: Settings) -> None:
    cell = compose_cell(settings("task=nsynth_pitch", "logger.mode=disabled"))
    object.__setattr__(cell.task, "label", EVIL)
    page = page_text(rows_of(cell))
    assert page.count("<script") == 2 and page.count("</script>") == 2
    assert "alert(1)</script>" not in page and "<b>" not in re.sub(r"<b>\d", "", page)
    (entry,) = data_of(page)["entries"]
    assert entry["name"] == EVIL, "and it is shown as it is"


def test_the_same_rows_give_the_same_bytes_and_nothing_is_loaded(cell: Cell) -> None:
    rows = rows_of(cell)
    page = page_text(rows)
    assert page == page_text(rows)
    assert not re.search(r"(?:src|href)\s*=\s*[\"']?(?:https?:)?//", page)
    assert len(page) < 3e6


def test_a_layer_without_a_score_is_there_without_a_number(cell: Cell) -> None:
    from dataclasses import replace

    from toy_rows import failed

    (row,) = rows_of(cell)
    broken = [failed(one) if one.layer == 2 else one for one in row.rows]
    (entry,) = data_of(page_text([replace(row, rows=broken)]))["entries"]
    layer = entry["probes"]["mlp"]["layers"][2]  # type: ignore[index]
    assert layer["value"] is None and "not a number" in layer["failed"]


# -- in a browser ----------------------------------------------------------------------------------

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")


def browse(path: Path, state: str = "") -> tuple[str, str]:
    """The page as a browser has made it, and what it said of it."""
    command = [
        *(str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr"),
        *("--window-size=390,800", "--virtual-time-budget=3000", "--dump-dom"),
        f"{path.as_uri()}{state}",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    return done.stdout, "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)


@pytest.mark.trial
@pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")
def test_a_browser_draws_it_without_an_error(cell: Cell, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    page.write_text(page_text(rows_of(cell), save_similarity(cell, [0.9, 0.8, 0.7])))
    drawn, said = browse(page)
    assert said == ""
    assert drawn.count("<svg") == 1 + 1 + 1 + 2, "a curve, weights, chances, two similarities"
    assert ">65.0</td>" in drawn and "box-shadow" in drawn, "the chosen layer is framed"
    assert drawn.count("stroke-dasharray") > 3


@pytest.mark.trial
@pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")
def test_the_address_says_what_is_shown(cell: Cell, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    page.write_text(page_text(rows_of(cell)))
    drawn, said = browse(page, "#flags=linear&models=fcpe")
    assert said == "" and "nothing to show" in drawn, "there is no linear twin in these rows"
    assert 'data-flag="mlp" aria-pressed="false"' in drawn


@pytest.mark.trial
@pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")
def test_a_hostile_name_does_nothing_in_a_browser(settings: Settings, tmp_path: Path) -> None:
    cell = compose_cell(settings("task=nsynth_pitch", "logger.mode=disabled"))
    object.__setattr__(cell.task, "label", "<img src=x onerror=console.error('broken')>")
    page = tmp_path / "report.html"
    page.write_text(page_text(rows_of(cell)))
    drawn, said = browse(page)
    assert said == "" and "<img" not in drawn
