"""The probes of one cell: stored features into rows.

Conventions: files of a cell are written before its rows, which say that it is done. Val and test
are scored with the same weights; train is never scored.
"""

import importlib.metadata
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch

from datamodules.errors import UserError
from datamodules.features.frames import FrameFeatures, open_features
from datamodules.features.memory import MemoryFeatures, load_features
from datamodules.features.store import FeatureStore, parse_store_id
from datamodules.files import atomic
from datamodules.task import TaskDataModule
from datamodules.tracks import Split
from mirprobe.assembly import probe_accelerator
from mirprobe.cell import STORE, Cell
from mirprobe.probing.bank import BankSize, ProbeBank, all_heads
from mirprobe.probing.kinds import KINDS
from mirprobe.probing.training import TrainedBank, train_bank
from mirprobe.progress import ProgressReport
from mirprobe.provenance import MadeOf, Result
from mirprobe.results import Row, write_rows
from mirprobe.scoring.intervals import bootstrap
from mirprobe.scoring.metrics import metric_named, predictions, score_once

SCORED: tuple[Split, ...] = ("val", "test")
_PACKAGES = ("mirprobe", "torch", "lightning", "torchmetrics", "numpy")


def probe(cell: Cell, data: TaskDataModule, store: FeatureStore, place: Result) -> list[Row]:
    """Trains the bank of a cell on stored features and writes its files and rows.

    Args:
        cell: to work on.
        data: of the cell's task; its `features` are set here.
        store: that holds the features of the task's tracks.
        place: where the results go, and what they are made of.

    Raises:
        UserError: a broken shard, or features that are missing.
    """
    L.seed_everything(cell.seed, workers=False, verbose=False)
    data.features = _features(cell, data, store)
    bank = _make_bank(cell, data)

    what = f"probes of {cell.model_name} for {cell.task.name}"
    epochs = cell.protocol.max_epochs
    with ProgressReport(what, epochs, "epochs at most", passing=True) as progress:
        trained = train_bank(
            bank,
            data,
            metric_named(cell.task.select_by),
            cell.protocol,
            lambda: progress.advance(1),
            accelerator=probe_accelerator(cell),
        )

    rows = []
    for metric in cell.metrics:
        for split in SCORED:
            rows += _rows(cell, place.made_of, bank, data, trained, metric, split)
    _write_files(place.folder, bank, data, trained)
    write_rows(place.folder, rows)

    del data.features  # they may take gigabytes, and the next task has others
    return rows


def open_store(cell: Cell, before: FeatureStore | None = None) -> FeatureStore:
    """The store that extraction has filled for a cell, by the id that it left in its folder.

    Args:
        cell: whose features are wanted.
        before: a store that is open already, which is taken if it is the one.

    Raises:
        UserError: nothing was extracted for the cell yet.
    """
    path = cell.folder / STORE
    remedy = "run `mirprobe extract` with the same settings"
    if not path.is_file():
        raise UserError(f"no features of {cell.model_name} for {cell.task.name} yet: {remedy}")
    try:
        store_id = parse_store_id(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} does not name a feature store ({error}): {remedy}") from error

    if before is not None and before.id == store_id:
        return before
    return FeatureStore(Path(cell.paths.features), store_id)


def _features(
    cell: Cell, data: TaskDataModule, store: FeatureStore
) -> MemoryFeatures | FrameFeatures:
    tracks = data.tracks()
    if data.frame_rate is None:
        return load_features(store, tracks, batch_size=cell.protocol.batch_size, seed=cell.seed)
    return open_features(
        store,
        tracks,
        n_classes=len(data.classes),
        frame_rate=data.frame_rate,
        batch_size=cell.protocol.frame_batch_size,
        seed=cell.seed,
    )


def _make_bank(cell: Cell, data: TaskDataModule) -> ProbeBank:
    n_layers, dim = data.features.shape[0] - 1, data.features.shape[1]
    size = BankSize(n_layers, dim, cell.protocol.hidden, len(data.classes))
    return ProbeBank(
        all_heads(n_layers, seed=cell.seed),
        size,
        dropout=cell.protocol.dropout,
        layer_weights_init=cell.protocol.layer_weights_init,
    )


def _rows(
    cell: Cell,
    made_of: MadeOf,
    bank: ProbeBank,
    data: TaskDataModule,
    trained: TrainedBank,
    name: str,
    split: Split,
) -> list[Row]:
    """One row for each head: its score on a split by the metric of that name."""
    metric = metric_named(name)
    target = data.features.splits[split].track_target
    predicted = predictions(metric.kind, trained.outputs[split])
    value = score_once(metric, predicted, target)
    low, high = bootstrap(metric.score, predicted, target, seed=cell.seed)

    n_tracks = len(target)
    n_expected = n_tracks if data.is_demo else data.expected.get(split, n_tracks)
    score_majority = KINDS[data.kind].majority
    majority = None if score_majority is None else score_majority(metric, target)
    versions = {package: importlib.metadata.version(package) for package in _PACKAGES}

    rows = []
    for h, head in enumerate(bank.heads):
        start, end = _layer_weights(bank, trained, h)
        row = Row(
            model=cell.model_name,
            task=cell.task.name,
            metric=name,
            head=head.name,
            layer=head.layer,
            split=split,
            seed=cell.seed,
            protocol=cell.protocol.name,
            value=value[h].item(),
            ci_low=low[h].item(),
            ci_high=high[h].item(),
            n_tracks=n_tracks,
            n_expected=n_expected,
            majority=majority,
            epoch=int(trained.epoch[h]),
            selected_by=f"val/{cell.task.select_by}",
            weights_start=start,
            weights_end=end,
            demo=data.is_demo,
            config_hash=cell.hash,
            store_hash=made_of.store,
            weights=made_of.weights,
            tracks_hash=made_of.tracks,
            versions=versions,
        )
        rows.append(row)
    return rows


def _layer_weights(
    bank: ProbeBank, trained: TrainedBank, head: int
) -> tuple[list[float] | None, list[float] | None]:
    """Softmax layer weights of a head at start and end; None for a head without any."""
    if head not in bank.weighted:
        return None, None
    row = bank.weighted.index(head)
    return trained.weights_start[row].tolist(), trained.weights_end[row].tolist()


def _write_files(folder: Path, bank: ProbeBank, data: TaskDataModule, trained: TrainedBank) -> None:
    """The trained probes, and their outputs for every val and test track."""
    with atomic(folder / "probes.pt") as temporary:
        torch.save(bank.state_dict(), temporary)

    arrays: dict[str, Any] = {"heads": np.array([head.name for head in bank.heads])}
    for split in SCORED:
        tracks = data.features.splits[split]
        arrays[f"{split}_track_ids"] = np.array(tracks.track_ids)
        arrays[f"{split}_target"] = tracks.track_target.numpy()
        outputs = trained.outputs[split].numpy()
        if KINDS[data.kind].by_frames:
            arrays[f"{split}_confusion"] = outputs
        else:
            arrays[f"{split}_logits"] = outputs.astype(np.float16)
    with atomic(folder / "predictions.npz") as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)
