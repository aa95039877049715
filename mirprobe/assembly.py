"""What a cell names, built: its task, its backbone, the demo's data; and cells gathered into jobs.

Conventions: a cell is a value (`mirprobe.cell.Cell`); everything here follows from it. The class of
a task or of a backbone is the one thing that settings may name and this calls, once it was looked
at: nothing below is ever resolved, since a cell file can come from anybody.
"""

import importlib
import inspect
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import torch

from datamodules.audio.decode import RESAMPLER
from datamodules.card import Card
from datamodules.demo.recipe import demo_root
from datamodules.digests import KnownDigests
from datamodules.errors import UserError, nearest
from datamodules.features.store import FeatureStore, StoreId
from datamodules.task import TaskDataModule
from datamodules.tracks import Track
from mirprobe.backbones.arithmetic import resolve_precision
from mirprobe.backbones.backbone import Backbone
from mirprobe.cell import Cell
from mirprobe.progress import ProgressReport
from mirprobe.provenance import Inputs
from mirprobe.scoring.metrics import METRICS, metric_named


class UnfitMetricError(UserError):
    """A metric that cannot score a task's targets."""


def _unfit(name: str, task: str, data: TaskDataModule) -> str:
    """Why the metric of that name does not fit a task, and which ones do."""
    metric, reason = metric_named(name), ""
    if metric.kind == data.kind and metric.classes is not None:
        needed, found = _few(metric.classes), _few(data.classes)
        reason = f" (it counts on {needed} in this order, the task has {found})"

    fitting = [known for known, other in METRICS.items() if other.fits(data.kind, data.classes)]
    return (
        f"{name} does not fit {task}, a {data.kind} task{reason}: set one of {', '.join(fitting)}"
    )


def _few(names: Sequence[str]) -> str:
    """The first and the last of some names, and how many there are."""
    return ", ".join(names) if len(names) < 4 else f"{len(names)}: {names[0]} .. {names[-1]}"


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
    given: dict[str, Any] = {
        "root": data_root(cell) / cell.task.folder,
        "clip": cell.task.clip,
        "exclude": cell.data.exclude,
    }
    task = task_class(cell)
    check_arguments(task, cell.task.options, "task.options", given)
    data = task(**given, **cell.task.options)
    if cell.data.labels == "shuffled":
        if data.kind == "frames":
            raise UserError(
                f"data.labels=shuffled deals out one label a track, and {cell.task.name} is scored "
                "by frames: leave it out for this task"
            )
        data.shuffle_seed = cell.seed
    scores = [("select_by", cell.task.select_by), *(("metrics", m) for m in cell.metrics)]
    for setting, name in scores:
        if not metric_named(name).fits(data.kind, data.classes):
            raise UnfitMetricError(f"task.{setting}={_unfit(name, cell.task.name, data)}")
    return data


def make_backbone(cell: Cell) -> Backbone:
    """The cell's frozen backbone, on the CPU.

    Raises:
        UserError: its weights are missing or wrong, or its settings do not fit its class.
    """
    settings = {
        key: value for key, value in cell.model.items() if key not in ("name", "card", "_target_")
    }
    backbone = backbone_class(cell)
    check_arguments(backbone, settings, "model")
    return backbone(**settings).freeze()


def backbone_class(cell: Cell) -> type[Backbone]:
    """The class of the cell's backbone, which knows its published files without being built."""
    found: type[Backbone] = find_class("model._target_", str(cell.model["_target_"]), Backbone)
    return found


def task_class(cell: Cell) -> type[TaskDataModule]:
    """The class of the cell's task, which knows how to get its dataset."""
    found: type[TaskDataModule] = find_class("task._target_", cell.task._target_, TaskDataModule)
    return found


def check_weights(cell: Cell) -> None:
    """Looks for the file of a cell's weights, without reading it.

    Raises:
        UserError: it is not there.
    """
    file = weights_file(cell)
    if file is not None and not file.is_file():
        raise UserError(
            f"no weights for model {cell.model['name']}: {file} does not exist. Set "
            "model.checkpoint to a file that does, or leave it out"
        )


def weights_file(cell: Cell) -> Path | None:
    """The file that a cell's weights are read from; None where none is.

    Raises:
        UserError: the published file is not on this machine.
    """
    return backbone_class(cell).weights_file(cell.model)


def inputs_of(cell: Cell, data: TaskDataModule) -> Inputs:
    """Every file that a cell's results may follow from: labels, audio, tables, weights."""
    folders, files = data.inputs()

    # A machine that only probes has no weights: published ones are always the same.
    with suppress(UserError):
        weights = weights_file(cell)
        if weights is not None:
            files = [*files, weights]
    return Inputs(
        tuple(str(folder.absolute()) for folder in folders),
        tuple(dict.fromkeys(str(file.absolute()) for file in files)),
    )


def extracting_backbone(cell: Cell) -> Backbone:
    """The cell's backbone in the precision that its features are extracted in.

    Raises:
        UserError: as `make_backbone`, or this machine does not have the precision.
    """
    on_gpu = torch.cuda.is_available() and cell.launcher.accelerator in ("auto", "gpu")
    precision = resolve_precision(cell.extract.precision, on_gpu=on_gpu)
    return make_backbone(cell).at(precision)


def place(backbone: Backbone, cell: Cell) -> Backbone:
    """The backbone on the first GPU, unless there is none or the launcher asks for the CPU."""
    on_gpu = torch.cuda.is_available() and cell.launcher.accelerator != "cpu"
    return backbone.to("cuda") if on_gpu else backbone


