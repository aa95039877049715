"""The parts of a cell's settings, each a group or a section of `conf/`; every key is said there.

Conventions: what is MISSING has no default but that of `conf/`. Ranges and choices are checked
where a cell is made.
"""

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from datamodules.audio.clips import ClipRule
from datamodules.errors import UserError


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
    linear: bool = MISSING


@dataclass(frozen=True)
class DataConfig:
    """Where the datasets are."""

    root: str | None = None
    scale: float = 1.0
    labels: str = "given"
    exclude: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class ExtractConfig:
    """How features are extracted; only `precision` and `pooling` change numbers."""

    precision: str = MISSING
    pooling: str = MISSING

    batch_seconds: float | None = MISSING
    n_workers: int | None = MISSING
    shard_clips: int = MISSING
    shard_seconds: float = MISSING


@dataclass(frozen=True)
class SimilarityConfig:
    """What layers are held against, on which tracks; no score of a probe depends on it."""

    inputs: list[str] = field(default_factory=list)
    layers: bool = MISSING
    weights: str = MISSING
    n_tracks: int = MISSING
    frame_s: float = MISSING
    folds: int = MISSING
    seed: int = MISSING


@dataclass(frozen=True)
class PathsConfig:
    """Where mirprobe writes."""

    data: str = MISSING
    features: str = MISSING
    runs: str = MISSING


@dataclass(frozen=True)
class LauncherConfig:
    """conf/launcher: where it runs; what has a value here is for SLURM alone.

    `devices` are processes of one node. What is null leaves its line out of SLURM's scripts, where
    the cluster's default then holds.
    """

    name: str = "local"
    accelerator: str = MISSING
    devices: Any = MISSING
    nodes: int = 1
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    time: str | None = None
    gpus_per_node: int | None = None
    cpus_per_task: int | None = None
    mem: str | None = None
    constraint: str | None = None
    exclude: str | None = None
    array_parallelism: int = 1
    cells_per_task: int = 1
    setup: list[str] = field(default_factory=list)
    sbatch: dict[str, Any] = field(default_factory=dict)
    signal_delay_s: int = 120
    requeue: int = 0


@dataclass(frozen=True)
class LoggerConfig:
    """conf/logger: the dashboard."""

    mode: str = MISSING
    project: str = MISSING
    entity: str | None = None
    timeout_s: int = MISSING


def tasks_per_node(launcher: LauncherConfig) -> int:
    """Processes of a node that extract: `launcher.devices`, where auto is one for each GPU.

    Raises:
        UserError: `launcher.devices` is neither auto nor a number, or not that of the GPUs.
    """
    devices, n_gpus = launcher.devices, launcher.gpus_per_node
    if devices == "auto":
        return n_gpus or 1
    if not isinstance(devices, int) or isinstance(devices, bool) or devices < 1:
        raise UserError(
            f"launcher.devices must be auto or a number of processes, found {devices!r}"
        )
    if n_gpus is not None and devices != n_gpus and launcher.accelerator != "cpu":
        raise UserError(
            f"launcher.devices={devices}, but launcher.gpus_per_node={n_gpus}: a process has a GPU "
            "of its own, so set launcher.devices=auto"
        )
    return devices
