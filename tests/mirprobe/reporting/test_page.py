"""The page of a report: what it holds, that no name breaks it, and what a browser makes of it."""

import json
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from html import escape, unescape
from pathlib import Path

import pytest
from toy_rows import ROW, make_scan, save_rows

from datamodules.errors import UserError
from mirprobe.cell import Cell
from mirprobe.reporting.page import embed, page_text, write_page
from mirprobe.reporting.page_data import make_curves
from mirprobe.reporting.report import report
from mirprobe.reporting.table import TableRow, make_table_rows, table_columns
from mirprobe.results import read_rows
from mirprobe.settings import compose_cells

Compose = Callable[..., list[Cell]]
NASTY = "</script><script>alert(1)</script> \"q\" 'a' &amp; <!-- \u2028 \n %{{ x }}"


@pytest.fixture(scope="module")
def pitch(tmp_path_factory: pytest.TempPathFactory) -> list[Cell]:
    """As the fixture of that name, once for all tests of this file: none of them changes it."""
    runs = tmp_path_factory.mktemp("page") / "runs"
    baseline, fcpe = compose_cells([f"paths.runs={runs}", "task=nsynth_pitch"])
    save_rows(baseline, [0.4], [0.45])
    save_rows(fcpe, [0.5, 0.9, 0.7], [0.4, 0.625, 0.708], weighted=0.667)
    return [baseline, fcpe]


def page_of(cells: list[Cell]) -> str:
    return page_text(cells, make_table_rows(cells))


def numbers_of(page: str) -> dict[str, list[dict[str, object]]]:
    """The numbers that the page's charts are made of."""
    found = re.search(r'<script type="application/json" id="numbers">(.*?)</script>', page, re.S)
    assert found is not None
    numbers: dict[str, list[dict[str, object]]] = json.loads(found[1])
    return numbers


def lines_of(page: str, name: str) -> list[list[str]]:
    """The text of a table's lines."""
    table = re.search(rf'<table class="sortable" data-name="{name}">(.*?)</table>', page, re.S)
    assert table is not None
    lines = re.findall(r"<tr>(.*?)</tr>", table[1], re.S)[1:]
    return [
        [unescape(text) for text in re.findall(r"<td[^>]*>(.*?)</td>", line, re.S)]
        for line in lines
    ]


# -- what it holds ---------------------------------------------------------------------------------


def test_the_table_says_what_the_terminals_says(pitch: list[Cell]) -> None:
    rows = make_table_rows(pitch)
    expected = [[column.text(row) for column in table_columns(rows)] for row in rows]
    assert lines_of(page_of(pitch), "table1") == expected
    assert expected[0][-3].startswith("62.5 (1)")


def test_the_charts_numbers_are_those_of_the_rows(pitch: list[Cell]) -> None:
    (curves,) = numbers_of(page_of(pitch))["curves"]
    test = curves["layers"]["mlp test"]  # type: ignore[index]
    assert test["value"] == [0.4, 0.625, 0.708]
    assert (test["low"][1], test["high"][1]) == (0.525, 0.725)
    assert curves["layers"]["mlp val"]["value"] == [0.5, 0.9, 0.7]  # type: ignore[index]
    assert curves["weighted"]["test"]["value"] == [0.667]  # type: ignore[index]
    assert curves["baseline"]["mlp"]["value"] == [0.45]  # type: ignore[index]
    assert (curves["n_val"], curves["n_test"], curves["chosen"]) == (24, 24, {"mlp": 1})
    assert (curves["start"], curves["end"]) == ([1 / 2, 1 / 2], [1 / 3, 2 / 3])


def test_every_seed_is_a_curve_of_its_own(compose: Compose) -> None:
    cells = compose("task=nsynth_pitch", "seed=0,1", "baseline=null")
    save_rows(cells[0], [0.5, 0.6], [0.1, 0.2])
    save_rows(cells[1], [0.5, 0.6], [0.3, 0.4])
    values = [one.layers["mlp test"].value for one in make_curves(make_table_rows(cells))]
    assert values == [[0.1, 0.2], [0.3, 0.4]]


