"""Probes of one cell: features into rows."""

import importlib.metadata
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch

from datamodules.features.store import StoreKey
from datamodules.files import atomic, write_text
from datamodules.task import TaskDataModule
from datamodules.tracks import SPLITS, Split
from mirprobe.assembly import make_data, probe_accelerator
from mirprobe.cell import Cell, write_cell
from mirprobe.probing.bank import BankSize, ProbeBank, all_heads
from mirprobe.probing.controls import majority
from mirprobe.probing.training import TrainedBank, train_bank
from mirprobe.progress import ProgressReport
from mirprobe.results import Row, write_rows
from mirprobe.scoring.intervals import bootstrap
from mirprobe.scoring.metrics import metric_named, predictions, score_once

_PACKAGES = ("mirprobe", "torch", "lightning", "torchmetrics", "numpy")


def run_probes(cell: Cell, key: StoreKey) -> list[Row]:
    """Trains the bank of a cell on stored features and writes its files and rows."""
    L.seed_everything(cell.seed, workers=False, verbose=False)
    data = make_data(cell)
    store = Path(cell.paths.features) / key.folder
    batch_size = (
        cell.protocol.frame_batch_size if data.kind == "frames" else cell.protocol.batch_size
    )
    data.load_features(store, key, batch_size=batch_size, seed=cell.seed)
    n_layers, dim = data.feature_shape[0] - 1, data.feature_shape[1]
    size = BankSize(n_layers, dim, cell.protocol.hidden, len(data.classes), cell.protocol.dropout)
    bank = ProbeBank(
        all_heads(n_layers),
        size,
        seed=cell.seed,
        normal_start=cell.protocol.layer_weights_init == "normal",
    )
    what, epochs = f"probes of {cell.model_name} for {cell.task.name}", cell.protocol.max_epochs
    with ProgressReport(what, epochs, "epochs at most", passing=True) as progress:
        trained = train_bank(
            bank, data, metric_named(cell.task.select_by), cell.protocol, lambda: progress.advance(1),
            accelerator=probe_accelerator(cell),
        )  # fmt: skip
    splits: tuple[Split, ...] = ("val", "test")
    rows = [
        row
        for name in cell.metrics
        for split in splits
        for row in _rows(cell, key, bank, data, trained, name, split)
    ]
    _write_files(cell, bank, data, trained)
    write_rows(cell.folder, rows)
    return rows


def _rows(
    cell: Cell,
    key: StoreKey,
    bank: ProbeBank,
    data: TaskDataModule,
    trained: TrainedBank,
    name: str,
    split: Split,
) -> list[Row]:
    metric, target = metric_named(name), data.split(split).track_target
    predicted = predictions(metric.kind, trained.said[split])
    value = score_once(metric, predicted, target)
    low, high = bootstrap(metric.score, predicted, target, seed=cell.seed)
    weighted = [head.layer is None for head in bank.heads]
    return [
        Row(
            model=cell.model_name, task=cell.task.name, metric=name, head=head.name, layer=head.layer, split=split,
            seed=cell.seed, protocol=cell.protocol.name, value=value[h].item(), ci_low=low[h].item(), ci_high=high[h].item(),
            n_tracks=len(target), n_expected=len(target) if data.is_demo else data.expected.get(split, len(target)),
            majority=majority(metric, target),
            epoch=int(trained.epoch[h]), selected_by=f"val/{cell.task.select_by}",
            weights_start=trained.weights_start[h].tolist() if weighted[h] else None,
            weights_end=trained.weights_end[h].tolist() if weighted[h] else None,
            demo=data.is_demo, config_hash=cell.hash, store_hash=key.hash,
            versions={package: importlib.metadata.version(package) for package in _PACKAGES},
        )
        for h, head in enumerate(bank.heads)
    ]  # fmt: skip


def _write_files(cell: Cell, bank: ProbeBank, data: TaskDataModule, trained: TrainedBank) -> None:
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
