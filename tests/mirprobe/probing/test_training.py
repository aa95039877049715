"""Training: lone runs equal the bank, batch sizes change no score, best epochs are kept."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import sklearn.metrics
import torch

from datamodules.audio.clips import ClipRule
from datamodules.features.memory import FeatureSplit, MemoryFeatures
from datamodules.task import TaskDataModule
from datamodules.tracks import SPLITS, Split, Track
from mirprobe.cell import ProtocolConfig
from mirprobe.probing.bank import BankSize, Head, ProbeBank, all_heads
from mirprobe.probing.training import ProbeModule, TrainedBank, train_bank
from mirprobe.scoring.metrics import METRICS, predictions, score_once
from mirprobe.settings import compose_cell

N_LAYERS, DIM, CLASSES = 3, 8, 3
SIZE = BankSize(N_LAYERS, DIM, hidden=16, n_outputs=CLASSES)
HEADS = all_heads(N_LAYERS, seed=0)
# Guessing gets 8 of 24 test tracks right, give or take 2.3: a third and three deviations.
AT_CHANCE = 0.6


class Toy(TaskDataModule):
    """Tracks of one to three clips whose class shows in layer 2 and, weaker, in layer 3."""

    dataset, classes = "toy", ("a", "b", "c")

    def read_tracks(self) -> list[Track]:
        splits: list[Split] = ["train"] * 60 + ["val"] * 21 + ["test"] * 24  # type: ignore[assignment]
        return [
            Track(f"{number:03d}", Path("none"), split, number % CLASSES)
            for number, split in enumerate(splits)
        ]

    def tracks(self) -> list[Track]:
        return self.read_tracks()


def toy_values() -> tuple[np.ndarray, np.ndarray]:
    """(L+1, N, D) features of N clips that show the class, and (N,) the track of each."""
    rng = np.random.default_rng(0)
    track = np.repeat(np.arange(105), np.arange(105) % 3 + 1)
    target = track % CLASSES
    values = rng.standard_normal((N_LAYERS + 1, len(track), DIM))
    values[2, :, :CLASSES] += 3.0 * np.eye(CLASSES)[target]
    values[3, :, :CLASSES] += 1.0 * np.eye(CLASSES)[target]
    return values.astype(np.float16), track


def split_of(data: Toy, split: Split, values: np.ndarray, track: np.ndarray) -> FeatureSplit:
    """The clips of one split, with positions of tracks in it."""
    tracks = data.tracks()
    members = [number for number, one in enumerate(tracks) if one.split == split]
    clips = np.flatnonzero(np.isin(track, members))
    targets = torch.tensor([tracks[number].target for number in members])
    place = torch.from_numpy(np.searchsorted(members, track[clips]))
    return FeatureSplit(
        track_ids=tuple(tracks[number].track_id for number in members),
        track_target=targets,
        features=torch.from_numpy(values[:, clips]),
        target=targets[place],
        track=place,
    )


def fed(toy: type["Toy"] = Toy, *, batch_size: int = 16, order: np.ndarray | None = None) -> Toy:
    """A toy with its features; `order` deals them out to other clips."""
    data = toy(Path(), ClipRule())
    values, track = toy_values()
    if order is not None:
        values = values[:, order]
    splits = {split: split_of(data, split, values, track) for split in SPLITS}
    data.features = MemoryFeatures(splits, batch_size, seed=0)
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
    bank = ProbeBank(heads, SIZE, dropout=protocol.dropout)
    return bank, train_bank(bank, fed(), METRICS["accuracy"], protocol, accelerator="cpu")


def accuracies(trained: TrainedBank, data: Toy) -> torch.Tensor:
    """(H,) shares of the test tracks whose class is right."""
    target = data.features.splits["test"].track_target
    return (trained.outputs["test"].argmax(dim=2) == target).double().mean(dim=1)


def test_every_head_of_the_bank_equals_its_lone_run(protocol: ProtocolConfig) -> None:
    bank, together = train(HEADS, protocol)
    assert len(set(together.epoch.tolist())) > 1, (
        "the heads should stop at different epochs, or this test shows little"
    )
    for h, head in enumerate(HEADS):
        is_head = torch.arange(len(HEADS)) == h
        lone, alone = train([head], protocol)
        for name, value in lone.named_parameters():
            here = bank.get_parameter(name)[bank.rows_of(name, is_head)]
            torch.testing.assert_close(value, here, atol=1e-5, rtol=0, msg=f"{head.name} {name}")
        for split in ("val", "test"):
            torch.testing.assert_close(
                alone.outputs[split][0], together.outputs[split][h], atol=1e-5, rtol=0
            )
        assert alone.epoch[0] == together.epoch[h]
        of_head = bank.rows_of("layer_weights", is_head)
        torch.testing.assert_close(
            alone.weights_end, together.weights_end[of_head], atol=1e-5, rtol=0
        )


def test_heads_in_another_order_are_trained_to_the_same_outputs(protocol: ProtocolConfig) -> None:
    order = [4, 2, 0, 3, 1]
    _, usual = train(HEADS, protocol)
    _, other = train([HEADS[h] for h in order], protocol)
    assert other.epoch.tolist() == usual.epoch[order].tolist()
    torch.testing.assert_close(
        other.outputs["test"], usual.outputs["test"][order], atol=1e-5, rtol=0
    )
    torch.testing.assert_close(other.weights_end, usual.weights_end, atol=1e-5, rtol=0)


def test_a_bank_without_weighted_heads_trains(protocol: ProtocolConfig) -> None:
    bank, trained = train(HEADS[:-1], replace(protocol, max_epochs=30, patience=12))
    assert bank.layer_weights.shape == trained.weights_start.shape == (0, N_LAYERS)
    assert trained.weights_end.shape == (0, N_LAYERS)
    assert trained.outputs["test"].shape == (N_LAYERS + 1, 24, CLASSES)
    assert accuracies(trained, fed()).argmax() == 2


def test_informative_layer_is_learnt_and_others_stay_at_chance(protocol: ProtocolConfig) -> None:
    _, trained = train(HEADS, replace(protocol, max_epochs=30, patience=12))
    accuracy = accuracies(trained, fed())
    assert accuracy[2] > 0.85
    assert accuracy[0] < AT_CHANCE
    assert trained.weights_end[0].argmax() == 1  # layer 2 is the second of layers 1..3


def test_kept_weights_are_those_of_the_best_epoch(protocol: ProtocolConfig) -> None:
    _, whole = train(HEADS, protocol)
    for epoch in sorted(set(whole.epoch.tolist())):
        _, cut = train(HEADS, replace(protocol, max_epochs=epoch))
        chosen = whole.epoch == epoch
        assert cut.epoch[chosen].tolist() == [epoch] * int(chosen.sum())
        torch.testing.assert_close(
            cut.outputs["test"][chosen], whole.outputs["test"][chosen], atol=1e-6, rtol=0
        )


def test_score_is_the_same_at_any_batch_size(protocol: ProtocolConfig) -> None:
    bank = ProbeBank(HEADS, SIZE)
    pooled = []
    for batch_size in (1, 3, 64):
        data = fed(batch_size=batch_size)
        targets = {split: data.features.splits[split].track_target for split in SPLITS}
        module = ProbeModule(bank, METRICS["accuracy"], protocol, targets)
        with torch.no_grad():
            for batch in data.val_dataloader():
                module.validation_step(batch, 0)
        pooled.append(module.val.compute())
    for other in pooled[1:]:
        torch.testing.assert_close(other, pooled[0], atol=1e-6, rtol=0)
        assert torch.equal(other.argmax(dim=2), pooled[0].argmax(dim=2))


@pytest.mark.parametrize("batch_size", [1, 2, 64])
def test_an_epoch_is_scored_once_over_all_tracks_and_forgets_the_one_before(
    protocol: ProtocolConfig, batch_size: int
) -> None:
    """R2 of a batch says little, and their mean something else than R2 of the split."""
    data = fed(ToyValues, batch_size=batch_size)
    val = data.features.splits["val"]
    targets = {split: data.features.splits[split].track_target for split in SPLITS}
    bank = ProbeBank(HEADS, replace(SIZE, n_outputs=2)).eval()
    module = ProbeModule(bank, METRICS["r2"], protocol, targets)
    assert len(data.val_dataloader()) == {1: 6, 2: 3, 64: 1}[batch_size]

    for gain in (1.0, 3.0):  # two epochs
        with torch.no_grad():
            bank.output_weight *= gain
            clips = bank(val.features)
            for batch in data.val_dataloader():
                module.validation_step(batch, 0)
        module.best_score.fill_(-torch.inf)
        module.on_validation_epoch_end()

        tracks = range(len(val.track_ids))
        means = torch.stack([clips[:, val.track == one].mean(dim=1) for one in tracks], dim=1)
        expected = [sklearn.metrics.r2_score(val.track_target, head) for head in means]
        assert module.best_score.tolist() == pytest.approx(expected, abs=1e-5)


def test_same_seed_gives_identical_logits(protocol: ProtocolConfig) -> None:
    with_dropout = replace(protocol, dropout=0.2, max_epochs=3)
    runs = []
    for _ in range(2):
        torch.manual_seed(0)
        runs.append(train(HEADS, with_dropout)[1])
    assert torch.equal(runs[0].outputs["test"], runs[1].outputs["test"])

    without = train(HEADS, replace(with_dropout, dropout=0.0))[1]
    assert not torch.equal(without.outputs["test"], runs[0].outputs["test"]), "it drops something"


def test_shuffled_labels_give_chance(protocol: ProtocolConfig) -> None:
    order = np.random.default_rng(1).permutation(len(toy_values()[1]))
    data = fed(order=order)
    bank = ProbeBank(HEADS, SIZE)
    trained = train_bank(bank, data, METRICS["accuracy"], protocol, accelerator="cpu")
    assert accuracies(trained, data).max() < AT_CHANCE


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
    data = fed(toy)
    bank = ProbeBank(HEADS, replace(SIZE, n_outputs=len(data.classes)))
    longer = replace(protocol, max_epochs=40, patience=10)
    trained = train_bank(bank, data, METRICS[metric], longer, accelerator="cpu")
    predicted = predictions(METRICS[metric].kind, trained.outputs["test"])
    scores = score_once(METRICS[metric], predicted, data.features.splits["test"].track_target)
    assert scores[2] > at_least and scores.argmax() in (2, 4) and scores[0] < at_least - 0.3
