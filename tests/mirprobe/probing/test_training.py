"""Training: lone runs equal the bank, batch sizes change no score, best epochs are kept."""

from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import sklearn.metrics
import torch
from devices import GPU
from torch import Tensor, nn
from torch.nn import functional as F

from datamodules.audio.clips import ClipRule
from datamodules.features.memory import FeatureSplit, MemoryFeatures
from datamodules.task import TaskDataModule
from datamodules.tracks import SPLITS, Split, Track
from mirprobe.probing.bank import BankSize, Head, ProbeBank, all_heads
from mirprobe.probing.training import ProbeModule, TrainedBank, train_bank
from mirprobe.scoring.metrics import METRICS, predictions, score_once
from mirprobe.sections import ProtocolConfig
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
    heads: list[Head] | tuple[Head, ...], protocol: ProtocolConfig, accelerator: str = "cpu"
) -> tuple[ProbeBank, TrainedBank]:
    bank = ProbeBank(heads, SIZE, dropout=protocol.dropout)
    return bank, train_bank(bank, fed(), METRICS["accuracy"], protocol, accelerator=accelerator)


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


# -- heads that never score ------------------------------------------------------------------------


def with_layer(data: Toy, layer: int, value: float, splits: tuple[Split, ...] = SPLITS) -> Toy:
    """The toy whose features of one layer are all one value, on some splits."""
    for split in splits:
        data.features.splits[split].features[layer] = value
    return data


def test_heads_whose_val_score_is_never_a_number_keep_no_epoch(protocol: ProtocolConfig) -> None:
    """One val track has no R2: minus infinity, or not a number. The drawn weights were taken."""

    class OneValTrack(ToyValues):
        def read_tracks(self) -> list[Track]:
            tracks = super().read_tracks()
            spare = [one for one in tracks if one.split == "val"][1:]
            return [replace(one, split="train") if one in spare else one for one in tracks]

    data = fed(OneValTrack)
    bank = ProbeBank(HEADS, replace(SIZE, n_outputs=2))
    trained = train_bank(bank, data, METRICS["r2"], protocol, accelerator="cpu")
    assert trained.epoch.tolist() == [0] * len(HEADS)
    for split in ("val", "test"):
        assert trained.failed[split] == ["val score is not a number in any epoch"] * len(HEADS)


def test_weights_that_are_no_numbers_have_no_score(protocol: ProtocolConfig) -> None:
    """The largest of NaN is the first class, whose share is a score: 33 % were printed for it."""
    _, trained = train(HEADS, replace(protocol, lr=1e30))
    assert trained.epoch.tolist() == [0] * len(HEADS)
    assert trained.failed["val"] == ["outputs on val are not finite in any epoch"] * len(HEADS)
    assert trained.failed["test"] == trained.failed["val"]


def test_a_head_that_diverges_leaves_the_others_alone(protocol: ProtocolConfig) -> None:
    """Layer 1 is not finite: its head fails, and with it the weighted sum that holds it."""
    unscaled = replace(protocol, standardize=False)
    usual = train(HEADS, unscaled)[1]
    bank, data = ProbeBank(HEADS, SIZE), with_layer(fed(), 1, np.inf)
    trained = train_bank(bank, data, METRICS["accuracy"], unscaled, accelerator="cpu")
    reason = "outputs on val are not finite in any epoch"
    assert trained.failed["val"] == trained.failed["test"] == [None, reason, None, None, reason]
    assert usual.failed["val"] == usual.failed["test"] == [None] * len(HEADS)

    others = [0, 2, 3]
    assert trained.epoch.tolist() == [usual.epoch[h] if h in others else 0 for h in range(5)]
    torch.testing.assert_close(
        trained.outputs["test"][others], usual.outputs["test"][others], atol=1e-6, rtol=0
    )


