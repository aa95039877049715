"""What is done is what is on disk, and was made of what is there now."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from toy_rows import ROW

from datamodules.errors import UserError
from mirprobe.cell import Cell
from mirprobe.provenance import (
    Inputs,
    MadeOf,
    Result,
    Stamps,
    note_result,
    note_stamp,
    result_of,
)
from mirprobe.results import FILE, write_rows
from mirprobe.settings import compose_cells
from mirprobe.sweep.status import check_done, pending

MADE_OF = MadeOf(ROW.weights, ROW.tracks_hash, ROW.store_hash)


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    path = tmp_path / "labels.csv"
    path.write_text("a,train,0\n")
    return path


def finish(cell: Cell, labels: Path) -> Result:
    """Gives a cell a result that is current as long as a file of labels stays as it is."""
    result = result_of(cell, MADE_OF)
    note_result(cell, result, "a\ttrain\t0\tsound\n")
    rows = [replace(ROW, split=split, config_hash=cell.hash) for split in ("val", "test")]
    write_rows(result.folder, rows)
    inputs = Inputs((), (str(labels),))
    note_stamp(cell, result, inputs, Stamps().take(inputs))
    return result


def test_cells_with_rows_are_done(settings: Callable[..., list[str]], labels: Path) -> None:
    cells = compose_cells(settings("task=nsynth_pitch,nsynth_instrument"))
    assert pending(cells) == cells
    with pytest.raises(
        UserError, match=rf"4 of 4 cells have no results \(first: {cells[0].folder}"
    ):
        check_done(cells)

    for cell in (cells[0], cells[2]):
        finish(cell, labels)
    assert pending(cells) == [cells[1], cells[3]]
    with pytest.raises(
        UserError, match=rf"2 of 4 cells have no results \(first: {cells[1].folder}"
    ):
        check_done(cells)

    for cell in pending(cells):
        finish(cell, labels)
    assert pending(cells) == []
    check_done(cells)


def test_rows_of_other_labels_are_there_but_not_current(
    settings: Callable[..., list[str]], labels: Path
) -> None:
    (cell,) = compose_cells(settings("task=nsynth_pitch", "baseline=null"))
    finish(cell, labels)
    labels.write_text("a,train,11\n")
    assert pending([cell]) == [cell]
    check_done([cell])


def test_a_cell_with_settings_and_features_alone_is_not_done(
    settings: Callable[..., list[str]],
) -> None:
    (cell,) = compose_cells(settings("task=nsynth_pitch", "baseline=null"))
    cell.folder.mkdir(parents=True)
    (cell.folder / "config.yaml").write_text("seed: 0\n")
    (cell.folder / "features.json").write_text("{}")
    assert pending([cell]) == [cell]


@pytest.mark.parametrize("text", ["", "{oops\n", "[]\n"])
def test_broken_rows_are_neither_done_nor_computed_over(
    settings: Callable[..., list[str]], labels: Path, text: str
) -> None:
    (cell,) = compose_cells(settings("task=nsynth_pitch", "baseline=null"))
    (finish(cell, labels).folder / FILE).write_text(text)
    with pytest.raises(UserError, match=r"rows\.jsonl is not a list of result rows"):
        pending([cell])
