"""The report: rows made by hand into what is printed, averaged and drawn."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from toy_rows import MADE_OF, failed, save_rows

from mirprobe.cell import Cell
from mirprobe.provenance import result_of
from mirprobe.reporting.figures import LayerProfile, Panel
from mirprobe.reporting.report import make_figures, make_panels, report
from mirprobe.reporting.table import make_table_rows
from mirprobe.results import PREDICTIONS, PROBES, SCANS, read_rows, write_rows

Compose = Callable[..., list[Cell]]


def panels_of(cells: list[Cell]) -> list[Panel]:
    return make_panels(make_table_rows(cells))


def weights_of(profile: LayerProfile) -> tuple[list[float], list[float]]:
    """Weights of the layers at start and at end."""
    assert profile.weights is not None
    start, end = profile.weights
    return start.tolist(), end.tolist()


# -- what is averaged ------------------------------------------------------------------------------


def test_a_panel_holds_the_scores_and_weights_of_the_rows(pitch: list[Cell]) -> None:
    (panel,) = panels_of(pitch)
    (profile,) = panel.profiles
    assert (panel.title, profile.task, profile.metric) == ("fcpe", "Pitch", "")
    assert profile.val.tolist() == pytest.approx([50, 90, 70])
    assert profile.test.tolist() == pytest.approx([40, 62.5, 70.8])
    assert weights_of(profile) == ([1 / 2, 1 / 2], [1 / 3, 2 / 3])
    assert profile.n_seeds == 1


def test_seeds_are_averaged(compose: Compose) -> None:
    cells = compose("task=nsynth_pitch", "seed=0,1", "baseline=null")
    save_rows(cells[0], [0.9, 0.5, 0.1], [0.2, 0.4, 0.6], weighted=0.5, weights=[1, 3])
    save_rows(cells[1], [0.1, 0.7, 0.1], [0.4, 0.6, 0.2], weighted=0.5, weights=[3, 1])
    (panel,) = panels_of(cells)
    (profile,) = panel.profiles
    assert panel.title == "fcpe"
    assert profile.val.tolist() == pytest.approx([50, 60, 10])
    assert profile.test.tolist() == pytest.approx([30, 50, 40])
    assert weights_of(profile)[1] == pytest.approx([0.5, 0.5])
    assert profile.n_seeds == 2


@pytest.mark.parametrize(
    ("setting", "titles"),
    [
        (
            "protocol.layer_weights_init=zeros,normal",
            ["fcpe layer_weights_init=zeros", "fcpe layer_weights_init=normal"],
        ),
        ("protocol.lr=1e-3,3e-4", ["fcpe lr=0.001", "fcpe lr=0.0003"]),
        ("model.seed=0,1", ["fcpe model.seed=0", "fcpe model.seed=1"]),
    ],
)
def test_what_differs_in_anything_but_the_seed_is_a_panel_of_its_own(
    compose: Compose, setting: str, titles: list[str]
) -> None:
    cells = compose("task=nsynth_pitch", "seed=0,1", setting, "baseline=null")
    first = cells[0]
    for cell in cells:
        of_first = (cell.protocol, cell.model) == (first.protocol, first.model)
        test = [0.2, 0.4, 0.6] if of_first else [0.8, 0.6, 0.5]
        weights = [1, 3] if of_first else [4, 1]
        save_rows(cell, test, test, weighted=0.5, weights=weights)

    one, other = panels_of(cells)
    assert [one.title, other.title] == titles
    assert one.profiles[0].test.tolist() == pytest.approx([20, 40, 60])
    assert other.profiles[0].test.tolist() == pytest.approx([80, 60, 50])
    assert weights_of(one.profiles[0])[1] == pytest.approx([0.25, 0.75])
    assert weights_of(other.profiles[0])[1] == pytest.approx([0.8, 0.2])
    assert (one.profiles[0].n_seeds, other.profiles[0].n_seeds) == (2, 2)

    heat_maps, bars = (figure for _, figure in make_figures(make_table_rows(cells)))
    assert [axis.get_title().replace("\n", " ") for axis in heat_maps.axes] == [
        f"{title} (demo data)" for title in titles
    ]
    assert len(bars.axes) == 2
    assert "mean of 2 seeds" in heat_maps.get_supxlabel()
    assert "mean of 2 seeds" in bars.get_supxlabel()


def test_two_tables_of_ones_own_are_two_columns(compose: Compose, tmp_path: Path) -> None:
    files = [tmp_path / "mine.csv", tmp_path / "yours.csv"]
    listed = ",".join(map(str, files))
    mine, yours = compose("task=manifest", f"task.options.file={listed}", "baseline=null")
    save_rows(mine, [0.1, 0.2], [0.3, 0.4])
    save_rows(yours, [0.5, 0.6], [0.7, 0.8])
    (panel,) = panels_of([mine, yours])
    assert panel.title == "fcpe"
    names = [profile.task for profile in panel.profiles]
    assert names == ["Own data\nfile=mine.csv", "Own data\nfile=yours.csv"]
    assert panel.profiles[0].test.tolist() == pytest.approx([30, 40])
    assert panel.profiles[1].test.tolist() == pytest.approx([70, 80])


def test_two_checkpoints_are_two_panels(compose: Compose) -> None:
    """Their settings are the same but for a path, which is in no hash."""
    cells = compose("task=nsynth_pitch", "model.checkpoint=/a/one.pt,/a/two.pt", "baseline=null")
    assert cells[0].hash == cells[1].hash
    for number, cell in enumerate(cells):
        made_of = replace(MADE_OF, weights=str(number))
        save_rows(cell, [0.1, 0.2], [0.3, 0.4 + 0.1 * number], made_of=made_of)
    panels = panels_of(cells)
    assert [panel.title for panel in panels] == ["fcpe checkpoint=one.pt", "fcpe checkpoint=two.pt"]
    scores = [profile.test.tolist() for panel in panels for profile in panel.profiles]
    assert scores == [pytest.approx([30, 40]), pytest.approx([30, 50])]


def test_two_roots_are_two_columns(compose: Compose) -> None:
    cells = compose("task=nsynth_pitch", "data.root=/a/clean,/a/noisy", "baseline=null")
    for number, cell in enumerate(cells):
        made_of = replace(MADE_OF, tracks=str(number))
        save_rows(cell, [0.1, 0.2], [0.3, 0.4 + 0.1 * number], made_of=made_of)
    (panel,) = panels_of(cells)
    names = [profile.task for profile in panel.profiles]
    assert names == ["Pitch\nroot=clean", "Pitch\nroot=noisy"]
    scores = [profile.test.tolist() for profile in panel.profiles]
    assert scores == [pytest.approx([30, 40]), pytest.approx([30, 50])]


def test_two_tasks_of_one_label_are_two_columns(compose: Compose) -> None:
    cells = compose("task=nsynth_pitch,nsynth_instrument", "task.label=Notes", "baseline=null")
    save_rows(cells[0], [0.1, 0.2], [0.3, 0.4])
    save_rows(cells[1], [0.5, 0.6], [0.7, 0.8])
    (panel,) = panels_of(cells)
    names = [profile.task for profile in panel.profiles]
    assert names == ["Notes\ntask=nsynth_pitch", "Notes\ntask=nsynth_instrument"]


def test_metrics_of_a_task_are_columns_that_share_their_weights(compose: Compose) -> None:
    (cell,) = compose("task=emomusic_emotion", "baseline=null")
    first, second = cell.metrics
    result = save_rows(cell, [0.1, 0.2, 0.3], [0.4, 0.5, 0.6], weighted=0.5, metric=first)
    path = result.folder / "rows.jsonl"
    text = path.read_text()
    path.write_text(text + text.replace(first, second))
    (panel,) = panels_of([cell])
    assert [profile.metric for profile in panel.profiles] == [first, second]
    assert [profile.weights is None for profile in panel.profiles] == [False, True]
    _, bars = (figure for _, figure in make_figures(make_table_rows([cell])))
    assert [axis.get_title() for axis in bars.axes] == ["Emotion"]


def test_a_layer_that_failed_in_any_seed_has_no_mean(compose: Compose) -> None:
    cells = compose("task=nsynth_pitch", "seed=0,1", "baseline=null")
    for cell in cells:
        save_rows(cell, [0.9, 0.5, 0.1], [0.2, 0.4, 0.6], weighted=0.5)
    folder = result_of(cells[0], MADE_OF).folder
    rows = read_rows(folder, cells[0].hash, cells[0].metrics)
    bad = ("layer_01", "weighted")
    write_rows(folder, [failed(row) if row.head in bad else row for row in rows])

    (panel,) = panels_of(cells)
    (profile,) = panel.profiles
    assert profile.test.tolist() == pytest.approx([20, math.nan, 60], nan_ok=True)
    assert profile.val.tolist() == pytest.approx([90, math.nan, 10], nan_ok=True)
    assert profile.weights is None
    assert [name for name, _ in make_figures(make_table_rows(cells))] == ["figure2"]


def test_every_model_is_a_panel_with_the_tasks_it_has(compose: Compose) -> None:
    cells = compose("task=nsynth_pitch,giantsteps_key", "model=fcpe,muq", "baseline=null")
    for cell in cells:
        if (cell.model_name, cell.task.label) != ("muq", "Key"):
            save_rows(cell, [0.5, 0.6], [0.5, 0.6])
    found = {
        panel.title: [profile.task for profile in panel.profiles] for panel in panels_of(cells)
    }
    assert found == {"fcpe": ["Pitch", "Key"], "muq": ["Pitch"]}


def test_a_backbone_of_one_layer_has_no_figure(compose: Compose) -> None:
    cells = compose("task=nsynth_pitch", "model=fbank_chroma")
    save_rows(cells[0], [0.4], [0.45])
    assert panels_of(cells) == []
    assert make_figures(make_table_rows(cells)) == []


def test_a_backbone_of_one_block_has_a_heat_map_though_no_weighted_sum(compose: Compose) -> None:
    cells = compose("task=nsynth_pitch", "baseline=null")
    save_rows(cells[0], [0.4, 0.5], [0.6, 0.5])
    assert [name for name, _ in make_figures(make_table_rows(cells))] == ["figure2"]


# -- the whole -------------------------------------------------------------------------------------


def test_report_prints_the_table_and_writes_png_and_pdf(
    pitch: list[Cell], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report(pitch)
    out = capsys.readouterr().out
    for words in ("Table 1", "demo data", "62.5 (1)", "70.8 (2)", "chosen on val", "figure2.png"):
        assert words in out
    written = {path.name: path.read_bytes() for path in (tmp_path / "runs/report").iterdir()}
    tables = {name: written.pop(name) for name in ("table1.md", "table1.csv", "table1.tex")}
    assert all(b"62.5" in content for content in tables.values())
    assert b"62.5" in written.pop("report.html")
    guide = {name: written.pop(name) for name in ("guide.md", "guide.json")}
    assert all(b"62.5" in content for content in guide.values())
    figures = ("figure2", "layer_weights", "layer_curves-fcpe")
    assert set(written) == {f"{name}.{kind}" for name in figures for kind in ("png", "pdf")}
    for name, content in written.items():
        assert content.startswith(b"\x89PNG" if name.endswith("png") else b"%PDF-")
        assert len(content) > 3000


def test_a_result_that_lost_a_file_is_said(
    pitch: list[Cell], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = result_of(pitch[1], MADE_OF).folder
    (folder / PROBES).touch()
    report(pitch)
    remedy = "delete its rows.jsonl, and the same sweep makes them anew."
    assert f"{folder} has lost predictions.npz and scans.json: {remedy}" in capsys.readouterr().out

    (folder / PREDICTIONS).touch()
    (folder / SCANS).write_text("[]")
    report(pitch)
    assert f"{folder} has lost" not in capsys.readouterr().out


def test_report_prints_names_and_folders_as_they_are(
    compose: Compose, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    runs = tmp_path / "[x]runs[/x]"
    note = "model.card.note='my [b]own[/b] model'"
    (cell,) = compose("task=nsynth_pitch", "baseline=null", note, f"paths.runs='{runs}'")
    save_rows(cell, [0.4, 0.5], [0.6, 0.5])
    report([cell])
    out = capsys.readouterr().out
    assert "fcpe: my [b]own[/b] model; " in out
    assert f"figures: {runs}/report/figure2.png, " in out


def test_report_of_nothing_prints_nothing_and_writes_nothing(
    compose: Compose, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report(compose("task=nsynth_pitch"))
    assert capsys.readouterr().out == ""
    assert not (tmp_path / "runs").exists()
