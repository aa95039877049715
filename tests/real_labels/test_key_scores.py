"""The key score beside mir_eval's own examples, and on the real keys of GiantSteps' test set."""

import pytest
import torch
from real_labels.reading import csv_rows, rows

from datamodules.datasets.giantsteps import KEYS, key_class
from mirprobe.scoring.metrics import METRICS, score_once

pytestmark = pytest.mark.trial
KEY_WEIGHTED = METRICS["key_weighted"]


def test_every_example_of_mir_eval_has_its_score() -> None:
    examples = csv_rows("mir_eval_key.csv")
    assert examples
    for example in examples:
        true = torch.tensor([key_class(example["reference"])])
        estimate = torch.tensor([[key_class(example["estimate"])]])
        score = score_once(KEY_WEIGHTED, estimate, true).item()
        assert score == pytest.approx(float(example["weighted_score"])), example


def test_the_mean_over_songs_is_that_of_mir_eval_for_every_constant_answer() -> None:
    """The real test keys, held against each of the 24 keys in turn."""
    mir_eval = pytest.importorskip("mir_eval.key")
    names = [name for _, name in rows("giantsteps_test_keys.tsv.gz")]
    target = torch.tensor([key_class(name) for name in names])
    constant = torch.arange(24)[:, None].expand(24, len(names))  # a head for every answer

    ours = score_once(KEY_WEIGHTED, constant, target)
    theirs = []
    for key in KEYS:
        scores = [mir_eval.weighted_score(name, key) for name in names]
        theirs.append(sum(scores) / len(scores))
    torch.testing.assert_close(ours, torch.tensor(theirs))

    # The best of them is the floor of every key table: the paper's baseline stands at 15.0.
    assert KEYS[int(ours.argmax())] == "C minor"
