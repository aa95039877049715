"""Training of a bank: one LightningModule for all probes of a cell.

Conventions: the loss is the sum over heads of each head's own mean loss, so heads do not touch each
other. After every epoch each head is scored on val, over tracks; a head keeps the weights of its
best epoch (the first of equals), and stops for good after `patience` epochs without a better score.
Epochs count from 1. Test is read once, with every head's best weights. A head whose outputs are not
all finite has no score, even where the metric finds one: the largest of NaN is the first class.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch.callbacks import LambdaCallback
from torch import Tensor

from datamodules.features.memory import FeatureBatch
from datamodules.task import TaskDataModule
from datamodules.tracks import SPLITS, Split
from mirprobe.probing.bank import ProbeBank
from mirprobe.probing.kinds import KINDS, Collector
from mirprobe.scoring.metrics import TrackMetric, predictions, score_once
from mirprobe.sections import ProtocolConfig


@dataclass(frozen=True)
class TrainedBank:
    """A bank's outputs with every head's best weights, and how they came about.

    Attributes:
        outputs: per split (val, test): (H, N, C) float32 mean logits per track, or for frames
            (H, N, C, C) int64 counts, see `TrackConfusion`.
        failed: per split: for each head why its outputs must not be scored, or None.
        epoch: (H,) int64, the epoch that each head keeps; 0 for a head that never had a score on
            val, whose weights are still those that were drawn.
        weights_start: (W, L) softmax layer weights of the weighted heads before training.
        weights_end: (W, L) the same, of each head's best epoch.
    """

    outputs: dict[Split, Tensor]
    failed: dict[Split, list[str | None]]
    epoch: Tensor
    weights_start: Tensor
    weights_end: Tensor


class ProbeModule(L.LightningModule):
    """Trains a bank on batches of features.

    Args:
        bank: the probes.
        metric: chooses each head's epoch on val.
        protocol: learning rates, epochs, patience.
        targets: of every track, per split: see `LabelledTracks.track_target`.
    """

    best_score: Tensor
    best_epoch: Tensor
    running: Tensor
    val_finite: Tensor
    test_finite: Tensor
    ever_finite: Tensor

    def __init__(
        self,
        bank: ProbeBank,
        metric: TrackMetric,
        protocol: ProtocolConfig,
        targets: Mapping[Split, Tensor],
    ) -> None:
        super().__init__()
        self.bank = bank
        self.metric = metric
        self.protocol = protocol
        self.targets = targets
        self.rules = KINDS[metric.kind]
        self.val = self._collector(len(targets["val"]))
        self.test = self._collector(len(targets["test"]))

        n_heads = len(bank.heads)
        self.best = {name: value.detach().clone() for name, value in bank.named_parameters()}
        self.register_buffer("best_score", torch.full((n_heads,), -torch.inf))
        self.register_buffer("best_epoch", torch.zeros(n_heads, dtype=torch.int64))
        self.register_buffer("running", torch.ones(n_heads, dtype=torch.bool))
        # Heads all of whose outputs are finite: in this epoch on val, at the end on test, and in at
        # least one epoch on val.
        self.register_buffer("val_finite", torch.ones(n_heads, dtype=torch.bool))
        self.register_buffer("test_finite", torch.ones(n_heads, dtype=torch.bool))
        self.register_buffer("ever_finite", torch.zeros(n_heads, dtype=torch.bool))

    def _collector(self, n_tracks: int) -> Collector:
        mean_odds = self.protocol.track_score == "probabilities"
        return self.rules.collect(
            len(self.bank.heads), n_tracks, self.bank.size.n_outputs, mean_odds
        )

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam without weight decay; the layer weights have a learning rate of their own."""
        layer_weights = self.bank.layer_weights
        others = [value for value in self.bank.parameters() if value is not layer_weights]
        return torch.optim.Adam(
            [
                {"params": others, "lr": self.protocol.lr},
                {"params": [layer_weights], "lr": self.protocol.layer_weights_lr},
            ],
            fused=True,
        )

    def training_step(self, batch: FeatureBatch, _index: int) -> Tensor:
        """Sum of the heads' losses."""
        losses = self.rules.loss(self.bank(batch["features"]), batch["target"])
        self.log("train/loss", losses.mean(), batch_size=len(batch["target"]))
        return losses.sum()

    def validation_step(self, batch: FeatureBatch, _index: int) -> None:
        """Collects what is scored per track."""
        self.val_finite &= self._collect(self.val, batch)

    def _collect(self, collector: Collector, batch: FeatureBatch) -> Tensor:
        """Collects the outputs for a batch; (H,) whether those of each head are all finite."""
        outputs = self.bank(batch["features"])
        collector.update(outputs, batch["track"], batch["target"])
        return torch.isfinite(outputs).all(dim=2).all(dim=1)

    def on_validation_epoch_start(self) -> None:
        """Forgets what was collected before, if anything."""
        self.val_finite.fill_(True)

    def on_validation_epoch_end(self) -> None:
        """Scores every head over the tracks of val and keeps the better weights."""
        score = self._score_val()
        self.ever_finite |= self.val_finite
        better = self.running & self.val_finite & (score > self.best_score)
        epoch = self.current_epoch + 1

        for name, value in self.bank.named_parameters():
            rows = self.bank.rows_of(name, better)
            self.best[name] = self.best[name].to(value.device)
            self.best[name][rows] = value.detach()[rows]
        self.best_score[better] = score[better]
        self.best_epoch[better] = epoch

        self.running &= epoch - self.best_epoch < self.protocol.patience
        if not bool(self.running.any()):
            self.trainer.should_stop = True

    def _score_val(self) -> Tensor:
        predicted = predictions(self.metric.kind, self.val.compute())
        self.val.reset()
        return score_once(self.metric, predicted, self.targets["val"].to(predicted.device))

    def on_test_start(self) -> None:
        """Every head takes the weights of its best epoch."""
        self.bank.load_state_dict(self.best, strict=False)
        self.val_finite.fill_(True)

    def test_step(self, batch: FeatureBatch, _index: int, dataloader_idx: int = 0) -> None:
        """Collects what is scored per track: loader 0 is val, loader 1 is test."""
        if dataloader_idx == 0:
            self.val_finite &= self._collect(self.val, batch)
        else:
            self.test_finite &= self._collect(self.test, batch)

    def failures(self, split: Split) -> list[str | None]:
        """For each head why its outputs on val or test must not be scored, or None."""
        finite = self.val_finite if split == "val" else self.test_finite
        reasons: list[str | None] = []
        for h, epoch in enumerate(self.best_epoch.tolist()):
            if epoch == 0 and not self.ever_finite[h]:
                reasons.append("outputs on val are not finite in any epoch")
            elif epoch == 0:
                reasons.append("val score is not a number in any epoch")
            elif not finite[h]:
                reasons.append(f"outputs on {split} are not finite")
            else:
                reasons.append(None)
        return reasons


