"""A cell: one model, one task, one protocol and one seed, as a value with everything it needs.

Conventions: settings are checked here once and trusted everywhere else; what a cell is called on
disk follows from it. Class
paths, folders and devices are in no hash: a moved file or another machine changes no result.
"""

import hashlib
import json
import math
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from datamodules.audio.clips import ClipRule
from datamodules.demo.recipe import demo_root
from datamodules.errors import UserError

GROUPS = ("model", "task", "protocol", "launcher", "logger")


LOGGER_MODES = ("auto", "online", "offline", "disabled")


RESULTS_VERSION = 2  # raised when a change of code changes numbers; part of every cell's hash


@dataclass(frozen=True)
class TaskConfig:
    """conf/task: `_target_` is the LightningDataModule's class path, `options` are further
    arguments of it.

    `select_by` is the metric that chooses epochs; `metrics` are reported, by default just that one.
    """

    name: str = MISSING
    label: str = MISSING
    group: str = MISSING
    _target_: str = MISSING
    folder: str = MISSING
    demo: str | None = None
    select_by: str = MISSING
    metrics: list[str] = field(default_factory=list)
    options: dict[str, Any] = field(default_factory=dict)
    clip: ClipRule = field(default_factory=ClipRule)


@dataclass(frozen=True)
class ProtocolConfig:
    """conf/protocol: how probes are trained and chosen."""

    name: str = MISSING
    hidden: int = MISSING
    dropout: float = MISSING
    lr: float = MISSING
    layer_weights_lr: float = MISSING
    layer_weights_init: str = MISSING
    standardize: bool = MISSING
    batch_size: int = MISSING
    frame_batch_size: int = MISSING
    max_epochs: int = MISSING
    patience: int = MISSING
    track_score: str = MISSING


@dataclass(frozen=True)
class DataConfig:
    """Where the datasets are."""

    root: str | None = None
    scale: float = 1.0
    exclude: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class ExtractConfig:
    """How features are extracted; changes speed, not numbers."""

    batch_seconds: float | None = MISSING
    n_workers: int | None = MISSING
    shard_clips: int = MISSING
    shard_seconds: float = MISSING


@dataclass(frozen=True)
class PathsConfig:
    """Where mirprobe writes."""

    data: str = MISSING
    features: str = MISSING
    runs: str = MISSING


@dataclass(frozen=True)
class LauncherConfig:
    """conf/launcher: where it runs."""

    accelerator: str = MISSING
    devices: Any = MISSING


@dataclass(frozen=True)
class LoggerConfig:
    """conf/logger: the dashboard."""

    mode: str = MISSING
    project: str = MISSING
    entity: str | None = None
    timeout_s: int = MISSING


@dataclass(frozen=True)
class Cell:
    """One cell with everything it needs. `model` is what its class is built with, beside `name`,
    `_target_` and `card`.
    """

    model: dict[str, Any] = field(default_factory=dict)
    task: TaskConfig = field(default_factory=TaskConfig)
    protocol: ProtocolConfig = field(default_factory=ProtocolConfig)
    launcher: LauncherConfig = field(default_factory=LauncherConfig)
    logger: LoggerConfig = field(default_factory=LoggerConfig)
    data: DataConfig = field(default_factory=DataConfig)
    extract: ExtractConfig = field(default_factory=ExtractConfig)
    paths: PathsConfig = field(default_factory=PathsConfig)
    tasks: list[str] = MISSING
    baseline: str | None = None
    seed: int = 0
    is_baseline: bool = False  # set by `compose_cells`, for tables; changes no result

    def __post_init__(self) -> None:
        """Takes the hash now, while the tables that the options name are those that were asked for."""
        _ = self.hash

    @property
    def model_name(self) -> str:
        """The backbone's name, with the control it is, such as `fcpe` or `fcpe-random`."""
        weights = self.model.get("weights")
        return f"{self.model['name']}-random" if weights == "random" else str(self.model["name"])

    @property
    def metrics(self) -> list[str]:
        """Names of the metrics that are reported."""
        return self.task.metrics or [self.task.select_by]

    @property
    def is_demo(self) -> bool:
        """Whether the data is the rendered stand-in."""
        return self.data.root is None and self.task.demo is not None

    @cached_property
    def hash(self) -> str:
        """12 hex digits over everything that changes results; taken once, when the cell is made."""
        return hashlib.sha256(json.dumps(self.identity(), sort_keys=True).encode()).hexdigest()[:12]

    def identity(self) -> dict[str, Any]:
        """The settings that change results: model, task, protocol, seed, data, and the content of
        tables named in options.
        """
        said_only = (
            "label",
            "group",
            "demo",
            "_target_",
        )  # names for people, and the place of a class in our files
        root = (
            demo_root(Path(), self.data.scale).name
            if self.is_demo
            else str(Path(self.data.root or ".").resolve())
        )
        paths = {
            name: Path(value) for name, value in self.task.options.items() if isinstance(value, str)
        }
        tables = {
            name: hashlib.sha256(path.read_bytes()).hexdigest()
            for name, path in paths.items()
            if path.is_file()
        }

        return {
            "model": {
                key: value for key, value in self.model.items() if key not in ("card", "_target_")
            },
            "task": {
                key: value for key, value in asdict(self.task).items() if key not in said_only
            },
            "protocol": asdict(self.protocol),
            "seed": self.seed,
            "data": {"root": root, "exclude": sorted(self.data.exclude), "tables": tables},
            "version": RESULTS_VERSION,
        }

    @property
    def folder(self) -> Path:
        """Where the cell's results go: `runs/<model>/<task>/<protocol>-s<seed>-<hash>`."""
        return (
            Path(self.paths.runs)
            / self.model_name
            / self.task.name
            / f"{self.protocol.name}-s{self.seed}-{self.hash}"
        )


