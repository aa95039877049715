"""Result rows: round trip, broken files, and what is pending."""

import json
from dataclasses import asdict, fields, replace
from pathlib import Path

import pytest
from toy_rows import MADE_OF, ROW, WEIGHTED, save_rows

from datamodules.errors import UserError
from mirprobe.cell import Cell
from mirprobe.provenance import result_of
from mirprobe.results import FILE, Row, read_rows, write_rows
from mirprobe.settings import compose_cell
from mirprobe.sweep.status import pending

GOOD = f"{json.dumps(asdict(ROW))}\n{json.dumps(asdict(WEIGHTED))}\n"


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
    "text",
    [
        pytest.param(GOOD[: len(GOOD) // 2], id="truncated"),
        pytest.param(GOOD + "{}\n", id="empty object"),
        pytest.param(GOOD.replace('"epoch"', '"epochs"'), id="renamed field"),
        pytest.param(GOOD.replace('"seed": 0, ', ""), id="missing field"),
        pytest.param("[1, 2]\n", id="list"),
        pytest.param("<html>\n", id="no json"),
        pytest.param("", id="no rows"),  # such a file is not of a cell that is done
    ],
)
def test_a_broken_file_is_named_and_told_to_be_deleted(tmp_path: Path, text: str) -> None:
    write_rows(tmp_path, [ROW, WEIGHTED])
    path = tmp_path / FILE
    assert path.read_text() == GOOD
    path.write_text(text)
    expected = r"rows\.jsonl is not a list of result rows .*delete it and run the same"
    with pytest.raises(UserError, match=expected) as error:
        read_rows(tmp_path)
    assert "\n" not in str(error.value)


def test_a_cell_is_pending_until_its_rows_are_there(tmp_path: Path, cell: Cell) -> None:
    other = compose_cell([f"paths.runs={tmp_path}", "seed=1"])
    assert pending([cell, other]) == [cell, other]
    result = result_of(cell, MADE_OF)
    result.folder.mkdir(parents=True)
    (cell.folder / "config.yaml").touch()
    (result.folder / f".{FILE}.01234567.tmp").touch()
    assert pending([cell, other]) == [cell, other]
    write_rows(result.folder, [ROW])  # killed here: of which content they are is not known yet
    assert pending([cell, other]) == [cell, other]
    save_rows(cell, [0.5], [0.5])
    assert pending([cell, other]) == [other]