def train_bank(
    bank: ProbeBank,
    data: TaskDataModule,
    metric: TrackMetric,
    protocol: ProtocolConfig,
    on_epoch: Callable[[], None] = lambda: None,
    **trainer: Any,
) -> TrainedBank:
    """Trains a bank and returns its best heads' outputs on val and test.

    Args:
        bank: as drawn; changed in place to every head's best weights.
        data: with `features`.
        metric: that chooses epochs.
        protocol: how to train.
        on_epoch: called after every epoch.
        **trainer: arguments of lightning.Trainer, such as `accelerator`.
    """
    if protocol.standardize:
        bank.standardize(data.features.train_parts())
    start = bank.softmax_weights().detach().clone()

    targets = {split: data.features.splits[split].track_target for split in SPLITS}
    module = ProbeModule(bank, metric, protocol, targets)
    runner = L.Trainer(
        max_epochs=protocol.max_epochs,
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        plugins=[LightningEnvironment()],
        callbacks=[LambdaCallback(on_train_epoch_end=lambda *_: on_epoch())],
        **trainer,
    )
    runner.fit(module, datamodule=data)

    both = [data.val_dataloader(), data.test_dataloader()]
    runner.test(module, dataloaders=both, verbose=False)
    return TrainedBank(
        outputs={"val": module.val.compute().cpu(), "test": module.test.compute().cpu()},
        failed={"val": module.failures("val"), "test": module.failures("test")},
        epoch=module.best_epoch.cpu(),
        weights_start=start.cpu(),
        weights_end=bank.softmax_weights().detach().cpu(),
    )
