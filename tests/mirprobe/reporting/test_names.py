"""What tells cells apart: settings that differ, written short and as on the command line."""

from collections.abc import Callable
from pathlib import Path

import pytest

from mirprobe.cell import Cell
from mirprobe.reporting.names import Differences, find_differences
from mirprobe.settings import compose_cells

NAMES = ["task=nsynth_pitch", "baseline=null"]


def differences(*overrides: str) -> list[Differences]:
    cells = compose_cells([*NAMES, *overrides])
    found = find_differences(cells)
    return [found[cell.key] for cell in cells]


def test_one_cell_differs_from_nothing() -> None:
    assert differences() == [Differences()]


def test_seeds_tasks_and_models_of_other_names_tell_nothing_apart() -> None:
    found = differences("seed=0,1", "task=nsynth_pitch,giantsteps_key", "model=fcpe,muq")
    assert set(found) == {Differences()}
    assert set(differences("model.weights=trained,random")) == {Differences()}


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("protocol.lr=1e-3,3e-4,1e-7", ["lr=0.001", "lr=0.0003", "lr=1e-07"]),
        ("protocol.standardize=true,false", ["standardize=true", "standardize=false"]),
        ("protocol.hidden=512,64", ["hidden=512", "hidden=64"]),
    ],
)
def test_values_are_written_as_on_the_command_line(override: str, expected: list[str]) -> None:
    assert [cell.protocol for cell in differences(override)] == [(text,) for text in expected]


def test_settings_of_task_model_and_protocol_stand_apart() -> None:
    found = differences("task.clip.seconds=1,null", "model=muq", "model.weights=v1,v2", "seed=0")
    assert found[0] == Differences(task=("seconds=1",), model=("weights=v1",))
    assert found[-1] == Differences(task=("seconds=null",), model=("weights=v2",))


def test_a_key_that_ends_like_another_is_written_whole() -> None:
    """`seed=1` would be read as the cell's seed."""
    found = differences("model.weights=random", "model.seed=0,1")
    assert [cell.model for cell in found] == [("model.seed=0",), ("model.seed=1",)]


def test_lists_and_folders() -> None:
    found = differences("data.exclude=[],[a/b,c]", "data.root=/here/data,/there/data")
    assert found[0].task == ("root=/here/data", "exclude=[]")
    assert found[-1].task == ("root=/there/data", "exclude=[a/b,c]")


def test_files_are_named_without_folders_where_that_is_enough(tmp_path: Path) -> None:
    one, two = tmp_path / "one.csv", tmp_path / "two.csv"
    for path in (one, two):
        path.write_text(f"path,label\n{path.name},a\n")
    own = ("task=manifest", f"task.options.file={one},{two}")
    assert [cell.task for cell in differences(*own)] == [("file=one.csv",), ("file=two.csv",)]


def test_the_name_of_a_protocol_stands_for_what_its_file_sets(
    make_cell: Callable[..., Cell],
) -> None:
    wide = make_cell("protocol.name=wide", "protocol.hidden=1024")
    narrow = make_cell("protocol.name=narrow", "protocol.hidden=64")
    slow = make_cell("protocol.name=narrow", "protocol.hidden=64", "protocol.lr=1e-5")
    found = find_differences([wide, narrow])
    assert found[wide.key].protocol == ("protocol=wide",)
    assert found[narrow.key].protocol == ("protocol=narrow",)

    found = find_differences([wide, narrow, slow])
    assert found[wide.key].protocol == ("protocol=wide", "lr=0.001")
    assert found[slow.key].protocol == ("protocol=narrow", "lr=1e-05")


@pytest.fixture
def make_cell() -> Callable[..., Cell]:
    def make(*overrides: str) -> Cell:
        (cell,) = compose_cells([*NAMES, *overrides])
        return cell

    return make