def test_outputs_that_are_no_numbers_on_test_alone_are_no_score_on_test(
    protocol: ProtocolConfig,
) -> None:
    data = with_layer(fed(), 3, np.nan, ("test",))
    bank = ProbeBank(HEADS[:-1], SIZE)
    trained = train_bank(bank, data, METRICS["accuracy"], protocol, accelerator="cpu")
    assert trained.failed["val"] == [None] * 4
    assert trained.failed["test"] == [None] * 3 + ["outputs on test are not finite"]
    assert (trained.epoch > 0).all()


def test_each_epoch_is_judged_by_its_own_outputs(protocol: ProtocolConfig) -> None:
    bank = ProbeBank(HEADS, SIZE)
    data = fed()
    targets = {split: data.features.splits[split].track_target for split in SPLITS}
    module = ProbeModule(bank, METRICS["accuracy"], protocol, targets)
    batch = next(iter(data.val_dataloader()))
    with torch.no_grad():
        module.on_validation_epoch_start()
        module.validation_step(batch, 0)
        assert module.val_finite.all()
        bank.output_bias[2] = torch.nan
        module.validation_step(batch, 0)
        assert module.val_finite.tolist() == [True, True, False, True, True]
        module.on_validation_epoch_start()
        assert module.val_finite.all()


# -- a plain loop ----------------------------------------------------------------------------------


class PlainProbe(nn.Module):
    """One head in PyTorch's own layers, on standardised states; it starts like the bank's."""

    def __init__(self, head: Head, size: BankSize, states: Tensor) -> None:
        super().__init__()
        self.source = head.layer
        self.hidden = nn.Linear(size.dim, size.hidden)
        self.output = nn.Linear(size.hidden, size.n_outputs)
        self.layer_weights = nn.Parameter(torch.zeros(size.n_layers))
        self.mean = states.double().mean(dim=1, keepdim=True)
        self.deviation = states.double().std(dim=1, correction=0, keepdim=True)

        start = ProbeBank([head], size)
        with torch.no_grad():
            self.hidden.weight.copy_(start.hidden_weight[0].T)
            self.hidden.bias.copy_(start.hidden_bias[0, 0])
            self.output.weight.copy_(start.output_weight[0].T)
            self.output.bias.copy_(start.output_bias[0, 0])

    def forward(self, states: Tensor) -> Tensor:
        """(L+1, B, D) -> (B, C)."""
        states = ((states.double() - self.mean) / self.deviation).float()
        if self.source is None:
            weights = torch.softmax(self.layer_weights, dim=0)
            x = sum(w * state for w, state in zip(weights, states[1:], strict=True))
        else:
            x = states[self.source]
        return self.output(torch.relu(self.hidden(x)))


@dataclass
class PlainRun:
    """What a plain loop ends with: its best epoch, and with its weights the logits of tracks."""

    epoch: int
    val: Tensor
    test: Tensor
    layer_weights: Tensor


def plain_logits(probe: PlainProbe, split: FeatureSplit) -> Tensor:
    """(N, C) mean logits of each track's clips."""
    with torch.no_grad():
        of_clips = probe(split.features)
    tracks = range(len(split.track_ids))
    return torch.stack([of_clips[split.track == track].mean(dim=0) for track in tracks])


def plain_run(
    head: Head, protocol: ProtocolConfig, *, patience: int, last_of_equals: bool = False
) -> PlainRun:
    """Trains one head as a beginner would write it."""
    data = fed()
    splits = data.features.splits
    probe = PlainProbe(head, SIZE, splits["train"].features)
    layers = [*probe.hidden.parameters(), *probe.output.parameters()]
    groups = [
        {"params": layers, "lr": protocol.lr},
        {"params": [probe.layer_weights], "lr": protocol.layer_weights_lr},
    ]
    optimizer = torch.optim.Adam(groups)

    batches, best, best_score, best_epoch = data.train_dataloader(), deepcopy(probe), -1.0, 0
    for epoch in range(1, protocol.max_epochs + 1):
        for batch in batches:
            optimizer.zero_grad()
            F.cross_entropy(probe(batch["features"]), batch["target"]).backward()
            optimizer.step()

        right = plain_logits(probe, splits["val"]).argmax(dim=1) == splits["val"].track_target
        score = right.double().mean().item()
        if score > best_score or (last_of_equals and score == best_score):
            best, best_score, best_epoch = deepcopy(probe), score, epoch
        if epoch - best_epoch >= patience:
            break

    weights = torch.softmax(best.layer_weights, dim=0).detach()
    outputs = [plain_logits(best, splits[split]) for split in ("val", "test")]
    return PlainRun(best_epoch, *outputs, weights)


