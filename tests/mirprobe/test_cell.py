"""The cell: what identifies it, where its results go, and its file."""

import os
import re
from collections.abc import Callable
from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import pytest

from datamodules.errors import UserError
from mirprobe.cell import Cell, read_cell, write_cell
from mirprobe.settings import compose_cell

# -- identity --------------------------------------------------------------------------------------

BASE = ["task=giantsteps_key"]


@pytest.fixture(scope="module")
def base_hash() -> str:
    return compose_cell(BASE).hash


@pytest.mark.parametrize(
    "override",
    [
        "model=fbank_chroma",
        "model.weights=random",
        "model.seed=1",
        "task=nsynth_pitch",
        "task.select_by=accuracy",
        "task.clip.seconds=15",
        "task.clip.tail_seconds=5",
        "protocol.lr=2e-3",
        "protocol.hidden=256",
        "protocol.dropout=0",
        "protocol.patience=11",
        "protocol.standardize=false",
        "protocol.layer_weights_init=normal",
        "seed=1",
        "data.root=/datasets",  # no longer the demo
        "data.scale=2",
        "data.exclude=[a]",
    ],
)
def test_the_hash_changes_with_what_changes_results(override: str, base_hash: str) -> None:
    assert compose_cell([*BASE, override]).hash != base_hash


PATHS = ["paths.runs=/elsewhere", "paths.features=/elsewhere", "paths.data=/elsewhere"]
EXTRACT = ["extract.batch_seconds=1", "extract.n_workers=3"]
SHARDS = ["extract.shard_clips=7", "extract.shard_seconds=1"]
WORDS = ["task.label=Tonart", "model.card.note=hello", "baseline=null", "tasks=[gtzan_genre]"]


@pytest.mark.parametrize(
    "overrides",
    [
        pytest.param(PATHS, id="paths"),
        pytest.param(["launcher.devices=2", "launcher.accelerator=cpu"], id="launcher"),
        pytest.param(["logger=none", "logger.project=mine", "logger.mode=offline"], id="logger"),
        pytest.param([*EXTRACT, *SHARDS], id="extract"),
        pytest.param(WORDS, id="words"),
        pytest.param(["protocol.lr=0.001", "seed=0"], id="defaults written differently"),
    ],
)
def test_the_hash_does_not_change_with_what_only_changes_speed_or_place(
    overrides: list[str], base_hash: str
) -> None:
    assert compose_cell([*BASE, *overrides]).hash == base_hash


def test_the_hash_ignores_the_order_of_excluded_tracks_and_the_scale_of_an_unused_demo() -> None:
    assert compose_cell(["data.exclude=[a,b]"]).hash == compose_cell(["data.exclude=[b,a]"]).hash
    real = "data.root=/d"
    assert compose_cell([real, "data.scale=2"]).hash == compose_cell([real]).hash


def test_a_root_is_the_same_root_however_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    roots = ("d", "./d", f"{tmp_path}/d", f"{tmp_path}/d/")
    assert len({compose_cell([f"data.root={root}"]).hash for root in roots}) == 1
    assert len({compose_cell([f"data.root={root}"]).key for root in roots}) == 1


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (["data.root=/here/data"], ["data.root=/there"]),
        (["model.checkpoint=/a/last.pt"], ["model.checkpoint=/b/best.pt"]),
        (["data.root=/d", "model.checkpoint=null"], ["data.root=/d", "model.checkpoint=/b.pt"]),
    ],
)
def test_paths_are_in_no_hash_but_two_of_them_are_two_cells(
    one: list[str], other: list[str]
) -> None:
    """What lies there counts, when it is known (see provenance)."""
    first, second = compose_cell(one), compose_cell(other)
    assert (first.hash, first.folder) == (second.hash, second.folder)
    assert first.places != second.places
    assert first.key != second.key