def test_a_missing_cell_stands_with_the_command_that_fills_it(compose: Compose) -> None:
    cells = compose("task=nsynth_pitch,gtzan_genre", "model.weights=random", "baseline=null")
    save_rows(cells[0], [0.5], [0.4])
    (line,) = lines_of(page_of(cells), "missing")
    assert line[:3] == ["fcpe-random", "Genre", "0"]
    assert line[3] == (
        "mirprobe sweep model=fcpe model.weights=random task=gtzan_genre protocol=mlp512 seed=0"
    )


def test_scans_say_which_layers_may_be_best(pitch: list[Cell]) -> None:
    (row,) = make_table_rows(pitch)
    row = replace(row, scans=[make_scan("mlp", optimism=0.034)])
    (line,) = lines_of(page_text(pitch, [row]), "scans")
    assert (line[5], line[6], line[7], line[9]) == ("1", "2", "0-1", "3.4")


def test_every_key_has_its_values(compose: Compose) -> None:
    cells = compose("task=nsynth_pitch", "seed=0,1", "baseline=null")
    for cell in cells:
        save_rows(cell, [0.5], [0.4])
    lines = lines_of(page_of(cells), "settings")
    assert ["protocol.hidden", "512", "all"] in lines
    assert ["seed", "1", "fcpe nsynth_pitch seed 1"] in lines


def test_models_have_their_cards(pitch: list[Cell]) -> None:
    model, baseline = lines_of(page_of(pitch), "models")
    assert (model[0], model[2]) == ("fcpe", pitch[1].model["card"]["licence"])
    assert (baseline[0], baseline[2]) == (
        "fbank_chroma (baseline)",
        pitch[0].model["card"]["licence"],
    )


def save_similarity(cell: Cell, *changes: dict[str, object]) -> Path:
    """Writes a row of similarity for each change of one; returns their file."""
    folder = Path(cell.paths.runs) / cell.model_name / "similarity" / "0a1b2c3d"
    folder.mkdir(parents=True)
    row = {"kind": "similarity", "measure": "pwcca", "input": "mel", "layer": 1, "value": 0.25}
    row |= {"model": cell.model_name, "weights": ROW.weights, "n_tracks": 24, "n_frames": 960}
    path = folder / "similarity.jsonl"
    path.write_text("".join(json.dumps({**row, **change}) + "\n" for change in changes))
    return path


def test_similarity_is_that_of_the_rows_weights_and_not_of_layers(compose: Compose) -> None:
    cells = compose("task=nsynth_pitch", "baseline=null")
    save_rows(cells[0], [0.5, 0.6], [0.4, 0.5])
    assert 'id="similarity"' not in page_of(cells)
    others = [{"weights": "others"}, {"input": "h02"}, {"measure": "cka"}]
    path = save_similarity(cells[0], {}, *others)

    page = page_of(cells)
    (shown,) = numbers_of(page)["similarity"]
    assert (shown["input"], shown["layer"], shown["value"]) == ("mel", 1, 0.25)
    assert 'id="similarity"' in page

    path.write_text("{")
    with pytest.raises(UserError, match=r"similarity.jsonl is not a list of similarity rows"):
        page_of(cells)


# -- names, bytes, size ----------------------------------------------------------------------------


def with_names(rows: list[TableRow], name: str) -> list[TableRow]:
    """The rows under another label of the task and another note of the model."""
    renamed = []
    for row in rows:
        card = {"label": name, "licence": name, "note": name}
        task = replace(row.cell.task, label=name, options={"classes": name})
        cell = replace(row.cell, task=task, model=row.cell.model | {"card": card})
        renamed.append(replace(row, cell=cell))
    return renamed


