"""Result rows: round trip, broken files, and what is pending."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path

import pytest
from toy_rows import MADE_OF, ROW, WEIGHTED, failed, layer_rows, save_rows, scored

from datamodules.errors import UserError
from mirprobe.cell import Cell
from mirprobe.provenance import result_of
from mirprobe.results import (
    FILE,
    PREDICTIONS,
    PROBES,
    SCANS,
    Row,
    missing_files,
    read_rows,
    write_rows,
)
from mirprobe.settings import compose_cell
from mirprobe.sweep.status import pending

# All rows of a cell: two layers and a weighted sum, on val and test.
WHOLE = [
    *layer_rows("val", 0.5, 0.6),
    replace(WEIGHTED, split="val"),
    *layer_rows("test", 0.4, 0.7),
    WEIGHTED,
]
GOOD = "".join(f"{json.dumps(asdict(row))}\n" for row in WHOLE)
LINES = GOOD.splitlines(keepends=True)


def read(folder: Path, metrics: Sequence[str] = ("accuracy",)) -> list[Row]:
    return read_rows(folder, ROW.config_hash, metrics)


@pytest.fixture
def cell(tmp_path: Path) -> Cell:
    return compose_cell([f"paths.runs={tmp_path}"])


# -- files -----------------------------------------------------------------------------------------


def test_rows_come_back_equal(tmp_path: Path) -> None:
    odd = {"model": "Käse \n \u2028 fcpe", "versions": {}}
    rows = [replace(scored(row, 1 / 3), **odd) for row in WHOLE]  # type: ignore[arg-type]
    rows += [replace(row, metric="r2") for row in WHOLE]
    write_rows(tmp_path / "cell", rows)
    assert read(tmp_path / "cell", ["accuracy", "r2"]) == rows


def test_rows_are_one_json_object_a_line_with_every_field(tmp_path: Path) -> None:
    write_rows(tmp_path, [ROW, WEIGHTED])
    lines = (tmp_path / FILE).read_text().splitlines()
    assert [json.loads(line) for line in lines] == [asdict(ROW), asdict(WEIGHTED)]
    assert set(json.loads(lines[0])) == {field.name for field in fields(Row)}


def test_a_cell_without_rows_has_none(tmp_path: Path) -> None:
    assert read(tmp_path) == []
    assert read(tmp_path / "nowhere") == []


def test_rows_that_break_off_while_writing_leave_the_old_ones(tmp_path: Path) -> None:
    write_rows(tmp_path, WHOLE)

    def breaking() -> object:
        yield scored(ROW, 0.9)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_rows(tmp_path, breaking())  # type: ignore[arg-type]
    assert read(tmp_path) == WHOLE
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        pytest.param(GOOD[: len(GOOD) // 2], r"line \d: \w+", id="truncated"),
        pytest.param(
            GOOD + "{}\n", "line 7: it is of another version, without chosen, ci", id="empty one"
        ),
        pytest.param(
            GOOD.replace('"epoch"', '"epochs"'),
            "line 1: it is of another version, without epoch and with epochs",
            id="renamed field",
        ),
        pytest.param(GOOD.replace('"seed": 0, ', ""), "without seed", id="missing field"),
        pytest.param(
            GOOD.replace('"constant"', '"majority"'),
            "without constant and with majority",
            id="rows of the first release",
        ),
        pytest.param("[1, 2]\n", "line 1: it is no object", id="list"),
        pytest.param("[" * 100_000, "recursion", id="nested"),
        pytest.param("<html>\n", "line 1: Expecting value", id="no json"),
        pytest.param("", "it is empty", id="no rows"),  # such a file is not of a cell that is done
        pytest.param("".join(LINES[:3]), "3 rows are missing, first: accuracy test", id="val only"),
        pytest.param("".join(LINES[3:]), "3 rows are missing, first: accuracy val", id="test only"),
        pytest.param("".join(LINES[1:3] + LINES[4:]), "no row of layer 0", id="no layer 0"),
        pytest.param("".join(LINES[:5]), "1 rows are missing, first: accuracy test wei", id="cut"),
        pytest.param(GOOD + LINES[4], "1 rows too many, first: accuracy test layer_01", id="twice"),
        pytest.param(
            GOOD + GOOD.replace("accuracy", "r2"), "6 rows too many, first: r2 val", id="metric"
        ),
        pytest.param(LINES[2] + LINES[5], "no row of layer 0", id="weighted sums alone"),
        pytest.param(
            "".join(LINES[:3]) + "".join(LINES[3:]).replace(ROW.config_hash, "ba5eba11ba5e"),
            "3 of 6 rows are of another cell, ba5eba11ba5e",
            id="another cell",
        ),
        pytest.param(GOOD.replace('"value": 0.4', '"value": "0.4"'), "line 4: value is '0.4'"),
        pytest.param(GOOD.replace('"value": 0.4', '"value": true'), "line 4: value is True"),
        pytest.param(GOOD.replace('"value": 0.4', '"value": NaN'), "line 4: value is nan"),
        pytest.param(GOOD.replace('"value": 0.4', '"value": 1e999'), "line 4: value is inf"),
        pytest.param(GOOD.replace('"value": 0.4', '"value": null'), "either a value or a reason"),
        pytest.param(GOOD.replace('"value": 0.4', '"value": 0.8'), r"does not hold the value 0\.8"),
        pytest.param(GOOD.replace('"layer": 1', '"layer": "1"'), "line 2: layer is '1'"),
        pytest.param(
            GOOD.replace('"split": "val"', '"split": "train"'),
            "3 rows are missing, first: accuracy val",
        ),
        pytest.param(GOOD.replace('"train": 48, ', ""), "n_tracks does not count train, val, test"),
        pytest.param(GOOD.replace('{"train": 48,', '{"train": 4.5,'), "n_tracks is {'train': 4.5"),
        pytest.param(GOOD.replace("[0.1, 0.2, 0.7]", '[0.1, "b"]'), r"weights_end is \[0\.1, 'b'"),
    ],
)
def test_a_broken_file_is_named_and_told_to_be_deleted(
    tmp_path: Path, text: str, reason: str
) -> None:
    write_rows(tmp_path, WHOLE)
    path = tmp_path / FILE
    assert path.read_text() == GOOD
    path.write_text(text)
    expected = rf"rows\.jsonl is not a list of result rows \(.*{reason}.*\): delete it and run the"
    with pytest.raises(UserError, match=expected) as error:
        read(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", None], ids=["no text", "folder"])
def test_what_is_no_text_at_all_is_named_too(tmp_path: Path, content: bytes | None) -> None:
    if content is None:
        (tmp_path / FILE).mkdir()
    else:
        (tmp_path / FILE).write_bytes(content)
    with pytest.raises(UserError, match=r"rows\.jsonl is not a list of result rows \(.*delete it"):
        read(tmp_path)


def test_rows_of_half_the_metrics_are_not_those_of_the_cell(tmp_path: Path) -> None:
    """Cut between two metrics, every head that is left has its val and test rows."""
    write_rows(tmp_path, WHOLE)
    with pytest.raises(UserError, match=r"6 rows are missing, first: r2 val layer_00"):
        read(tmp_path, ["accuracy", "r2"])


def test_rows_of_another_cell_are_refused(tmp_path: Path) -> None:
    write_rows(tmp_path, WHOLE)
    with pytest.raises(UserError, match=rf"6 of 6 rows are of another cell, {ROW.config_hash}\)"):
        read_rows(tmp_path, "ba5eba11ba5e", ["accuracy"])


def test_what_lies_beside_the_rows_is_known_to_be_missing(tmp_path: Path) -> None:
    assert missing_files(tmp_path) == [PROBES, PREDICTIONS, SCANS]
    (tmp_path / PROBES).touch()
    assert missing_files(tmp_path) == [PREDICTIONS, SCANS]


# -- single rows -----------------------------------------------------------------------------------


def test_a_head_without_a_score_is_null_and_says_why(tmp_path: Path) -> None:
    rows = [failed(row) if row.layer == 1 else row for row in WHOLE]
    write_rows(tmp_path, rows)
    entry = json.loads((tmp_path / FILE).read_text().splitlines()[1])
    assert (entry["value"], entry["ci_low"], entry["ci_high"], entry["epoch"]) == (None,) * 3 + (0,)
    assert entry["failed"] == "val score is not a number in any epoch"
    assert read(tmp_path) == rows


@pytest.mark.parametrize(
    "changes",
    [
        {"value": math.nan},
        {"value": -math.inf},
        {"value": None},
        {"failed": "no reason, for there is a value"},
        {"value": 0.39},
        {"value": 0.61},
        {"ci_low": math.nan},
        {"ci_low": None},
        {"ci_low": None, "ci_high": None},
        {"value": None, "failed": "has an interval for all that"},
        {"constant": math.nan},
    ],
    ids=str,
)
def test_a_row_that_contradicts_itself_cannot_be_made(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        replace(ROW, **changes)  # type: ignore[arg-type]


def test_a_score_may_have_no_interval_if_it_says_why() -> None:
    nothing = {"ci_low": None, "ci_high": None}
    row = replace(ROW, no_interval="a score in 3 of 1000 resamples only", **nothing)  # type: ignore[arg-type]
    assert row.value == 0.5


# -- cells -----------------------------------------------------------------------------------------


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