@pytest.mark.parametrize("patience", [1, 2, 4])
def test_every_head_is_trained_as_by_a_plain_loop(protocol: ProtocolConfig, patience: int) -> None:
    _, trained = train(HEADS, replace(protocol, patience=patience))
    for h, head in enumerate(HEADS):
        plain = plain_run(head, protocol, patience=patience)
        assert trained.epoch[h] == plain.epoch, head.name
        for split, expected in (("val", plain.val), ("test", plain.test)):
            torch.testing.assert_close(
                trained.outputs[split][h], expected, atol=2e-6, rtol=0, msg=f"{head.name} {split}"
            )
        if head.layer is None:
            torch.testing.assert_close(
                trained.weights_end[0], plain.layer_weights, atol=1e-6, rtol=0
            )


@pytest.mark.parametrize("device", [pytest.param("gpu", marks=GPU)])
def test_on_a_gpu_every_head_is_trained_as_by_a_plain_loop(
    protocol: ProtocolConfig, device: str
) -> None:
    """For few epochs: sums in another order move the weights by 1e-6 a step."""
    short = replace(protocol, max_epochs=3)
    _, trained = train(HEADS, short, accelerator=device)
    for h, head in enumerate(HEADS):
        plain = plain_run(head, short, patience=short.patience)
        assert trained.epoch[h] == plain.epoch, head.name
        torch.testing.assert_close(trained.outputs["test"][h], plain.test, atol=1e-4, rtol=0)


def test_the_toy_tells_other_rules_of_stopping_apart(protocol: ProtocolConfig) -> None:
    """Else the plain loop would agree with a bank that stops later, or keeps other epochs."""
    epochs = [plain_run(head, protocol, patience=1).epoch for head in HEADS]
    later = [plain_run(head, protocol, patience=2).epoch for head in HEADS]
    last = [plain_run(head, protocol, patience=1, last_of_equals=True).epoch for head in HEADS]
    assert later != epochs
    assert last != epochs


PLAIN_LOSSES = {
    Toy: F.cross_entropy,
    ToyValues: F.mse_loss,
    ToyTags: F.binary_cross_entropy_with_logits,
}


@pytest.mark.parametrize("toy", PLAIN_LOSSES, ids=lambda toy: toy.__name__)
def test_gradients_are_those_of_each_heads_own_mean_loss(
    protocol: ProtocolConfig, toy: type[Toy]
) -> None:
    """Adam hides the scale of a loss: a mean over heads would show in no score."""
    data = fed(toy)
    size = replace(SIZE, n_outputs=len(data.classes))
    train_split = data.features.splits["train"]
    metric = next(one for one in METRICS.values() if one.kind == data.kind)
    bank = ProbeBank(HEADS, size)
    bank.standardize(data.features.train_parts())
    targets = {split: data.features.splits[split].track_target for split in SPLITS}

    batch = next(iter(data.train_dataloader()))
    ProbeModule(bank, metric, protocol, targets).training_step(batch, 0).backward()
    for h, head in enumerate(HEADS):
        plain = PlainProbe(head, size, train_split.features)
        PLAIN_LOSSES[toy](plain(batch["features"]), batch["target"]).backward()
        pairs = [
            (bank.hidden_weight.grad[h].T, plain.hidden.weight.grad),
            (bank.output_weight.grad[h].T, plain.output.weight.grad),
            (bank.output_bias.grad[h, 0], plain.output.bias.grad),
        ]
        if head.layer is None:
            pairs.append((bank.layer_weights.grad[0], plain.layer_weights.grad))
        for found, expected in pairs:
            assert expected.abs().max() > 1e-4
            torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-4, msg=head.name)
