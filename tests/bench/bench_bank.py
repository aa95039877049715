"""Speed of the bank beside lone Lightning fits and beside its own arithmetic, in one run.

    python tests/bench/bench_bank.py [--clips 443] [--val-clips 197] [--layers 13] [--dim 1024]
                                     [--outputs 10] [--batch 64] [--epochs 10] [--turns 3]

Conventions: times are s an epoch, with its validation, of all heads together: one for each layer
and one on the weighted sum. Each turn measures the three after one another, so that what disturbs
the machine disturbs all; the median over turns is shown. A lone fit is given what the bank has to
work for: its layer is standardised float32 already, and no checkpoint is written. The limit is the
bank's matrix products, forward and backward, and Adam, without loss, dropout, data or validation.
"""

import argparse
import logging
import statistics
import time
import warnings
from dataclasses import replace
from pathlib import Path

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, TensorDataset
from torchmetrics.classification import MulticlassAccuracy

from datamodules.audio.clips import ClipRule
from datamodules.features.memory import FeatureSplit, MemoryFeatures
from datamodules.task import TaskDataModule
from datamodules.tracks import Split, Track
from mirprobe.probing.bank import BankSize, ProbeBank, all_heads
from mirprobe.probing.training import train_bank
from mirprobe.scoring.metrics import METRICS
from mirprobe.sections import ProtocolConfig
from mirprobe.settings import compose_cell


def main() -> None:
    """Measures and prints."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    options = parse_options()

    size = BankSize(options.layers - 1, options.dim, 512, options.outputs)
    data = made_data(options, size)
    # No head may stop early: all three do the same epochs.
    protocol = replace(
        compose_cell([]).protocol,
        batch_size=options.batch,
        max_epochs=options.epochs,
        patience=options.epochs,
    )

    turns = []
    for _ in range(options.turns):
        alone_s = time_alone(data, size, protocol)
        bank_s = time_bank(data, size, protocol)
        limit_s = time_limit(options, size)
        turns.append((alone_s, bank_s, limit_s))
    alone, bank, limit = (statistics.median(times) for times in zip(*turns, strict=True))

    n_heads = options.layers + 1
    print(f"{options.clips} clips x {options.layers} layers x {options.dim}, {n_heads} heads,")
    print(f"batch {options.batch}, {torch.get_num_threads()} threads, {options.turns} turns")
    print(f"  {n_heads} lone fits  {alone:7.3f} s an epoch")
    print(f"  bank          {bank:7.3f} s an epoch, {alone / bank:.1f} x as fast")
    print(f"  limit         {limit:7.3f} s an epoch, of which the bank reaches {limit / bank:.0%}")


def parse_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clips", type=int, default=443, help="of train")
    parser.add_argument("--val-clips", type=int, default=197, help="of val")
    parser.add_argument("--layers", type=int, default=13, help="with the input of the first block")
    parser.add_argument("--dim", type=int, default=1024, help="features of a layer")
    parser.add_argument("--outputs", type=int, default=10, help="classes")
    parser.add_argument("--batch", type=int, default=64, help="clips")
    parser.add_argument("--epochs", type=int, default=10, help="of each fit")
    parser.add_argument("--turns", type=int, default=3, help="of which the median is shown")
    return parser.parse_args()


class NoFiles(TaskDataModule):
    """A task of which only the features are there."""

    dataset = "bench"

    def read_tracks(self) -> list[Track]:
        """None: nothing is read."""
        return []


def made_data(options: argparse.Namespace, size: BankSize) -> NoFiles:
    """Normal features of as many clips as asked for, a track each, with labels drawn at random."""
    generator = torch.Generator().manual_seed(0)
    n_clips: dict[Split, int] = {
        "train": options.clips,
        "val": options.val_clips,
        "test": options.val_clips,
    }
    splits = {}
    for split, n in n_clips.items():
        shape = (size.n_layers + 1, n, size.dim)
        target = torch.randint(size.n_outputs, (n,), generator=generator)
        splits[split] = FeatureSplit(
            track_ids=tuple(f"{split}{number}" for number in range(n)),
            track_target=target,
            features=torch.randn(shape, generator=generator).half(),
            target=target,
            track=torch.arange(n),
        )
    data = NoFiles(Path(), ClipRule())
    data.classes = tuple(str(number) for number in range(size.n_outputs))
    data.features = MemoryFeatures(splits, options.batch, seed=0)
    return data


# -- the bank --------------------------------------------------------------------------------------


def time_bank(data: TaskDataModule, size: BankSize, protocol: ProtocolConfig) -> float:
    """Seconds an epoch, of every epoch but the first, which warms up."""
    ends: list[float] = []
    bank = ProbeBank(all_heads(size.n_layers, seed=0), size, dropout=protocol.dropout)
    train_bank(
        bank,
        data,
        METRICS["accuracy"],
        protocol,
        lambda: ends.append(time.perf_counter()),
        accelerator="cpu",
    )
    return (ends[-1] - ends[0]) / (len(ends) - 1)


# -- lone fits -------------------------------------------------------------------------------------


class LoneProbe(L.LightningModule):
    """One head, written as Lightning's users write it."""

    def __init__(self, size: BankSize, protocol: ProtocolConfig, *, n_layers: int) -> None:
        super().__init__()
        self.layer_weights = nn.Parameter(torch.zeros(n_layers)) if n_layers > 1 else None
        self.probe = nn.Sequential(
            nn.Linear(size.dim, size.hidden),
            nn.ReLU(),
            nn.Dropout(protocol.dropout),
            nn.Linear(size.hidden, size.n_outputs),
        )
        self.lr = protocol.lr
        self.accuracy = MulticlassAccuracy(size.n_outputs, average="micro")

    def forward(self, states: Tensor) -> Tensor:
        """(B, L, D) states of one or several layers -> (B, C) logits."""
        if self.layer_weights is None:
            return self.probe(states[:, 0])
        return self.probe(torch.einsum("l,bld->bd", self.layer_weights.softmax(0), states))

    def training_step(self, batch: list[Tensor], _index: int) -> Tensor:
        """Mean cross-entropy."""
        loss = F.cross_entropy(self(batch[0]), batch[1])
        self.log("train/loss", loss)
        return loss

    def validation_step(self, batch: list[Tensor], _index: int) -> None:
        """Accuracy over the split."""
        self.accuracy(self(batch[0]), batch[1])
        self.log("val/accuracy", self.accuracy)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """The bank's optimizer."""
        return torch.optim.Adam(self.parameters(), lr=self.lr, fused=True)


