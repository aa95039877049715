"""The devices and processes that a cell's work runs on: how many, and who has started them.

Conventions: a device has a process (rank) of its own. Where SLURM's srun has started the ranks, the
cell's launcher says how many there have to be; elsewhere this machine does.
"""

import os
import socket

import torch
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch.accelerators import CUDAAccelerator

from datamodules.errors import UserError
from mirprobe.cell import Cell
from mirprobe.sections import LauncherConfig, tasks_per_node

ACCELERATORS = ("auto", "cpu", "gpu", "mps")
MOST_PROCESSES = 256  # of one machine; each loads a backbone of its own


def n_devices(cell: Cell) -> int:
    """Processes of this node that extract: `launcher.devices`, where auto is every GPU or one on a
    CPU; under srun as many as the script has asked for.

    Raises:
        UserError: the accelerator is unknown or absent, or `launcher.devices` is not auto or a
            number that it has.
    """
    accelerator, devices = cell.launcher.accelerator, cell.launcher.devices
    if accelerator not in ACCELERATORS:
        raise UserError(
            f"unknown launcher.accelerator {accelerator!r}. Known: {', '.join(ACCELERATORS)}"
        )

    n_gpus = CUDAAccelerator.auto_device_count()
    lacks_gpu = accelerator == "gpu" and n_gpus == 0
    lacks_mps = accelerator == "mps" and not torch.backends.mps.is_available()
    if lacks_gpu or lacks_mps:
        raise UserError(
            f"launcher.accelerator={accelerator}, but this machine has none: set auto or cpu"
        )

    if is_under_srun(cell):
        return _devices_of_node(cell.launcher, n_gpus)

    on_gpu = n_gpus > 0 and accelerator in ("auto", "gpu")
    if devices == "auto":
        return n_gpus if on_gpu else 1
    if not isinstance(devices, int) or isinstance(devices, bool) or devices < 1:
        raise UserError(
            f"launcher.devices must be auto or a number of processes, found {devices!r}"
        )
    if on_gpu and devices > n_gpus:
        raise UserError(
            f"launcher.devices={devices}, but this machine has {n_gpus} GPUs: set a smaller number "
            "or auto"
        )
    if devices > MOST_PROCESSES:
        raise UserError(
            f"launcher.devices={devices} is more processes than {MOST_PROCESSES}: set a smaller "
            "number or auto"
        )
    return devices


def _devices_of_node(launcher: LauncherConfig, n_gpus: int) -> int:
    """Processes of this node, under srun: a GPU that was asked for and is not seen is an error."""
    asked = launcher.gpus_per_node
    if asked is not None and launcher.accelerator != "cpu" and n_gpus < asked:
        raise UserError(
            f"{asked} GPUs were asked for (launcher.gpus_per_node), but torch sees {n_gpus} on "
            f"{socket.gethostname()}: look at its driver with nvidia-smi, or keep away from it "
            "with launcher.exclude"
        )
    return tasks_per_node(launcher)


def is_under_srun(cell: Cell) -> bool:
    """Whether srun has started this process, from a script that SLURM was given for the cell."""
    return cell.launcher.name == "slurm" and "SLURM_STEP_NUM_TASKS" in os.environ


def n_nodes(cell: Cell) -> int:
    """Nodes that extract together: `launcher.nodes` under srun, else this one."""
    return cell.launcher.nodes if is_under_srun(cell) else 1


def environment(cell: Cell) -> ClusterEnvironment:
    """Who has started the ranks: srun, or this package's own launcher.

    Lightning's SLURM environment counts tasks, whoever has started this process, and its handler of
    SLURM's warning waits for ever where only one rank gets it: ours only remembers the signal.
    """
    if is_under_srun(cell):
        return SLURMEnvironment(auto_requeue=False)
    return LightningEnvironment()


def probe_accelerator(cell: Cell) -> str:
    """The accelerator that trains probes: as set, but for a Mac."""
    if torch.backends.mps.is_available():
        return "cpu"  # a Mac's GPU has no float64 to collect scores in
    return str(cell.launcher.accelerator)
