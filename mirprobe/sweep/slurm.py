"""SLURM's scripts, as text: pure functions of cells' files and settings.

Conventions: a script can be read, changed and submitted again by hand. Its job is called by what it
does and by a hash of its content, and under this name it is found in the queue. A value of a user
stands in it quoted, for sbatch in the lines `#SBATCH`, for the shell below; only the lines of
`launcher.setup` are shell. What a job has done is in files: its exit code tells nobody anything.
"""

import hashlib
import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from datamodules.errors import UserError
from mirprobe.sections import LauncherConfig, tasks_per_node

Kind = Literal["extract", "probe", "report"]
LOGS = "logs"  # folder of the jobs' output, below that of the scripts

# What the scripts say themselves; `launcher.sbatch` must not say it otherwise.
_OURS = (
    *("array", "chdir", "dependency", "job-name", "kill-on-invalid-dep", "open-mode", "output"),
    *("error", "signal", "requeue", "no-requeue", "nodes", "ntasks", "ntasks-per-node"),
    *("gpus-per-node", "cpus-per-task", "partition", "account", "qos", "time", "mem"),
    *("constraint", "exclude", "parsable", "test-only", "wrap", "wait"),
)
_FLAG = re.compile(r"[a-z][a-z0-9-]*")
_TIME = re.compile(r"\d+-\d+(:\d+){0,2}|\d+(:\d+){1,2}")
_PLAIN = re.compile(r"[\w./:@%,+=-]+", re.ASCII)  # needs no quotes in a line of sbatch

# s that the other ranks have to store what they hold when the first one has ended.
_CLOSE_S = 90


@dataclass(frozen=True)
class Place:
    """Where the commands of a script run.

    Attributes:
        python: interpreter, absolute.
        folder: in which they are started, absolute.
    """

    python: str
    folder: str


@dataclass(frozen=True)
class Script:
    """A job, or an array of jobs, for sbatch.

    Attributes:
        kind: `extract` and `probe` are verbs; `report` prints the report and the status.
        title: what it works on, such as `musicfm-gtzan`: a part of its name.
        tasks: files of the cells of each task; of an array, as many as it has tasks.
        launcher: settings that it asks for.
        after: jobs that it waits for, as sbatch says it, such as `afterok:12`.
    """

    kind: Kind
    title: str
    tasks: tuple[tuple[str, ...], ...]
    launcher: LauncherConfig
    after: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Name of the job and of its files; equal for equal work."""
        settings = json.dumps([self.kind, self.tasks, asdict(self.launcher)], sort_keys=True)
        digest = hashlib.sha256(settings.encode("utf-8", "surrogateescape")).hexdigest()[:8]
        return f"{self.kind}-{plain(self.title)}-{digest}"

    @property
    def log(self) -> str:
        """Its output below the folder of the scripts, with sbatch's signs for name and number."""
        return f"{LOGS}/%x-%A_%a.out" if self.kind == "probe" else f"{LOGS}/%x-%j.out"


def plain(text: str) -> str:
    """A text as a part of a job's name: other signs than letters, digits and `._+-` become `_`.

    >>> plain("müsli rock")
    'm_sli_rock'
    """
    return re.sub(r"[^A-Za-z0-9._+-]", "_", text)


def split_array(script: Script, *, cells_per_task: int, most_tasks: int) -> list[Script]:
    """Arrays over the cells of a script: tasks of several cells, and no more tasks than allowed.

    Args:
        script: whose only task has all cells.
        cells_per_task: that one task works on, one after the other.
        most_tasks: of one array; SLURM's MaxArraySize, since its indices stay below it.
    """
    (files,) = script.tasks
    tasks = [files[i : i + cells_per_task] for i in range(0, len(files), cells_per_task)]
    parts = [tuple(tasks[i : i + most_tasks]) for i in range(0, len(tasks), most_tasks)]
    return [replace(script, tasks=part) for part in parts]


# -- text ------------------------------------------------------------------------------------------


def script_text(script: Script, place: Place) -> str:
    """The whole text of a script.

    Raises:
        UserError: a setting that cannot stand in it.
    """
    lines = ["#!/bin/bash", f"# mirprobe: {_about(script)}", "# By hand: sbatch, in this folder."]
    lines += [_sbatch_line(flag, value) for flag, value in _flags(script)]
    lines += ["", *_preparation(script, place), "", *_work(script, place), ""]
    return "\n".join(lines)


def _about(script: Script) -> str:
    n_cells = sum(len(files) for files in script.tasks)
    what = {
        "extract": f"features of {plain(script.title)} for {n_cells} cells",
        "probe": f"probes of {plain(script.title)}, {n_cells} cells",
        "report": f"report of {n_cells} cells",
    }
    return what[script.kind]


def _flags(script: Script) -> Iterator[tuple[str, Any]]:
    """Flags of sbatch; a value that is True is a flag without one."""
    launcher = script.launcher
    extracts = script.kind == "extract"
    yield "job-name", script.name
    yield "output", script.log
    yield "open-mode", "append"

    for flag in ("partition", "account", "qos", "constraint", "exclude"):
        if getattr(launcher, flag) is not None:
            yield flag, getattr(launcher, flag)
    if launcher.time is not None:
        yield "time", _checked_time(launcher.time)
    if launcher.mem is not None:
        yield "mem", launcher.mem

    yield "nodes", launcher.nodes if extracts else 1
    yield "ntasks-per-node", tasks_per_node(launcher) if extracts else 1
    if launcher.cpus_per_task is not None:
        yield "cpus-per-task", launcher.cpus_per_task
    if launcher.gpus_per_node is not None and script.kind != "report":
        yield "gpus-per-node", launcher.gpus_per_node if extracts else 1

    if script.kind == "probe":
        yield "array", f"0-{len(script.tasks) - 1}%{launcher.array_parallelism}"
    yield "signal", f"USR1@{launcher.signal_delay_s}"
    yield ("requeue" if launcher.requeue else "no-requeue"), True
    if script.after:
        yield "dependency", ",".join(script.after)
        yield "kill-on-invalid-dep", "yes"
    yield from _further_flags(launcher)


