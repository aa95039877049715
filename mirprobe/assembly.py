"""What a cell names, built: its task, its backbone, the demo's data; and cells gathered into jobs.

Conventions: a cell is a value (`mirprobe.cell.Cell`); everything here follows from it. The only
place beside `settings` that knows Hydra.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from hydra.errors import HydraException
from hydra.utils import get_class, instantiate
from lightning.pytorch.accelerators import CUDAAccelerator

from datamodules.audio.decode import RESAMPLER
from datamodules.card import Card
from datamodules.demo.recipe import demo_root
from datamodules.digests import KnownDigests
from datamodules.errors import UserError
from datamodules.features.store import FeatureStore, StoreId
from datamodules.task import TaskDataModule
from datamodules.tracks import Track
from mirprobe.backbones.backbone import Backbone
from mirprobe.cell import Cell
from mirprobe.progress import ProgressReport
from mirprobe.provenance import Inputs
from mirprobe.scoring.metrics import METRICS, metric_named


def data_root(cell: Cell) -> Path:
    """Folder with the datasets: the user's, or the demo corpus."""
    if cell.is_demo:
        return demo_root(Path(cell.paths.data), cell.data.scale)
    return Path(cell.data.root or ".")


def make_data(cell: Cell) -> TaskDataModule:
    """The LightningDataModule of the cell's task.

    Raises:
        UserError: the settings do not fit its class, or a metric does not fit its kind.
    """
    data = _instantiate(
        {
            **cell.task.options,
            "_target_": cell.task._target_,
            "root": data_root(cell) / cell.task.folder,
            "clip": cell.task.clip,
            "exclude": cell.data.exclude,
        }
    )
    assert isinstance(data, TaskDataModule)
    scores = [("select_by", cell.task.select_by), *(("metrics", m) for m in cell.metrics)]
    for setting, name in scores:
        if metric_named(name).kind != data.kind:
            fitting = [known for known, metric in METRICS.items() if metric.kind == data.kind]
            raise UserError(
                f"task.{setting}={name} does not fit {cell.task.name}, a {data.kind} task: "
                f"set one of {', '.join(fitting)}"
            )
    return data


def make_backbone(cell: Cell) -> Backbone:
    """The cell's frozen backbone, on the CPU.

    Raises:
        UserError: its weights are missing or wrong, or its settings do not fit its class.
    """
    settings = {key: value for key, value in cell.model.items() if key not in ("name", "card")}
    backbone = _instantiate(settings)
    assert isinstance(backbone, Backbone)
    return backbone.freeze()


def backbone_class(cell: Cell) -> type[Backbone]:
    """The class of the cell's backbone, which knows its published files without being built."""
    found: type[Backbone] = get_class(cell.model["_target_"])
    return found


def inputs_of(cell: Cell, data: TaskDataModule) -> Inputs:
    """Every file that a cell's results may follow from: labels, audio, tables, weights."""
    folders, files = data.inputs()
    weights = backbone_class(cell).weights_file(
        cell.model.get("weights"), cell.model.get("checkpoint")
    )
    if weights is not None:
        files = [*files, weights]
    return Inputs(
        tuple(str(folder.absolute()) for folder in folders),
        tuple(dict.fromkeys(str(file.absolute()) for file in files)),
    )


def place(backbone: Backbone, cell: Cell) -> Backbone:
    """The backbone on the first GPU, unless there is none or the launcher asks for the CPU."""
    on_gpu = torch.cuda.is_available() and cell.launcher.accelerator != "cpu"
    return backbone.to("cuda") if on_gpu else backbone


def card_of(cell: Cell) -> Card:
    """Title, licence and source of the cell's dataset, whether or not it is on this machine."""
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
            build(root, dataset, scale=scale, progress=progress.update)


ACCELERATORS = ("auto", "cpu", "gpu", "mps")


def n_devices(cell: Cell) -> int:
    """Processes that extract: `launcher.devices`, where auto is every GPU or one on a CPU.

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
    """The accelerator that trains probes: as set, but for a Mac."""
    if torch.backends.mps.is_available():
        return "cpu"  # a Mac's GPU has no float64 to collect scores in
    return str(cell.launcher.accelerator)


@dataclass(frozen=True)
class Job:
    """The grain of extraction: one feature store, and the cells that are probed on it.

    Attributes:
        cells: that share backbone, audio, cutting rule and pooling.
        tasks: the data module of each cell, one object for all cells of a task.
        digests: of the dataset's files that were read before.
    """

    cells: tuple[Cell, ...]
    tasks: tuple[TaskDataModule, ...]
    digests: KnownDigests

    @property
    def data(self) -> TaskDataModule:
        """One of the data modules; they differ in labels, and perhaps in which tracks they want."""
        return self.tasks[0]

    def tracks(self) -> list[Track]:
        """The tracks of all cells, each once, by id.

        Raises:
            UserError: data is missing or cannot be used.
        """
        by_id = {track.track_id: track for data in self.tasks for track in data.tracks()}
        return [by_id[track_id] for track_id in sorted(by_id)]

    def identify(self, *, read: bool = False) -> None:
        """Gives the tracks of all cells the ids of their audio, as `KnownDigests.identify` does."""
        for data in {id(data): data for data in self.tasks}.values():
            data.identify(self.digests, read=read)

    def store(self, backbone: Backbone) -> FeatureStore:
        """The store that holds the features of this backbone, whether or not it exists."""
        cell, data = self.cells[0], self.data
        store_id = StoreId(
            backbone=cell.model_name,
            fingerprint=backbone.fingerprint(),
            dataset=f"{data.dataset}-demo" if data.is_demo else data.dataset,
            clip_rule=data.clip.describe(),
            pooling="mean" if data.frame_rate is None else f"{data.frame_rate:g}Hz",
            resampler=RESAMPLER,
            precision=backbone.precision,
        )
        return FeatureStore(Path(cell.paths.features), store_id)
