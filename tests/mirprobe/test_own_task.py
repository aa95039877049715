"""`mirprobe task new`: a table becomes a task that runs, and nothing is written over."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

import mirprobe
from mirprobe.__main__ import main
from mirprobe.assembly import make_data
from mirprobe.settings import all_tasks, compose_cell, known


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to start in, of a name that settings have to quote."""
    here = tmp_path / "my data, [x] ü"
    (here / "audio").mkdir(parents=True)
    monkeypatch.chdir(here)
    monkeypatch.delenv("MIRPROBE_CONF", raising=False)
    return here


def write(folder: Path, header: str, rows: list[str], name: str = "my $songs.csv") -> str:
    for number in range(20):
        (folder / "audio" / f"{number}.wav").touch()
    (folder / name).write_text("\n".join([header, *rows]) + "\n")
    return name


def songs(folder: Path, **more: str) -> str:
    rows = [f"audio/{n}.wav,{'xy'[n % 2]},artist{n // 4}" for n in range(20)]
    return write(folder, "file,genre,artist", rows, **more)


def test_the_task_that_is_written_reads_the_table_by_itself(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["task", "new", songs(folder), "--name", "mine"]) == 0
    said = capsys.readouterr().out
    assert "group: column artist (5 different" in said
    assert "kind: classification, 2 outputs, by accuracy; train/val/test 12/4/4" in said
    assert f"written: {folder}/own_conf/task/mine.yaml" in said

    cell = compose_cell(["task=mine"])
    data = make_data(cell)
    assert (cell.task.name, data.classes, len(data.tracks())) == ("mine", ("x", "y"), 20)
    assert {track.group for track in data.tracks()} == {f"artist{n}" for n in range(5)}


def test_it_is_a_task_like_others_but_not_of_task_all_and_belongs_to_its_folder(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["task", "new", songs(folder), "--name", "mine"]) == 0
    assert "mine" in known("task") and "mine" not in all_tasks()
    monkeypatch.chdir(tmp_path)
    assert "mine" not in known("task")
    monkeypatch.setenv("MIRPROBE_CONF", str(folder / "own_conf"))
    assert make_data(compose_cell(["task=mine"])).tracks()


def test_folds_numbers_and_tags_become_settings_that_fit(folder: Path) -> None:
    rows = [f"audio/{n}.wav,{0.5 * n},{n % 4 + 8}" for n in range(20)]
    name = write(folder, "path,tempo,fold", rows)
    assert main(["task", "new", name, "--name", "tempo"]) == 0
    cell = compose_cell(["task=tempo"])
    assert (cell.task.select_by, cell.task.options["fold"]) == ("r2", "8")
    assert make_data(cell).kind == "regression"

    rows = [f"audio/{n}.wav,{'a|b' if n % 2 else 'b'}" for n in range(20)]
    for column in ("labels", "label"):
        assert main(["task", "new", write(folder, f"path,{column}", rows), "--name", column]) == 0
        cell = compose_cell([f"task={column}"])
        assert cell.metrics == ["roc_auc", "average_precision"]
        assert make_data(cell).classes == ("a", "b")


@pytest.mark.trial
def test_songs_with_files_of_segments_are_probed_by_frames(folder: Path) -> None:
    """From the table to the rows, by the commands that `task new` names."""
    time = np.arange(16000) / 8000
    for number in range(10):
        pitch = np.where(time < 1, 200 + 5 * number, 900 + 5 * number)
        soundfile.write(folder / "audio" / f"{number}.wav", np.sin(6.28 * pitch * time) / 3, 8000)
        (folder / "audio" / f"{number}.lab").write_text("0 1 low\n1 2 high\n")
    rows = [f"audio/{n}.wav,audio/{n}.lab" for n in range(10)]
    (folder / "songs.csv").write_text("\n".join(["path,structure", *rows]) + "\n")

    assert main(["task", "new", "songs.csv"]) == 0
    assert compose_cell(["task=songs"]).metrics == ["frame_accuracy", "frame_accuracy_macro"]
    quick = ["protocol.hidden=16", "extract.n_workers=0", "launcher.accelerator=cpu"]
    assert main(["sweep", "task=songs", "model=fcpe", "baseline=null", "logger=none", *quick]) == 0
    (row,) = [
        row
        for row in mirprobe.read_rows("runs")
        if (row.head, row.split, row.probe, row.metric)
        == ("layer_00", "test", "mlp", "frame_accuracy")
    ]
    assert row.value is not None and row.value > 0.9


def test_files_that_are_elsewhere_are_counted(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = songs(folder)
    (folder / "audio" / "3.wav").unlink()
    assert main(["task", "new", name, "--name", "mine"]) == 0
    assert "audio: 19 of 20 files are beside the table or here" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--name", "gtzan_genre"], "there is a task gtzan_genre already"),
        (["--name", "a b"], "a task cannot be called 'a b'"),
    ],
)
def test_names_that_are_taken_or_none_are_refused_and_nothing_is_written(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    assert main(["task", "new", songs(folder), *arguments]) == 2
    assert said in capsys.readouterr().err
    assert not (folder / "own_conf").exists()


def test_a_table_that_no_task_can_read_writes_nothing(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [f"audio/{n}.wav,{'xy'[n // 19]},{'test' if n == 19 else 'train'}" for n in range(20)]
    assert main(["task", "new", write(folder, "path,label,split", rows, "one.csv")]) == 2
    assert "1 labels of one.csv" in capsys.readouterr().err.replace(str(folder) + "/", "")
    assert not (folder / "own_conf").exists()


def test_a_path_that_settings_would_look_up_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["task", "new", songs(folder, name="${x}.csv"), "--name", "mine"]) == 2
    assert "has ${, which settings look up: rename it" in capsys.readouterr().err