class Clock(Callback):
    """Notes when each epoch ends, after its validation."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_train_epoch_end(self, *_: object) -> None:
        """Notes the time."""
        self.ends.append(time.perf_counter())


def time_alone(data: TaskDataModule, size: BankSize, protocol: ProtocolConfig) -> float:
    """Seconds an epoch of all heads, each fitted by a Trainer of its own, after one another."""
    total_s = 0.0
    for head in all_heads(size.n_layers, seed=0):
        layers = [head.layer] if head.layer is not None else list(range(1, size.n_layers + 1))
        train, val = (lone_loader(data, split, layers, protocol) for split in ("train", "val"))
        clock = Clock()
        runner = L.Trainer(
            max_epochs=protocol.max_epochs,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            callbacks=[
                EarlyStopping("val/accuracy", mode="max", patience=protocol.patience),
                clock,
            ],
        )
        runner.fit(LoneProbe(size, protocol, n_layers=len(layers)), train, val)
        total_s += (clock.ends[-1] - clock.ends[0]) / (len(clock.ends) - 1)
    return total_s


def lone_loader(
    data: TaskDataModule, split: Split, layers: list[int], protocol: ProtocolConfig
) -> DataLoader[list[Tensor]]:
    """Batches of some layers, indexed as a whole like the bank's."""
    clips = data.features.splits[split]
    states = clips.features[layers].float().transpose(0, 1).contiguous()
    items = TensorDataset(states, clips.target)

    order = RandomSampler(items) if split == "train" else range(len(items))
    n_batch = protocol.batch_size if split == "train" else 8 * protocol.batch_size
    batches = BatchSampler(order, n_batch, drop_last=False)
    return DataLoader(items, sampler=batches, batch_size=None, num_workers=0)


# -- the limit -------------------------------------------------------------------------------------


def time_limit(options: argparse.Namespace, size: BankSize) -> float:
    """Seconds an epoch of the matrix products and Adam alone, on tensors of the bank's shapes."""
    n_heads = options.layers + 1
    first = torch.randn(n_heads, size.dim, size.hidden) / size.dim**0.5
    second = torch.randn(n_heads, size.hidden, size.n_outputs) / size.hidden**0.5
    first.grad, second.grad = torch.zeros_like(first), torch.zeros_like(second)
    adam = torch.optim.Adam([first, second], lr=1e-4, fused=True)

    n_full, n_last = divmod(options.clips, options.batch)
    sizes = [options.batch] * n_full + [n_last] * (n_last > 0)
    inputs = {n: torch.randn(n_heads, n, size.dim) for n in set(sizes)}

    def epoch() -> None:
        for n in sizes:
            states = inputs[n]
            hidden = torch.bmm(states, first)
            outputs = torch.bmm(hidden, second)
            torch.bmm(hidden.transpose(1, 2), outputs, out=second.grad)
            torch.bmm(states.transpose(1, 2), torch.bmm(outputs, second.mT), out=first.grad)
            adam.step()

    epoch()
    start_s = time.perf_counter()
    for _ in range(options.epochs):
        epoch()
    return (time.perf_counter() - start_s) / options.epochs


if __name__ == "__main__":
    main()
