"""The main job end to end, and interrupted for real."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from mirprobe.__main__ import main
from mirprobe.results import read_rows
from mirprobe.scoring.selection import best_layer
from mirprobe.settings import compose_cells

TASKS = "task=nsynth_pitch,nsynth_instrument"


def rows_of(arguments: list[str]) -> list[dict[str, object]]:
    return [
        json.loads(line)
        for cell in compose_cells(arguments)
        for line in (cell.folder / "rows.jsonl").read_text().splitlines()
    ]


def test_sweep_from_nothing_to_table_and_figures(
    settings: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = settings(TASKS, "logger=wandb", "logger.mode=offline", "protocol.max_epochs=15")
    assert main(["sweep", *arguments]) == 0
    printed = capsys.readouterr().out
    assert "Table 1" in printed and "Pitch" in printed and "Instrument" in printed
    cells = compose_cells(arguments)
    assert [cell.model_name for cell in cells] == ["fbank_chroma", "fcpe"] * 2
    rows = read_rows(cells[1].folder)
    assert [(row.head, row.split) for row in rows[:8]] == [
        (f"layer_{n:02d}", "val") for n in range(7)
    ] + [("weighted", "val")]
    assert {row.n_tracks for row in rows} == {24} and {row.n_expected for row in rows} == {
        12678,
        4096,
    }
    assert best_layer(rows, "val").value > 0.6, "pitch of clean tones is easy"
    assert all(row.ci_low <= row.value <= row.ci_high for row in rows)
    weighted = next(row for row in rows if row.head == "weighted")
    assert weighted.weights_start == pytest.approx([1 / 6] * 6) and sum(
        weighted.weights_end or []
    ) == pytest.approx(1)
    with np.load(cells[1].folder / "predictions.npz") as stored:
        right = stored["test_logits"].argmax(axis=2) == stored["test_target"]
    assert [row.value for row in rows if row.split == "test"] == pytest.approx(
        right.mean(axis=1).tolist()
    )
    assert {path.name for path in (tmp_path / "runs" / "report").iterdir()} == {
        "figure2.png", "figure2.pdf", "layer_weights.png", "layer_weights.pdf",
    }  # fmt: skip
    assert len(list((tmp_path / "runs" / "wandb").glob("offline-run-*/*.wandb"))) == 4
    before = {
        path: path.stat().st_mtime_ns
        for path in tmp_path.rglob("*")
        if "report" not in path.parts and path.is_file()
    }
    assert main(["sweep", *arguments]) == 0
    assert "Table 1" in capsys.readouterr().out
    after = {
        path: path.stat().st_mtime_ns
        for path in tmp_path.rglob("*")
        if "report" not in path.parts and path.is_file()
    }
    assert after == before, "a second sweep writes nothing but the report"


def test_same_seed_gives_identical_rows(settings: Callable[..., list[str]], tmp_path: Path) -> None:
    runs = [settings("task=nsynth_instrument", out=tmp_path / name) for name in ("one", "two")]
    for arguments in runs:
        assert main(["sweep", *arguments]) == 0
    first, second = (rows_of(arguments) for arguments in runs)
    assert first == second
    other = settings("task=nsynth_instrument", "seed=1", out=tmp_path / "one")
    assert main(["sweep", *other]) == 0
    assert [row["value"] for row in rows_of(other)] != [row["value"] for row in first]


def start(arguments: list[str]) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "mirprobe", "sweep", *arguments]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    )


def wait_for(pattern: str, folder: Path, process: subprocess.Popen[bytes], n: int = 1) -> None:
    """Waits until n files are there; fails if the process ends before."""
    deadline = time.monotonic() + 90
    while len(list(folder.glob(pattern))) < n:
        assert process.poll() is None, (
            f"ended too early: {process.communicate()[0].decode()[-2000:]}"
        )
        assert time.monotonic() < deadline
        time.sleep(0.005)


def shards(folder: Path) -> list[str]:
    found: list[str] = []
    for path in folder.glob("features/*/part-*.h5"):
        with h5py.File(path) as shard:
            found += list(shard["track_id"].asstr()[:])
    return found


def test_killed_sweep_goes_on_and_loses_at_most_the_open_shard(
    settings: Callable[..., list[str]], tmp_path: Path
) -> None:
    """kill -9, SIGTERM and Ctrl-C during extraction, kill -9 during probing; then the same command
    ends the job.
    """
    slow = ["extract.batch_seconds=0.5", "extract.shard_clips=4", "extract.n_workers=1"]
    arguments = settings(
        TASKS, "baseline=null", "protocol.max_epochs=40", *slow, out=tmp_path / "killed"
    )
    n_before = 0
    for number, code in ((signal.SIGKILL, -9), (signal.SIGTERM, 143), (signal.SIGINT, 130)):
        process = start(arguments)
        wait_for("features/*/part-*.h5", tmp_path / "killed", process, n_before // 4 + 3)
        (os.killpg if number == signal.SIGINT else os.kill)(process.pid, number)
        out = process.communicate(timeout=30)[0].decode()
        assert process.returncode == code, out[-2000:]
        assert "Traceback" not in out
        stored = shards(tmp_path / "killed")
        assert len(stored) == len(set(stored)) >= n_before + 8
        n_before = len(stored)
    assert n_before < 96
    process = start(arguments)
    wait_for("runs/fcpe/nsynth_pitch/*/rows.jsonl", tmp_path / "killed", process)
    process.kill()
    process.communicate(timeout=30)
    assert not list((tmp_path / "killed").glob("runs/fcpe/nsynth_instrument/*/rows.jsonl")), (
        "killed too late to be a test"
    )
    assert main(["sweep", *arguments]) == 0
    stored = shards(tmp_path / "killed")
    assert len(stored) == len(set(stored)) == 96
    assert not list((tmp_path / "killed").glob("features/*/.*.tmp"))
    for number, code in ((signal.SIGTERM, 143), (signal.SIGINT, 130)):  # in the middle of training
        endless = [
            *arguments,
            f"seed={code}",
            "protocol.max_epochs=1000000",
            "protocol.patience=1000000",
        ]
        process = start(endless)
        wait_for(f"runs/fcpe/nsynth_pitch/*s{code}*/config.yaml", tmp_path / "killed", process)
        time.sleep(2)
        process.send_signal(number)
        out = process.communicate(timeout=30)[0].decode()
        assert process.returncode == code, out[-2000:]
        assert "stopped; run the same command to go on" in out and "Traceback" not in out
    whole = settings(TASKS, "baseline=null", "protocol.max_epochs=40", out=tmp_path / "whole")
    assert main(["sweep", *whole]) == 0
    for killed, undisturbed in zip(rows_of(arguments), rows_of(whole), strict=True):
        assert killed["value"] == pytest.approx(
            undisturbed["value"], abs=1.5 / 24
        )  # one track: batches differ, so last bits do
