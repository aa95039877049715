"""A workspace that compares models, of the series that runs have."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from toy_rows import make_rows

from datamodules.errors import UserError
from mirprobe.cell import Cell
from mirprobe.reporting.dashboard import make_workspace, save_dashboard
from mirprobe.reporting.tracking import layer_points
from mirprobe.settings import compose_cells

Settings = Callable[..., list[str]]


@pytest.fixture
def cells(settings: Settings) -> list[Cell]:
    return compose_cells(settings("task=gtzan_genre,nsynth_pitch", "logger.mode=offline"))


def test_every_chart_is_of_a_series_that_runs_have(cells: list[Cell]) -> None:
    models = [cell for cell in cells if not cell.is_baseline]
    written = set()
    for cell in models:
        rows = make_rows(cell, [0.5, 0.6], [0.5, 0.7], weighted=0.6)
        twins = make_rows(cell, [0.5, 0.6], [0.5, 0.7], probe="linear")
        written |= {name for point in layer_points([*rows, *twins]) for name in point}

    shown = [name for section in make_workspace(cells).sections for name in series_of(section)]
    of_tasks = [name for name in shown if not name.startswith("similarity/")]
    assert set(of_tasks) < written
    assert len(of_tasks) == 2 * 3, "a metric by two probes, and the weights"


def series_of(section: object) -> list[str]:
    return [str(getattr(y, "name", y)) for panel in section.panels for y in panel.y]  # type: ignore[attr-defined]


def test_sections_are_in_the_order_of_the_paper(cells: list[Cell]) -> None:
    names = [section.name for section in make_workspace(cells).sections]
    assert names == ["Pitch (nsynth_pitch)", "Genre (gtzan_genre)", "Similarity"]


def test_without_a_key_it_is_a_file_and_nothing_is_asked(
    cells: list[Cell], capsys: pytest.CaptureFixture[str]
) -> None:
    save_dashboard(cells)
    path = Path(cells[0].paths.runs) / "wandb" / "workspace-mirprobe.json"
    assert f"no workspace saved (offline); what it would be: {path}" in capsys.readouterr().out
    text = path.read_text()
    assert json.loads(text)["project"] == "mirprobe"
    assert "nsynth_pitch/linear_test_accuracy" in text
    save_dashboard(cells)
    assert path.read_text() == text, "ids are not drawn by lot"


def test_a_package_that_is_not_there_is_named(
    cells: list[Cell], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb_workspaces.reports.v2", None)
    with pytest.raises(UserError, match=r"pip install 'mirprobe\[dashboard\]'"):
        make_workspace(cells)