def card_of(cell: Cell) -> Card:
    """Title, licence and source of the cell's dataset, whether or not it is on this machine."""
    unsaid = "not stated"
    return task_class(cell).card or Card(
        cell.task.name, unsaid, unsaid, obtain=f"{cell.task._target_} has no card that says how"
    )


# -- classes that settings name --------------------------------------------------------------------


def find_class(key: str, path: str, base: type) -> type[Any]:
    """The class that a setting names, whoever wrote it, if it is one of `base`.

    Args:
        key: of the setting.
        path: of the class, `package.module.Class`.
        base: what it has to be a subclass of.

    Raises:
        UserError: there is no such class, or it is none of `base`.
    """
    where, _, name = path.rpartition(".")
    kind = f"a subclass of {base.__module__}.{base.__name__}"
    # No task and no backbone lives in Python's own library, where importing can have effects.
    if not where or where.partition(".")[0] in sys.stdlib_module_names:
        raise UserError(f"{key}={path} is not {kind}: write package.module.Class")
    try:
        found = getattr(importlib.import_module(where), name, None)
    except Exception as error:  # a module of the user's may raise anything
        raise UserError(
            f"{key}={path} cannot be imported ({type(error).__name__}: {_line(error)}): "
            "set it to a class that can, in a package that is installed or on PYTHONPATH"
        ) from error

    if found is None:
        raise UserError(f"{key}={path} does not exist: {where} has no {name!r}")
    if not (isinstance(found, type) and issubclass(found, base)):
        raise UserError(f"{key}={path} is not {kind}: set it to one")
    # Not by inspect.isabstract, which sees none where Lightning's metaclass stands before ABC's.
    if any(getattr(getattr(found, one), "__isabstractmethod__", False) for one in dir(found)):
        raise UserError(f"{key}={path} has methods that only its subclasses say: set one of these")
    return found


def check_arguments(
    made: type, settings: Mapping[str, Any], section: str, given: Mapping[str, Any] | None = None
) -> None:
    """Refuses settings that a class does not take.

    Args:
        made: the class.
        settings: arguments of it.
        section: of the settings, for the message.
        given: its other arguments, which no setting of this section may name.

    Raises:
        UserError: an unknown name, a missing one, or a value of another type.
    """
    parameters = {
        name: parameter
        for name, parameter in inspect.signature(made).parameters.items()
        if name not in (given or {}) and parameter.kind is not inspect.Parameter.VAR_POSITIONAL
    }
    rest = [name for name, one in parameters.items() if one.kind is inspect.Parameter.VAR_KEYWORD]
    known = [name for name in parameters if name not in rest]
    hints = _hints(made)
    for name, value in settings.items():
        if name not in known and (not rest or name in (given or {})):
            settable = ", ".join(f"{section}.{one}" for one in known) or "none"
            raise UserError(
                f"{made.__name__} does not take these settings: unknown {section}.{name}"
                f"{nearest(str(name), known)}. Known: {settable}"
            )
        if not _fits(value, hints.get(name, Any)):
            raise UserError(f"{section}.{name} must be {_type_name(hints[name])}, found {value!r}")

    needed = [name for name in known if parameters[name].default is inspect.Parameter.empty]
    missing = [f"{section}.{name}" for name in needed if name not in settings]
    if missing:
        raise UserError(f"{made.__name__} does not take these settings: set {', '.join(missing)}")


def _hints(made: Any) -> Mapping[str, Any]:
    """Types of a class's arguments; none where its module does not import their names."""
    try:
        return get_type_hints(made.__init__)
    except NameError:
        return {}


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value is of a type, as far as settings can say one; True where that is unclear."""
    if get_origin(hint) in (Union, UnionType):
        return any(_fits(value, one) for one in get_args(hint))
    if get_origin(hint) is Literal:
        return any(value == one and type(value) is type(one) for one in get_args(hint))
    if hint is float:  # not True, which is an int to Python
        return type(value) in (int, float)
    if hint is Path:
        return isinstance(value, str)
    return type(value) is hint if hint in (bool, int, str, NoneType) else True


def _type_name(hint: Any) -> str:
    """A type in a user's words."""
    if get_origin(hint) in (Union, UnionType):
        return " or ".join(dict.fromkeys(_type_name(one) for one in get_args(hint)))
    if get_origin(hint) is Literal:
        return " or ".join(str(one) for one in get_args(hint))
    words = {int: "a whole number", float: "a number", bool: "true or false", NoneType: "null"}
    return words.get(hint, "text")


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


# -- the demo's data, jobs -------------------------------------------------------------------------


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


def pooling_name(cell: Cell, data: TaskDataModule) -> str:
    """How a store's id says what rows are: means of clips, means of parts of clips, or frames of a
    label grid, which counts from the start of the track.
    """
    if data.frame_rate is not None:
        return f"{data.frame_rate:g}Hz"
    return "mean" if cell.row_rate is None else f"mean_at_{cell.row_rate:g}Hz"


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

    def identify(self) -> None:
        """Gives the tracks of all cells the ids of their audio, as far as they are known."""
        for data in {id(data): data for data in self.tasks}.values():
            data.identify(self.digests)

    def store(self, backbone: Backbone) -> FeatureStore:
        """The store that holds the features of this backbone, whether or not it exists."""
        cell, data = self.cells[0], self.data
        store_id = StoreId(
            backbone=cell.model_name,
            fingerprint=backbone.fingerprint(),
            dataset=f"{data.dataset}-demo" if data.is_demo else data.dataset,
            clip_rule=data.clip.describe(),
            pooling=pooling_name(cell, data),
            resampler=RESAMPLER,
            precision=backbone.precision,
        )
        return FeatureStore(Path(cell.paths.features), store_id)
