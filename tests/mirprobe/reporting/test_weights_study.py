"""The study of layer weights: groups, counts and verdicts from rows alone."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from toy_rows import make_rows, make_scan, save_rows

from datamodules.files import write_text
from mirprobe.cell import Cell
from mirprobe.command import run
from mirprobe.provenance import Result
from mirprobe.reporting.weights_figure import StartPlot, StudyPlot, draw_study
from mirprobe.reporting.weights_study import TaskStudy, make_studies, report_weights, verdicts
from mirprobe.results import SCANS, write_rows
from mirprobe.scoring.scan import scans_text

STUDY = ("task=nsynth_pitch", "baseline=null", "protocol.layer_weights_init=zeros,normal")
VAL, TEST = (0.5, 0.9, 0.7, 0.6), (0.8, 0.6, 0.75, 0.5)  # of layers 1..3, layer 2 is best on test
START = [0.2, 0.3, 0.5]


def save(cell: Cell, end: list[float]) -> Result:
    """A result whose weights start as the cell says, and end so."""
    result = save_rows(cell, VAL, TEST, weighted=0.7)
    rows = make_rows(cell, VAL, TEST, weighted=0.7, weights=end)
    if cell.protocol.layer_weights_init == "normal":
        for row in rows:
            if row.head == "weighted":
                object.__setattr__(row, "weights_start", START)
    write_rows(result.folder, rows)
    write_text(result.folder / SCANS, scans_text([make_scan("mlp")]))
    return result


@pytest.fixture
def cells(compose: Callable[..., list[Cell]]) -> list[Cell]:
    """Two seeds: from zeros the best layer and layer 1; from normal twice where it started."""
    made = compose(*STUDY, "seed=0,1")
    for cell in made:
        is_normal = cell.protocol.layer_weights_init == "normal"
        by_seed = [[0.1, 0.8, 0.1], [0.6, 0.3, 0.1]]
        save(cell, [0.2, 0.35, 0.45] if is_normal else by_seed[cell.seed])
    return made


@pytest.fixture
def study(cells: list[Cell]) -> TaskStudy:
    (found,) = make_studies(cells)
    return found


def test_cells_are_sorted_by_start_and_counted_over_seeds(study: TaskStudy) -> None:
    assert study.best == 2  # layer 0 is not among those that have weights
    np.testing.assert_allclose(study.curve, TEST[1:])
    zeros, normal = study.groups
    assert (zeros.label, normal.label) == ("zeros", "normal")
    assert [path.largest_end for path in zeros.paths] == [2, 1]
    assert (zeros.n_best(2), zeros.n_as_started, zeros.n_in_best_set) == (1, None, 1)
    assert (normal.n_best(2), normal.n_as_started, normal.n_in_best_set) == (0, 2, 0)
    assert normal.paths[0].moved == pytest.approx(0.05)


def test_the_verdict_answers_for_each_start(study: TaskStudy) -> None:
    lines = verdicts([study])
    assert lines[0] == (
        "fcpe, Pitch: the best layer is 2 (75.0 % on test). From zeros the largest weight names it "
        "in 1 of 2 seeds. From normal the largest weight names it in 0 of 2 seeds, and is where it "
        "was before training in 2."
    )
    assert lines[1].startswith("By chance the largest weight is the best layer in 1 of 3 seeds.")
    assert "all layers have the same norm" in lines[-1]


def test_features_as_they_are_have_norms_of_their_own(compose: Callable[..., list[Cell]]) -> None:
    (cell,) = compose("task=nsynth_pitch", "baseline=null", "protocol.standardize=false")
    save(cell, [0.1, 0.8, 0.1])
    assert not any("same norm" in line for line in verdicts(make_studies([cell])))


def test_rates_of_the_weights_are_kept_apart(compose: Callable[..., list[Cell]]) -> None:
    cells = compose(*STUDY, "protocol.layer_weights_lr=1e-3,1e-2")
    for cell in cells:
        save(cell, [0.1, 0.8, 0.1])
    (study,) = make_studies(cells)
    assert sorted(group.label for group in study.groups) == [
        "normal layer_weights_lr=0.001",
        "normal layer_weights_lr=0.01",
        "zeros layer_weights_lr=0.001",
        "zeros layer_weights_lr=0.01",
    ]


def test_the_report_is_a_table_and_a_figure(
    cells: list[Cell], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report_weights(cells, ["below"])
    out = capsys.readouterr().out
    assert "2 x1, 1 x1" in out and "all equal" in out and "2 of 2" in out and "below" in out
    for ending in ("png", "pdf"):
        assert (tmp_path / "runs" / "report" / f"weights_study.{ending}").stat().st_size > 1000


def test_without_layer_weights_it_says_so(
    compose: Callable[..., list[Cell]], capsys: pytest.CaptureFixture[str]
) -> None:
    (cell,) = compose("task=nsynth_pitch", "baseline=null")
    save_rows(cell, [0.5], [0.5])
    report_weights([cell])
    assert "no result has layer weights" in capsys.readouterr().out


def test_starts_share_one_scale() -> None:
    weights = np.array([[0.1, 0.9]])
    plot = StudyPlot("t", np.array([1.0, 2.0]), 2, [StartPlot("zeros", weights, weights)])
    lower = StartPlot("zeros", weights / 2, weights / 2)
    figure = draw_study([plot, StudyPlot("u", plot.curve, 2, [lower])], demo=True)
    plots = [axis for axis in figure.axes if axis.get_ylabel() == "softmax weight"]
    assert [axis.get_ylim()[1] for axis in plots] == pytest.approx([0.945, 0.945])


@pytest.mark.trial
def test_the_verb_compares_starts_over_ten_seeds_unless_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [f"paths.{name}={tmp_path}/{name}" for name in ("data", "features", "runs")]
    assert run(["study", "weights", "task=nsynth_pitch", *paths, "--dry-run"]) == 0
    assert "20 cells" in capsys.readouterr().out
    one = ["seed=3", "protocol.layer_weights_init=normal"]
    assert run(["study", "weights", "task=nsynth_pitch", *paths, *one, "--dry-run"]) == 0
    assert "1 cells" in capsys.readouterr().out
