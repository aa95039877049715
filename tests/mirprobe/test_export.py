"""Features as files: every row with what it is of, and the values that are stored."""

import csv
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from datamodules.tracks import Segment, Track
from mirprobe.__main__ import main
from mirprobe.assembly import make_data
from mirprobe.export import label_texts
from mirprobe.extraction.extract import name_audio
from mirprobe.probing.probe import open_store
from mirprobe.settings import compose_cell
from mirprobe.sweep.plan import make_plan

PITCH = ["task=nsynth_pitch", "model=fcpe", "baseline=null"]


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("out")


@pytest.fixture(scope="module")
def stored(out: Path, notes_root: Path) -> list[str]:
    """Settings of features that are stored."""
    paths = [f"paths.{name}={out / name}" for name in ("data", "features", "runs")]
    quick = ["extract.n_workers=0", "launcher.accelerator=cpu", "logger=none"]
    arguments = [*PITCH, f"data.root={notes_root}", *paths, *quick]
    assert main(["extract", *arguments]) == 0
    return arguments


@pytest.fixture
def extracted(stored: list[str], out: Path) -> list[str]:
    shutil.rmtree(out / "runs" / "export", ignore_errors=True)
    return stored


def read_table(folder: Path) -> list[dict[str, str]]:
    with (folder / "rows.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def exported(tmp_path: Path) -> Path:
    (folder,) = tmp_path.glob("runs/export/*/*")
    return folder


def test_a_row_of_the_table_is_a_row_of_every_layer_with_the_stored_values(
    extracted: list[str], out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", *extracted]) == 0
    folder = exported(out)
    assert folder.parent.name == "fcpe" and folder.name.startswith("nsynth_pitch-")
    assert sorted(path.name for path in folder.iterdir()) == [
        *(f"layer_{layer:02d}.npy" for layer in range(7)),
        "rows.csv",
    ]
    assert capsys.readouterr().out.rstrip().endswith("7 layers of 96 rows x 512")

    cell = compose_cell(extracted)
    (job,) = make_plan([cell]).jobs
    name_audio(job)
    by_id = {track.track_id: track for track in job.tracks()}
    rows, layer = read_table(folder), np.load(folder / "layer_03.npy")
    assert layer.dtype == np.float16 and len(rows) == len(layer) == 96
    data = make_data(cell)
    for number in (0, 40, 95):
        track = by_id[rows[number]["track"]]
        stored = open_store(cell).read([track]).read(0)
        np.testing.assert_array_equal(layer[number], stored[3, 0])
        assert rows[number]["label"] == data.classes[track.target]
        assert (rows[number]["split"], rows[number]["start_s"]) == (track.split, "0.0")


def test_single_layers_are_those_that_are_asked_for(extracted: list[str], out: Path) -> None:
    assert main(["export", "--layer", "6", "--layer", "0", *extracted]) == 0
    names = {path.name for path in exported(out).iterdir()}
    assert names == {"layer_00.npy", "layer_06.npy", "rows.csv"}


def test_clips_and_their_parts_have_the_times_where_they_start(
    settings: Callable[..., list[str]], tmp_path: Path
) -> None:
    cut = ["task.clip.seconds=0.125", "extract.pooling=16Hz"]
    arguments = settings(*PITCH, *cut)
    assert main(["extract", *arguments]) == 0
    assert main(["export", "--layer", "1", *arguments]) == 0
    rows = read_table(exported(tmp_path))
    of_first = [(row["clip"], row["start_s"]) for row in rows if row["track"] == rows[0]["track"]]
    assert of_first == [("0", "0.0"), ("0", "0.0625"), ("1", "0.125"), ("1", "0.1875")]
    assert len(np.load(exported(tmp_path) / "layer_01.npy")) == len(rows) == 4 * 96


@pytest.mark.parametrize(
    ("kind", "target", "texts"),
    [
        ("classification", 1, ["b"] * 4),
        ("multilabel", (1.0, 0.0, 1.0), ["a|c"] * 4),
        ("multilabel", (0.0, 0.0, 0.0), [""] * 4),
        ("regression", (0.5, -1.0, 2.0), ["0.5|-1.0|2.0"] * 4),
        # Centres of frames at 2 Hz from 10 s on: 10.25, 10.75, 11.25, 11.75.
        ("frames", (Segment(0, 10.5, 0), Segment(11, 11.5, 2)), ["a", "", "c", ""]),
    ],
)
def test_labels_are_words_and_frames_have_their_own(
    kind: str, target: Any, texts: list[str]
) -> None:
    data: Any = SimpleNamespace(kind=kind, classes=("a", "b", "c"), frame_rate=2.0)
    track = Track("t", Path("t.wav"), "train", target)
    assert label_texts(data, track, 10.0, 4) == texts


def test_what_cannot_be_exported_is_said_in_one_line(
    extracted: list[str],
    settings: Callable[..., list[str]],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    capsys.readouterr()
    assert main(["export", "--layer", "7", *extracted]) == 2
    assert "fcpe has no layer 7: it has 0 (the input) to 6" in capsys.readouterr().err
    assert main(["export", *settings(*PITCH, "extract.pooling=1Hz")]) == 2
    assert "run `mirprobe extract` with the same settings" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert main(["export", "--form", "parquet", *extracted]) == 2
    assert "parquet needs pyarrow" in capsys.readouterr().err


def test_parquet_has_ids_and_values_in_one_table(
    extracted: list[str], out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[pd.DataFrame] = []

    def write(self: pd.DataFrame, path: Path, engine: str) -> None:
        written.append(self)
        path.write_bytes(engine.encode())

    monkeypatch.setitem(sys.modules, "pyarrow", ModuleType("pyarrow"))
    monkeypatch.setattr(pd.DataFrame, "to_parquet", write)
    assert main(["export", "--form", "parquet", "--layer", "2", *extracted]) == 0
    assert (exported(out) / "layer_02.parquet").read_text() == "pyarrow"
    (table,) = written
    assert [*table.columns[:7], table.columns[-1]] == [
        *("track", "split", "group", "label", "clip", "start_s"),
        *("d0000", "d0511"),
    ]
    assert list(table["track"]) == [row["track"] for row in read_table(exported(out))]
