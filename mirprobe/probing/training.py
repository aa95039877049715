"""Training of a bank: one LightningModule for all probes of a cell.

Conventions: the loss is the sum over heads of each head's own mean loss, so heads do not touch each
other. After every epoch each head is scored on val, over tracks; a head keeps the weights of its
best epoch (the first of equals), and stops for good after `patience` epochs without a better score.
Epochs count from 1. Test is read once, with every head's best weights.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import lightning as L
import torch
import torch.nn.functional as F
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch.callbacks import LambdaCallback
from torch import Tensor

from datamodules.features.memory import FeatureBatch
from datamodules.task import TaskDataModule
from datamodules.tracks import SPLITS, Split
from mirprobe.cell import ProtocolConfig
from mirprobe.probing.bank import ProbeBank
from mirprobe.probing.outputs import TrackConfusion, TrackLogits
from mirprobe.scoring.metrics import TrackMetric, predictions, score_once


@dataclass(frozen=True)
class TrainedBank:
    """What training gave.

    Attributes:
        said: per split (val, test), with every head's best weights: (H, N, C) float32 mean logits
            per track, or for frames (H, N, C, C) int64 counts, see `TrackConfusion`.
        epoch: (H,) int64, the epoch that each head keeps.
        weights_start: (H, L) softmax layer weights before training.
        weights_end: (H, L) the same, of each head's best epoch.
    """

    said: dict[Split, Tensor]
    epoch: Tensor
    weights_start: Tensor
    weights_end: Tensor


class ProbeModule(L.LightningModule):
    """Trains a bank on features in memory.

    Args:
        bank: the probes.
        metric: chooses each head's epoch on val.
        protocol: learning rates, epochs, patience.
        targets: what is true of every track, per split: see `LabelledTracks.track_target`.
    """

    def __init__(
        self,
        bank: ProbeBank,
        metric: TrackMetric,
        protocol: ProtocolConfig,
        targets: Mapping[Split, Tensor],
    ) -> None:
        super().__init__()
        self.bank, self.metric, self.protocol, self.targets = bank, metric, protocol, targets
        n_heads = len(bank.heads)
        self.val, self.test = (
            self._collector(n_heads, len(targets[split])) for split in ("val", "test")
        )
        self.best = {name: value.detach().clone() for name, value in bank.named_parameters()}
        self.best_score: Tensor
        self.best_epoch: Tensor
        self.running: Tensor
        self.register_buffer("best_score", torch.full((n_heads,), -torch.inf))
        self.register_buffer("best_epoch", torch.zeros(n_heads, dtype=torch.int64))
        self.register_buffer("running", torch.ones(n_heads, dtype=torch.bool))

    def _collector(self, n_heads: int, n_tracks: int) -> TrackConfusion | TrackLogits:
        if self.metric.kind == "frames":
            return TrackConfusion(n_heads, n_tracks, self.bank.size.n_outputs)
        by_probability = (
            self.protocol.track_score == "probabilities" and self.metric.kind != "regression"
        )
        return TrackLogits(
            n_heads,
            n_tracks,
            self.bank.size.n_outputs,
            averages=self.metric.kind if by_probability else None,
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

    def losses(self, logits: Tensor, target: Tensor) -> Tensor:
        """Each head's mean loss over the batch, (H, B, C) -> (H,): cross-entropy, binary
        cross-entropy or squared error.
        """
        n_heads, n_clips, n_classes = logits.shape
        if self.metric.kind in ("classification", "frames"):
            every = F.cross_entropy(
                logits.reshape(-1, n_classes), target.repeat(n_heads), reduction="none"
            )
            return every.view(n_heads, n_clips).mean(dim=1)
        loss = (
            F.binary_cross_entropy_with_logits if self.metric.kind == "multilabel" else F.mse_loss
        )
        return loss(logits, target.expand_as(logits), reduction="none").mean(dim=(1, 2))

    def training_step(self, batch: FeatureBatch, _index: int) -> Tensor:
        """Sum of the heads' losses."""
        losses = self.losses(self.bank(batch["features"]), batch["target"])
        self.log("train/loss", losses.mean(), batch_size=len(batch["target"]))
        return losses.sum()

    def validation_step(self, batch: FeatureBatch, _index: int) -> None:
        """Collects what is scored per track."""
        self.val.update(self.bank(batch["features"]), batch["track"], batch["target"])

    def on_validation_epoch_end(self) -> None:
        """Scores every head over the tracks of val and keeps the better weights."""
        score = self._score_val()
        better = self.running & (score > self.best_score)
        epoch = self.current_epoch + 1
        for name, value in self.bank.named_parameters():
            self.best[name] = self.best[name].to(value.device)
            self.best[name][better] = value.detach()[better]
        self.best_score[better], self.best_epoch[better] = score[better], epoch
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

    def test_step(self, batch: FeatureBatch, _index: int, dataloader_idx: int = 0) -> None:
        """Collects what is scored per track: loader 0 is val, loader 1 is test."""
        (self.val, self.test)[dataloader_idx].update(
            self.bank(batch["features"]), batch["track"], batch["target"]
        )


def train_bank(
    bank: ProbeBank, data: TaskDataModule, metric: TrackMetric, protocol: ProtocolConfig,
    on_epoch: Callable[[], None] = lambda: None, **trainer: Any,
) -> TrainedBank:  # fmt: skip
    """Trains a bank on `data` (fed with features) and returns its best heads' logits on val and
    test.

    Args:
        bank: as drawn; changed in place to every head's best weights.
        data: after `load_features`.
        metric: that chooses epochs.
        protocol: how to train.
        on_epoch: called after every epoch.
        **trainer: arguments of lightning.Trainer, such as `accelerator`.
    """
    if protocol.standardize:
        bank.standardize(data.train_features())
    start = bank.softmax_weights().detach().clone()
    module = ProbeModule(
        bank, metric, protocol, {split: data.split(split).track_target for split in SPLITS}
    )
    runner = L.Trainer(
        max_epochs=protocol.max_epochs, devices=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0, plugins=[LightningEnvironment()],
        callbacks=[LambdaCallback(on_train_epoch_end=lambda *_: on_epoch())], **trainer,
    )  # fmt: skip
    runner.fit(module, datamodule=data)
    runner.test(module, dataloaders=[data.val_dataloader(), data.test_dataloader()], verbose=False)
    return TrainedBank(
        said={"val": module.val.compute().cpu(), "test": module.test.compute().cpu()},
        epoch=module.best_epoch.cpu(),
        weights_start=start.cpu(),
        weights_end=bank.softmax_weights().detach().cpu(),
    )