def test_no_name_becomes_markup(pitch: list[Cell]) -> None:
    rows = make_table_rows(pitch)
    plain, nasty = page_text(pitch, rows), page_text(pitch, with_names(rows, NASTY))
    assert nasty.count("<script") == plain.count("<script") == 2
    assert nasty.count("</script") == 2
    assert "alert(1)</" not in nasty
    assert escape(NASTY, quote=False)[:40] in nasty.replace("&#34;", '"').replace("&#39;", "'")
    assert numbers_of(nasty)["curves"][0]["task"] == NASTY
    assert lines_of(nasty, "table1")[0][0] == NASTY


def test_embedded_numbers_must_be_finite() -> None:
    assert embed("\u2028<&>") == r'"\u2028\u003c\u0026\u003e"'
    with pytest.raises(ValueError, match="not JSON compliant"):
        embed(float("nan"))


def test_the_page_asks_for_nothing(pitch: list[Cell]) -> None:
    page = page_of(pitch)
    addresses = re.findall(r"(?:src|href)=\"([^\"]*)\"", page)
    assert addresses and all(address.startswith(("#", "data:")) for address in addresses)
    assert "default-src 'none'" in page
    assert not re.search(r"@import|url\(|fetch\(|XMLHttpRequest|innerHTML|insertAdjacent", page)


def test_the_same_rows_give_the_same_bytes(pitch: list[Cell], tmp_path: Path) -> None:
    first = write_page(pitch, make_table_rows(pitch), tmp_path / "one").read_bytes()
    time.sleep(0.01)
    assert write_page(pitch, make_table_rows(pitch), tmp_path / "two").read_bytes() == first


def test_the_report_says_where_its_page_is(
    pitch: list[Cell], capsys: pytest.CaptureFixture[str]
) -> None:
    report(pitch)
    path = Path(pitch[0].paths.runs) / "report" / "report.html"
    assert f"page: {path}" in capsys.readouterr().out
    assert "</html>" in path.read_text(encoding="utf-8")


def test_two_models_twelve_tasks_five_seeds_stay_below_3_mb(pitch: list[Cell]) -> None:
    (row,) = make_table_rows(pitch)
    value = 2 / 3
    layers = [
        replace(one, head=f"layer_{layer:02d}", layer=layer, value=value, ci_low=value, ci_high=1.0)
        for layer in range(25)
        for one in row.rows
        if one.layer == 0
    ]
    twins = [replace(one, probe="linear") for one in layers]
    weighted = [one for one in row.rows if one.layer is None]
    big = replace(row, rows=[*layers, *twins, *weighted])
    started = time.monotonic()
    page = page_text(pitch, [big] * 2 * 15 * 5)  # three tasks have two metrics
    assert len(page.encode()) < 3e6
    assert time.monotonic() - started < 10


# -- in a browser ----------------------------------------------------------------------------------

PROBE = """
const seen = (id) => [...document.querySelectorAll(`#${id} [data-value]`)].map(
  (one) => one.dataset.value);
document.querySelector("#curve-charts svg").focus();
document.querySelector("#curve-charts svg").dispatchEvent(
  new KeyboardEvent("keydown", { key: "ArrowRight" }));
const found = { hash: location.hash, curves: seen("curve-charts"), maps: seen("map-charts"),
  text: [...document.querySelectorAll("#map-charts td[data-value]")].map((one) => one.textContent),
  tip: document.getElementById("tip").textContent,
  theme: document.documentElement.dataset.theme, wide: document.documentElement.scrollWidth,
  similarity: document.querySelectorAll("#similarity-charts path").length,
  csv: curveLines(shownCurves()).slice(0, 3),
  rounded: [0.0625, 0.1875, 0.625, 0.70849, -0.0625].map(percent),
  order: [...document.querySelectorAll('[data-name="table1"] tbody tr')].map(
    (row) => row.cells[0].textContent) };
document.body.replaceChildren(JSON.stringify(found));
"""