def _checked_time(text: str) -> str:
    """A limit that is what it looks like: YAML takes 12:00:00 without quotes for a number."""
    if not _TIME.fullmatch(text):
        raise UserError(
            'launcher.time must be written as "04:00:00" or "1-12:00:00", in a file with the '
            f"quotes, found {text}"
        )
    return text


def _further_flags(launcher: LauncherConfig) -> Iterator[tuple[str, Any]]:
    for name, value in launcher.sbatch.items():
        flag = str(name).replace("_", "-")
        if not _FLAG.fullmatch(flag):
            raise UserError(
                f"launcher.sbatch has {name!r}, which is no flag of sbatch: write its long name, "
                "such as mail-type"
            )
        if flag in _OURS:
            raise UserError(
                f"launcher.sbatch.{name} is set by mirprobe: use the key of launcher that is for "
                "it (conf/launcher/slurm.yaml), or leave it out"
            )
        if value is not False and value is not None:
            yield flag, value


def _sbatch_line(flag: str, value: Any) -> str:
    """A line of settings, with the value as sbatch reads it back.

    Between double quotes sbatch takes everything as it is but `\\` and `"`, after a `\\`.
    """
    if value is True:
        return f"#SBATCH --{flag}"
    text = str(value)
    if any(ord(sign) < 32 or ord(sign) == 127 for sign in text):
        raise UserError(
            f"launcher: the value of --{flag} holds a line break or another control character "
            f"({text!r}): take it out"
        )
    if not _PLAIN.fullmatch(text):
        escaped = text.replace("\\", "\\\\").replace('"', '\\"')
        text = f'"{escaped}"'
    return f"#SBATCH --{flag}={text}"


def _preparation(script: Script, place: Place) -> Iterator[str]:
    """Lines before the work: the folder, the environment, what the site asks for."""
    folder = shlex.quote(place.folder)
    yield f'cd {folder} || {{ echo "mirprobe: node $(hostname) does not see "{folder}; exit 1; }}'

    # An address that another launcher has left would be waited for, without a word.
    yield "unset MASTER_ADDR MASTER_PORT WORLD_SIZE RANK LOCAL_RANK NODE_RANK GROUP_RANK"
    if script.launcher.cpus_per_task is not None:
        n_cpus = script.launcher.cpus_per_task
        yield f"export OMP_NUM_THREADS={n_cpus} SRUN_CPUS_PER_TASK={n_cpus}"
    yield "export WANDB_MODE=offline HF_HUB_OFFLINE=1  # later, where there is a network: push"
    yield from script.launcher.setup


def _work(script: Script, place: Place) -> Iterator[str]:
    mirprobe = f"{shlex.quote(place.python)} -m mirprobe"
    cells = [f"--cell={shlex.quote(file)}" for file in script.tasks[0]]
    if script.kind == "report":
        yield f"cells=({' '.join(cells)})"
        yield f'{mirprobe} report "${{cells[@]}}"'
        yield f'{mirprobe} status "${{cells[@]}}"'
        return

    yield from _cells_of_tasks(script)
    yield f'srun {" ".join(_srun_flags(script))} {mirprobe} {script.kind} "${{cells[@]}}"'
    yield from _ending(script)


def _cells_of_tasks(script: Script) -> Iterator[str]:
    """The array `cells`: of a single job its cells, of an array those of this task."""
    if script.kind == "extract":
        yield "cells=("
        yield from (f"  --cell={shlex.quote(file)}" for file in script.tasks[0])
        yield ")"
        return

    yield "case $SLURM_ARRAY_TASK_ID in"
    for index, files in enumerate(script.tasks):
        cells = " ".join(f"--cell={shlex.quote(file)}" for file in files)
        yield f"  {index}) cells=({cells}) ;;"
    yield "esac"


def _srun_flags(script: Script) -> Iterator[str]:
    """As many processes as were asked for, which end together."""
    launcher = script.launcher
    n_nodes, n_tasks = 1, 1
    if script.kind == "extract":
        n_nodes, n_tasks = launcher.nodes, tasks_per_node(launcher)
    yield f"--nodes={n_nodes}"
    yield f"--ntasks-per-node={n_tasks}"

    # A rank that ends leaves the others time to store what they hold, and no longer.
    yield "--kill-on-bad-exit=0"
    yield f"--wait={_CLOSE_S}"
    if n_nodes * n_tasks > 1:
        yield "--label"


def _ending(script: Script) -> Iterator[str]:
    """What becomes of a job whose step was asked to end, and has stored what it had."""
    yield "code=$?"
    if not script.launcher.requeue:
        yield "exit $code"
        return

    job = "$SLURM_JOB_ID"
    if script.kind == "probe":
        job = "${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID"
    yield ""
    yield "# Ended by USR1 (the time limit is near) or TERM (preempted): back into the queue,"
    yield "# unless the job itself was cancelled and is being ended."
    yield "if [ $code = 138 ] || [ $code = 143 ]; then"
    yield f'  state=$(squeue --noheader --jobs="{job}" --format=%T)'
    yield (
        f'  if [ "$state" = RUNNING ] && [ ${{SLURM_RESTART_COUNT:-0}} -lt '
        f"{script.launcher.requeue} ]; then"
    )
    yield f'    scontrol requeue "{job}" && sleep 300  # SLURM ends this script here'
    yield "  fi"
    yield "fi"
    yield "exit $code"
