"""The probes of one cell: stored features into rows.

Conventions: files of a cell are written before its rows, which say that it is done. Val and test
are scored with the same weights; train is never scored. A head without a score is a row that says
why; a cell of which no head has one leaves no files.
"""

from collections.abc import Sequence
from itertools import product
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
from datamodules.files import atomic, write_text
from datamodules.task import TaskDataModule
from mirprobe.cell import STORE, Cell
from mirprobe.devices import probe_accelerator
from mirprobe.probing.bank import BankSize, ProbeBank, all_heads
from mirprobe.probing.kinds import KINDS
from mirprobe.probing.linear import fit_linear
from mirprobe.probing.rows import (
    ProbedHeads,
    heads_of_bank,
    heads_of_linear,
    make_rows,
    make_scan,
    score_heads,
)
from mirprobe.probing.training import train_bank
from mirprobe.progress import ProgressReport
from mirprobe.provenance import Result
from mirprobe.results import PREDICTIONS, PROBES, SCANS, SCORED, Row, write_rows
from mirprobe.scoring.metrics import metric_named
from mirprobe.scoring.scan import scans_text


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

    probes = [heads_of_bank(bank, trained)]
    if cell.protocol.linear:
        probes.append(_fit_linear(cell, data, bank))

    rows, scans = [], []
    for metric, heads in product(cell.metrics, probes):
        scores = {split: score_heads(heads, data, metric, split) for split in SCORED}
        for split in SCORED:
            rows += make_rows(cell, place.made_of, store.id.precision, data, heads, scores[split])
        scans.append(make_scan(heads, scores["val"], scores["test"]))
    _write_files(place.folder, bank, data, probes)
    write_text(place.folder / SCANS, scans_text(scans))
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


def _fit_linear(cell: Cell, data: TaskDataModule, bank: ProbeBank) -> ProbedHeads:
    """The bank's linear twin, on the states that the bank read."""
    mean, scale = bank.mean.double().cpu(), bank.scale.double().cpu()

    def standardize(features: Tensor) -> Tensor:
        return (features.double() - mean) * scale

    metric = metric_named(cell.task.select_by)
    found = fit_linear(data.features, metric, len(data.classes), standardize)
    return heads_of_linear(found)


def _write_files(
    folder: Path, bank: ProbeBank, data: TaskDataModule, probes: Sequence[ProbedHeads]
) -> None:
    """The trained probes, and what the heads of every kind say of every val and test track."""
    with atomic(folder / PROBES) as temporary:
        torch.save(bank.state_dict(), temporary)

    arrays: dict[str, Any] = {}
    for split in SCORED:
        tracks = data.features.splits[split]
        arrays[f"{split}_track_ids"] = np.array(tracks.track_ids)
        arrays[f"{split}_target"] = tracks.track_target.numpy()

    by_frames = KINDS[data.kind].by_frames
    for probed in probes:
        prefix = "" if probed.probe == "mlp" else f"{probed.probe}_"
        arrays[f"{prefix}heads"] = np.array([head.name for head in probed.heads])
        for split in SCORED:
            reasons = [reason or "" for reason in probed.failed[split]]
            arrays[f"{prefix}{split}_failed"] = np.array(reasons)
            outputs = probed.outputs[split].numpy()
            # Under a large penalty outputs differ by less than float16 can tell.
            is_short = probed.probe == "mlp" and not by_frames
            name = f"{prefix}{split}_{'confusion' if by_frames else 'logits'}"
            arrays[name] = outputs.astype(np.float16) if is_short else outputs
    with atomic(folder / PREDICTIONS) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)
