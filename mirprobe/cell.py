"""A cell: one model, one task, one protocol and one seed, as a value with everything it needs.

Conventions: settings are checked here once and trusted everywhere else; what a cell is called on
disk follows from it. Class paths, folders and devices are in no hash: a moved file of ours or
another machine changes no result.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from operator import attrgetter
from pathlib import Path
from typing import Any

import yaml
from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from datamodules.demo.recipe import demo_root
from datamodules.errors import UserError
from mirprobe.sections import (
    DataConfig,
    ExtractConfig,
    LauncherConfig,
    LoggerConfig,
    PathsConfig,
    ProtocolConfig,
    SimilarityConfig,
    TaskConfig,
)

GROUPS = ("model", "task", "protocol", "launcher", "logger")
LAUNCHERS = ("local", "slurm")
CLIP, _ROW_RATE = "clip", re.compile(r"\d{1,3}(\.\d{1,3})?Hz")  # what extract.pooling may be
MOST_ROW_RATE = 100.0  # Hz; no backbone here has more frames a second
PRECISION_SETTINGS = ("auto", "32", "tf32", "bf16")
LOGGER_MODES = ("auto", "online", "offline", "disabled")
RESULTS_VERSION = 3  # raised when a change of code changes numbers; part of every cell's hash
SETTINGS, STORE = "config.yaml", "features.json"  # files of a cell
MOMENTS = "moments.json"  # file of a cell: the folder of its moments, below that of its store
SIMILARITY_INPUTS = ("mel", "mel_stack", "mel_center", "fbank", "h0")
MOST_BYTES, MOST_DEEP = 10**6, 20  # of a file of settings
UNREADABLE = (
    OSError,
    ValueError,
    TypeError,
    AttributeError,
    yaml.YAMLError,
    OmegaConfBaseException,
)


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
    similarity: SimilarityConfig = field(default_factory=SimilarityConfig)
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
        data: dict[str, Any] = {"demo": demo, "exclude": sorted(self.data.exclude)}
        if self.data.labels != "given":
            data["labels"] = self.data.labels

        # What `auto` means is known where features are extracted, and part of a store's id.
        precision = self.extract.precision

        return {
            "model": model,
            "task": task,
            "protocol": asdict(self.protocol),
            "seed": self.seed,
            "data": data,
            **({} if precision == "auto" else {"precision": precision}),
            **({} if self.row_rate is None else {"row_rate": self.row_rate}),
            "version": RESULTS_VERSION,
        }

    @property
    def row_rate(self) -> float | None:
        """Rows a second that are stored of a clip, in Hz; None for one row, the clip's mean."""
        pooling = self.extract.pooling  # asked for before it is checked
        return float(pooling[:-2]) if _ROW_RATE.fullmatch(pooling) else None

    def _tables(self) -> dict[str, str]:
        """SHA-256 of every file that an option names."""
        digests = {}
        for name, value in self.task.options.items():
            try:
                if isinstance(value, str) and Path(value).is_file():
                    digests[name] = hashlib.sha256(Path(value).read_bytes()).hexdigest()
            except OSError as error:  # a name that is too long, a file that may not be read
                raise UserError(
                    f"task.options.{name}={value} cannot be read ({error.strerror}): set it to a "
                    "file that can"
                ) from error
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
        return to_cell(read_yaml(path))
    except UNREADABLE as error:
        raise UserError(
            f"{path} is not a cell file ({' '.join(str(error).split())}): make one with `mirprobe "
            "sweep`"
        ) from error


def read_yaml(path: Path) -> Any:
    """The settings in a YAML file of anybody: to read it neither hangs nor runs code.

    Raises:
        Exception: one of `UNREADABLE`.
    """
    if path.exists() and not path.is_file():  # a pipe or a device would be waited for
        raise ValueError("it is not a file")
    if path.stat().st_size > MOST_BYTES:
        raise ValueError(f"it has more than {MOST_BYTES} bytes")
    text = path.read_text(encoding="utf-8")

    # References to references and endless depth are small files that take for ever to build.
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if depth == 0 and isinstance(event, yaml.ScalarEvent | yaml.SequenceStartEvent):
            raise ValueError("it holds no keys")
        if isinstance(event, yaml.AliasEvent):
            raise ValueError("it has a reference (*), which settings do not need")
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > MOST_DEEP:
            raise ValueError(f"it is nested more than {MOST_DEEP} deep")
    return OmegaConf.create(text)


def to_cell(settings: Any) -> Cell:
    """The cell of composed or stored settings.

    Raises:
        UserError: a value that no training and no extraction can use.
        OmegaConfBaseException: an unknown key or a value of the wrong type.
    """
    schema = OmegaConf.structured(Cell)
    # OmegaConf marks frozen dataclasses read-only, also for merging.
    sections = [schema[name] for name in (*GROUPS, "data", "extract", "similarity", "paths")]
    for node in (schema, schema.task.clip, *sections):
        OmegaConf.set_readonly(node, False)

    cell = OmegaConf.to_object(OmegaConf.merge(schema, settings))
    assert isinstance(cell, Cell)
    _check_values(cell)
    return cell


