"""What one cell needs: its data, its backbone, its features, its rows.

Conventions: a cell is a value (`mirprobe.cell.Cell`); everything here follows from it. The backbone
is only built where features are missing or have to be identified. Files of a cell are written
before its rows, which say that it is done.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from hydra.errors import HydraException
from hydra.utils import get_class, instantiate
from lightning.pytorch.accelerators import CUDAAccelerator

from datamodules.audio.decode import RESAMPLER
from datamodules.card import Card
from datamodules.demo.recipe import demo_root
from datamodules.errors import UserError
from datamodules.features.store import StoreKey
from datamodules.task import TaskDataModule
from mirprobe.backbones.backbone import Backbone
from mirprobe.cell import Cell
from mirprobe.progress import ProgressReport
from mirprobe.scoring.metrics import METRICS, metric_named


def data_root(cell: Cell) -> Path:
    """Folder with the datasets: the user's, or the demo corpus."""
    if cell.is_demo:
        return demo_root(Path(cell.paths.data), cell.data.scale)
    return Path(cell.data.root or ".")


def make_data(cell: Cell) -> TaskDataModule:
    """The LightningDataModule of the cell's task."""
    root = data_root(cell) / cell.task.folder
    fixed = {
        "_target_": cell.task._target_,
        "root": root,
        "clip": cell.task.clip,
        "exclude": cell.data.exclude,
    }
    settings = {**cell.task.options, **fixed}
    data = _instantiate(settings)
    assert isinstance(data, TaskDataModule)
    for name in (cell.task.metric, *cell.metrics):
        if metric_named(name).kind != data.kind:
            fitting = ", ".join(
                known for known, metric in METRICS.items() if metric.kind == data.kind
            )
            raise UserError(
                f"task.metric={name} does not fit {cell.task.name}, a {data.kind} task: set one of "
                f"{fitting}"
            )
    return data


def make_backbone(cell: Cell) -> Backbone:
    """The cell's frozen backbone, on the CPU.

    Raises:
        UserError: its weights are missing or wrong, or its settings do not fit its class.
    """
    backbone = _instantiate(
        {key: value for key, value in cell.model.items() if key not in ("name", "card")}
    )
    assert isinstance(backbone, Backbone)
    return backbone.freeze()


def place(backbone: Backbone, cell: Cell) -> Backbone:
    """The backbone on the first GPU, where there is one and the cell's launcher does not ask for
    the CPU.
    """
    on_gpu = torch.cuda.is_available() and cell.launcher.accelerator != "cpu"
    return backbone.to("cuda") if on_gpu else backbone


def card_of(cell: Cell) -> Card:
    """What is said about the cell's dataset, whether or not it is on this machine."""
    task: type[TaskDataModule] = get_class(cell.task._target_)
    unsaid = "not stated"
    return task.card or Card(
        cell.task.name, unsaid, unsaid, obtain=f"{cell.task._target_} has no card that says how"
    )


def _instantiate(settings: dict[str, Any]) -> Any:
    try:
        return instantiate(settings, _convert_="object")
    except HydraException as error:
        if isinstance(error.__cause__, UserError):
            raise error.__cause__ from error
        raise UserError(
            f"{settings['_target_']} does not take these settings: {' '.join(str(error).split())}"
        ) from error


def store_key_of(cell: Cell, backbone: Backbone) -> StoreKey:
    """The key of the store that holds the cell's features."""
    return store_key(backbone, cell.model_name, make_data(cell))


def make_demo_data(cells: Sequence[Cell]) -> None:
    """Renders the demo corpora that the cells' tasks need, where they use the demo."""
    from datamodules.demo.build import build, is_built

    wanted = {
        (cell.paths.data, cell.data.scale, cell.task.demo)
        for cell in cells
        if cell.is_demo and cell.task.demo
    }
    for data, scale, dataset in sorted(wanted):
        root = demo_root(Path(data), scale)
        if is_built(root, dataset, scale):
            continue
        with ProgressReport(f"rendering demo {dataset}", 0, "files") as progress:

            def count(done: int, total: int, progress: ProgressReport = progress) -> None:
                progress.total = total
                progress.advance(done - progress.done)

            build(root, dataset, scale=scale, progress=count)


ACCELERATORS = ("auto", "cpu", "gpu", "mps")


def n_devices(cell: Cell) -> int:
    """How many processes extract: `launcher.devices`, where auto means every GPU or one process on
    a CPU.

    Raises:
        UserError: the accelerator is unknown or absent, or `launcher.devices` is not auto or a
            number that it has.
    """
    accelerator, devices, n_gpus = (
        cell.launcher.accelerator,
        cell.launcher.devices,
        CUDAAccelerator.auto_device_count(),
    )
    if accelerator not in ACCELERATORS:
        raise UserError(
            f"unknown launcher.accelerator {accelerator!r}. Known: {', '.join(ACCELERATORS)}"
        )
    if (accelerator == "gpu" and n_gpus == 0) or (
        accelerator == "mps" and not torch.backends.mps.is_available()
    ):
        raise UserError(
            f"launcher.accelerator={accelerator}, but this machine has none: set auto or cpu"
        )
    on_gpu = n_gpus > 0 and accelerator in ("auto", "gpu")
    if devices == "auto":
        return n_gpus if on_gpu else 1
    if not isinstance(devices, int) or devices < 1:
        raise UserError(
            f"launcher.devices must be auto or a number of processes, found {devices!r}"
        )
    if on_gpu and devices > n_gpus:
        raise UserError(
            f"launcher.devices={devices}, but this machine has {n_gpus} GPUs: set a smaller number "
            "or auto"
        )
    return devices


def probe_accelerator(cell: Cell) -> str:
    """Where probes are trained: as set, but on the CPU of a Mac, whose GPU has no float64 to
    collect scores in.
    """
    return "cpu" if torch.backends.mps.is_available() else str(cell.launcher.accelerator)


def store_key(backbone: Backbone, name: str, data: TaskDataModule) -> StoreKey:
    """The identity of a backbone's features of a task's audio."""
    return StoreKey(
        backbone=name,
        fingerprint=backbone.fingerprint(),
        dataset=f"{data.dataset}-demo" if data.is_demo else data.dataset,
        clip_rule=data.clip.describe(),
        pooling="mean" if data.frame_rate is None else f"{data.frame_rate:g}Hz",
        resampler=RESAMPLER,
        precision=backbone.precision,
    )
