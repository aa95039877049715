"""Tables: which columns and rows are read, and what is said of a broken file."""

import re
from pathlib import Path
from typing import Any

import pytest

from datamodules.errors import UserError
from datamodules.tables import Cells, read_csv, read_jsonl


def write(folder: Path, text: str) -> Path:
    path = folder / "songs.csv"
    path.write_bytes(text.encode())
    return path


def refusal(path: Path, **options: Any) -> str:
    with pytest.raises(UserError) as error:
        read_csv(path, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


# -- what is read ----------------------------------------------------------------------------------


def test_all_columns_are_read_unless_some_are_named(tmp_path: Path) -> None:
    path = write(tmp_path, "id,key,artist\n1, C ,Ann\n2,D,Bob\n")
    table = read_csv(path)
    assert table.columns == ("id", "key", "artist")
    assert table.rows[0] == {"id": "1", "key": "C", "artist": "Ann"}

    table = read_csv(path, required=("key",), optional=("artist", "album"))
    assert table.columns == ("id", "key", "artist")
    assert table.rows == [{"key": "C", "artist": "Ann"}, {"key": "D", "artist": "Bob"}]


def test_rows_in_which_nothing_is_written_do_not_count(tmp_path: Path) -> None:
    table = read_csv(write(tmp_path, "id,key\r\n\r\n1,C\r\n , \r\n2,D\r\n\r\n"))
    assert [row["id"] for row in table.rows] == ["1", "2"]
    assert list(table.lines) == [3, 5]


def test_a_row_of_several_lines_has_the_number_of_its_last(tmp_path: Path) -> None:
    table = read_csv(write(tmp_path, 'id,title\n1,"Rock\n& Roll"\n2,Jazz\n'))
    assert (list(table.lines), table.rows[0]["title"]) == ([3, 4], "Rock\n& Roll")


def test_quotation_marks_may_be_a_part_of_the_text(tmp_path: Path) -> None:
    path = write(tmp_path, 'id\ttitle\n1\t"Heroes\n2\tLow\n')
    table = read_csv(path, delimiter="\t", quotes=False)
    assert [row["title"] for row in table.rows] == ['"Heroes', "Low"]
    assert "is not a tab-separated table (after line 1: " in refusal(path, delimiter="\t")


# -- what is said ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "problem", "own_remedy"),
    [
        ("id,id\n", "has two columns named 'id'", "keep one of them"),
        ('id,key\n1,"C\n', "is not a comma-separated table (after line 1: ", "save it anew as CSV"),
        ("id,key\n1\n", "line 2 breaks off before its key", "correct the file"),
        ("id,key\n1,C,\n", "line 2 has more cells than there are columns", "correct the file"),
    ],
)
def test_a_dataset_s_table_is_got_again_and_one_s_own_is_corrected(
    tmp_path: Path, text: str, problem: str, own_remedy: str
) -> None:
    path = write(tmp_path, text)
    for remedy, told in ((None, own_remedy), ("download it again", "download it again")):
        message = refusal(path, remedy=remedy)
        assert problem in message
        assert message.endswith(f": {told}")


def test_missing_columns_are_named_with_what_is_there(tmp_path: Path) -> None:
    path = write(tmp_path, "id;key\n1;C\n")
    assert refusal(path, required=("id", "key")) == (
        f"{path} has no column id, key, found id;key: expected a comma-separated table with id, key"
    )
    assert refusal(path, required=("id",), delimiter="\t", remedy="download it again") == (
        f"{path} has no column id, found id;key: "
        "expected a tab-separated table with id; download it again"
    )


def test_of_hundreds_of_columns_a_few_are_named(tmp_path: Path) -> None:
    path = write(tmp_path, ",".join(f"tag{n}" for n in range(200)) + "\n")
    message = refusal(path, required=[f"Tag{n}" for n in range(50)])
    assert re.search(
        "has no column Tag0, .*, Tag7 and 42 more, found tag0, .* and 192 more: ", message
    )
    assert len(refusal(path, required=["id"], delimiter="\t")) < len(str(path)) + 200


def test_rows_that_are_refused_are_counted_and_the_first_is_named(tmp_path: Path) -> None:
    def key(row: Cells) -> str:
        if row["key"] == "H":
            raise ValueError("has the key H")
        return str(row["key"])

    table = read_csv(write(tmp_path, "id,key\n1,C\n2,H\n3,H\n"), remedy="download it again")
    with pytest.raises(UserError) as error:
        table.parse(key)
    assert str(error.value) == (
        f"2 of 3 rows of {table.path} cannot be used (first: line 3 has the key H): "
        "download it again"
    )


def test_jsonl_has_the_keys_of_all_its_rows(tmp_path: Path) -> None:
    path = write(tmp_path, '{"path": "a.wav"}\n\n{"path": "b.wav", "label": "x"}\n')
    table = read_jsonl(path)
    assert (table.columns, list(table.lines)) == (("path", "label"), [1, 3])
    assert table.parse(lambda row: row["path"]) == ["a.wav", "b.wav"]
