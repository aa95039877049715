"""Processes on this machine: the command they run, signals that reach them, how they end."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from datamodules.errors import UserError
from mirprobe.sweep.local import IS_CHILD, run_on_all_devices

Started = list[tuple[list[str], dict[str, Any]]]


@pytest.fixture
def instead(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Started]:
    """Runs a small program in the place of `mirprobe extract`; gives what should have run."""
    popen = subprocess.Popen

    def replace(program: str) -> Started:
        started: Started = []

        def start(command: list[str], **options: Any) -> subprocess.Popen[bytes]:
            started.append((command, options))
            return popen([sys.executable, "-c", program], **options)

        monkeypatch.setattr(subprocess, "Popen", start)
        return started

    return replace


def test_one_command_takes_all_cells_in_a_process_group_of_its_own(
    instead: Callable[[str], Started],
) -> None:
    started = instead("import os, sys; sys.exit(0 if os.getpgid(0) == os.getpid() else 1)")
    run_on_all_devices([Path("/runs/a/config.yaml"), Path("/runs/b/config.yaml")])
    ((command, options),) = started
    assert command == [
        sys.executable,
        "-m",
        "mirprobe",
        "extract",
        "--cell=/runs/a/config.yaml",
        "--cell=/runs/b/config.yaml",
    ]
    assert options["env"][IS_CHILD] == "1", "it ends with the process that started it"
    assert IS_CHILD not in os.environ


def test_a_failure_is_said_with_its_code(instead: Callable[[str], Started]) -> None:
    instead("import sys; sys.exit(2)")
    with pytest.raises(UserError, match="extraction ended with exit code 2: see its message above"):
        run_on_all_devices([Path("config.yaml")])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_goes_to_the_processes_and_ends_this_one_after_them(
    instead: Callable[[str], Started], tmp_path: Path, number: signal.Signals
) -> None:
    """The child says that it is ready, waits for the signal, and leaves its number in a file."""
    ready, got = tmp_path / "ready", tmp_path / "got"
    program = (
        "import signal, sys, time; from pathlib import Path\n"
        "def note(number, frame): Path({got!r}).write_text(str(number)); sys.exit(1)\n"
        "signal.signal(signal.SIGINT, note); signal.signal(signal.SIGTERM, note)\n"
        "Path({ready!r}).touch(); time.sleep(30)"
    )
    instead(program.format(got=str(got), ready=str(ready)))

    def send() -> None:
        while not ready.exists():
            time.sleep(0.01)
        os.kill(os.getpid(), number)

    handlers = [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)]
    sender = threading.Thread(target=send)
    sender.start()
    with pytest.raises(SystemExit) as ended:
        run_on_all_devices([Path("config.yaml")])
    sender.join()

    assert ended.value.code == 128 + number
    assert got.read_text() == str(int(number))
    assert [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)] == handlers
