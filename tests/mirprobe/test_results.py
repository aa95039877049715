"""Result rows: round trip, broken files, what is pending, and which layer is chosen."""

import json
import random
from collections.abc import Callable
from dataclasses import asdict, fields, replace
from pathlib import Path

import pytest

from datamodules.errors import UserError
from mirprobe.cell import Cell
from mirprobe.results import FILE, Row, read_rows, write_rows
from mirprobe.scoring.selection import best_layer, head_rows
from mirprobe.settings import compose_cell
from mirprobe.sweep.status import pending

MakeRow = Callable[..., Row]

ROW = Row(
    model="fcpe", task="nsynth_pitch", metric="accuracy", head="layer_00", layer=0, split="test", seed=0, protocol="mlp512",
    value=0.5, ci_low=0.4, ci_high=0.6, n_tracks=24, n_expected=4096, majority=0.125, epoch=3, selected_by="val/accuracy",
    weights_start=None, weights_end=None, demo=False, config_hash="0123456789ab", store_hash="ba9876543210",
    versions={"torch": "2.11.0"},
)  # fmt: skip
WEIGHTED = replace(
    ROW, head="weighted", layer=None, weights_start=[1 / 3] * 3, weights_end=[0.1, 0.2, 0.7]
)


def layers(split: str, *values: float) -> list[Row]:
    return [
        replace(
            ROW, head=f"layer_{layer:02d}", layer=layer, split=split, value=value, epoch=layer + 1
        )
        for layer, value in enumerate(values)
    ]


@pytest.fixture
def cell(tmp_path: Path) -> Cell:
    return compose_cell([f"paths.runs={tmp_path}"])


# -- files -----------------------------------------------------------------------------------------


def test_rows_come_back_equal(tmp_path: Path) -> None:
    rows = [ROW, WEIGHTED, replace(ROW, value=1 / 3, model="Käse \n \u2028 fcpe", versions={})]
    write_rows(tmp_path / "cell", rows)
    assert read_rows(tmp_path / "cell") == rows


def test_rows_are_one_json_object_a_line_with_every_field(tmp_path: Path) -> None:
    write_rows(tmp_path, [ROW, WEIGHTED])
    lines = (tmp_path / FILE).read_text().splitlines()
    assert [json.loads(line) for line in lines] == [asdict(ROW), asdict(WEIGHTED)]
    assert set(json.loads(lines[0])) == {field.name for field in fields(Row)}


def test_a_cell_without_rows_has_none(tmp_path: Path) -> None:
    assert read_rows(tmp_path) == []
    assert read_rows(tmp_path / "nowhere") == []


def test_rows_that_break_off_while_writing_leave_the_old_ones(tmp_path: Path) -> None:
    write_rows(tmp_path, [ROW])

    def breaking() -> object:
        yield replace(ROW, value=0.9)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_rows(tmp_path, breaking())  # type: ignore[arg-type]
    assert read_rows(tmp_path) == [ROW]
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: text[: len(text) // 2],
        lambda text: text + "{}\n",
        lambda text: text.replace('"epoch"', '"epochs"'),
        lambda text: text.replace('"seed": 0, ', ""),
        lambda text: "[1, 2]\n",
        lambda text: "<html>\n",
        lambda text: "",  # a file of no rows is not a cell that is done
    ],
    ids=[
        "truncated",
        "empty object",
        "renamed field",
        "missing field",
        "list",
        "no json",
        "no rows",
    ],
)
def test_a_broken_file_is_named_and_told_to_be_deleted(
    tmp_path: Path, spoil: Callable[[str], str]
) -> None:
    write_rows(tmp_path, [ROW, WEIGHTED])
    path = tmp_path / FILE
    path.write_text(spoil(path.read_text()))
    with pytest.raises(
        UserError, match=r"rows\.jsonl is not a list of result rows .*delete it and run the same"
    ) as error:
        read_rows(tmp_path)
    assert "\n" not in str(error.value)


def test_a_cell_is_pending_until_its_rows_are_there(tmp_path: Path, cell: Cell) -> None:
    other = compose_cell([f"paths.runs={tmp_path}", "seed=1"])
    assert pending([cell, other]) == [cell, other]
    (cell.folder).mkdir(parents=True)
    (cell.folder / "config.yaml").touch()
    (cell.folder / f".{FILE}.01234567.tmp").touch()
    assert pending([cell, other]) == [cell, other]
    write_rows(cell.folder, [ROW])
    assert pending([cell, other]) == [other]


# -- choice of layer -------------------------------------------------------------------------------


def test_heads_of_a_split_come_sorted_by_layer_and_apart_from_weighted_sums() -> None:
    rows = [*layers("test", *[0.1] * 12), *layers("val", 0.2, 0.3), WEIGHTED]
    random.Random(0).shuffle(rows)
    assert [row.layer for row in head_rows(rows, "test", single=True)] == list(range(12))
    assert [row.value for row in head_rows(rows, "val", single=True)] == [0.2, 0.3]
    assert head_rows(rows, "test", single=False) == [WEIGHTED]
    assert head_rows(rows, "val", single=False) == []


def test_the_layer_chosen_on_val_is_reported_on_test() -> None:
    rows = [
        *layers("val", 0.5, 0.9, 0.7),
        *layers("test", 0.4, 0.6, 0.8),
        replace(WEIGHTED, value=0.99),
    ]
    chosen = best_layer(rows, "val")
    assert (chosen.layer, chosen.split, chosen.value, chosen.epoch) == (1, "test", 0.6, 2)


def test_the_oracle_is_the_best_layer_on_test() -> None:
    rows = [*layers("val", 0.5, 0.9, 0.7), *layers("test", 0.4, 0.6, 0.8)]
    oracle = best_layer(rows, "test")
    assert (oracle.layer, oracle.value) == (2, 0.8)


@pytest.mark.parametrize("seed", range(4))
def test_of_equal_layers_the_lowest_is_chosen_whatever_the_order_of_rows(seed: int) -> None:
    rows = [*layers("val", 0.5, 0.9, 0.9, 0.9), *layers("test", 0.8, 0.6, 0.8, 0.1)]
    random.Random(seed).shuffle(rows)
    assert best_layer(rows, "val").layer == 1
    assert best_layer(rows, "test").layer == 0


def test_a_weighted_sum_is_never_the_best_layer() -> None:
    rows = [
        *layers("val", 0.1),
        replace(WEIGHTED, split="val", value=0.9),
        *layers("test", 0.2),
        replace(WEIGHTED, value=0.9),
    ]
    assert best_layer(rows, "val").head == "layer_00"
    assert best_layer(rows, "test").head == "layer_00"
