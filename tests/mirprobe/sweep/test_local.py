"""Processes on this machine: what they are started with, signals that reach them, how they end."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from datamodules.errors import UserError
from datamodules.workers import n_cores
from mirprobe.sections import LauncherConfig
from mirprobe.sweep import local
from mirprobe.sweep.local import (
    IS_CHILD,
    be_alone,
    check_shared,
    check_step,
    check_world_size,
    run_on_all_devices,
)

Started = list[tuple[list[str], dict[str, Any]]]
SIGNALS = (signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGUSR1)
LAUNCHERS = (*local._SIZES, *local._RANKS, *local._OF_TORCH, IS_CHILD)
RANK = "import os; rank = int(os.environ['LOCAL_RANK'])\n"


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in LAUNCHERS:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def instead(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Started]:
    """Runs a small program in the place of `mirprobe extract`; gives what should have run."""
    popen = subprocess.Popen

    def replace(program: str) -> Started:
        started: Started = []

        def start(command: list[str], **options: Any) -> subprocess.Popen[str]:
            started.append((command, options))
            return popen([sys.executable, "-c", program], **options)

        monkeypatch.setattr(subprocess, "Popen", start)
        return started

    return replace


def wait_for(*paths: Path) -> None:
    deadline = time.monotonic() + 30
    while not all(path.exists() for path in paths):
        assert time.monotonic() < deadline
        time.sleep(0.01)


# -- what the ranks are started with ---------------------------------------------------------------


def test_every_rank_takes_all_cells_in_one_process_group(
    instead: Callable[[str], Started], tmp_path: Path
) -> None:
    started = instead(
        f"{RANK}open('{tmp_path}/' + str(rank), 'w').write(f'{{os.getpgid(0)}} {{os.getpid()}}')"
    )
    run_on_all_devices([Path("/runs/a/config.yaml"), Path("/runs/b/config.yaml")], 3)
    assert [command for command, _ in started] == 3 * [
        [
            sys.executable,
            "-m",
            "mirprobe",
            "extract",
            "--cell=/runs/a/config.yaml",
            "--cell=/runs/b/config.yaml",
        ]
    ]
    seen = [(tmp_path / f"{rank}").read_text().split() for rank in range(3)]
    first = seen[0][1]
    assert {group for group, _ in seen} == {first} != {str(os.getpgid(0))}

    variables = [options["env"] for _, options in started]
    assert [one["LOCAL_RANK"] for one in variables] == ["0", "1", "2"]
    assert {one["WORLD_SIZE"] for one in variables} == {"3"}
    assert {one[IS_CHILD] for one in variables} == {str(os.getpid())}, "whom they must not outlive"
    assert IS_CHILD not in os.environ


def test_what_another_launcher_left_is_not_for_our_ranks(
    instead: Callable[[str], Started], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The address of another job hangs, a port that a site has set collides."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        foreign = str(taken.getsockname()[1])
        monkeypatch.setenv("MASTER_PORT", foreign)
        monkeypatch.setenv("MASTER_ADDR", "node17.invalid")
        monkeypatch.setenv("RANK", "0")
        monkeypatch.setenv("GROUP_RANK", "4")
        started = instead("pass")
        run_on_all_devices([Path("config.yaml")], 2)

    for _, options in started:
        assert options["env"]["MASTER_ADDR"] == "127.0.0.1"
        assert options["env"]["MASTER_PORT"] not in (foreign, "nonsense")
        assert options["env"]["NODE_RANK"] == "0"
        assert not {"RANK", "GROUP_RANK"} & set(options["env"])


def test_ranks_share_the_cores_unless_somebody_has_said_how_many(
    instead: Callable[[str], Started], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "n_cores", lambda: 12)
    started = instead("pass")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    run_on_all_devices([Path("config.yaml")], 4)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    run_on_all_devices([Path("config.yaml")], 1)
    assert [options["env"]["OMP_NUM_THREADS"] for _, options in started] == [*4 * ["3"], "2"]
    assert n_cores() >= 1


# -- copies that somebody else starts --------------------------------------------------------------


@pytest.mark.parametrize(
    "variables",
    [
        {"SLURM_NTASKS": "8", "SLURM_STEP_NUM_TASKS": "8", "SLURM_PROCID": "0"},
        {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0"},
        {"LOCAL_RANK": "3"},
        {"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "0"},
    ],
)
def test_the_first_of_several_copies_says_what_is_wrong(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=r"one of several copies \(\w+=\d+.* start it once") as text:
        be_alone()
    assert "\n" not in str(text.value)


@pytest.mark.parametrize(
    "variables",
    [
        {"SLURM_NTASKS": "8", "SLURM_STEP_NUM_TASKS": "8", "SLURM_PROCID": "5"},
        {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1"},
    ],
)
def test_the_other_copies_end_without_a_word(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as ended:
        be_alone()
    assert ended.value.code == 2


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"SLURM_NTASKS": "8", "SLURM_PROCID": "0"},  # a batch script, which runs once
        {"SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"},
        {"WORLD_SIZE": "1", "RANK": "0", "LOCAL_RANK": "0", "MASTER_PORT": "nonsense"},
    ],
)
def test_a_process_that_is_alone_forgets_the_variables_of_a_launcher(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    be_alone()
    assert not {"LOCAL_RANK", "WORLD_SIZE", "MASTER_PORT"} & set(os.environ)


def test_a_rank_of_another_number_than_was_asked_for_is_refused_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "8")
    check_world_size(8)
    with pytest.raises(UserError, match=r"2 processes were asked for .* WORLD_SIZE=8 were started"):
        check_world_size(2)


# -- how they end ----------------------------------------------------------------------------------


def test_what_several_ranks_say_is_said_once(
    instead: Callable[[str], Started], capfd: pytest.CaptureFixture[str]
) -> None:
    instead(
        "import sys; print('a warning', file=sys.stderr)\n"
        "print('mirprobe: shard x is broken: delete it', file=sys.stderr); sys.exit(2)"
    )
    with pytest.raises(UserError) as caught:
        run_on_all_devices([Path("config.yaml")], 2)
    assert str(caught.value) == "shard x is broken: delete it"


def test_a_failure_without_a_word_is_said_with_its_code(instead: Callable[[str], Started]) -> None:
    instead(f"{RANK}import sys; sys.exit(3 * rank)")
    with pytest.raises(UserError, match="process 2 of 2 that extracted ended with exit code 3"):
        run_on_all_devices([Path("config.yaml")], 2)


def test_where_one_rank_is_killed_the_others_close_and_it_is_named(
    instead: Callable[[str], Started], tmp_path: Path
) -> None:
    closed = tmp_path / "closed"
    instead(
        f"{RANK}import signal, sys, time; from pathlib import Path\n"
        f"def close(*_): Path('{closed}').touch(); sys.exit(143)\n"
        "signal.signal(signal.SIGTERM, close)\n"
        f"if rank == 0: Path('{tmp_path}/ready').touch(); time.sleep(30)\n"
        f"while not Path('{tmp_path}/ready').exists(): time.sleep(0.01)\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    start_s = time.monotonic()
    with pytest.raises(
        UserError,
        match=r"process 2 of 2 that extracted was killed by SIGKILL \(perhaps for want of memory\)",
    ):
        run_on_all_devices([Path("config.yaml")], 2)
    assert closed.exists() and time.monotonic() - start_s < 20


def test_a_rank_that_does_not_end_is_ended(
    instead: Callable[[str], Started], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waits in a library for the one that was killed, where no handler of Python runs."""
    monkeypatch.setattr(local, "_CLOSE_S", 0.5)
    instead(
        f"{RANK}import signal, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "if rank == 0: time.sleep(60)\n"
        "time.sleep(0.5); os.kill(os.getpid(), signal.SIGKILL)"
    )
    start_s = time.monotonic()
    with pytest.raises(UserError, match="process 2 of 2 that extracted was killed by SIGKILL"):
        run_on_all_devices([Path("config.yaml")], 2)
    assert time.monotonic() - start_s < 20


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_goes_to_all_ranks_and_ends_this_process_after_them(
    instead: Callable[[str], Started],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    number: signal.Signals,
) -> None:
    """Each rank says that it is ready, waits for the signal, and leaves its number in a file."""
    instead(
        f"{RANK}import signal, sys, time; from pathlib import Path\n"
        f"got = Path('{tmp_path}/got' + str(rank))\n"
        "def note(number, _): got.write_text(str(number)); sys.exit(1)\n"
        f"for number in {[int(one) for one in SIGNALS]}: signal.signal(number, note)\n"
        f"Path(f'{tmp_path}/ready{{rank}}').touch(); time.sleep(30)"
    )

    def send() -> None:
        wait_for(tmp_path / "ready0", tmp_path / "ready1")
        os.kill(os.getpid(), number)

    handlers = [signal.getsignal(one) for one in SIGNALS]
    sender = threading.Thread(target=send)
    sender.start()
    with pytest.raises(SystemExit) as ended:
        run_on_all_devices([Path("config.yaml")], 2)
    sender.join()

    assert ended.value.code == 128 + number
    assert {(tmp_path / f"got{rank}").read_text() for rank in (0, 1)} == {str(int(number))}
    assert [signal.getsignal(one) for one in SIGNALS] == handlers
    assert f"stopped by {number.name}: everything so far is stored" in capsys.readouterr().out


