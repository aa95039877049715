"""Settings: composed by Hydra from `conf/`, checked here once, trusted everywhere else.

Conventions: the command line speaks Hydra's override syntax, through the compose API only (no working directory is changed,
no argument is taken from Hydra). One composed `Config` is one cell: one model, one task, one protocol, one seed. A comma
list in an override stands for one cell per value.
"""

import difflib
import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from datamodules.clips import ClipRule
from datamodules.demo.corpus import demo_root
from datamodules.errors import UserError

GROUPS = ("model", "task", "protocol", "launcher", "logger")
LOGGER_MODES = ("auto", "online", "offline", "disabled")
RESULTS_VERSION = 1  # raised when a change of code changes numbers; part of every cell's hash


@dataclass(frozen=True)
class TaskConfig:
    """conf/task: `_target_` is the LightningDataModule's class path, `options` are further arguments of it.

    `metric` chooses epochs; `metrics` are reported, where they are not just that one.
    """

    name: str = MISSING
    label: str = MISSING
    group: str = MISSING
    _target_: str = MISSING
    folder: str = MISSING
    demo: str | None = None
    metric: str = MISSING
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
class Config:
    """One cell with everything it needs. `model` is what its class is built with, beside `name`, `_target_` and `card`."""

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

    @property
    def model_name(self) -> str:
        """The backbone's name, with the control it is, such as `fcpe` or `fcpe-random`."""
        weights = self.model.get("weights")
        return f"{self.model['name']}-random" if weights == "random" else str(self.model["name"])

    @property
    def metrics(self) -> list[str]:
        """Names of the metrics that are reported."""
        return self.task.metrics or [self.task.metric]

    @property
    def is_demo(self) -> bool:
        """Whether the data is the rendered stand-in."""
        return self.data.root is None and self.task.demo is not None

    @property
    def hash(self) -> str:
        """12 hex digits over everything that changes results."""
        return hashlib.sha256(json.dumps(self.identity(), sort_keys=True).encode()).hexdigest()[:12]

    def identity(self) -> dict[str, Any]:
        """The settings that change results: model, task, protocol, seed, data, and the content of tables named in options."""
        task = {key: value for key, value in asdict(self.task).items() if key not in ("label", "group", "demo")}
        root = demo_root(Path(), self.data.scale).name if self.is_demo else str(Path(self.data.root or ".").resolve())
        paths = {name: Path(value) for name, value in self.task.options.items() if isinstance(value, str)}
        tables = {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in paths.items() if path.is_file()}
        return {
            "model": {key: value for key, value in self.model.items() if key != "card"},
            "task": task,
            "protocol": asdict(self.protocol),
            "seed": self.seed,
            "data": {"root": root, "exclude": sorted(self.data.exclude), "tables": tables},
            "version": RESULTS_VERSION,
        }

    @property
    def folder(self) -> Path:
        """Where the cell's results go: `runs/<model>/<task>/<protocol>-s<seed>-<hash>`."""
        return Path(self.paths.runs) / self.model_name / self.task.name / f"{self.protocol.name}-s{self.seed}-{self.hash}"


def conf_dir() -> Path:
    """The folder `conf`: inside the package when installed, beside it in a checkout."""
    package = Path(__file__).resolve().parent
    return next(path for path in (package / "conf", package.parent / "conf") if path.is_dir())


def known(group: str) -> list[str]:
    """Names in a config group, such as all models."""
    return sorted(path.stem for path in (conf_dir() / group).glob("*.yaml"))


def all_tasks() -> list[str]:
    """What `task=all` means: every task file but `manifest`, which is the user's own data."""
    return [name for name in known("task") if name != "manifest"]


def compose_cell(overrides: Sequence[str]) -> Config:
    """One cell from Hydra overrides without comma lists.

    Raises:
        UserError: an unknown key, group or name (the nearest known one is given), or a value of the wrong type.
    """
    for override in overrides:
        _check_name(override)
    try:
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            composed = compose("config", overrides=list(overrides))
        return _to_cell(OmegaConf.to_container(composed, resolve=True))
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(_explain(error)) from error


def compose_cells(arguments: Sequence[str]) -> list[Config]:
    """Every cell that a command line asks for: the product of its comma lists, each model preceded by the baseline.

    Args:
        arguments: Hydra overrides; `task=all` stands for all tasks, no `task=` for the list `tasks` of the configuration.
    """
    overrides = [f"task={','.join(all_tasks())}" if argument == "task=all" else argument for argument in arguments]
    for override in overrides:
        _check_name(override)
    first = compose_cell([choice[0] for choice in _choices(overrides)])
    if not any(_key(override) == "task" for override in overrides):
        overrides.append(f"task={','.join(first.tasks)}")
    cells: dict[str, Config] = {}
    for choice in _product(_choices(overrides)):
        if first.baseline is not None:
            cell = compose_cell([*(o for o in choice if not _is_model(o)), f"model={first.baseline}"])
            cells.setdefault(cell.hash, replace(cell, is_baseline=True))
        cell = compose_cell(choice)
        cells.setdefault(cell.hash, cell)
    return list(cells.values())


def write_cell(cell: Config) -> str:
    """A cell as YAML text, from which `read_cell` makes an equal one."""
    return OmegaConf.to_yaml(OmegaConf.create(asdict(cell)))


