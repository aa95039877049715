"""What depends on the kind of targets: losses of each head, collectors, controls."""

import math
from typing import get_args

import pytest
import torch
from torch import Tensor

from datamodules.tracks import Kind
from mirprobe.probing.controls import each_class, each_class_of_frames, equal_odds, mean_values
from mirprobe.probing.kinds import KINDS
from mirprobe.probing.outputs import TrackConfusion, TrackLogits

H, B, C = 3, 7, 4
LOGITS = torch.randn(H, B, C, generator=torch.Generator().manual_seed(0))
CLASSES = torch.tensor([0, 1, 2, 3, 0, 0, 2])
TAGS = (torch.rand(B, C, generator=torch.Generator().manual_seed(1)) < 0.4).float()
VALUES = torch.randn(B, C, generator=torch.Generator().manual_seed(2))


def minus_log_softmax(logits: Tensor, target: int) -> float:
    exponents = [math.exp(value) for value in logits.tolist()]
    return -math.log(exponents[target] / sum(exponents))


def minus_log_sigmoid(logit: float, target: float) -> float:
    probability = 1 / (1 + math.exp(-logit))
    return -math.log(probability if target else 1 - probability)


def test_there_are_rules_for_every_kind() -> None:
    assert set(KINDS) == set(get_args(Kind))
    assert [kind for kind, rules in KINDS.items() if rules.by_frames] == ["frames"]


@pytest.mark.parametrize("kind", ["classification", "frames"])
def test_loss_of_classes_is_each_heads_own_mean_cross_entropy(kind: Kind) -> None:
    losses = KINDS[kind].loss(LOGITS, CLASSES)
    expected = [
        sum(minus_log_softmax(*one) for one in zip(head, CLASSES.tolist(), strict=True)) / B
        for head in LOGITS
    ]
    assert losses.tolist() == pytest.approx(expected, abs=1e-6)


def test_loss_of_tags_is_the_mean_over_clips_and_tags() -> None:
    losses = KINDS["multilabel"].loss(LOGITS, TAGS)
    for loss, head in zip(losses.tolist(), LOGITS, strict=True):
        pairs = zip(head.flatten().tolist(), TAGS.flatten().tolist(), strict=True)
        assert loss == pytest.approx(sum(minus_log_sigmoid(*pair) for pair in pairs) / (B * C))


def test_loss_of_values_is_the_mean_squared_error() -> None:
    losses = KINDS["regression"].loss(LOGITS, VALUES)
    expected = [((head - VALUES) ** 2).sum().item() / (B * C) for head in LOGITS]
    assert losses.tolist() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("kind", "target"), [("classification", CLASSES), ("multilabel", TAGS), ("regression", VALUES)]
)
def test_loss_of_a_head_alone_is_its_loss_among_others(kind: Kind, target: Tensor) -> None:
    losses = KINDS[kind].loss(LOGITS, target)
    for h in range(H):
        torch.testing.assert_close(KINDS[kind].loss(LOGITS[h : h + 1], target)[0], losses[h])


@pytest.mark.parametrize(
    ("kind", "mean_odds", "averages"),
    [
        ("classification", False, None),
        ("classification", True, "classification"),
        ("multilabel", False, None),
        ("multilabel", True, "multilabel"),
        ("regression", False, None),
        ("regression", True, None),  # values have no probabilities
    ],
)
def test_clips_are_collected_by_logits_or_by_probabilities(
    kind: Kind, mean_odds: bool, averages: Kind | None
) -> None:
    collector = KINDS[kind].collect(H, 5, C, mean_odds)
    assert isinstance(collector, TrackLogits)
    assert collector.averages == averages
    assert collector.total.shape == (5, H, C)


@pytest.mark.parametrize("mean_odds", [False, True])
def test_frames_are_collected_as_confusions(mean_odds: bool) -> None:
    collector = KINDS["frames"].collect(H, 5, C, mean_odds)
    assert isinstance(collector, TrackConfusion)
    collector.update(LOGITS, torch.tensor([0, 0, 1, 1, 2, 3, 4]), CLASSES)
    assert collector.compute().shape == (H, 5, C, C)


def test_every_kind_has_constant_answers_of_its_own() -> None:
    assert KINDS["classification"].constants is each_class
    assert KINDS["frames"].constants is each_class_of_frames
    assert KINDS["multilabel"].constants is equal_odds
    assert KINDS["regression"].constants is mean_values