# -- ranks that srun has started -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("nodes", "tasks", "found"),
    [
        ("1", "1", "1 on 1"),  # no --ntasks-per-node: Lightning would go on alone
        ("2", "2", "2 on 2"),
        ("1", "4", "4 on 1"),
        ("0", "nonsense", "0 on 0"),
    ],
)
def test_a_step_of_other_numbers_than_were_asked_for_is_refused(
    monkeypatch: pytest.MonkeyPatch, nodes: str, tasks: str, found: str
) -> None:
    launcher = LauncherConfig(name="slurm", accelerator="cpu", devices=2, nodes=2)
    monkeypatch.setenv("SLURM_STEP_NUM_NODES", nodes)
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", tasks)
    with pytest.raises(UserError, match=rf"4 processes on 2 nodes .* has started {found}:"):
        check_step(launcher)


def test_lightning_finds_the_numbers_of_the_step_and_no_leftovers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A batch script that asks for more than its step would make it wait for ever."""
    for name, value in {
        **{"SLURM_STEP_NUM_NODES": "2", "SLURM_STEP_NUM_TASKS": "4", "SLURM_NTASKS": "8"},
        **{"SLURM_NNODES": "4", "WORLD_SIZE": "3", "RANK": "1", "MASTER_ADDR": "node1-ib"},
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("SLURM_NTASKS_PER_NODE", "8")
    check_step(LauncherConfig(name="slurm", accelerator="cpu", devices=2, nodes=2))
    names = ("SLURM_NTASKS", "SLURM_NNODES", "SLURM_NTASKS_PER_NODE", "MASTER_ADDR")
    assert [os.environ[name] for name in names] == ["4", "2", "2", "node1-ib"]
    assert not {"WORLD_SIZE", "RANK"} & set(os.environ)


def test_a_node_that_sees_another_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"node {socket.gethostname()} does not see {tmp_path}"):
        check_shared(tmp_path)
    (tmp_path / local.SHARED).touch()
    check_shared(tmp_path)
