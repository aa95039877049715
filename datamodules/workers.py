"""Worker processes that never outlive the one which started them, and cores to run them on.

Conventions: Ctrl-C and an orderly end are the parent's business; a worker ends when its parent is
gone, however that ended. (torch's own watchdog is not enough: an orphan that waits for room in its
queue waits for ever.)
"""

import math
import os
import signal
import threading
import time
from contextlib import suppress
from pathlib import Path

# What asks a process to end: Ctrl-C, a closed terminal, the end of a job, SLURM's warning of it.
STOP_SIGNALS = (signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGUSR1)

_LOOK_FOR_PARENT_S = 0.25


def end_with_parent(parent: int) -> None:
    """Makes this worker end soon after process `parent`, at once by SIGTERM, and by no other signal
    that a terminal or SLURM sends to all processes of a command.
    """
    # The parent's handlers, if it has any, are not for its workers.
    for number in STOP_SIGNALS:
        own = signal.SIG_DFL if number == signal.SIGTERM else signal.SIG_IGN
        signal.signal(number, own)
    follow_parent(parent)


def follow_parent(parent: int) -> None:
    """Makes this process end soon after process `parent`."""
    threading.Thread(target=_watch_parent, args=(parent,), daemon=True).start()


def _watch_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_LOOK_FOR_PARENT_S)
    os._exit(1)


def n_cores() -> int:
    """Cores that this process may use, which are often fewer than the machine has.

    The least of its affinity, of the quota of its control groups (containers) and of what SLURM
    gives a task.
    """
    limits: list[float] = [os.cpu_count() or 1]
    if hasattr(os, "sched_getaffinity"):  # not on a Mac
        limits.append(len(os.sched_getaffinity(0)))
    limits.append(_quota(Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")))

    with suppress(KeyError, ValueError):
        limits.append(int(os.environ["SLURM_CPUS_PER_TASK"]))
    return max(1, math.floor(min(limits)))


def cores_of_rank(n_ranks: int) -> int:
    """Cores for one of `n_ranks` processes that work on this machine.

    Under SLURM each of them sees what `--cpus-per-task` gives it; elsewhere they share.
    """
    shared = 1 if "SLURM_CPUS_PER_TASK" in os.environ else n_ranks
    return max(1, n_cores() // shared)


def _quota(root: Path, own: Path) -> float:
    """Cores that the control groups (version 2) of this process grant; inf without a limit."""
    least = math.inf
    try:
        lines = own.read_text(encoding="utf-8").splitlines()
    except OSError:
        return least

    for line in lines:
        if not line.startswith("0::"):  # the others are of version 1
            continue
        # A group has no more than the groups around it.
        group = root / line.removeprefix("0::").strip("/")
        for folder in (group, *group.parents):
            if folder.is_relative_to(root):
                least = min(least, _quota_of(folder))
    return least


def _quota_of(group: Path) -> float:
    try:
        quota, period = (group / "cpu.max").read_text(encoding="utf-8").split()
        return math.inf if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return math.inf
