"""A real SLURM on this machine, from Debian's packages: controller, nodes, and a key of its own.

Conventions: everything lies in one folder and listens on loopback; nothing in /etc is read or
changed, and only processes that were started here are ended. A "GPU" is a character device, which
is all that SLURM asks of one. There is no accounting: the controller remembers jobs for an hour.
"""

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

DAEMONS = ("munged", "slurmctld", "slurmd", "sbatch", "srun")
N_CPUS, N_GPUS, MEMORY_MB = 4, 2, 8000  # that each node claims, whatever there is
NODES = ("n1", "n2")
ISLAND = "n3"  # a node that sees another folder under the name `hidden`
_START_S = 30.0

CONF = """\
ClusterName=mirprobe
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
# Also how long a requeued job is held: so many s and one, instead of two minutes.
AuthInfo=socket={root}/munge.sock,cred_expire=5
CredType=cred/munge
StateSaveLocation={root}/state
SlurmdSpoolDir={root}/spool.%n
SlurmctldPidFile={root}/slurmctld.pid
SlurmdPidFile={root}/slurmd.%n.pid
SlurmctldLogFile={root}/slurmctld.log
SlurmdLogFile={root}/slurmd.%n.log
# Not linuxproc, which loses children of a shell that has ended.
ProctrackType=proctrack/pgid
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SwitchType=switch/none
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,bf_interval=2,batch_sched_delay=0,sched_min_interval=0
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
PriorityType=priority/basic
MinJobAge=3600
KillWait=5
ReturnToService=2
JobRequeue=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
# Nodes have what is written here, whatever the machine has.
SlurmdParameters=config_overrides
PropagateResourceLimits=NONE
GresTypes=gpu
{nodes}
PartitionName=main Nodes=n[1-2] Default=YES DefaultTime=60 PriorityTier=5 PreemptMode=OFF
PartitionName=preempt Nodes=n1 DefaultTime=60 PriorityTier=1 PreemptMode=REQUEUE GraceTime=15
PartitionName=urgent Nodes=n1 DefaultTime=60 PriorityTier=10 PreemptMode=OFF
{island}
"""


@dataclass(frozen=True)
class Cluster:
    """A SLURM that runs.

    Attributes:
        root: its folder.
        hidden: a folder that the node of the partition `island` does not see; None where the
            machine does not let a process have such a view.
    """

    root: Path
    hidden: Path | None


def why_not() -> str | None:
    """What this machine lacks for a SLURM of its own; None if nothing."""
    absent = [name for name in DAEMONS if shutil.which(name) is None]
    if absent:
        return f"{', '.join(absent)} not installed: apt-get install slurmctld slurmd slurm-client"
    return None if os.geteuid() == 0 else "slurmd needs root"


def has_private_mounts() -> bool:
    """Whether a process here may see other folders than the rest."""
    command = ["unshare", "-m", "mount", "-t", "tmpfs", "none", "/mnt"]
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


@contextmanager
def running_cluster() -> Iterator[Cluster]:
    """Starts a SLURM, and ends it with all its jobs. The caller has to set `SLURM_CONF`."""
    root = Path(tempfile.mkdtemp(prefix="mirprobe-slurm-", dir="/tmp"))  # a socket's path is short
    root.chmod(0o755)
    hidden = root / "hidden"
    for name in ("state", "hidden", *(f"spool.{node}" for node in (*NODES, ISLAND))):
        (root / name).mkdir()
    cluster = Cluster(root, hidden if has_private_mounts() else None)
    try:
        with ExitStack() as stack:
            _start_munge(root, stack)
            _write_conf(cluster)
            conf = str(root / "slurm.conf")
            _start(["slurmctld", "-D", "-c", "-f", conf], root, stack)
            for node in NODES:
                _start(["slurmd", "-D", "-N", node, "-f", conf], root, stack)
            if cluster.hidden is not None:
                mount = 'mount -t tmpfs none "$0" && exec slurmd -D -N "$1" -f "$2"'
                command = ["unshare", "-m", "bash", "-c", mount, str(hidden), ISLAND, conf]
                _start(command, root, stack)
            n_nodes = len(NODES) + (cluster.hidden is not None)
            _wait_until_idle(root, n_nodes)
            stack.callback(_cancel_everything, root)
            yield cluster
    finally:
        shutil.rmtree(root, ignore_errors=True)


def _start(command: list[str], root: Path, stack: ExitStack) -> None:
    """Starts a daemon, which ends with the stack."""
    with (root / "daemons.log").open("ab") as output:
        daemon = subprocess.Popen(command, stdout=output, stderr=output, env=_environment(root))
    stack.callback(_end, daemon)


def _end(daemon: subprocess.Popen[bytes]) -> None:
    daemon.terminate()
    try:
        daemon.wait(10)
    except subprocess.TimeoutExpired:
        daemon.kill()
        daemon.wait()


def _environment(root: Path) -> dict[str, str]:
    return {**os.environ, "SLURM_CONF": str(root / "slurm.conf")}


def _start_munge(root: Path, stack: ExitStack) -> None:
    key = root / "munge.key"
    key.touch(mode=0o600)
    key.write_bytes(os.urandom(128))
    files = {"socket": "sock", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
    flags = [f"--{flag}={root}/munge.{ending}" for flag, ending in files.items()]
    _start(["munged", "--foreground", "--force", f"--key-file={key}", *flags], root, stack)

    deadline = time.monotonic() + _START_S
    while not (root / "munge.sock").exists():
        assert time.monotonic() < deadline, (root / "daemons.log").read_text()
        time.sleep(0.05)


def _write_conf(cluster: Cluster) -> None:
    host, root = socket.gethostname().partition(".")[0], cluster.root
    names = [*NODES, ISLAND] if cluster.hidden is not None else [*NODES]
    ports = _free_ports(1 + len(names))
    lines = [
        f"NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs={N_CPUS} "
        f"RealMemory={MEMORY_MB} Gres=gpu:{N_GPUS}"
        for name, port in zip(names, ports[1:], strict=True)
    ]
    island = f"PartitionName=island Nodes={ISLAND} DefaultTime=60" if cluster.hidden else ""
    text = CONF.format(host=host, port=ports[0], root=root, nodes="\n".join(lines), island=island)
    (root / "slurm.conf").write_text(text)
    (root / "cgroup.conf").write_text("CgroupAutomount=no\n")

    devices = [root / f"gpu{number}" for number in range(N_GPUS)]
    for device in devices:
        os.mknod(device, 0o20666, os.makedev(1, 3))  # what /dev/null is
    gpus = f"{root}/gpu[0-{N_GPUS - 1}]"
    (root / "gres.conf").write_text(
        "".join(f"NodeName={name} Name=gpu File={gpus}\n" for name in names)
    )


def _free_ports(n: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(n)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def _wait_until_idle(root: Path, n_nodes: int) -> None:
    command = ("sinfo", "--noheader", "--Node", "--states=idle", "--format=%N")
    deadline = time.monotonic() + _START_S
    while True:
        if len(set(_ask(root, *command).split())) == n_nodes:
            return
        logs = "\n".join(path.read_text()[-3000:] for path in root.glob("*.log"))
        assert time.monotonic() < deadline, logs
        time.sleep(0.1)


def _cancel_everything(root: Path) -> None:
    """Ends all jobs, so that nothing of them outlives the nodes."""
    _ask(root, "scancel", "--me")
    deadline = time.monotonic() + 20
    while _ask(root, "squeue", "--noheader").strip() and time.monotonic() < deadline:
        time.sleep(0.2)


def _ask(root: Path, *command: str) -> str:
    environment = _environment(root)
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    return done.stdout