def look(page: Path, hash_text: str, folder: Path, size: str = "1280,900") -> dict[str, object]:
    """What a browser makes of a page; fails on any message of its console."""
    browser = shutil.which("chromium")
    if browser is None:
        pytest.skip("chromium is not installed")
    probed = folder / "probed.html"
    text = page.read_text(encoding="utf-8")
    probed.write_text(text.replace("</body>", f"<script>{PROBE}</script></body>"), encoding="utf-8")

    options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
    options += ["--enable-logging=stderr", f"--user-data-dir={folder / 'profile'}", "--dump-dom"]
    ran = subprocess.run(
        [browser, *options, f"--window-size={size}", f"file://{probed}#{hash_text}"],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert [line for line in ran.stderr.splitlines() if "CONSOLE" in line] == []
    body = re.search(r"<body>(.*?)</body>", ran.stdout, re.S)
    assert body is not None
    found: dict[str, object] = json.loads(unescape(body[1]))
    return found


@pytest.mark.trial
def test_a_browser_shows_the_rows_numbers_and_keeps_the_state_of_the_address(
    compose: Compose, tmp_path: Path
) -> None:
    cells = compose("task=nsynth_pitch,gtzan_genre", "baseline=null")
    save_rows(cells[0], [0.5, 0.9, 0.7], [0.4, 0.625, 0.708], weighted=0.667)
    save_rows(cells[1], [0.5, 0.9, 0.7], [0.3, 0.1875, 0.2])
    save_similarity(cells[0], {"measure": "pwcca"}, {"measure": "null", "value": None})
    page = write_page(cells, make_table_rows(cells), tmp_path)

    plain = look(page, "", tmp_path)
    test = [
        row.value
        for cell in cells
        for row in read_rows(make_table_rows([cell])[0].folder, cell.hash, cell.metrics)
        if row.split == "test" and row.layer is not None
    ]
    assert [float(value) for value in plain["curves"]] == test  # type: ignore[attr-defined]
    assert [float(value) for value in plain["maps"]] == test  # type: ignore[attr-defined]
    assert plain["text"] == [f"{100 * value:.1f}" for value in test if value is not None]
    assert plain["rounded"] == ["6.2", "18.8", "62.5", "70.8", "-6.2"]  # as Python rounds
    assert plain["tip"] == "layer 1, n = 24\nfcpe: 62.5 [52.5, 72.5]"
    head, _, second = plain["csv"]  # type: ignore[misc]
    assert dict(zip(head, second, strict=True)) == {
        **{"model": "fcpe", "task": "Pitch", "metric": "accuracy", "seed": 0, "probe": "mlp"},
        **{"split": "test", "layer": 1, "value": 0.625, "ci_low": 0.525, "ci_high": 0.725},
        **{"n": 24, "problem": None},
    }
    assert plain["similarity"] == 3
    assert plain["order"] == ["Pitch", "Genre"]

    chosen = look(page, "tasks=Genre&split=val&theme=dark&sort=table1.0.up", tmp_path)
    assert chosen["curves"] == ["0.5", "0.9", "0.7"]
    assert (chosen["theme"], chosen["order"]) == ("dark", ["Genre", "Pitch"])

    assert look(page, "probe=no&x=%3Cscript%3E", tmp_path)["curves"] == plain["curves"]


@pytest.mark.trial
def test_a_browser_takes_names_as_text(pitch: list[Cell], tmp_path: Path) -> None:
    rows = with_names(make_table_rows(pitch), NASTY)
    found = look(write_page(pitch, rows, tmp_path), "", tmp_path, size="500,900")
    assert found["curves"] == ["0.4", "0.625", "0.708"]
    assert found["wide"] <= 500  # type: ignore[operator]
    assert asdict(make_curves(rows)[0])["task"] == NASTY
