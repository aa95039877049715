"""What one cell needs: its data, its backbone, its features, its rows.

Conventions: a cell is a value (`mirprobe.config.Config`); everything here follows from it. The backbone is only built where
features are missing or have to be identified. Files of a cell are written before its rows, which say that it is done.
"""

import importlib.metadata
from datetime import timedelta
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from hydra.errors import HydraException
from hydra.utils import get_class, instantiate
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor

from datamodules.base import TaskDataModule
from datamodules.card import Card
from datamodules.clips import SPLITS, Split
from datamodules.demo.corpus import demo_root
from datamodules.download import fetch_archives, is_fetched
from datamodules.errors import UserError
from datamodules.files import atomic, write_text
from datamodules.store import StoreKey
from mirprobe.backbones.backbone import Backbone
from mirprobe.backbones.hub import fetch
from mirprobe.bank import BankSize, ProbeBank, all_heads
from mirprobe.config import Config, write_cell
from mirprobe.extract import extract, store_key
from mirprobe.launchers import n_devices, probe_accelerator
from mirprobe.metrics import METRICS, TrackMetric, metric_named, predict, score_once
from mirprobe.progress import ProgressReport
from mirprobe.results import Row, write_rows
from mirprobe.stats import bootstrap
from mirprobe.training import TrainedBank, train_bank

_PACKAGES = ("mirprobe", "torch", "lightning", "torchmetrics", "numpy")


def data_root(cell: Config) -> Path:
    """Folder with the datasets: the user's, or the demo corpus."""
    if cell.is_demo:
        return demo_root(Path(cell.paths.data), cell.data.scale)
    return Path(cell.data.root or ".")


def make_data(cell: Config) -> TaskDataModule:
    """The LightningDataModule of the cell's task."""
    root = data_root(cell) / cell.task.folder
    fixed = {"_target_": cell.task._target_, "root": root, "clip": cell.task.clip, "exclude": cell.data.exclude}
    settings = {**cell.task.options, **fixed}
    data = _instantiate(settings)
    assert isinstance(data, TaskDataModule)
    for name in (cell.task.metric, *cell.metrics):
        if metric_named(name).kind != data.kind:
            fitting = ", ".join(known for known, metric in METRICS.items() if metric.kind == data.kind)
            raise UserError(f"task.metric={name} does not fit {cell.task.name}, a {data.kind} task: set one of {fitting}")
    return data


def make_backbone(cell: Config) -> Backbone:
    """The cell's frozen backbone, on the CPU.

    Raises:
        UserError: its weights are missing or wrong, or its settings do not fit its class.
    """
    backbone = _instantiate({key: value for key, value in cell.model.items() if key not in ("name", "card")})
    assert isinstance(backbone, Backbone)
    return backbone


def fetch_weights(cell: Config) -> Path | None:
    """Downloads the published weights of the cell's backbone; None where there is nothing to download.

    Raises:
        UserError: they cannot be downloaded, or are not the published ones.
    """
    backbone = get_class(cell.model["_target_"])
    variants = getattr(backbone, "variants", {})
    if variants and cell.model.get("weights") not in variants:
        raise UserError(f"unknown model.weights={cell.model.get('weights')}: set it to one of {', '.join(variants)}")
    variant = variants.get(cell.model.get("weights"))
    return fetch(variant.file) if variant is not None and variant.file is not None else None


def card_of(cell: Config) -> Card:
    """What is said about the cell's dataset, whether or not it is on this machine."""
    task: type[TaskDataModule] = get_class(cell.task._target_)
    unsaid = "not stated"
    return task.card or Card(cell.task.name, unsaid, unsaid, obtain=f"{cell.task._target_} has no card that says how")


