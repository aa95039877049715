"""Constant answers: the best of them, beside every one that there is."""

import csv
import gzip
import itertools
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, r2_score, roc_auc_score
from torch import Tensor

from datamodules.datasets.giantsteps import KEYS, key_class
from datamodules.tracks import Kind
from mirprobe.probing.controls import best_constant
from mirprobe.probing.kinds import KINDS
from mirprobe.scoring.metrics import METRICS, score_once

# Frames of three classes in three tracks: 9, 5 and 2 of 16.
FRAMES = torch.tensor([[6, 1, 0], [2, 3, 2], [1, 1, 0]])
_BESIDE = Path(__file__).resolve().parents[4] / "shared" / "real-labels"
REAL_LABELS = Path(os.environ.get("MIRPROBE_REAL_LABELS") or _BESIDE)


def constant(metric: str, target: Tensor, n_classes: int = 0) -> float | None:
    """The best constant by a metric, as a cell asks for it."""
    answers = KINDS[METRICS[metric].kind].constants(target, n_classes)
    return best_constant(METRICS[metric], answers, target)


# -- classes ---------------------------------------------------------------------------------------


def test_by_accuracy_it_is_the_share_of_the_largest_class() -> None:
    assert constant("accuracy", torch.tensor([2, 0, 2, 2, 1]), 3) == pytest.approx(0.6)
    assert constant("accuracy", torch.tensor([4]), 5) == 1


def test_by_the_key_score_it_earns_credit_for_related_keys() -> None:
    """Of ten songs four are in F# minor, three in C major and three in F major: always C major gets
    half of the latter, for it is a fifth above, and 4.5 in all.
    """
    names = ["F# minor"] * 4 + ["C major"] * 3 + ["F major"] * 3
    target = torch.tensor([key_class(name) for name in names])
    assert constant("accuracy", target, 24) == pytest.approx(0.4)
    assert constant("key_weighted", target, 24) == pytest.approx(0.45)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("metric", ["accuracy", "key_weighted"])
def test_no_class_scores_more(metric: str, seed: int) -> None:
    target = torch.randint(24, (40,), generator=torch.Generator().manual_seed(seed))
    scores = [
        score_once(METRICS[metric], torch.full((1, 40), label), target).item()
        for label in range(24)
    ]
    assert constant(metric, target, 24) == max(scores)


# -- frames ----------------------------------------------------------------------------------------


def test_frames_are_scored_by_the_metric() -> None:
    assert constant("frame_accuracy", FRAMES, 3) == pytest.approx(9 / 16)
    assert constant("frame_accuracy_macro", FRAMES, 3) == pytest.approx(1 / 3)


def test_the_largest_class_of_frames_is_that_of_all_tracks_together() -> None:
    """Class 1 leads in one track, class 0 over all."""
    frames = torch.tensor([[0, 5], [9, 1]])
    assert constant("frame_accuracy", frames, 2) == pytest.approx(9 / 15)


def test_classes_without_frames_are_no_share_of_the_macro_score() -> None:
    frames = torch.tensor([[0, 5, 0, 0], [9, 1, 0, 0]])
    assert constant("frame_accuracy_macro", frames, 4) == pytest.approx(1 / 2)


# -- tags ------------------------------------------------------------------------------------------


def test_tags_have_half_the_area_and_their_mean_frequency_as_precision() -> None:
    target = (torch.rand(50, 6, generator=torch.Generator().manual_seed(0)) < 0.2).float()
    target[:, 4] = 0  # without a positive there is no score
    some = [tag for tag in range(6) if tag != 4]
    assert constant("roc_auc", target) == pytest.approx(0.5)
    frequencies = target[:, some].mean(dim=0)
    assert constant("average_precision", target) == pytest.approx(frequencies.mean().item())

    same = np.full(50, 0.3)
    areas = [roc_auc_score(target[:, tag], same) for tag in some]
    precisions = [average_precision_score(target[:, tag], same) for tag in some]
    assert constant("roc_auc", target) == pytest.approx(np.mean(areas))
    assert constant("average_precision", target) == pytest.approx(np.mean(precisions))


# -- values ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", ["r2", "r2_arousal", "r2_valence"])
def test_no_constant_value_has_a_better_r2_than_0(metric: str) -> None:
    target = torch.randn(30, 2, generator=torch.Generator().manual_seed(0)) + 3
    assert constant(metric, target) == 0
    for pair in itertools.product(np.linspace(2, 4, 41), repeat=2):
        answer = torch.tensor(pair).expand(1, 30, 2)
        assert score_once(METRICS[metric], answer, target).item() <= 0
    means = np.broadcast_to(target.mean(dim=0).numpy(), (30, 2))
    assert r2_score(target.numpy(), means) == pytest.approx(0, abs=1e-6)


def test_a_constant_of_0_is_no_minus_0_in_a_table() -> None:
    for seed in range(50):
        target = torch.randn(7, 1, generator=torch.Generator().manual_seed(seed)) * 1e3
        assert f"{constant('r2', target):.1f}" == "0.0"


@pytest.mark.parametrize(
    ("metric", "target"),
    [("r2", torch.ones(5, 1)), ("roc_auc", torch.zeros(5, 2)), ("roc_auc", torch.ones(5, 2))],
)
def test_where_a_metric_is_not_defined_there_is_no_constant(metric: str, target: Tensor) -> None:
    assert constant(metric, target) is None


# -- the real keys ---------------------------------------------------------------------------------


@pytest.mark.trial
def test_the_constant_of_the_real_keys_is_that_of_mir_eval() -> None:
    """Always C minor: 15.76 on the 604 songs of GiantSteps, beside the paper's baseline of 15.0,
    where the largest class is 12.1 % of them.
    """
    path = REAL_LABELS / "giantsteps_test_keys.tsv.gz"
    if not path.is_file():
        pytest.skip(f"no real labels: {path} is not there (MIRPROBE_REAL_LABELS names the folder)")
    mir_eval = pytest.importorskip("mir_eval.key")

    with gzip.open(path, "rt", encoding="utf-8") as file:
        names = [name for _, name in csv.reader(file, delimiter="\t")]
    target = torch.tensor([key_class(name) for name in names])
    by_key = {
        key: sum(mir_eval.weighted_score(name, key) for name in names) / len(names) for key in KEYS
    }
    assert (len(names), max(by_key, key=by_key.get)) == (604, "C minor")
    assert constant("key_weighted", target, 24) == pytest.approx(max(by_key.values()))
    assert 100 * max(by_key.values()) == pytest.approx(15.76, abs=0.005)
    assert constant("accuracy", target, 24) == pytest.approx(max(map(names.count, names)) / 604)


def test_every_kind_has_constants() -> None:
    kinds: set[Kind] = {metric.kind for metric in METRICS.values()}
    assert set(KINDS) == kinds