def test_a_table_counts_by_its_content_and_not_by_its_path(tmp_path: Path) -> None:
    def hash_of(path: Path, content: str) -> str:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        return compose_cell(["task=manifest", f"task.options.file={path}"]).hash

    first = hash_of(tmp_path / "a.csv", "path,label\nx.wav,rock\n")
    assert first == hash_of(tmp_path / "deeper/b.csv", "path,label\nx.wav,rock\n")
    assert first != hash_of(tmp_path / "a.csv", "path,label\nx.wav,jazz\n")


def test_the_hash_is_that_of_the_table_as_it_was_when_the_cell_was_made(tmp_path: Path) -> None:
    table = tmp_path / "a.csv"
    table.write_text("path,label\nx.wav,rock\n")
    cell = compose_cell(["task=manifest", f"task.options.file={table}"])
    before = cell.hash
    table.write_text("path,label\nx.wav,jazz\n")
    assert cell.hash == before


def test_the_folder_of_a_cell_names_model_task_protocol_seed_and_hash() -> None:
    cell = compose_cell([*BASE, "paths.runs=/runs", "seed=3", "model.weights=random"])
    assert cell.folder == Path(f"/runs/fcpe-random/giantsteps_key/mlp512-s3-{cell.hash}")
    assert re.fullmatch("[0-9a-f]{12}", cell.hash)


# -- cell files ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["task=giantsteps_key", "data.exclude=[1224698,a.b,'1e3',true]", "data.root=/a folder"],
        ["model=muq", "model.checkpoint=/weights/muq.pt", "launcher.devices=2", "protocol.lr=1e-9"],
        ["logger=none", "baseline=null", "seed=4294967295"],
    ],
)
def test_a_cell_file_gives_the_same_cell_again(tmp_path: Path, overrides: list[str]) -> None:
    cell = compose_cell(overrides)
    path = tmp_path / "config.yaml"
    path.write_text(write_cell(cell), encoding="utf-8")
    again = read_cell(path)
    assert isinstance(again, Cell)
    assert (again, again.hash) == (cell, cell.hash)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "- a\n",
        "7\n",
        "seed: 0\n",
        "seed: x\n",
        "sead: 0\n",
        "model: fcpe\n",
        "{{{",
        "a: b: c",
        "\x00",
    ],
)
def test_a_file_that_is_no_cell_is_named_in_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=r"config\.yaml is not a cell file") as error:
        read_cell(path)
    assert "\n" not in str(error.value)


def test_a_missing_cell_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nothing\.yaml is not a cell file .*No such file"):
        read_cell(tmp_path / "nothing.yaml")


def test_a_cell_file_is_checked_like_a_command_line(tmp_path: Path) -> None:
    text = write_cell(compose_cell([]))
    path = tmp_path / "config.yaml"
    path.write_text(text.replace("max_epochs: 50", "max_epochs: 0"))
    with pytest.raises(UserError, match=r"protocol\.max_epochs must be more than 0, found 0"):
        read_cell(path)


REFERENCES = "a: &a [x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n"
    for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (REFERENCES, "reference"),  # 400 bytes that would become a list of 86 million
        ("a: " + "[" * 5000, "nested"),
        ("a: " + "x" * 2_000_000, "1000000 bytes"),
        ("a: caf\xe9", "utf-8"),
    ],
    ids=["references", "deep", "huge", "latin-1"],
)
def test_a_hostile_cell_file_takes_no_time(tmp_path: Path, content: str, problem: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(content, encoding="latin-1")
    with pytest.raises(UserError, match=problem):
        read_cell(path)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="not a file"):
        read_cell(tmp_path / "pipe")


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("  name: fcpe\n", "", r"model\.name must be a name"),
        ("  name: fcpe\n", "  name: ../x\n", r"model\.name must be a name"),
        ("  _target_: mirprobe.backbones.fcpe.FCPE\n", "", r"model\._target_ must be the class"),
    ],
)
def test_a_model_has_a_name_and_a_class(tmp_path: Path, old: str, new: str, problem: str) -> None:
    path = tmp_path / "config.yaml"
    text = write_cell(compose_cell(["model=fcpe"]))
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(UserError, match=problem):
        read_cell(path)


# -- the value -------------------------------------------------------------------------------------


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
