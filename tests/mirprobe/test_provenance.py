"""Provenance: which results a cell has, which of them hold, and what has changed since."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from toy_rows import MADE_OF, save_rows

from datamodules.errors import UserError
from datamodules.listing import hash_text
from mirprobe.__main__ import main
from mirprobe.cell import Cell
from mirprobe.provenance import (
    LISTS,
    Inputs,
    MadeOf,
    Stamps,
    current_result,
    latest_result,
    note_result,
    note_stamp,
    result_of,
    stored_results,
    what_changed,
)
from mirprobe.results import write_rows
from mirprobe.settings import compose_cell

LIST = "a\ttrain\t0\tx\nb\ttest\t1\ty\n"
BEFORE = replace(MADE_OF, tracks=hash_text(LIST))


@pytest.fixture
def cell(tmp_path: Path) -> Cell:
    return compose_cell([f"paths.runs={tmp_path}/runs", f"data.root={tmp_path}/data"])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of data: two files, one deeper, and a hidden one."""
    root = tmp_path / "data"
    for name in ("labels.csv", "audio/a.wav", ".cache/x"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
        os.utime(root / name, (1_600_000_000, 1_600_000_000))
    return root


def stamp(*folders: Path, files: tuple[Path, ...] = ()) -> str:
    return Stamps().take(Inputs(tuple(map(str, folders)), tuple(map(str, files))))


# -- stamps ----------------------------------------------------------------------------------------


def replaced_with_another_time(root: Path) -> None:
    (root / "audio/a.wav").write_text("audio/b.wav")


def replaced_with_another_size(root: Path) -> None:
    (root / "audio/a.wav").write_text("longer than before")
    os.utime(root / "audio/a.wav", (1_600_000_000, 1_600_000_000))


CHANGES: dict[str, Callable[[Path], object]] = {
    "written": replaced_with_another_time,
    "written with the old time": replaced_with_another_size,
    "touched": lambda root: os.utime(root / "labels.csv"),
    "added": lambda root: (root / "audio/b.wav").touch(),
    "taken away": lambda root: (root / "audio/a.wav").unlink(),
    "renamed": lambda root: (root / "audio/a.wav").rename(root / "audio/c.wav"),
    "moved": lambda root: (root / "audio/a.wav").rename(root / "a.wav"),
    "folder renamed": lambda root: (root / "audio").rename(root / "sounds"),
    "all gone": shutil.rmtree,
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_stamp_changes_with_every_file_that_counts(
    folder: Path, change: Callable[[Path], object]
) -> None:
    before = stamp(folder)
    assert stamp(folder) == before
    change(folder)
    assert stamp(folder) != before


def test_hidden_files_and_empty_folders_do_not_count(folder: Path) -> None:
    """What systems leave behind (`._a.wav`, `.DS_Store`) is no data."""
    before = stamp(folder)
    (folder / ".cache/x").write_text("other")
    (folder / "audio/._a.wav").touch()
    (folder / "empty").mkdir()
    assert stamp(folder) == before


def test_a_single_file_counts_and_so_does_that_it_is_missing(folder: Path) -> None:
    path = folder / "labels.csv"
    before = stamp(files=(path,))
    path.write_text("other")
    changed = stamp(files=(path,))
    path.unlink()
    assert len({before, changed, stamp(files=(path,))}) == 3


def test_folders_and_files_are_told_apart_from_each_other(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    assert stamp(folder, other) != stamp(other, folder)


def test_a_stamp_is_taken_once_in_a_command(folder: Path) -> None:
    """What changes while the command works is not taken for what it worked on."""
    stamps, inputs = Stamps(), Inputs((str(folder),), ())
    before = stamps.take(inputs)
    (folder / "labels.csv").write_text("changed in between")
    assert stamps.take(inputs) == before
    assert Stamps().take(inputs) != before


def test_a_link_to_nowhere_is_not_a_crash(folder: Path) -> None:
    before = stamp(folder)
    (folder / "audio/broken").symlink_to(folder / "nothing")
    assert stamp(folder) == before


def test_a_folder_that_may_not_be_opened_is_not_a_crash(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as `lost+found`, which a disk of its own has."""
    scandir = os.scandir

    def refused(path: str) -> object:
        if str(path).endswith("lost+found"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    (folder / "lost+found").mkdir()
    monkeypatch.setattr(os, "scandir", refused)
    assert stamp(folder) == stamp(folder)


def test_links_that_lead_in_a_circle_end(folder: Path) -> None:
    for name in ("one", "two"):
        (folder / "audio" / name).symlink_to(folder)
    assert stamp(folder) == stamp(folder)


# -- results ---------------------------------------------------------------------------------------


def test_every_field_of_the_content_changes_its_hash() -> None:
    others = [replace(MADE_OF, **{name: "other"}) for name in asdict(MADE_OF)]
    assert len({made_of.hash for made_of in [MADE_OF, *others]}) == 4
    assert len(MADE_OF.hash) == 8


def test_a_result_is_current_while_its_stamp_holds(cell: Cell, folder: Path) -> None:
    assert current_result(cell, Stamps()) is None
    assert latest_result(cell) is None
    inputs = Inputs((str(folder),), ())
    result = save_rows(cell, [0.5], [0.5])
    note_stamp(cell, result, inputs, Stamps().take(inputs))
    assert current_result(cell, Stamps()) == result == latest_result(cell)
    assert result.folder == cell.folder / MADE_OF.hash

    (folder / "labels.csv").write_text("other")
    assert current_result(cell, Stamps()) is None
    assert latest_result(cell) == result


def test_rows_make_a_result_and_notes_alone_do_not(cell: Cell) -> None:
    result = result_of(cell, MADE_OF)
    note_result(cell, result, LIST)
    assert stored_results(cell) == []
    write_rows(result.folder, [])  # an empty file, written last
    assert stored_results(cell) == [result]


def test_results_of_other_content_lie_side_by_side_the_newest_first(cell: Cell) -> None:
    results = []
    for age, tracks in enumerate(("new", "old", "oldest")):
        made_of = replace(MADE_OF, tracks=tracks)
        result = result_of(cell, made_of)
        write_rows(result.folder, [])
        note_result(cell, result, LIST)
        os.utime(result.folder / "made_of.json", (10**9 - age, 10**9 - age))
        results.append(result)
    assert stored_results(cell) == results


def test_a_result_of_another_place_is_neither_current_nor_the_latest(
    cell: Cell, tmp_path: Path
) -> None:
    """Of the same hash, but what lies in the other place may be other data."""
    result = save_rows(cell, [0.5], [0.5])
    elsewhere = compose_cell([f"paths.runs={tmp_path}/runs", "data.root=/elsewhere"])
    assert elsewhere.folder == cell.folder
    assert current_result(elsewhere, Stamps()) is None
    assert latest_result(elsewhere) is None
    assert stored_results(elsewhere) == [result]


def test_the_latest_result_is_that_of_the_place_whatever_was_found_elsewhere(
    cell: Cell, tmp_path: Path
) -> None:
    """Labels were changed here; a copy with the old ones was swept in another place later."""
    inputs, results = Inputs((str(tmp_path / "nothing"),), ()), []
    for number, tracks in enumerate(("old", "new")):
        result = result_of(cell, replace(MADE_OF, tracks=tracks))
        write_rows(result.folder, [])
        note_result(cell, result, LIST)
        note_stamp(cell, result, inputs, "of files that are no longer so")
        for path in result.folder.iterdir():
            os.utime(path, (10**9 + number, 10**9 + number))
        results.append(result)
    assert latest_result(cell) == results[1]

    copy = compose_cell([f"paths.runs={tmp_path}/runs", "data.root=/copy"])
    note_result(copy, results[0], LIST)
    note_stamp(copy, results[0], inputs, "")
    assert latest_result(cell) == results[1]
    assert latest_result(copy) == results[0]


@pytest.mark.parametrize("name", ["made_of.json", "stamp-*.json"])
@pytest.mark.parametrize("text", ["", "{", "[]", "7", '{"made_of": 3}', '{"made_of": {"a": 1}}'])
def test_a_broken_note_is_named_in_one_line_or_is_not_current(
    cell: Cell,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    name: str,
    text: str,
) -> None:
    result = save_rows(cell, [0.5], [0.5])
    (note,) = result.folder.glob(name)
    note.write_text(text)
    settings = [f"paths.runs={tmp_path}/runs", f"data.root={tmp_path}/data"]
    settings += ["task=nsynth_pitch", "baseline=null"]
    code = main(["report", *settings])
    error = capsys.readouterr().err
    if code == 0:
        assert name.startswith("stamp") and current_result(cell, Stamps()) is None
        return
    assert code == 2
    assert error.startswith(f"mirprobe: {note} ") and error.count("\n") == 1
    assert "delete it and run the same command again" in error


def test_a_note_that_cannot_be_understood_by_its_numbers_is_refused(cell: Cell) -> None:
    result = save_rows(cell, [0.5], [0.5])
    (note,) = result.folder.glob("stamp-*.json")
    note.write_text(json.dumps({"folders": 3, "files": [7], "stamp": None}))
    with pytest.raises(UserError, match="is not a note of mirprobe: delete it"):
        current_result(cell, Stamps())


# -- what changed ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("after", "text", "line"),
    [
        (replace(BEFORE, tracks="n"), LIST.replace("\t1\t", "\t0\t"), "labels changed: 1 of 2"),
        (replace(BEFORE, tracks="n"), LIST.replace("test", "val"), "splits changed: 1 of 2"),
        (replace(BEFORE, tracks="n"), LIST.replace("y", "z"), "audio changed: 1 of 2"),
        (replace(BEFORE, tracks="n"), LIST + "c\tval\t0\tz\n", "tracks new: 1"),
        (replace(BEFORE, tracks="n"), LIST[:12], "tracks gone: 1"),
        (
            replace(BEFORE, tracks="n"),
            LIST.replace("a\t", "c\t").replace("\t1\t", "\t3\t"),
            "tracks gone: 1; tracks new: 1; labels changed: 1 of 2",
        ),
        (replace(BEFORE, weights="n"), LIST, "the weights are others"),
        (replace(BEFORE, weights="n", store="n"), LIST, "the weights are others"),
        (replace(BEFORE, store="n"), LIST, "the features are others"),
        (
            MadeOf("n", "n", "n"),
            LIST.replace("\t1\t", "\t0\t"),
            "the weights are others; labels changed: 1 of 2",
        ),
    ],
)
def test_one_line_says_what_changed(cell: Cell, after: MadeOf, text: str, line: str) -> None:
    note_result(cell, result_of(cell, BEFORE), LIST)
    assert what_changed(cell, BEFORE, after, text) == line


@pytest.mark.parametrize("content", [None, b"", b"no gzip", b"\x1f\x8b\x08\x00torn"])
def test_a_list_that_is_lost_or_torn_is_said_all_the_same(
    cell: Cell, content: bytes | None
) -> None:
    note_result(cell, result_of(cell, BEFORE), LIST)
    path = Path(cell.paths.runs) / LISTS / f"{BEFORE.tracks}.tsv.gz"
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    after = replace(BEFORE, tracks="n")
    assert what_changed(cell, BEFORE, after, LIST) == "the labelled list is another"


def test_lists_are_stored_once_by_their_hash(cell: Cell) -> None:
    for seed in (0, 1):
        note_result(replace(cell, seed=seed), result_of(cell, MADE_OF), LIST)
    assert len(list((Path(cell.paths.runs) / LISTS).iterdir())) == 1
