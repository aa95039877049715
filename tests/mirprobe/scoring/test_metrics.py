"""Scores against independent oracles."""

import mir_eval
import pytest
import sklearn.metrics
import torch
from devices import DEVICES
from torch import Tensor

from datamodules.errors import UserError
from datamodules.tracks import Kind
from mirprobe.probing.outputs import TrackConfusion
from mirprobe.scoring.metrics import METRICS, key_table, metric_named, score_once

TONICS = ("C", "Db", "D", "Eb", "E", "F", "Gb", "G", "Ab", "A", "Bb", "B")
KEYS = [f"{tonic} {mode}" for mode in ("major", "minor") for tonic in TONICS]


def drawn(n_heads: int, n_tracks: int, n_classes: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Predicted and true classes; two of five predictions are made right."""
    generator = torch.Generator().manual_seed(seed)
    predicted = torch.randint(n_classes, (n_heads, n_tracks), generator=generator)
    target = torch.randint(n_classes, (n_tracks,), generator=generator)
    is_right = torch.rand(predicted.shape, generator=generator) < 0.4
    return torch.where(is_right, target, predicted), target


def once(name: str, predicted: Tensor, target: Tensor) -> list[float]:
    return score_once(METRICS[name], predicted, target).tolist()


# -- accuracy --------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_classes", [2, 11, 128])
def test_accuracy_equals_scikit_learns_for_every_head(n_classes: int) -> None:
    predicted, target = drawn(5, 97, n_classes)
    expected = [sklearn.metrics.accuracy_score(target, guess) for guess in predicted]
    assert once("accuracy", predicted, target) == pytest.approx(expected, abs=1e-6)


def test_accuracy_of_one_track() -> None:
    assert once("accuracy", torch.tensor([[3], [4]]), torch.tensor([3])) == [1.0, 0.0]


def test_accuracy_is_micro_so_frequent_classes_count_more() -> None:
    score = once("accuracy", torch.tensor([[0, 0, 0, 0]]), torch.tensor([0, 0, 0, 1]))
    assert score == [0.75]  # macro would be 0.5


# -- key -------------------------------------------------------------------------------------------


def test_key_table_equals_mir_eval_for_all_pairs() -> None:
    table = key_table()
    assert table.shape == (24, 24)
    for true, reference in enumerate(KEYS):
        for guess, estimate in enumerate(KEYS):
            expected = mir_eval.key.weighted_score(reference, estimate)
            found = table[true, guess].item()
            assert found == pytest.approx(expected, abs=1e-6), (reference, estimate)


def test_key_score_is_the_mean_of_mir_evals_scores() -> None:
    predicted, target = drawn(3, 60, 24)
    expected = []
    for guess in predicted.tolist():
        pairs = zip(target.tolist(), guess, strict=True)
        scores = [mir_eval.key.weighted_score(KEYS[true], KEYS[key]) for true, key in pairs]
        expected.append(sum(scores) / len(scores))
    assert once("key_weighted", predicted, target) == pytest.approx(expected, abs=1e-6)


def test_key_score_credits_the_fifth_above_only() -> None:
    """facts/tasks 3.6: C major taken for G major 0.5, for F major 0."""
    assert once("key_weighted", torch.tensor([[7], [5]]), torch.tensor([0])) == [0.5, 0.0]


def test_key_score_of_a_minor_key_takes_its_own_relative() -> None:
    """A minor (21) taken for C major (0) and for F# major (6): relative, and nothing."""
    scores = once("key_weighted", torch.tensor([[0], [6]]), torch.tensor([21]))
    assert scores == pytest.approx([0.3, 0.0])


# -- values ----------------------------------------------------------------------------------------


def values(n_heads: int = 3, n_tracks: int = 40, n_dimensions: int = 2) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    target = torch.randn(n_tracks, n_dimensions, generator=generator)
    return target + torch.randn(n_heads, n_tracks, n_dimensions, generator=generator), target


def test_r2_equals_scikit_learns_per_dimension_and_in_the_mean() -> None:
    predicted, target = values()
    for head, guess in enumerate(predicted):
        expected = sklearn.metrics.r2_score(target, guess, multioutput="raw_values")
        assert once("r2_arousal", predicted, target)[head] == pytest.approx(expected[0], abs=1e-5)
        assert once("r2_valence", predicted, target)[head] == pytest.approx(expected[1], abs=1e-5)
        assert once("r2", predicted, target)[head] == pytest.approx(expected.mean(), abs=1e-5)


def test_r2_of_a_constant_is_zero_at_the_mean_and_negative_elsewhere() -> None:
    _, target = values()
    at_mean = target.mean(dim=0).expand_as(target)
    scores = once("r2", torch.stack([at_mean, at_mean + 0.5]), target)
    assert scores[0] == pytest.approx(0, abs=1e-6) and scores[1] < -0.1


# -- tags ------------------------------------------------------------------------------------------


def tags(n_levels: int, n_tracks: int = 60, n_tags: int = 4) -> tuple[Tensor, Tensor]:
    """Two heads' probabilities with `n_levels` distinct values, so that there are ties."""
    generator = torch.Generator().manual_seed(n_levels)
    target = (torch.rand(n_tracks, n_tags, generator=generator) < 0.3).float()
    noisy = target * 0.4 + torch.rand(2, n_tracks, n_tags, generator=generator)
    return (noisy * n_levels).round() / n_levels, target


# -- frames ----------------------------------------------------------------------------------------


def frames(
    n_heads: int = 2, n_tracks: int = 30, n_classes: int = 5
) -> tuple[Tensor, Tensor, Tensor]:
    """(H, M) predicted and (M,) true classes of frames, and (M,) their tracks.

    Tracks are of unequal length, and class 3 is rare.
    """
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(1, 40, (n_tracks,), generator=generator)
    track = torch.arange(n_tracks).repeat_interleave(lengths)
    often = torch.tensor([5.0, 3, 2, 0.1, 1])
    target = torch.multinomial(often, len(track), replacement=True, generator=generator)

    guess = torch.randint(n_classes, (n_heads, len(track)), generator=generator)
    is_right = torch.rand(guess.shape, generator=generator) < 0.5
    return torch.where(is_right, target, guess), target, track


def confusion(
    predicted: Tensor, target: Tensor, track: Tensor, batch_size: int = 10**6
) -> tuple[Tensor, Tensor]:
    """Through the collector, what metrics take: (H, N, C, C) counts, (N, C) frames per class."""
    n_tracks = int(track.max()) + 1
    metric = TrackConfusion(len(predicted), n_tracks, 5)
    for batch in torch.arange(len(track)).split(batch_size):
        logits = torch.nn.functional.one_hot(predicted[:, batch], 5).float()
        metric.update(logits, track[batch], target[batch])
    counts = metric.compute()
    return counts, counts[0].sum(dim=2)


def test_frame_scores_equal_scikit_learns_over_all_frames() -> None:
    predicted, target, track = frames()
    counts, classes = confusion(predicted, target, track)
    for head, guess in enumerate(predicted):
        micro = sklearn.metrics.accuracy_score(target, guess)
        macro = sklearn.metrics.balanced_accuracy_score(target, guess)
        assert once("frame_accuracy", counts, classes)[head] == pytest.approx(micro, abs=1e-6)
        assert once("frame_accuracy_macro", counts, classes)[head] == pytest.approx(macro, abs=1e-6)


def test_a_class_without_frames_is_left_out_of_the_macro_mean() -> None:
    predicted, target, track = frames()
    counts, classes = confusion(predicted, target.where(target != 3, 0), track)
    expected = sklearn.metrics.recall_score(
        target.where(target != 3, 0), predicted[0], average=None, labels=[0, 1, 2, 4]
    )
    assert once("frame_accuracy_macro", counts, classes)[0] == pytest.approx(
        expected.mean(), abs=1e-6
    )


# -- counts ----------------------------------------------------------------------------------------


def example(kind: Kind) -> tuple[Tensor, Tensor]:
    """Two heads' predictions and the targets that metrics of a kind score."""
    if kind == "classification":
        return drawn(2, 50, 24)
    if kind == "multilabel":
        return tags(7)
    return values() if kind == "regression" else confusion(*frames())


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", sorted(METRICS))
def test_score_under_counts_is_the_score_of_the_resampled_tracks(name: str, device: str) -> None:
    predicted, target = example(METRICS[name].kind)
    rows = torch.randint(len(target), (3, len(target)), generator=torch.Generator().manual_seed(9))
    counts = torch.stack([torch.bincount(one, minlength=len(target)) for one in rows]).double()
    scores = METRICS[name].score(predicted.to(device), target.to(device), counts.to(device)).cpu()
    for number, one in enumerate(rows):
        assert scores[:, number].tolist() == pytest.approx(
            once(name, predicted[:, one], target[one]), abs=1e-5
        )


# -- names -----------------------------------------------------------------------------------------


def test_every_metric_is_one_for_right_answers_and_takes_any_number_of_heads() -> None:
    right = {
        "classification": drawn(4, 30, 24)[1],
        "multilabel": tags(5)[1],
        "regression": values()[1],
    }
    for name, metric in METRICS.items():
        if metric.kind == "frames":
            _, target, track = frames()
            assert once(name, *confusion(target.expand(4, -1), target, track)) == pytest.approx(
                [1.0] * 4
            )
        else:
            target = right[metric.kind]
            assert once(name, target.expand(4, *target.shape), target) == pytest.approx([1.0] * 4)


def test_an_unknown_metric_lists_the_known_ones() -> None:
    with pytest.raises(UserError, match=r"unknown metric 'acuracy'.*Known: accuracy, key_weighted"):
        metric_named("acuracy")
