"""What a number was made of: found by path, by line and by hash, and said with its state."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from toy_rows import save_rows

from datamodules.errors import UserError
from datamodules.files import write_text
from mirprobe.cell import SETTINGS, Cell, write_cell
from mirprobe.provenance import Inputs, Result, Stamps, note_stamp
from mirprobe.reporting.why import why
from mirprobe.settings import compose_cell

VAL, TEST = (0.5, 0.9, 0.7), (0.4, 0.625, 0.75)


@pytest.fixture
def cell(tmp_path: Path) -> Cell:
    """A cell whose data and store exist."""
    (tmp_path / "data" / "NSynth").mkdir(parents=True)
    (tmp_path / "data" / "NSynth" / "examples.json").write_text("{}")
    paths = [f"paths.{name}={tmp_path}/{name}" for name in ("runs", "features")]
    return compose_cell(["task=nsynth_pitch", f"data.root={tmp_path}/data", *paths])


@pytest.fixture
def result(cell: Cell) -> Result:
    """A result of the cell, with what a sweep leaves beside it."""
    saved = save_rows(cell, VAL, TEST, weighted=0.7)
    for note in saved.folder.glob("stamp-*.json"):
        note.unlink()
    inputs = Inputs((f"{cell.data.root}/NSynth",), ())
    note_stamp(cell, saved, inputs, Stamps().take(inputs))
    write_text(cell.folder / SETTINGS, write_cell(cell))

    store = Path(cell.paths.features) / f"nsynth-whole-fcpe-{saved.made_of.store}"
    store.mkdir(parents=True)
    (store / "store.json").write_text(json.dumps({"pooling": "mean", "dataset": "nsynth"}))
    (store / "part-0.h5").write_text("")
    return saved


def said(what: object, cell: Cell) -> dict[str, str]:
    """The lines, by their subject."""
    lines = why(str(what), Path(cell.paths.runs))
    return {line[:9].strip(): line[9:].strip() for line in lines}


def test_it_says_the_number_and_all_that_it_was_made_of(result: Result, cell: Cell) -> None:
    lines = said(result.folder, cell)
    assert lines["number"] == (
        "layer_01 on test: accuracy 62.5 [52.5, 72.5] % of 48/24/24 tracks, epoch 2 chosen by "
        "val/accuracy"
    )
    assert lines["cell"] == "fcpe nsynth_pitch mlp512 seed 0"
    assert "hidden=512" in lines["protocol"] and "lr=0.001" in lines["protocol"]
    assert "weights=trained" in lines["model"]
    assert lines["weights"].startswith(f"fingerprint {result.made_of.weights}")
    assert lines["labels"].startswith(f"{result.made_of.tracks}, train 1 val 0 test 0, ")
    assert "1 shards, pooling=mean dataset=nsynth" in lines["store"]
    assert lines["versions"] == "torch 2.11.0"
    assert lines["read from"] == f"{cell.data.root}/NSynth: current"


def test_it_is_found_by_folder_file_line_and_hash(result: Result, cell: Cell) -> None:
    whole = said(result.folder, cell)
    for what in (
        cell.folder,
        result.folder / "rows.jsonl",
        cell.hash[:6],
        result.made_of.hash[:5],
    ):
        assert said(what, cell) == whole
    assert said(f"{result.folder / 'rows.jsonl'}:1", cell)["number"].startswith("layer_00 on val: ")


def test_files_that_changed_or_are_gone_are_said(result: Result, cell: Cell) -> None:
    labels = Path(str(cell.data.root)) / "NSynth" / "examples.json"
    labels.write_text("{} ")
    assert said(result.folder, cell)["read from"].endswith("/NSynth: files changed")
    labels.unlink()
    labels.parent.rmdir()
    assert said(result.folder, cell)["read from"].endswith("/NSynth: not there")


def test_a_store_and_a_list_that_are_gone_are_said(result: Result, cell: Cell) -> None:
    for path in (*Path(cell.paths.runs).glob("lists/*"), *Path(cell.paths.features).glob("*/*")):
        path.unlink()
    for folder in Path(cell.paths.features).iterdir():
        folder.rmdir()
    lines = said(result.folder, cell)
    assert lines["labels"].endswith(".tsv.gz is not there")
    assert "no folder of it under" in lines["store"]


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("nothing", "nothing is no result: it is neither the folder of a cell"),
        ("0123456789ab0", "no result of the hash 0123456789ab0 under .*runs"),
        ("rows.jsonl:99", "has no line 99: it has 8"),
    ],
)
def test_what_cannot_be_found_is_told_what_can(
    what: str, message: str, result: Result, cell: Cell
) -> None:
    if what.startswith("rows"):
        what = str(result.folder / what)
    with pytest.raises(UserError, match=message):
        why(what, Path(cell.paths.runs))


def test_digits_of_two_cells_are_not_enough(
    result: Result, cell: Cell, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = replace(cell, seed=1)
    save_rows(other, VAL, TEST)
    monkeypatch.setattr("mirprobe.reporting.why._SHORTEST", 0)
    with pytest.raises(UserError, match=r"2 results of the hash .*: give more digits"):
        why(result.folder.name[:4], Path(cell.paths.runs))  # of one content, in two cells
