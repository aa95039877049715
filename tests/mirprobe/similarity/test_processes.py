"""The verb in real processes: one or two of them, killed or not, end with the same rows."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mirprobe.__main__ import main

Settings = Callable[..., list[str]]
FCPE = (
    *("model=fcpe", "task=nsynth_pitch", "baseline=null", "similarity.inputs=[mel,h0]"),
    *("similarity.n_tracks=60", "similarity.frame_s=0.01", "extract.batch_seconds=0.5"),
)


def start(arguments: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "mirprobe", "similarity", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ},
    )


def finish(process: subprocess.Popen[str]) -> str:
    out, _ = process.communicate(timeout=280)
    assert process.returncode == 0, out[-3000:]
    return out


def moments_in(folder: Path) -> dict[str, dict[str, np.ndarray]]:
    found = {}
    for path in sorted(folder.glob("features/*/similarity-*/rank-*.npz")):
        with np.load(path) as arrays:
            found[path.name] = dict(arrays)
    return found


def values_in(folder: Path) -> dict[str, float | None]:
    (path,) = folder.glob("runs/fcpe/similarity/*/similarity.jsonl")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return {f"{row['measure']} {row['input']} {row['layer']}": row["value"] for row in rows}


@pytest.mark.trial
def test_killed_and_on_two_processes_it_ends_with_the_same_rows(
    settings: Settings, tmp_path: Path
) -> None:
    one, killed, two = (tmp_path / name for name in ("one", "killed", "two"))
    out = finish(start(settings(*FCPE, out=one)))
    assert "figure3.png" in out
    values = values_in(one)
    assert values["pwcca h0 0"] == 1.0
    assert 0.3 < (values["pwcca mel 6"] or 0) < (values["pwcca mel 0"] or 0) <= 1

    process = start(settings(*FCPE, "extract.shard_clips=10", out=killed))
    deadline = time.monotonic() + 120
    while not list(killed.glob("features/*/part-*.h5")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    finish(start(settings(*FCPE, "extract.shard_clips=10", out=killed)))
    undisturbed, resumed = moments_in(one)["rank-000.npz"], moments_in(killed)["rank-000.npz"]
    assert {name: array.tobytes() for name, array in undisturbed.items()} == {
        name: array.tobytes() for name, array in resumed.items()
    }
    assert values_in(killed) == values

    finish(start(settings(*FCPE, "launcher.devices=2", out=two)))
    assert moments_in(two).keys() == {"rank-000.npz", "rank-001.npz"}
    for name, value in values_in(two).items():
        assert value == pytest.approx(values[name], rel=1e-9, abs=1e-9), name

    again = finish(start(settings(*FCPE, out=one)))
    assert "over nsynth" not in again, "nothing is left to pass the backbone"


@pytest.mark.trial
def test_a_report_computes_what_is_missing_and_goes_on_where_it_cannot(
    settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As the last of SLURM's jobs, and on a machine that has rows and no features."""
    quick = ("model=fcpe", "task=nsynth_pitch", "baseline=null", "similarity.inputs=[h0]")
    arguments = settings(*quick, "similarity.frame_s=0.01", "protocol.max_epochs=1")
    for verb in ("extract", "probe", "report"):
        assert main([verb, *arguments]) == 0
    figure = tmp_path / "runs" / "report" / "figure3.png"
    assert figure.is_file() and "figure3.png" in capsys.readouterr().out

    (rows,) = tmp_path.glob("runs/fcpe*/similarity/*/similarity.jsonl")
    rows.unlink()
    for path in tmp_path.glob("features/*/similarity-*/rank-*.npz"):
        path.unlink()
    assert main(["report", *arguments]) == 0
    said = capsys.readouterr().out
    assert "no similarity of layers: no moments in" in said and "Table 1" in said
