"""The linear twin: against scikit-learn's Ridge, its penalty on val, frames, and what may fail."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from torch import Tensor
from torch.utils.data import DataLoader

from datamodules.features.memory import FeatureBatch, FeatureSplit, MemoryFeatures
from datamodules.tracks import Split
from mirprobe.probing import linear
from mirprobe.probing.linear import PENALTIES, RidgePath, RidgeSums, all_sources, fit_linear
from mirprobe.scoring.metrics import METRICS, predictions, score_once


def path_of(features: Tensor, targets: Tensor, *, parts: int = 1) -> RidgePath:
    sums = RidgeSums(features.shape[1], targets.shape[1])
    for rows, values in zip(features.chunk(parts), targets.chunk(parts), strict=True):
        sums.add(rows, values)
    return sums.solve()


@pytest.mark.parametrize("tenth", range(10))
def test_outputs_are_those_of_scikit_learns_ridge(tenth: int) -> None:
    """200 problems: more clips than features and fewer, whole and in parts, at every penalty."""
    for seed in range(20 * tenth, 20 * tenth + 20):
        generator = np.random.default_rng(seed)
        n, dim, n_outputs = generator.integers((5, 2, 1), (60, 60, 6))
        spread = 10 ** generator.uniform(-1, 1, dim)
        train = torch.from_numpy(generator.standard_normal((n, dim)) * spread + 3)
        targets = torch.from_numpy(generator.standard_normal((n, n_outputs)) + 1)
        test = torch.from_numpy(generator.standard_normal((7, dim)) * spread + 3)

        path = path_of(train, targets, parts=int(generator.integers(1, 5)))
        penalty = float(generator.choice(PENALTIES))
        squares = float((train - train.mean(dim=0)).square().sum())
        oracle = Ridge(alpha=penalty * squares / dim, solver="svd").fit(train, targets)
        expected = oracle.predict(test).reshape(7, n_outputs)
        assert path.outputs(test, [penalty])[0].numpy() == pytest.approx(expected, abs=1e-6), seed

        by_hand = test @ path.weight(penalty) + path.bias(penalty)
        assert by_hand.numpy() == pytest.approx(expected, abs=1e-6), seed


def test_parts_of_train_give_the_same_as_the_whole() -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(90, 20, dtype=torch.float64, generator=generator)
    targets = torch.randn(90, 3, dtype=torch.float64, generator=generator)
    whole, parts = path_of(features, targets), path_of(features, targets, parts=9)
    torch.testing.assert_close(whole.weight(0.1), parts.weight(0.1))


def test_features_that_are_all_constant_give_the_mean_of_the_targets() -> None:
    targets = torch.tensor([[0.0], [1.0], [5.0]], dtype=torch.float64)
    for dim in (2, 5):
        path = path_of(torch.full((3, dim), 7.0, dtype=torch.float64), targets)
        outputs = path.outputs(torch.zeros(1, dim, dtype=torch.float64), PENALTIES)
        assert outputs.flatten().tolist() == pytest.approx([2.0] * len(PENALTIES))


def test_sources_are_all_layers_and_the_mean_of_the_blocks() -> None:
    states = torch.arange(3.0)[:, None, None].expand(3, 2, 4)
    read = {source.name: float(source.read(states)[0, 0]) for source in all_sources(2)}
    assert read == {"layer_00": 0, "layer_01": 1, "layer_02": 2, "mean_all": 1.5}
    assert [source.name for source in all_sources(1)] == ["layer_00", "layer_01"]


# -- of whole tasks --------------------------------------------------------------------------------


def split_of(states: Tensor, target: Tensor, track: Sequence[int] | None = None) -> FeatureSplit:
    """Clips whose tracks are given by position; each is a track of its own without."""
    tracks = torch.arange(len(target)) if track is None else torch.tensor(track)
    n_tracks = int(tracks.max()) + 1
    first = [int((tracks == position).nonzero()[0]) for position in range(n_tracks)]
    names = tuple(f"t{position}" for position in range(n_tracks))
    return FeatureSplit(names, target[first], states.half(), target, tracks)


def toy(n_layers: int = 2, n_train: int = 60, dim: int = 6, noise: float = 0.3) -> MemoryFeatures:
    """Three classes, which only layer 1 knows."""
    generator = torch.Generator().manual_seed(1)
    centres = torch.randn(3, dim, generator=generator)

    def split(n: int) -> FeatureSplit:
        target = torch.arange(n) % 3
        states = torch.randn(n_layers + 1, n, dim, generator=generator)
        states[1] = centres[target] + noise * states[1]
        return split_of(states, target)

    splits: dict[Split, FeatureSplit] = {
        "train": split(n_train),
        "val": split(30),
        "test": split(40),
    }
    return MemoryFeatures(splits, batch_size=8, seed=0)


def double(features: Tensor) -> Tensor:
    return features.double()


def scores(features: MemoryFeatures, found: linear.LinearHeads, split: Split) -> list[float]:
    predicted = predictions("classification", found.outputs[split])
    target = features.splits[split].track_target
    return score_once(METRICS["accuracy"], predicted, target).tolist()


def test_the_layer_that_knows_is_found() -> None:
    features = toy()
    found = fit_linear(features, METRICS["accuracy"], 3, double)
    assert [source.name for source in found.sources] == [source.name for source in all_sources(2)]
    on_test = scores(features, found, "test")
    assert on_test[1] > 0.95
    assert max(on_test[0], on_test[2]) < 0.6
    assert found.failed == {"val": [None] * 4, "test": [None] * 4}


def test_test_outputs_are_those_of_the_kept_weights() -> None:
    features = toy()
    found = fit_linear(features, METRICS["accuracy"], 3, double)
    states = features.splits["test"].features.float()
    by_hand = states[1] @ found.weight[1] + found.bias[1]
    torch.testing.assert_close(found.outputs["test"][1], by_hand, atol=1e-5, rtol=0)


def test_the_penalty_is_the_best_on_val_and_of_equals_the_largest() -> None:
    features = toy(noise=1.5)
    found = fit_linear(features, METRICS["accuracy"], 3, double)
    train, val = features.splits["train"], features.splits["val"]
    targets = linear.as_columns(train.target, 3)
    for layer in range(3):
        path = path_of(train.features[layer].double(), targets)
        predicted = path.outputs(val.features[layer].double(), PENALTIES).argmax(dim=2)
        right = (predicted == val.target).double().mean(dim=1)
        best = [p for p, score in zip(PENALTIES, right, strict=True) if score == right.max()]
        assert found.penalty[layer] == max(best)


def test_clips_of_a_track_are_averaged() -> None:
    features = toy()
    val = features.splits["val"]
    track = [place // 3 for place in range(30)]
    target = torch.tensor(track) % 3
    by_track = split_of(val.features.float(), target, track)
    splits = {**features.splits, "val": by_track}
    found = fit_linear(MemoryFeatures(splits, 8, 0), METRICS["accuracy"], 3, double)
    assert found.outputs["val"].shape == (4, 10, 3)

    expected = val.features[1].double() @ found.weight[1].double() + found.bias[1]
    expected = expected.reshape(10, 3, 3).mean(dim=1).float()
    torch.testing.assert_close(found.outputs["val"][1], expected, atol=1e-5, rtol=0)


def test_blocks_of_sources_change_no_number(monkeypatch: pytest.MonkeyPatch) -> None:
    features = toy()
    whole = fit_linear(features, METRICS["accuracy"], 3, double)
    monkeypatch.setattr(linear, "_BYTES", 1)
    one_by_one = fit_linear(features, METRICS["accuracy"], 3, double)
    assert torch.equal(whole.weight, one_by_one.weight)
    assert torch.equal(whole.outputs["val"], one_by_one.outputs["val"])


def test_tags_and_values_are_columns_of_their_own() -> None:
    features = toy()
    splits = {
        split: split_of(part.features.float(), torch.eye(3)[part.target])
        for split, part in features.splits.items()
    }
    columns = MemoryFeatures(splits, 8, 0)
    for name in ("r2", "average_precision"):
        found = fit_linear(columns, METRICS[name], 3, double)
        predicted = predictions(METRICS[name].kind, found.outputs["test"])
        target = columns.splits["test"].track_target
        values = score_once(METRICS[name], predicted, target)
        assert values[1] > 0.6 > values[0]


class _Frames(MemoryFeatures):
    """Frames of tracks, as `FrameFeatures` gives them, in two batches."""

    def batches(self, split: Split) -> DataLoader[FeatureBatch]:
        part = self.splits[split]
        halves = [slice(0, 17), slice(17, None)]
        return [  # type: ignore[return-value]
            {
                "features": part.features[:, half],
                "target": part.target[half],
                "track": part.track[half],
            }
            for half in halves
        ]


def test_frames_are_counted_by_true_and_predicted_class() -> None:
    splits: dict[Split, FeatureSplit] = {}
    for split, part in toy().splits.items():
        n = len(part.target)
        track = torch.arange(n) % 5
        counts = torch.stack([part.target[track == one].bincount(minlength=3) for one in range(5)])
        names = tuple("abcde")
        splits[split] = FeatureSplit(names, counts, part.features, part.target, track)

    found = fit_linear(_Frames(splits, 8, 0), METRICS["frame_accuracy"], 3, double)
    confusion = found.outputs["test"]
    assert confusion.shape == (4, 5, 3, 3)
    assert torch.equal(confusion.sum(dim=3)[1], splits["test"].track_target)
    accuracy = score_once(METRICS["frame_accuracy"], confusion, splits["test"].track_target)
    assert accuracy[1] > 0.95 and max(accuracy[0], accuracy[2]) < 0.6


# -- what may fail ---------------------------------------------------------------------------------


def test_a_layer_whose_features_are_not_finite_fails_alone() -> None:
    features = toy()
    features.splits["test"].features[2, 0, 0] = torch.nan
    found = fit_linear(features, METRICS["accuracy"], 3, double)
    assert found.failed["val"] == [None] * 4
    reason = "outputs on test are not finite"
    assert found.failed["test"] == [None, None, reason, reason]

    features.splits["val"].features[0, 0, 0] = torch.nan
    found = fit_linear(features, METRICS["accuracy"], 3, double)
    reason = "outputs on val are not finite for any penalty"
    assert (found.failed["val"][0], found.failed["val"][1]) == (reason, None)
    assert found.failed["test"][0] == reason


def test_a_val_without_a_score_fails_and_says_so() -> None:
    """One track in val: no R2 of it is a number."""
    features = toy()
    values = {
        split: split_of(part.features.float(), torch.eye(3)[part.target])
        for split, part in features.splits.items()
    }
    val = values["val"]
    one = split_of(val.features[:, :1].float(), val.target[:1])
    found = fit_linear(MemoryFeatures({**values, "val": one}, 8, 0), METRICS["r2"], 3, double)
    assert set(found.failed["test"]) == {"val score is not a number for any penalty"}


def test_classes_that_train_has_not_are_never_said() -> None:
    features = toy()
    found = fit_linear(features, METRICS["accuracy"], 5, double)
    assert found.outputs["test"].shape == (4, 40, 5)
    assert found.outputs["test"].argmax(dim=2).max() < 3
