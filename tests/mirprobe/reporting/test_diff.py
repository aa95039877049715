"""What differs between two results: settings, weights, labels, store and versions, each said."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from toy_rows import MADE_OF, make_rows

from datamodules.files import write_text
from datamodules.listing import hash_text
from mirprobe.cell import SETTINGS, Cell, write_cell
from mirprobe.command import run
from mirprobe.provenance import MadeOf, Result, note_result, result_of
from mirprobe.reporting.diff import diff
from mirprobe.results import write_rows
from mirprobe.settings import compose_cell

BEFORE = "a\ttrain\t0\tx\nb\tval\t1\ty\nc\ttest\t1\tz\n"
AFTER = "a\ttrain\t1\tx\nb\tval\t1\ty\nd\ttest\t1\tz\n"


def cell(tmp_path: Path, *settings: str) -> Cell:
    paths = [f"paths.{name}={tmp_path}/{name}" for name in ("runs", "features")]
    return compose_cell(["task=nsynth_pitch", *paths, *settings])


def save(cell: Cell, made_of: MadeOf = MADE_OF, tracks: str = BEFORE, **changes: object) -> Result:
    """A result with its labelled list, as a sweep leaves it."""
    result = result_of(cell, replace(made_of, tracks=hash_text(tracks)))
    write_rows(result.folder, make_rows(cell, (0.5, 0.9), (0.4, 0.625), **changes))
    note_result(cell, result, tracks)
    write_text(cell.folder / SETTINGS, write_cell(cell))
    return result


def said(one: Result, other: Result, tmp_path: Path) -> dict[str, str]:
    """The lines but those of A and B, by their subject."""
    lines = diff(str(one.folder), str(other.folder), tmp_path / "runs")
    parts = [line.strip().partition("  ") for line in lines if line[0] not in "AB"]
    return {subject: text.strip() for subject, _, text in parts}


def save_store(tmp_path: Path, store: str, **fields: str) -> None:
    folder = tmp_path / "features" / f"nsynth-{store}"
    folder.mkdir(parents=True)
    (folder / "store.json").write_text(json.dumps({"dataset": "nsynth", **fields}))


def test_a_result_is_the_same_as_itself_in_every_part(tmp_path: Path) -> None:
    result = save(cell(tmp_path))
    lines = said(result, result, tmp_path)
    assert list(lines) == ["settings", "weights", "labels", "store", "places", "versions"]
    assert all(text.startswith("the same") for text in lines.values())


def test_each_setting_that_differs_is_said_with_both_values_and_no_other(tmp_path: Path) -> None:
    one = save(cell(tmp_path))
    other = save(cell(tmp_path, "protocol.lr=3e-3", "seed=4", "model.weights=random"))
    lines = said(one, other, tmp_path)
    assert lines["settings"].startswith("3 of ")
    assert lines["protocol.lr"] == "A 0.001, B 0.003"
    assert lines["seed"] == "A 0, B 4"
    assert lines["model.weights"] == "A trained, B random"
    assert len(lines) == 9


def test_a_setting_of_one_of_them_is_not_set_in_the_other(tmp_path: Path) -> None:
    one = save(cell(tmp_path))
    other = save(cell(tmp_path, "extract.precision=bf16"))
    assert said(one, other, tmp_path)["precision"] == "A not set, B bf16"
    assert said(other, one, tmp_path)["precision"] == "A bf16, B not set"


def test_labels_that_differ_are_counted(tmp_path: Path) -> None:
    one, other = save(cell(tmp_path)), save(cell(tmp_path), tracks=AFTER)
    lines = said(one, other, tmp_path)
    assert lines["labels"].endswith("; tracks gone: 1, tracks new: 1, labels: 1")
    assert lines["labels"].startswith(f"A {hash_text(BEFORE)}, B {hash_text(AFTER)}")
    assert lines["settings"].startswith("the same")

    for path in (tmp_path / "runs" / "lists").glob("*"):
        path.write_bytes(b"\x1f\x8b broken")
    assert "a list is lost or broken" in said(one, other, tmp_path)["labels"]


def test_stores_and_versions_that_differ_are_said_by_field(tmp_path: Path) -> None:
    one = save(cell(tmp_path))
    made_of = replace(MADE_OF, store="0123456789ab", weights="other")
    other = save(cell(tmp_path), made_of, versions={"torch": "2.12.0", "numpy": "2.4"})
    lines = said(one, other, tmp_path)
    assert lines["versions"] == "torch: A 2.11.0, B 2.12.0; numpy: A not set, B 2.4"
    assert lines["weights"] == f"A {MADE_OF.weights}, B other"
    assert "a store is gone" in lines["store"]

    save_store(tmp_path, MADE_OF.store, pooling="mean")
    save_store(tmp_path, made_of.store, pooling="1Hz")
    assert said(one, other, tmp_path)["store"].endswith("; pooling: A mean, B 1Hz")


def test_hashes_that_differ_without_a_key_name_the_table_as_the_reason(tmp_path: Path) -> None:
    one = save(cell(tmp_path))
    other = save(replace(cell(tmp_path), seed=1))
    # As where a table has changed since: the file of settings is that of the other cell.
    write_text(other.folder.parent / SETTINGS, write_cell(cell(tmp_path)))
    assert "a table that task.options names" in said(one, other, tmp_path)["settings"]


def test_the_verb_finds_both_by_their_hashes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, other = cell(tmp_path), cell(tmp_path, "seed=1")
    results = [save(one), save(other)]
    assert run(["diff", one.hash[:8], other.hash[:8], f"paths.runs={tmp_path}/runs"]) == 0
    out = capsys.readouterr().out
    assert f"A         fcpe nsynth_pitch mlp512 seed 0, {results[0].folder}" in out
    assert "B         layer_01 on test: accuracy 62.5" in out
    assert "  seed    A 0, B 1" in out
    assert run(["diff", one.hash[:8], "ffffffff", f"paths.runs={tmp_path}/runs"]) == 2