_RANGES: dict[str, tuple[float, float]] = {
    "protocol.hidden": (1, 65536),
    "protocol.lr": (1e-12, 100),
    "protocol.layer_weights_lr": (1e-12, 100),
    "protocol.batch_size": (1, 10**6),
    "protocol.frame_batch_size": (1, 10**7),
    "protocol.max_epochs": (1, 10**6),
    "protocol.patience": (1, 10**6),
    "extract.batch_seconds": (0.01, 10**6),
    "extract.n_workers": (0, 1024),
    "extract.shard_clips": (1, 10**7),
    "extract.shard_seconds": (0.01, 10**6),
    "similarity.n_tracks": (2, 10**6),
    "similarity.frame_s": (1e-3, 3600),
    "similarity.folds": (2, 100),
    "similarity.seed": (0, 2**32 - 1),
    "data.scale": (1e-3, 1000),
    "task.clip.seconds": (0.02, 36000),  # a frame of the fastest backbone is 0.01 s, MusicFM's 0.04
    "task.clip.tail_seconds": (0.01, 36000),
    "launcher.nodes": (1, 10**4),
    "launcher.gpus_per_node": (1, 256),
    "launcher.cpus_per_task": (1, 1024),
    "launcher.array_parallelism": (1, 10**6),
    "launcher.cells_per_task": (1, 10**4),
    "launcher.signal_delay_s": (10, 65535),  # what sbatch takes
    "launcher.requeue": (0, 1000),
    "logger.timeout_s": (1, 3600),
    "seed": (0, 2**32 - 1),
}
_CHOICES = {
    "launcher.name": LAUNCHERS,
    "extract.precision": PRECISION_SETTINGS,
    "logger.mode": LOGGER_MODES,
    "similarity.weights": ("input", "layer", "mean"),
    "data.labels": ("given", "shuffled"),
    "protocol.track_score": ("logits", "probabilities"),
    "protocol.layer_weights_init": ("zeros", "normal"),
}
_NAMES = ("model.name", "task.name", "protocol.name")
_CARD = ("label", "licence", "note")


def _check_values(cell: Cell) -> None:
    """Refuses what no training and no extraction can use."""
    for name, (low, high) in _RANGES.items():
        value = attrgetter(name)(cell)
        if value is None or low <= value <= high:
            continue
        if value <= 0 < low:
            raise UserError(f"{name} must be more than 0, found {value}")
        raise UserError(f"{name} must be from {low} to {high}, found {value}")

    for name, choices in _CHOICES.items():
        choice = attrgetter(name)(cell)
        if choice not in choices:
            raise UserError(f"unknown {name} {choice!r}. Known: {', '.join(choices)}")

    pooling = cell.extract.pooling
    is_rate = _ROW_RATE.fullmatch(pooling) and 0.01 <= float(pooling[:-2]) <= MOST_ROW_RATE
    if pooling != CLIP and not is_rate:
        raise UserError(
            f"extract.pooling must be clip or a rate such as 1Hz, from 0.01Hz to "
            f"{MOST_ROW_RATE:g}Hz, found {pooling!r}"
        )

    unknown = [name for name in cell.similarity.inputs if name not in SIMILARITY_INPUTS]
    if unknown:
        raise UserError(
            f"unknown similarity.inputs {unknown[0]!r}. Known: {', '.join(SIMILARITY_INPUTS)}"
        )
    if not 0 <= cell.protocol.dropout < 1:
        raise UserError(
            f"protocol.dropout must be from 0 up to below 1, found {cell.protocol.dropout}"
        )
    for name in ("data.root", "paths.data", "paths.features", "paths.runs"):
        if attrgetter(name)(cell) == "":  # such as that of a variable that is not set
            raise UserError(f"{name} is empty: set it to a folder, or leave it out")
    _check_names(cell)


def _check_names(cell: Cell) -> None:
    """Refuses names that cannot be a folder's, and a model without a class or with half a card."""
    names = (cell.model.get("name"), cell.task.name, cell.protocol.name)
    for key, name in zip(_NAMES, names, strict=True):
        if not isinstance(name, str) or not re.fullmatch(r"\w[\w.+-]{0,47}", name):
            raise UserError(
                f"{key} must be a name of at most 48 letters, digits, - _ . or +, since folders are"
                f" called by it, found {name!r}"
            )

    if not isinstance(cell.model.get("_target_"), str):
        raise UserError(
            f"model._target_ must be the class of {cell.model['name']}, as in conf/model/fcpe.yaml,"
            f" found {cell.model.get('_target_')!r}"
        )
    card = cell.model.get("card", dict.fromkeys(_CARD, ""))
    whole = isinstance(card, Mapping) and all(isinstance(card.get(key), str) for key in _CARD)
    if not whole:
        raise UserError(
            f"model.card must have the texts {', '.join(_CARD)}, found {card!r}: complete it, or "
            "leave all of it out with '~model.card'"
        )
