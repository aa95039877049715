"""Where work runs. Local: this process for one device, one process per device for several.

Conventions: several processes (ranks) are started here and by nobody else, on immutable files, the
cells' `config.yaml`, as `mirprobe extract --cell FILE --cell ...`; Lightning finds them started, by
its own variables. What another launcher has left in the environment is not for them. A signal to
this process goes to all of them; where one dies, the others close their shards and end.
"""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType

from datamodules.errors import UserError
from datamodules.workers import STOP_SIGNALS, n_cores
from mirprobe.sections import LauncherConfig, tasks_per_node

# Set for our own ranks, which must not outlive the process that started them: its number.
IS_CHILD = "MIRPROBE_IS_CHILD"

# What launchers (torchrun, Lightning, srun and MPI through a site's scripts) tell a process.
_SIZES = ("WORLD_SIZE", "SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE")
_RANKS = ("RANK", "LOCAL_RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK", "PMI_RANK")
_OF_TORCH = (
    *("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "NODE_RANK", "GROUP_RANK"),
    *("MASTER_ADDR", "MASTER_PORT"),
)

SHARED = ".shared"  # a file in the folder of stores, by which another node knows that it sees it
ERROR = "mirprobe: "  # stands before the one line that an error is

_Process = subprocess.Popen[str]
_LOOK_EVERY_S = 0.05
_LISTEN_S = 1.0  # for the last words; a decoder that has outlived its rank may hold the pipe open
_END_S = 10.0  # for the others to say what is wrong, when one has ended with an error
_CLOSE_S = 90.0  # for a forward pass to end and an open shard to reach the disk


def is_rank() -> bool:
    """Whether this process was started by `run_on_all_devices`."""
    return IS_CHILD in os.environ


def is_one_of_several() -> bool:
    """Whether other processes of the same command run beside this one: ours, or those of srun."""
    return is_rank() or _number("SLURM_STEP_NUM_TASKS") > 1


def be_alone() -> None:
    """Refuses to be one of several copies of a command, and forgets an idle launcher's variables.

    Raises:
        UserError: a launcher has started several copies; on the first of them.
        SystemExit: on the others, with the same exit code and without a word.
    """
    if is_rank():
        return

    sizes = [name for name in _SIZES if _number(name) > 1]
    ranks = [name for name in _RANKS if _number(name) > 0]
    if not sizes and not ranks:
        for name in _OF_TORCH:
            os.environ.pop(name, None)
        return

    # Where a variable says which copy this is, one message is enough.
    if sizes and ranks:
        raise SystemExit(2)
    found = ", ".join(f"{name}={os.environ[name]}" for name in (*sizes, *ranks))
    raise UserError(
        f"this command was started as one of several copies ({found}), each of which would do all "
        "the work: start it once, without srun -n, torchrun or mpirun; it starts a process for "
        "every device itself (launcher.devices). In one process these variables are a leftover: "
        f"unset {' '.join((*sizes, *ranks))}"
    )


def _number(name: str) -> int:
    """A number in the environment; 0 where there is none."""
    try:
        return int(os.environ.get(name, "0"))
    except ValueError:
        return 0


def check_world_size(n_ranks: int) -> None:
    """Refuses to be a rank of another number than was asked for, which would wait for ever.

    Raises:
        UserError: `WORLD_SIZE` is not `n_ranks`.
    """
    found = os.environ.get("WORLD_SIZE", "1")
    if found != str(n_ranks):
        raise UserError(
            f"{n_ranks} processes were asked for (launcher.devices), but WORLD_SIZE={found} were "
            "started: run `mirprobe sweep` with the same settings, which starts as many"
        )


def check_step(launcher: LauncherConfig) -> None:
    """Refuses to be a rank of a step of srun with other numbers than its script has asked for.

    Lightning would go on alone, or wait for ever. From here on it finds the step's own numbers,
    where it looks for those of the job.

    Raises:
        UserError: the numbers of nodes and tasks are others.
    """
    asked = (launcher.nodes, launcher.nodes * tasks_per_node(launcher))
    found = (_number("SLURM_STEP_NUM_NODES"), _number("SLURM_STEP_NUM_TASKS"))
    if found != asked:
        raise UserError(
            f"{asked[1]} processes on {asked[0]} nodes were asked for (launcher.devices, "
            f"launcher.nodes), but srun has started {found[1]} on {found[0]}: submit the script as "
            "mirprobe writes it, with srun --nodes and --ntasks-per-node"
        )
    for name in _OF_TORCH:
        if name not in ("MASTER_ADDR", "MASTER_PORT"):  # which a site may have to set
            os.environ.pop(name, None)
    os.environ["SLURM_NTASKS"] = str(found[1])
    os.environ["SLURM_NNODES"] = str(found[0])
    os.environ["SLURM_NTASKS_PER_NODE"] = str(found[1] // found[0])


def check_shared(features: Path) -> None:
    """Refuses to write features where nobody would find them.

    Raises:
        UserError: this node has no such folder, or another one under its name.
    """
    if not (features / SHARED).is_file():
        raise UserError(
            f"node {socket.gethostname()} does not see {features.absolute()} as the machine does "
            "that has submitted this: set paths.features to a folder that all nodes share"
        )


def run_on_all_devices(cell_files: Sequence[Path], n_ranks: int) -> None:
    """Runs `mirprobe extract` on some cells in several processes and waits for them.

    Raises:
        UserError: what was wrong in one of them, or which of them was killed.
        SystemExit: this process was asked to end; they have closed their shards.
    """
    files = [f"--cell={file}" for file in cell_files]
    command = [sys.executable, "-m", "mirprobe", "extract", *files]
    ranks: list[_Process] = []
    errors: list[str] = []
    with ExitStack() as stack:
        received = stack.enter_context(_forwarding(ranks))
        for variables in _environments(n_ranks):
            if received:
                break
            # Not in the terminal's group: Ctrl-C comes through here, once.
            group = ranks[0].pid if ranks else 0
            rank = subprocess.Popen(
                command, env=variables, process_group=group, stderr=subprocess.PIPE, text=True
            )
            ranks.append(rank)
            stack.enter_context(_listening(rank, errors))
        problem = _wait(ranks, received)

    if received:
        name = signal.Signals(received[0]).name
        print(f"stopped by {name}: everything so far is stored; run the same command to go on")
        sys.exit(128 + received[0])
    if problem is not None:
        raise UserError("; ".join(dict.fromkeys(errors)) or problem)


@contextmanager
def _listening(rank: _Process, errors: list[str]) -> Iterator[None]:
    """Gathers the error that a rank ends with, which others may repeat; passes the rest on."""

    def listen() -> None:
        assert rank.stderr is not None
        for line in rank.stderr:
            if line.startswith(ERROR):
                errors.append(line.removeprefix(ERROR).strip())
            else:
                print(line, end="", file=sys.stderr)

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    try:
        yield
    finally:
        listener.join(_LISTEN_S)


def _environments(n_ranks: int) -> Iterator[Mapping[str, str]]:
    """The environment of each rank: what Lightning asks for, and a fair share of the cores."""
    ours = {name: value for name, value in os.environ.items() if name not in _OF_TORCH}
    ours |= {
        IS_CHILD: str(os.getpid()),
        "WORLD_SIZE": str(n_ranks),
        "NODE_RANK": "0",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(_free_port()),
    }
    ours.setdefault("OMP_NUM_THREADS", str(max(1, n_cores() // n_ranks)))
    for rank in range(n_ranks):
        yield {**ours, "LOCAL_RANK": str(rank)}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@contextmanager
def _forwarding(ranks: Sequence[_Process]) -> Iterator[list[int]]:
    """Hands the signals that ask for the end on to all ranks; gives those that came."""
    received: list[int] = []

    def forward(number: int, _frame: FrameType | None) -> None:
        received.append(number)
        for rank in ranks:
            rank.send_signal(number)

    heard = [number for number in STOP_SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, forward) for number in heard}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _wait(ranks: Sequence[_Process], received: Sequence[int]) -> str | None:
    """Waits until all ranks have ended; gives what was wrong.

    Where one fails or a signal has come, the others have a bounded time to close their shards.
    """
    problem: str | None = None
    deadline = float("inf")
    asked = False
    while None in [rank.poll() for rank in ranks]:  # all are asked, not up to the first
        now = time.monotonic()
        if problem is None and (problem := _problem(ranks)) is not None:
            deadline = min(deadline, now + (_END_S if "exit code" in problem else 0))
        if received and not asked:
            asked, deadline = True, now + _CLOSE_S

        if now >= deadline:
            for rank in ranks:
                rank.send_signal(signal.SIGKILL if asked else signal.SIGTERM)
            asked, deadline = True, now + _CLOSE_S
        time.sleep(_LOOK_EVERY_S)
    return problem or _problem(ranks)


def _problem(ranks: Sequence[_Process]) -> str | None:
    """What is wrong with the first rank that has failed."""
    for number, rank in enumerate(ranks):
        code = rank.returncode
        if code is None or code == 0:
            continue
        if code > 0:
            return (
                f"process {number + 1} of {len(ranks)} that extracted ended with exit code {code}"
            )
        name = signal.Signals(-code).name
        why = " (perhaps for want of memory)" if -code == signal.SIGKILL else ""
        return (
            f"process {number + 1} of {len(ranks)} that extracted was killed by {name}{why}: the "
            "others have stored what they had. Run the same command to go on"
        )
    return None