def write_cell(cell: Cell) -> str:
    """A cell as YAML text, from which `read_cell` makes an equal one."""
    return OmegaConf.to_yaml(OmegaConf.create(asdict(cell)))


def read_cell(path: Path) -> Cell:
    """The cell of a YAML file.

    Raises:
        UserError: the file is missing or is not a cell.
    """
    try:
        return to_cell(OmegaConf.load(path))
    except (OSError, ValueError, YAMLError, OmegaConfBaseException) as error:
        raise UserError(
            f"{path} is not a cell file ({' '.join(str(error).split())}): make one with `mirprobe "
            "sweep`"
        ) from error


def to_cell(settings: Any) -> Cell:
    """The cell of composed or stored settings.

    Raises:
        UserError: a value that no training and no extraction can use.
        OmegaConfBaseException: an unknown key or a value of the wrong type.
    """
    schema = OmegaConf.structured(Cell)
    for node in (
        schema,
        schema.task.clip,
        *(schema[section] for section in (*GROUPS, "data", "extract", "paths")),
    ):
        OmegaConf.set_readonly(
            node, False
        )  # OmegaConf marks frozen dataclasses read-only, also for merging
    cell = OmegaConf.to_object(OmegaConf.merge(schema, settings))
    assert isinstance(cell, Cell)
    _check_values(cell)
    return cell


def _check_values(cell: Cell) -> None:
    """Refuses what no training and no extraction can use."""
    positive = {
        "protocol": (
            "hidden",
            "lr",
            "layer_weights_lr",
            "batch_size",
            "frame_batch_size",
            "max_epochs",
            "patience",
        ),
        "extract": ("batch_seconds", "shard_clips", "shard_seconds"),
        "data": ("scale",),
    }
    values = {
        f"{section}.{name}": getattr(getattr(cell, section), name)
        for section, names in positive.items()
        for name in names
    }
    values |= {
        "task.clip.seconds": cell.task.clip.seconds,
        "task.clip.tail_seconds": cell.task.clip.tail_seconds,
    }
    for name, value in values.items():
        if value is not None and not 0 < value < math.inf:
            raise UserError(f"{name} must be more than 0, found {value}")
    if not 0 <= cell.seed < 2**32:
        raise UserError(f"seed must be from 0 to {2**32 - 1}, found {cell.seed}")
    if cell.extract.n_workers is not None and cell.extract.n_workers < 0:
        raise UserError(f"extract.n_workers must be 0 or more, found {cell.extract.n_workers}")
    if cell.logger.mode not in LOGGER_MODES:
        raise UserError(
            f"unknown logger.mode {cell.logger.mode!r}. Known: {', '.join(LOGGER_MODES)}"
        )
    if not 0 <= cell.protocol.dropout < 1:
        raise UserError(
            f"protocol.dropout must be from 0 up to below 1, found {cell.protocol.dropout}"
        )
    if cell.protocol.track_score not in ("logits", "probabilities"):
        raise UserError(
            "protocol.track_score must be logits or probabilities, found "
            f"{cell.protocol.track_score!r}"
        )
    if cell.protocol.layer_weights_init not in ("zeros", "normal"):
        raise UserError(
            "protocol.layer_weights_init must be zeros or normal, found "
            f"{cell.protocol.layer_weights_init!r}"
        )
