"""Training: the bank equals lone runs, metrics do not depend on the batch size, best epochs are
kept.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from datamodules.audio.clips import ClipRule
from datamodules.features.store import Features
from datamodules.task import TaskDataModule
from datamodules.tracks import Track
from mirprobe.cell import ProtocolConfig
from mirprobe.probing.bank import BankSize, Head, ProbeBank, all_heads
from mirprobe.probing.training import ProbeModule, TrainedBank, train_bank
from mirprobe.scoring.metrics import METRICS, predictions, score_once
from mirprobe.settings import compose_cell

N_LAYERS, DIM, CLASSES = 3, 8, 3
SIZE = BankSize(N_LAYERS, DIM, hidden=16, n_outputs=CLASSES)


class Toy(TaskDataModule):
    """Tracks of one to three clips whose class shows in layer 2 and, weaker, in layer 3."""

    dataset, classes = "toy", ("a", "b", "c")

    def read_tracks(self) -> list[Track]:
        splits = ["train"] * 60 + ["val"] * 21 + ["test"] * 24
        return [
            Track(f"{i:03d}", Path("none"), split, i % CLASSES) for i, split in enumerate(splits)
        ]  # type: ignore[arg-type]

    def tracks(self) -> list[Track]:
        return self.read_tracks()


def toy_features(data: Toy) -> Features:
    rng = np.random.default_rng(0)
    track = np.repeat(np.arange(105), np.arange(105) % 3 + 1)
    target = np.array([one.target for one in data.tracks()])[track]
    values = rng.standard_normal((N_LAYERS + 1, len(track), DIM))
    values[2, :, :CLASSES] += 3.0 * np.eye(CLASSES)[target]
    values[3, :, :CLASSES] += 1.0 * np.eye(CLASSES)[target]
    return Features(values.astype(np.float16), track.astype(np.int64))


def fed(batch_size: int = 16, seed: int = 0) -> Toy:
    data = Toy(Path(), ClipRule())
    data.feed_features(toy_features(data), batch_size=batch_size, seed=seed)
    return data


@pytest.fixture(scope="module")
def protocol() -> ProtocolConfig:
    return replace(
        compose_cell([]).protocol,
        dropout=0.0,
        hidden=16,
        max_epochs=12,
        patience=3,
        batch_size=16,
        lr=3e-3,
    )


def train(
    heads: list[Head] | tuple[Head, ...], protocol: ProtocolConfig
) -> tuple[ProbeBank, TrainedBank]:
    bank = ProbeBank(heads, SIZE, seed=0)
    return bank, train_bank(bank, fed(), METRICS["accuracy"], protocol, accelerator="cpu")


def test_every_head_of_the_bank_equals_its_lone_run(protocol: ProtocolConfig) -> None:
    bank, together = train(all_heads(N_LAYERS), protocol)
    assert len(set(together.epoch.tolist())) > 1, (
        "the heads should stop at different epochs, or this test shows little"
    )
    for h, head in enumerate(all_heads(N_LAYERS)):
        lone, alone = train([head], protocol)
        for name, value in lone.named_parameters():
            torch.testing.assert_close(
                value[0], bank.get_parameter(name)[h], atol=1e-5, rtol=0, msg=f"{head.name} {name}"
            )
        for split in ("val", "test"):
            torch.testing.assert_close(
                alone.said[split][0], together.said[split][h], atol=1e-5, rtol=0
            )
        assert alone.epoch[0] == together.epoch[h]
        torch.testing.assert_close(alone.weights_end[0], together.weights_end[h], atol=1e-5, rtol=0)


def test_informative_layer_is_learnt_and_others_stay_at_chance(protocol: ProtocolConfig) -> None:
    data, (_, trained) = (
        fed(),
        train(all_heads(N_LAYERS), replace(protocol, max_epochs=30, patience=12)),
    )
    target = data.split("test").track_target
    accuracy = (trained.said["test"].argmax(dim=2) == target).double().mean(dim=1)
    assert accuracy[2] > 0.85
    assert accuracy[0] < 0.7
    assert trained.weights_end[-1].argmax() == 1  # layer 2 is the second of layers 1..3


def test_kept_weights_are_those_of_the_best_epoch(protocol: ProtocolConfig) -> None:
    _, whole = train(all_heads(N_LAYERS), protocol)
    for epoch in sorted(set(whole.epoch.tolist())):
        _, cut = train(all_heads(N_LAYERS), replace(protocol, max_epochs=epoch))
        chosen = whole.epoch == epoch
        assert cut.epoch[chosen].tolist() == [epoch] * int(chosen.sum())
        torch.testing.assert_close(
            cut.said["test"][chosen], whole.said["test"][chosen], atol=1e-6, rtol=0
        )


def test_score_is_the_same_at_any_batch_size(protocol: ProtocolConfig) -> None:
    bank = ProbeBank(all_heads(N_LAYERS), SIZE, seed=0)
    pooled = []
    for batch_size in (1, 3, 64):
        data = fed(batch_size)
        module = ProbeModule(
            bank,
            METRICS["accuracy"],
            protocol,
            {s: data.split(s).track_target for s in ("train", "val", "test")},
        )
        with torch.no_grad():
            for batch in data.val_dataloader():
                module.validation_step(batch, 0)
        pooled.append(module.val.compute())
    for other in pooled[1:]:
        torch.testing.assert_close(other, pooled[0], atol=1e-6, rtol=0)
        assert torch.equal(other.argmax(dim=2), pooled[0].argmax(dim=2))


def test_same_seed_gives_identical_logits(protocol: ProtocolConfig) -> None:
    with_dropout = replace(protocol, dropout=0.2, max_epochs=3)
    runs = []
    for _ in range(2):
        torch.manual_seed(0)
        runs.append(train(all_heads(N_LAYERS), with_dropout)[1])
    assert torch.equal(runs[0].said["test"], runs[1].said["test"])


def test_shuffled_labels_give_chance(protocol: ProtocolConfig) -> None:
    data = Toy(Path(), ClipRule())
    features = toy_features(data)
    shuffled = np.random.default_rng(1).permutation(features.values.shape[1])
    data.feed_features(
        Features(features.values[:, shuffled], features.track), batch_size=16, seed=0
    )
    trained = train_bank(
        ProbeBank(all_heads(N_LAYERS), SIZE, seed=0),
        data,
        METRICS["accuracy"],
        protocol,
        accelerator="cpu",
    )
    accuracy = (
        (trained.said["test"].argmax(dim=2) == data.split("test").track_target).double().mean(dim=1)
    )
    assert accuracy.max() < 0.7


class ToyValues(Toy):
    """The toy with two values per track, one of which shows in layer 2."""

    kind, classes = "regression", ("seen", "noise")

    def read_tracks(self) -> list[Track]:
        rng = np.random.default_rng(3)
        return [
            replace(one, target=(float(one.target) - 1, float(rng.standard_normal())))
            for one in super().read_tracks()
        ]


class ToyTags(Toy):
    """The toy with a tag per class."""

    kind = "multilabel"

    def read_tracks(self) -> list[Track]:
        return [
            replace(one, target=tuple(np.eye(CLASSES)[one.target].tolist()))
            for one in super().read_tracks()
        ]


@pytest.mark.parametrize(
    ("toy", "metric", "at_least"), [(ToyValues, "r2_arousal", 0.6), (ToyTags, "roc_auc", 0.95)]
)
def test_values_and_tags_are_learnt_from_the_layer_that_shows_them(
    protocol: ProtocolConfig, toy: type[Toy], metric: str, at_least: float
) -> None:
    data = toy(Path(), ClipRule())
    data.feed_features(toy_features(Toy(Path(), ClipRule())), batch_size=16, seed=0)
    bank = ProbeBank(all_heads(N_LAYERS), replace(SIZE, n_outputs=len(data.classes)), seed=0)
    longer = replace(protocol, max_epochs=40, patience=10)
    trained = train_bank(bank, data, METRICS[metric], longer, accelerator="cpu")
    predicted = predictions(METRICS[metric].kind, trained.said["test"])
    scores = score_once(METRICS[metric], predicted, data.split("test").track_target)
    assert scores[2] > at_least and scores.argmax() in (2, 4) and scores[0] < at_least - 0.3
