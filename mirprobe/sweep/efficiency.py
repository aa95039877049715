"""What a job has made of what it was given: one line at its end.

Conventions: of several ranks the first one speaks, for itself; the others have as much to do. What
cannot be measured here is left out: the busy share of GPUs without nvidia-smi, the memory that was
asked for without SLURM.
"""

import os
import resource
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from torch import Tensor, nn

from mirprobe.backbones.backbone import Backbone

_LOOK_EVERY_S = 10.0
_ANSWER_S = 5.0
_QUERY = ("nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits")


@dataclass
class Work:
    """What has been done between two moments.

    Attributes:
        n_clips: that passed the backbone in this process.
        seconds: that it took.
        busy: share of time, in per cent, that the GPUs of this node were at work, now and then.
    """

    n_clips: int = 0
    seconds: float = 0.0
    busy: list[float] = field(default_factory=list)


@contextmanager
def count_work(backbone: Backbone) -> Iterator[Work]:
    """Counts the clips that pass a backbone in this block, and prints a line at its end."""
    work = Work()

    def count(_module: nn.Module, arguments: tuple[Tensor, ...], _output: Tensor) -> None:
        work.n_clips += len(arguments[0])

    ended = threading.Event()
    is_first = os.environ.get("SLURM_PROCID", os.environ.get("LOCAL_RANK", "0")) == "0"
    if is_first and shutil.which("nvidia-smi"):
        threading.Thread(target=_look_at_gpus, args=(work, ended), daemon=True).start()

    hook = backbone.register_forward_hook(count)
    start_s = time.monotonic()
    try:
        yield work
    finally:
        hook.remove()
        ended.set()
        work.seconds = time.monotonic() - start_s
        if is_first:
            print(efficiency_line(work, _peak_gb(), requested_gb(os.environ)), flush=True)


def efficiency_line(work: Work, used_gb: float, asked_gb: float | None) -> str:
    """What a job has made of what it was given.

    >>> efficiency_line(Work(n_clips=90, seconds=60.0, busy=[80.0, 90.0]), 3.25, 64.0)
    'efficiency: 90 clips in 60 s a process, 1.5 clips/s; GPU busy 85 %; memory 3.2 of 64.0 GB'
    """
    rate = work.n_clips / max(work.seconds, 1e-3)
    parts = [f"{work.n_clips} clips in {work.seconds:.0f} s a process, {rate:.1f} clips/s"]
    if work.busy:
        parts.append(f"GPU busy {sum(work.busy) / len(work.busy):.0f} %")
    asked = "" if asked_gb is None else f" of {asked_gb:.1f}"
    parts.append(f"memory {used_gb:.1f}{asked} GB")
    return f"efficiency: {'; '.join(parts)}"


def requested_gb(environment: Mapping[str, str]) -> float | None:
    """Memory that SLURM grants each process of a job, in GB; None where it does not say.

    >>> requested_gb({"SLURM_MEM_PER_NODE": "64000", "SLURM_NTASKS_PER_NODE": "4"})
    16.0
    """
    try:
        if "SLURM_MEM_PER_NODE" in environment:
            n_tasks = int(environment.get("SLURM_NTASKS_PER_NODE", "1"))
            return int(environment["SLURM_MEM_PER_NODE"]) / 1000 / n_tasks
        n_cpus = int(environment["SLURM_CPUS_PER_TASK"])
        return int(environment["SLURM_MEM_PER_CPU"]) * n_cpus / 1000
    except (KeyError, ValueError):
        return None


def _peak_gb() -> float:
    """The most memory that this process has had, and its largest decoder, in GB."""
    who = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(resource.getrusage(one).ru_maxrss for one in who) * 1024 / 1e9


def _look_at_gpus(work: Work, ended: threading.Event) -> None:
    """Asks now and then how busy the GPUs are that this job sees."""
    while not ended.wait(_LOOK_EVERY_S):
        try:
            shown = subprocess.run(
                _QUERY, capture_output=True, text=True, check=True, timeout=_ANSWER_S
            ).stdout
        except (OSError, subprocess.SubprocessError):
            return  # a driver that does not answer is no reason to end
        shares = _numbers(shown.splitlines())
        if shares:
            work.busy.append(sum(shares) / len(shares))


def _numbers(lines: Sequence[str]) -> list[float]:
    return [float(line) for line in lines if line.strip().isdecimal()]
