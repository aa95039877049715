"""What fails for one cell stops no other; data that is not there stops nothing; both are said."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from conftest import RATE, write_notes

from datamodules.errors import UserError
from mirprobe.__main__ import main
from mirprobe.cell import Cell
from mirprobe.provenance import latest_result
from mirprobe.results import Row
from mirprobe.settings import all_tasks, compose_cells
from mirprobe.sweep import run
from mirprobe.sweep.failures import Failures

Settings = Callable[..., list[str]]
QUICK = ("model=fbank_chroma", "baseline=null", "protocol.max_epochs=1")
TASKS = ("task=nsynth_pitch,nsynth_instrument", *QUICK)


@pytest.fixture(autouse=True)
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """They take longer than all the rest here."""
    monkeypatch.setattr("mirprobe.reporting.report.make_figures", lambda rows: [])


def done(cells: list[Cell]) -> list[str]:
    return [cell.task.name for cell in cells if latest_result(cell) is not None]


# -- gathered --------------------------------------------------------------------------------------


def test_an_error_is_the_answer_where_nothing_else_was_to_be_done(settings: Settings) -> None:
    cells = compose_cells(settings(*TASKS))
    failures = Failures(cells)
    with pytest.raises(UserError, match="no weights"), failures.of(cells):
        raise UserError("no weights")


def test_what_failed_is_listed_with_its_reason(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    cells = compose_cells(settings(*TASKS, "seed=0,1"))
    failures = Failures(cells)
    assert failures.print() == 0
    with failures.of(cells[:1]):
        raise UserError("2 of 72 audio files [cannot] be used")
    assert failures.without(cells) == cells[1:]
    capsys.readouterr()
    assert failures.print() == 1
    assert capsys.readouterr().out.splitlines() == [
        "1 of 4 cells could not be computed:",
        "  fbank_chroma nsynth_pitch seed 0: 2 of 72 audio files [cannot] be used",
    ]


def test_one_reason_for_all_cells_is_the_answer(settings: Settings) -> None:
    cells = compose_cells(settings(*TASKS))
    failures = Failures(cells)
    for cell in cells:
        with failures.of([cell]):
            raise UserError("no space")
    with pytest.raises(UserError, match="no space"):
        failures.print()


def test_a_bug_keeps_its_traceback(settings: Settings) -> None:
    cells = compose_cells(settings(*TASKS))
    with pytest.raises(ZeroDivisionError), Failures(cells).of(cells[:1]):
        _ = 1 / 0


# -- in a sweep ------------------------------------------------------------------------------------


def test_a_cell_that_fails_does_not_stop_the_others(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    probe = run.probe

    def fail(cell: Cell, *rest: Any) -> list[Row]:
        if cell.task.name == "nsynth_pitch":
            raise UserError("no space left while writing probes.pt")
        return probe(cell, *rest)

    monkeypatch.setattr(run, "probe", fail)
    arguments = settings(*TASKS)
    assert main(["sweep", *arguments]) == 1
    assert done(compose_cells(arguments)) == ["nsynth_instrument"]

    shown = capsys.readouterr().out
    table, end = shown.split("1 of 2 cells could not be computed:\n")
    assert "Table 1" in table, "of what is done"
    assert "fbank_chroma nsynth_pitch seed 0: no space left while writing probes.pt" in end


@pytest.mark.trial
def test_a_bad_file_stops_only_the_cells_that_cannot_use_it(
    settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A note of 80 ms is enough for FCPE and too short for the baseline."""
    root = write_notes(tmp_path / "own", per_pitch={"train": 1, "valid": 1, "test": 1})
    short = next(root.rglob("train0*.wav"))
    soundfile.write(short, np.zeros(1280), RATE)
    arguments = settings("task=nsynth_pitch", "protocol.max_epochs=1", f"data.root={root}")
    assert main(["sweep", *arguments]) == 1
    results = [latest_result(cell) is not None for cell in compose_cells(arguments)]
    assert results == [False, True]

    shown = capsys.readouterr().out
    end = shown.split("1 of 2 cells could not be computed:\n")[1]
    assert "fbank_chroma nsynth_pitch seed 0: 1 of 72 audio files cannot be used: " in end
    assert f"'data.exclude=[nsynth:{short.stem}]'" in end

    without = [*arguments, f"data.exclude=[nsynth:{short.stem}]"]
    assert main(["sweep", *without]) == 0, "the remedy works"


def test_a_model_without_weights_does_not_stop_the_baseline(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    quick = ["task=nsynth_pitch", "protocol.max_epochs=1", "model.checkpoint=/nowhere.pt"]
    arguments = settings(*quick)
    assert main(["sweep", *arguments]) == 1
    shown = capsys.readouterr().out
    assert "1 of 2 cells could not be computed:\n  fcpe nsynth_pitch seed 0: " in shown
    assert "/nowhere.pt" in shown
    results = [latest_result(cell) is not None for cell in compose_cells(arguments)]
    assert results == [True, False]


def test_weights_that_the_last_model_lacks_are_said_before_the_first_is_worked(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = settings("task=nsynth_pitch", *QUICK, "model=fbank_chroma,musicfm")
    assert main(["extract", *arguments]) == 1
    shown = capsys.readouterr().out
    assert shown.startswith("failed, the others go on: the weights pretrained_msd.pt of ")
    assert shown.index("failed") < shown.index("fbank_chroma over nsynth")


def test_probes_without_features_do_not_stop_those_that_have_some(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["extract", *settings("task=nsynth_pitch", *QUICK)]) == 0
    assert main(["probe", *settings(*TASKS)]) == 1
    assert "nsynth_instrument seed 0: no features of fbank_chroma" in capsys.readouterr().out
    assert done(compose_cells(settings(*TASKS))) == ["nsynth_pitch"]


# -- data that is not there ------------------------------------------------------------------------


@pytest.mark.trial
def test_all_runs_what_is_there_and_says_what_is_not(
    settings: Settings, notes_root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Music Taste is private: without this nobody could run all tasks."""
    arguments = settings("task=all", *QUICK)
    assert main(["sweep", *arguments]) == 0
    there = {"nsynth_pitch", "nsynth_instrument"}
    assert set(done(compose_cells(arguments))) == there

    said = capsys.readouterr().out.split("Table 1", 1)[1].splitlines()
    for task in set(all_tasks()) - there:
        how = f"mirprobe data task={task} data.root={notes_root}"
        assert f"{task}: left out, no data here. How to get it: {how}" in said
    assert not any(line.startswith(tuple(there)) for line in said)

    assert main(["report", *arguments]) == 0
    assert "musictaste_rap: left out" in capsys.readouterr().out


def test_tasks_that_are_named_are_all_wanted(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    named = settings("task=nsynth_pitch,gtzan_genre", *QUICK)
    assert main(["sweep", *named]) == 2
    assert "no gtzan data: " in capsys.readouterr().err
    assert done(compose_cells(named)) == [], "said before any work"


def test_all_without_any_data_is_an_error(
    settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nowhere = tmp_path / "nowhere"
    assert main(["sweep", *settings("task=all", *QUICK, f"data.root={nowhere}")]) == 2
    assert f"no dataset under {nowhere}: looked for the folders " in capsys.readouterr().err


def test_all_of_the_demo_is_there(tmp_path: Path) -> None:
    from mirprobe.sweep.status import part_by_data

    cells = compose_cells([f"paths.data={tmp_path}", "task=all", "baseline=null"])
    there, absent = part_by_data(cells)
    assert (len(there), absent) == (len(all_tasks()), [])
