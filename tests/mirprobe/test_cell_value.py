"""The cell as a value; its hash and its file are tested with the settings (test_settings.py)."""

from collections.abc import Callable
from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import pytest

from mirprobe.cell import Cell, read_cell, write_cell
from mirprobe.settings import compose_cell


@pytest.fixture
def cell() -> Cell:
    return compose_cell(["task=giantsteps_key"])


def test_a_cell_cannot_be_changed_but_replaced(cell: Cell) -> None:
    with pytest.raises(FrozenInstanceError):
        cell.seed = 1  # type: ignore[misc]
    other = replace(cell, seed=1)
    assert (other.seed, cell.seed) == (1, 0)
    assert other.hash != cell.hash, "the hash of the other is not carried over"


def test_being_the_baseline_changes_no_result(cell: Cell) -> None:
    assert replace(cell, is_baseline=True).hash == cell.hash


def test_a_moved_class_changes_no_result(cell: Cell) -> None:
    moved = replace(cell, model={**cell.model, "_target_": "elsewhere.FCPE"})
    moved = replace(moved, task=replace(cell.task, _target_="elsewhere.GiantSteps"))
    assert moved.hash == cell.hash


@pytest.fixture
def with_table(tmp_path: Path) -> Callable[[], Cell]:
    """Makes a cell whose task has a table among its options."""
    table = tmp_path / "splits.csv"
    table.write_text("a,train\n")
    return lambda: compose_cell(["task=giantsteps_key", f"+task.options.splits='{table}'"])


def test_a_table_counts_by_what_is_in_it(with_table: Callable[[], Cell], tmp_path: Path) -> None:
    before = with_table()
    assert with_table().hash == before.hash
    (tmp_path / "splits.csv").write_text("a,test\n")
    assert with_table().hash != before.hash


def test_the_hash_is_taken_when_the_cell_is_made(
    with_table: Callable[[], Cell], tmp_path: Path
) -> None:
    """A table that changes during a sweep does not move the folders of its cells."""
    cell = with_table()
    folder = cell.folder
    (tmp_path / "splits.csv").write_text("a,test\n")
    assert cell.folder == folder
    (tmp_path / "splits.csv").unlink()
    assert cell.folder == folder


def test_a_file_that_says_where_a_cell_ran_leads_to_the_same_folder(
    cell: Cell, tmp_path: Path
) -> None:
    """What processes of other devices are given: they leave their answer where it is looked for."""
    placed = replace(cell, paths=replace(cell.paths, runs=str(tmp_path)))
    path = tmp_path / "config.yaml"
    path.write_text(write_cell(placed))
    assert read_cell(path).folder == placed.folder


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        (["model=fcpe"], "fcpe"),
        (["model=fcpe", "model.weights=random"], "fcpe-random"),
        (["model=fbank_chroma"], "fbank_chroma"),
    ],
)
def test_a_model_is_named_with_the_control_it_is(overrides: list[str], name: str) -> None:
    assert compose_cell(overrides).model_name == name


def test_a_cell_is_of_the_demo_where_no_data_was_named() -> None:
    assert compose_cell([]).is_demo
    assert not compose_cell(["data.root=/datasets"]).is_demo