def fetch_data(cell: Config) -> Path:
    """Downloads the public archives of the cell's dataset into its folder under data.root; returns the folder.

    Raises:
        UserError: data.root is not set, or as `datamodules.download.fetch_archives`.
    """
    if cell.data.root is None:
        raise UserError("datasets need a place: add data.root=DIR, the folder in which each has a folder of its own")
    folder, archives = Path(cell.data.root) / cell.task.folder, card_of(cell).archives
    if is_fetched(archives, folder):
        return folder
    with ProgressReport(f"downloading {cell.task.folder}", 0, "MB") as progress:

        def count(done: int, total: int) -> None:
            progress.total = total // 10**6
            if done // 10**6 != progress.done:
                progress.advance(done // 10**6 - progress.done)

        fetch_archives(archives, folder, progress=count, say=lambda text: print(text, flush=True))
    return folder


def _instantiate(settings: dict[str, Any]) -> Any:
    try:
        return instantiate(settings, _convert_="object")
    except HydraException as error:
        if isinstance(error.__cause__, UserError):
            raise error.__cause__ from error
        raise UserError(f"{settings['_target_']} does not take these settings: {' '.join(str(error).split())}") from error


def store_key_of(cell: Config, backbone: Backbone) -> StoreKey:
    """The key of the store that holds the cell's features."""
    return store_key(backbone, cell.model_name, make_data(cell))


def extract_features(cell: Config, backbone: Backbone) -> StoreKey:
    """Makes sure that the cell's features are stored; returns their key."""
    data = make_data(cell)
    key = store_key(backbone, cell.model_name, data)
    devices = n_devices(cell)
    strategy = DDPStrategy(timeout=timedelta(days=7)) if devices > 1 else "auto"  # ranks wait for the slowest at the end
    extract(
        backbone, key, data, Path(cell.paths.features) / key.folder, cell.extract,
        accelerator=cell.launcher.accelerator, devices=devices, strategy=strategy,
    )  # fmt: skip
    return key


def run_probes(cell: Config, key: StoreKey) -> list[Row]:
    """Trains the bank of a cell on stored features and writes its files and rows."""
    L.seed_everything(cell.seed, workers=False, verbose=False)
    data = make_data(cell)
    store = Path(cell.paths.features) / key.folder
    batch_size = cell.protocol.frame_batch_size if data.kind == "frames" else cell.protocol.batch_size
    data.load_features(store, key, batch_size=batch_size, seed=cell.seed)
    n_layers, dim = data.feature_shape[0] - 1, data.feature_shape[1]
    size = BankSize(n_layers, dim, cell.protocol.hidden, len(data.classes), cell.protocol.dropout)
    bank = ProbeBank(all_heads(n_layers), size, seed=cell.seed, normal_start=cell.protocol.layer_weights_init == "normal")
    what, epochs = f"probes of {cell.model_name} for {cell.task.name}", cell.protocol.max_epochs
    with ProgressReport(what, epochs, "epochs at most", passing=True) as progress:
        trained = train_bank(
            bank, data, metric_named(cell.task.metric), cell.protocol, lambda: progress.advance(1),
            accelerator=probe_accelerator(cell),
        )  # fmt: skip
    splits: tuple[Split, ...] = ("val", "test")
    rows = [row for name in cell.metrics for split in splits for row in _rows(cell, key, bank, data, trained, name, split)]
    _write_files(cell, bank, data, trained)
    write_rows(cell.folder, rows)
    return rows


def _rows(
    cell: Config, key: StoreKey, bank: ProbeBank, data: TaskDataModule, trained: TrainedBank, name: str, split: Split
) -> list[Row]:
    metric, target = metric_named(name), data.split(split).track_target
    predicted = predict(metric.kind, trained.said[split])
    value = score_once(metric, predicted, target)
    low, high = bootstrap(metric.score, predicted, target, seed=cell.seed)
    weighted = [head.layer is None for head in bank.heads]
    return [
        Row(
            model=cell.model_name, task=cell.task.name, metric=name, head=head.name, layer=head.layer, split=split,
            seed=cell.seed, protocol=cell.protocol.name, value=value[h].item(), ci_low=low[h].item(), ci_high=high[h].item(),
            n_tracks=len(target), n_expected=len(target) if data.is_demo else data.expected.get(split, len(target)),
            majority=_majority(metric, target),
            epoch=int(trained.epoch[h]), selected_by=f"val/{cell.task.metric}",
            weights_start=trained.weights_start[h].tolist() if weighted[h] else None,
            weights_end=trained.weights_end[h].tolist() if weighted[h] else None,
            demo=data.is_demo, config_hash=cell.hash, store_hash=key.hash,
            versions={package: importlib.metadata.version(package) for package in _PACKAGES},
        )
        for h, head in enumerate(bank.heads)
    ]  # fmt: skip


def _majority(metric: TrackMetric, target: Tensor) -> float | None:
    """Share of the largest class; for frames the score of always saying it; None where there are no classes."""
    if metric.kind == "classification":
        return target.bincount().max().item() / len(target)
    if metric.kind == "frames":
        said = torch.zeros(1, *target.shape, target.shape[1], dtype=torch.int64)
        said[..., target.sum(dim=0).argmax()] = target
        return score_once(metric, said, target).item()
    return None


def _write_files(cell: Config, bank: ProbeBank, data: TaskDataModule, trained: TrainedBank) -> None:
    """Settings, the trained probes, and what they say of every val and test track."""
    write_text(cell.folder / "config.yaml", write_cell(cell))
    with atomic(cell.folder / "probes.pt") as temporary:
        torch.save(bank.state_dict(), temporary)
    arrays: dict[str, Any] = {"heads": np.array([head.name for head in bank.heads])}
    for split in SPLITS[1:]:
        arrays[f"{split}_track_ids"] = np.array(data.split(split).track_ids)
        arrays[f"{split}_target"] = data.split(split).track_target.numpy()
        said = trained.said[split].numpy()
        if data.kind == "frames":
            arrays[f"{split}_confusion"] = said
        else:
            arrays[f"{split}_logits"] = said.astype(np.float16)
    with atomic(cell.folder / "predictions.npz") as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)
