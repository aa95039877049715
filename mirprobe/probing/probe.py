"""The probes of one cell: stored features into rows.

Conventions: files of a cell are written before its rows, which say that it is done. Val and test
are scored with the same weights; train is never scored. A head without a score is a row that says
why; a cell of which no head has one leaves no files.
"""

import importlib.metadata
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from torch import Tensor

from datamodules.errors import UserError
from datamodules.features.frames import FrameFeatures, open_features
from datamodules.features.memory import MemoryFeatures, load_features
from datamodules.features.store import FeatureStore, parse_store_id
from datamodules.files import atomic
from datamodules.task import TaskDataModule
from datamodules.tracks import SPLITS, Split, cluster_scored
from mirprobe.assembly import probe_accelerator
from mirprobe.cell import STORE, Cell
from mirprobe.probing.bank import BankSize, ProbeBank, all_heads
from mirprobe.probing.controls import best_constant
from mirprobe.probing.kinds import KINDS
from mirprobe.probing.training import TrainedBank, train_bank
from mirprobe.progress import ProgressReport
from mirprobe.provenance import MadeOf, Result
from mirprobe.results import PREDICTIONS, PROBES, SCORED, Row, write_rows
from mirprobe.scoring.intervals import Clusters, Interval, interval_of, n_telling, resample
from mirprobe.scoring.metrics import metric_named, predictions, score_of_counts, score_once

_PACKAGES = ("mirprobe", "torch", "lightning", "torchmetrics", "numpy")


class FailedCellError(UserError):
    """A cell none of whose heads has a score on val.

    Args:
        what: the model and the task.
        reasons: why, of each head.
        lr: the learning rate, which is the first suspect.

    >>> print(FailedCellError("fcpe for nsynth_pitch", ["outputs on val are not finite"], 1e30))
    no probe of fcpe for nsynth_pitch has a score: outputs on val are not finite. Look at \
protocol.lr (1e+30) and at the labels of val
    """

    def __init__(self, what: str, reasons: Sequence[str], lr: float) -> None:
        super().__init__(what, reasons, lr)
        self.what, self.lr = what, lr
        self.reasons = tuple(dict.fromkeys(reasons))

    def __str__(self) -> str:
        return (
            f"no probe of {self.what} has a score: {'; '.join(self.reasons)}. Look at protocol.lr "
            f"({self.lr:g}) and at the labels of val"
        )


def probe(cell: Cell, data: TaskDataModule, store: FeatureStore, place: Result) -> list[Row]:
    """Trains the bank of a cell on stored features and writes its files and rows.

    Args:
        cell: to work on.
        data: of the cell's task; its `features` are set here.
        store: that holds the features of the task's tracks.
        place: where the results go, and what they are made of.

    Raises:
        FailedCellError: no head has a score on val.
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

    reasons = [reason for reason in trained.failed["val"] if reason is not None]
    if len(reasons) == len(bank.heads):
        del data.features
        what = f"{cell.model_name} for {cell.task.name}"
        raise FailedCellError(what, reasons, cell.protocol.lr)

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


@dataclass(frozen=True)
class _Score:
    """A head's score with its interval, or why there is none."""

    value: float | None
    failed: str | None
    interval: Interval


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
    clusters = _clusters(data, split)
    answers = KINDS[data.kind].constants(target, len(data.classes))
    constant = best_constant(metric, answers, target)

    n_tracks = {each: len(data.features.splits[each].track_ids) for each in SPLITS}
    known = {} if data.is_demo else data.expected
    n_expected = {each: known.get(each, n_tracks[each]) for each in SPLITS}
    versions = {package: importlib.metadata.version(package) for package in _PACKAGES}

    rows = []
    for h, score in enumerate(_scores(name, trained, target, split, clusters)):
        start, end = _layer_weights(bank, trained, h)
        row = Row(
            model=cell.model_name,
            task=cell.task.name,
            metric=name,
            head=bank.heads[h].name,
            layer=bank.heads[h].layer,
            split=split,
            seed=cell.seed,
            protocol=cell.protocol.name,
            value=score.value,
            failed=score.failed,
            ci_low=score.interval.low,
            ci_high=score.interval.high,
            no_interval=score.interval.problem,
            n_left_out=score.interval.n_left_out,
            n_tracks=n_tracks,
            n_expected=n_expected,
            constant=constant,
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


def _clusters(data: TaskDataModule, split: Split) -> Clusters:
    """Which of the scored tracks of a split belong together."""
    cluster_of = cluster_scored(track for track in data.tracks() if track.split == split)
    scored = data.features.splits[split].track_ids
    return Clusters(np.array([cluster_of[name] for name in scored]))


def _scores(
    name: str, trained: TrainedBank, target: Tensor, split: Split, clusters: Clusters
) -> list[_Score]:
    """The score of each head on a split."""
    metric = metric_named(name)
    predicted = predictions(metric.kind, trained.outputs[split])
    values = score_once(metric, predicted, target).tolist()
    resamples = resample(score_of_counts(metric, predicted, target), clusters)
    telling = n_telling(target.numpy()) if metric.kind == "multilabel" else len(target)

    scores = []
    for h, (value, failed) in enumerate(zip(values, trained.failed[split], strict=True)):
        reason = failed
        if reason is None and not math.isfinite(value):
            reason = f"{name} is not defined on {split}"
        if reason is not None:
            scores.append(_Score(None, reason, Interval(None, None, None)))
            continue
        interval = interval_of(value, resamples[h], clusters, metric.scale, n_telling=telling)
        scores.append(_Score(value, None, interval))
    return scores


def _layer_weights(
    bank: ProbeBank, trained: TrainedBank, head: int
) -> tuple[list[float] | None, list[float] | None]:
    """Softmax layer weights of a head at start and end; None for one without any, or untrained."""
    if head not in bank.weighted or trained.epoch[head] == 0:
        return None, None
    row = bank.weighted.index(head)
    return trained.weights_start[row].tolist(), trained.weights_end[row].tolist()


def _write_files(folder: Path, bank: ProbeBank, data: TaskDataModule, trained: TrainedBank) -> None:
    """The trained probes, and their outputs for every val and test track."""
    with atomic(folder / PROBES) as temporary:
        torch.save(bank.state_dict(), temporary)

    arrays: dict[str, Any] = {"heads": np.array([head.name for head in bank.heads])}
    for split in SCORED:
        arrays[f"{split}_failed"] = np.array([reason or "" for reason in trained.failed[split]])
        tracks = data.features.splits[split]
        arrays[f"{split}_track_ids"] = np.array(tracks.track_ids)
        arrays[f"{split}_target"] = tracks.track_target.numpy()
        outputs = trained.outputs[split].numpy()
        if KINDS[data.kind].by_frames:
            arrays[f"{split}_confusion"] = outputs
        else:
            arrays[f"{split}_logits"] = outputs.astype(np.float16)
    with atomic(folder / PREDICTIONS) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)
