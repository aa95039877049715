"""Cores that a process may use, and workers that end with their parent and by nothing else."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from datamodules import workers
from datamodules.workers import n_cores


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """64 cores, all of which this process may use."""
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    monkeypatch.setattr(workers, "_quota", lambda *_: float("inf"))
    monkeypatch.delenv("SLURM_CPUS_PER_TASK", raising=False)


def test_all_cores_where_nothing_limits_them(machine: None) -> None:
    assert n_cores() == 64


def test_the_least_of_affinity_quota_and_slurm_counts(
    machine: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)))
    assert n_cores() == 16
    monkeypatch.setattr(workers, "_quota", lambda *_: 6.5)
    assert n_cores() == 6
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "4")
    assert n_cores() == 4
    monkeypatch.setattr(workers, "_quota", lambda *_: 0.5)
    assert n_cores() == 1, "less than a core is one"


def test_nonsense_of_slurm_is_no_limit(machine: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "4(x2)")
    assert n_cores() == 64


@pytest.mark.parametrize(
    ("own", "limits", "cores"),
    [
        ("0::/\n", {"": "max 100000"}, float("inf")),
        ("0::/\n", {"": "250000 100000"}, 2.5),
        ("0::/job/step\n", {"job": "400000 100000", "job/step": "max 100000"}, 4.0),
        ("0::/job/step\n", {"job": "400000 100000", "job/step": "150000 50000"}, 3.0),
        ("1:cpu:/job\n", {"job": "100000 100000"}, float("inf")),
        ("0::/job\n", {"job": "nonsense"}, float("inf")),
        ("0::/job\n", {}, float("inf")),
    ],
)
def test_quotas_of_control_groups(
    tmp_path: Path, own: str, limits: dict[str, str], cores: float
) -> None:
    (tmp_path / "own").write_text(own)
    for group, limit in limits.items():
        (tmp_path / "root" / group).mkdir(parents=True, exist_ok=True)
        (tmp_path / "root" / group / "cpu.max").write_text(limit)
    assert workers._quota(tmp_path / "root", tmp_path / "own") == cores


def test_without_control_groups_there_is_no_quota(tmp_path: Path) -> None:
    assert workers._quota(tmp_path, tmp_path / "nowhere") == float("inf")


WORKER = """
import os, sys, time
from datamodules.workers import end_with_parent
end_with_parent(os.getppid())
print("ready", flush=True)
time.sleep(30)
"""


def test_a_worker_hears_its_parent_and_no_terminal() -> None:
    with subprocess.Popen([sys.executable, "-c", WORKER], stdout=subprocess.PIPE) as worker:
        assert worker.stdout is not None and worker.stdout.readline() == b"ready\n"
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
            worker.send_signal(number)
        time.sleep(0.2)
        assert worker.poll() is None
        worker.terminate()
        assert worker.wait(timeout=5) == -signal.SIGTERM


def test_a_worker_ends_when_its_parent_is_killed() -> None:
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {WORKER!r}])"
    with subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        process.kill()
        start_s = time.monotonic()
        assert process.stdout.read() == b"", "the pipe is closed when the worker is gone"
        assert time.monotonic() - start_s < 5
