"""A cell: one model, one task, one protocol and one seed, as a value with everything it needs.

Conventions: settings are checked here once and trusted everywhere else; what a cell is called on
disk follows from it. Class paths, folders and devices are in no hash: a moved file of ours or
another machine changes no result.
"""

import hashlib
import json
import math
from dataclasses import asdict, dataclass, field
from functools import cached_property
from operator import attrgetter
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
SETTINGS, STORE = "config.yaml", "features.json"  # files of a cell


@dataclass(frozen=True)
class TaskConfig:
    """conf/task: `_target_` is the LightningDataModule, `options` are further arguments of it.

    `select_by` is the metric that chooses epochs; `metrics` are reported, by default just that one.
    """

    name: str = MISSING
    label: str = MISSING
    level: str = MISSING
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
    """One cell with everything it needs.

    `model` is what its class is built with, beside `name`, `_target_` and `card`.
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
        """Takes the hash now, while the tables in the options are those that were asked for."""
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
        """The settings that change results, without any path.

        Tables that options name count by their content; what a dataset's folder holds is part of
        what a result was made of (`provenance`).
        """
        # Names for people, and the place of a class among our files, change nothing.
        ignored = ("card", "label", "level", "demo", "_target_")
        task = {key: value for key, value in asdict(self.task).items() if key not in ignored}
        model = {key: value for key, value in self.model.items() if key not in ignored}

        tables = self._tables()
        task["options"] = {
            name: tables.get(name, value) for name, value in self.task.options.items()
        }
        model.pop("checkpoint", None)  # its content counts, as that of all weights
        demo = demo_root(Path(), self.data.scale).name if self.is_demo else None
        data = {"demo": demo, "exclude": sorted(self.data.exclude)}

        return {
            "model": model,
            "task": task,
            "protocol": asdict(self.protocol),
            "seed": self.seed,
            "data": data,
            "version": RESULTS_VERSION,
        }

    def _tables(self) -> dict[str, str]:
        """SHA-256 of every file that an option names."""
        digests = {}
        for name, value in self.task.options.items():
            if isinstance(value, str) and Path(value).is_file():
                digests[name] = hashlib.sha256(Path(value).read_bytes()).hexdigest()
        return digests

    @property
    def data_places(self) -> tuple[str, ...]:
        """Files and folders, of those that the settings name, that labels and audio come from."""
        options = [value for value in self.task.options.values() if isinstance(value, str)]
        named = [self.data.root or self.paths.data, *options]
        return tuple(str(Path(place).absolute()) if place else "" for place in named)

    @property
    def places(self) -> tuple[str, ...]:
        """Files and folders that the settings name: in no hash, but two of them make two cells."""
        checkpoint = self.model.get("checkpoint")
        return (*self.data_places, str(Path(checkpoint).absolute()) if checkpoint else "")

    @property
    def key(self) -> tuple[str, ...]:
        """Tells a cell from all others of a command."""
        return (self.hash, *self.places, *asdict(self.paths).values())

    @property
    def folder(self) -> Path:
        """Where the cell's results go: `runs/<model>/<task>/<protocol>-s<seed>-<hash>`.

        They lie in folders of their own, one for each content that they were made of.
        """
        name = f"{self.protocol.name}-s{self.seed}-{self.hash}"
        return Path(self.paths.runs) / self.model_name / self.task.name / name


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
    # OmegaConf marks frozen dataclasses read-only, also for merging.
    sections = [schema[name] for name in (*GROUPS, "data", "extract", "paths")]
    for node in (schema, schema.task.clip, *sections):
        OmegaConf.set_readonly(node, False)

    cell = OmegaConf.to_object(OmegaConf.merge(schema, settings))
    assert isinstance(cell, Cell)
    _check_values(cell)
    return cell


_POSITIVE = (
    *("protocol.hidden", "protocol.lr", "protocol.layer_weights_lr", "protocol.batch_size"),
    *("protocol.frame_batch_size", "protocol.max_epochs", "protocol.patience"),
    *("extract.batch_seconds", "extract.shard_clips", "extract.shard_seconds"),
    *("data.scale", "task.clip.seconds", "task.clip.tail_seconds"),
)
_CHOICES = {
    "logger.mode": LOGGER_MODES,
    "protocol.track_score": ("logits", "probabilities"),
    "protocol.layer_weights_init": ("zeros", "normal"),
}


def _check_values(cell: Cell) -> None:
    """Refuses what no training and no extraction can use."""
    for name in _POSITIVE:
        value = attrgetter(name)(cell)
        if value is not None and not 0 < value < math.inf:
            raise UserError(f"{name} must be more than 0, found {value}")

    for name, choices in _CHOICES.items():
        choice = attrgetter(name)(cell)
        if choice not in choices:
            raise UserError(f"unknown {name} {choice!r}. Known: {', '.join(choices)}")

    if not 0 <= cell.seed < 2**32:
        raise UserError(f"seed must be from 0 to {2**32 - 1}, found {cell.seed}")
    if cell.extract.n_workers is not None and cell.extract.n_workers < 0:
        raise UserError(f"extract.n_workers must be 0 or more, found {cell.extract.n_workers}")
    if not 0 <= cell.protocol.dropout < 1:
        raise UserError(
            f"protocol.dropout must be from 0 up to below 1, found {cell.protocol.dropout}"
        )