def read_cell(path: Path) -> Config:
    """The cell of a YAML file.

    Raises:
        UserError: the file is missing or is not a cell.
    """
    try:
        return _to_cell(OmegaConf.load(path))
    except (OSError, ValueError, YAMLError, OmegaConfBaseException) as error:
        raise UserError(f"{path} is not a cell file ({' '.join(str(error).split())}): make one with `mirprobe sweep`") from error


def _to_cell(settings: Any) -> Config:
    schema = OmegaConf.structured(Config)
    for node in (schema, schema.task.clip, *(schema[section] for section in (*GROUPS, "data", "extract", "paths"))):
        OmegaConf.set_readonly(node, False)  # OmegaConf marks frozen dataclasses read-only, also for merging
    cell = OmegaConf.to_object(OmegaConf.merge(schema, settings))
    assert isinstance(cell, Config)
    _check_values(cell)
    return cell


def _check_values(cell: Config) -> None:
    """Refuses what no training and no extraction can use."""
    positive = {
        "protocol": ("hidden", "lr", "layer_weights_lr", "batch_size", "frame_batch_size", "max_epochs", "patience"),
        "extract": ("batch_seconds", "shard_clips", "shard_seconds"),
        "data": ("scale",),
    }
    values = {f"{section}.{name}": getattr(getattr(cell, section), name) for section, names in positive.items() for name in names}
    values |= {"task.clip.seconds": cell.task.clip.seconds, "task.clip.tail_seconds": cell.task.clip.tail_seconds}
    for name, value in values.items():
        if value is not None and not 0 < value < math.inf:
            raise UserError(f"{name} must be more than 0, found {value}")
    if not 0 <= cell.seed < 2**32:
        raise UserError(f"seed must be from 0 to {2**32 - 1}, found {cell.seed}")
    if cell.extract.n_workers is not None and cell.extract.n_workers < 0:
        raise UserError(f"extract.n_workers must be 0 or more, found {cell.extract.n_workers}")
    if cell.logger.mode not in LOGGER_MODES:
        raise UserError(f"unknown logger.mode {cell.logger.mode!r}. Known: {', '.join(LOGGER_MODES)}")
    if not 0 <= cell.protocol.dropout < 1:
        raise UserError(f"protocol.dropout must be from 0 up to below 1, found {cell.protocol.dropout}")
    if cell.protocol.track_score not in ("logits", "probabilities"):
        raise UserError(f"protocol.track_score must be logits or probabilities, found {cell.protocol.track_score!r}")
    if cell.protocol.layer_weights_init not in ("zeros", "normal"):
        raise UserError(f"protocol.layer_weights_init must be zeros or normal, found {cell.protocol.layer_weights_init!r}")


def _choices(overrides: Sequence[str]) -> list[list[str]]:
    try:
        parsed = OverridesParser.create().parse_overrides(list(overrides))
    except HydraException as error:
        raise UserError(_explain(error)) from error
    return [
        [f"{one.get_key_element()}={value}" for value in one.sweep_string_iterator()] if one.is_sweep_override() else [override]
        for one, override in zip(parsed, overrides, strict=True)
    ]


def _product(choices: Sequence[Sequence[str]]) -> list[list[str]]:
    product: list[list[str]] = [[]]
    for options in choices:
        product = [[*chosen, option] for chosen in product for option in options]
    return product


def _key(override: str) -> str:
    return re.split(r"[=@]", override.lstrip("+~"), maxsplit=1)[0]


def _is_model(override: str) -> bool:
    return _key(override) == "model" or _key(override).startswith("model.")


def _check_name(override: str) -> None:
    """Refuses what Hydra would answer with several lines: a word without `=`, an unknown key or name."""
    if not _key(override) or _key(override).startswith("hydra"):
        raise UserError(f"{override!r} is not a setting: write key=value, such as model=fcpe")
    if "=" not in override and not override.startswith("~"):
        raise UserError(f"{override!r} is not a setting: write key=value, such as model=fcpe")
    key, value = _key(override), override.partition("=")[2]
    if key in GROUPS:
        for name in value.split(","):
            if name not in known(key):
                raise UserError(f"unknown {key} {name!r}{_nearest(name, known(key))}. Known: {', '.join(known(key))}")


def _explain(error: Exception) -> str:
    text = " ".join(str(error).split())
    unknown = re.search(r"Could not override '([^']+)'", text)
    if unknown:
        key = unknown.group(1)
        return f"unknown setting {key!r}{_nearest(key, _known_keys())}. See conf/config.yaml, or `mirprobe list`"
    text = re.sub(r" full_key: (\S+).*| See https.*", lambda match: f" ({match.group(1)})" if match.group(1) else "", text)
    return f"the settings do not fit: {text}. See the comments in conf/"


def _known_keys() -> list[str]:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        container = OmegaConf.to_container(compose("config"), resolve=False)
    return _flatten(container) if isinstance(container, Mapping) else []


def _flatten(tree: Mapping[Any, Any], prefix: str = "") -> list[str]:
    keys = []
    for key, value in tree.items():
        keys.append(f"{prefix}{key}")
        if isinstance(value, Mapping):
            keys += _flatten(value, f"{prefix}{key}.")
    return keys


def _nearest(name: str, names: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, names, n=1)
    return f", did you mean {close[0]!r}?" if close else ""
