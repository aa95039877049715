"""Rows of heads that have no score, and cells of which no head has one."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from toy_backbone import N_LAYERS, Statistics

from datamodules.digests import KnownDigests
from datamodules.features.store import FeatureStore
from datamodules.task import TaskDataModule
from mirprobe.assembly import Job, make_data
from mirprobe.cell import Cell
from mirprobe.extraction.extract import extract
from mirprobe.probing.bank import ProbeBank
from mirprobe.probing.probe import FailedCellError, probe
from mirprobe.provenance import MadeOf, Result, result_of
from mirprobe.results import FILE, Row, read_rows
from mirprobe.scoring.metrics import TrackMetric
from mirprobe.scoring.selection import best_layer, head_rows
from mirprobe.settings import compose_cell
from mirprobe.sweep.run import print_scores

Setting = Callable[..., Cell]


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One store for all cells of this file."""
    return tmp_path_factory.mktemp("failed")


@pytest.fixture
def cell(settings: Callable[..., list[str]], out: Path) -> Setting:
    def make(*overrides: str) -> Cell:
        composed = compose_cell(settings("task=nsynth_instrument", *overrides, out=out))
        return replace(composed, model={"name": "toy"})

    return make


def store_of(cell: Cell, data: TaskDataModule) -> FeatureStore:
    """The store with the features of a cell's tracks."""
    known = KnownDigests(Path(cell.paths.features) / "known.jsonl")
    return extract(Job((cell,), (data,), known), Statistics())


def place_of(cell: Cell, store: FeatureStore) -> Result:
    """Where the results of a cell go."""
    return result_of(cell, MadeOf("weights", "tracks", store.id.hash))


def run(cell: Cell) -> list[Row]:
    """The rows of a cell, from its audio on."""
    data = make_data(cell)
    store = store_of(cell, data)
    return probe(cell, data, store, place_of(cell, store))


def break_heads(monkeypatch: pytest.MonkeyPatch, *heads: int) -> None:
    """Lets some heads of every bank answer NaN, whatever they were asked."""
    forward = ProbeBank.forward

    def broken(bank: ProbeBank, features: Tensor) -> Tensor:
        outputs = forward(bank, features)
        is_broken = torch.zeros(len(outputs), 1, 1)
        is_broken[list(heads)] = torch.nan
        return outputs + is_broken

    monkeypatch.setattr(ProbeBank, "forward", broken)


def test_a_head_without_a_score_is_said_and_never_chosen(
    cell: Setting, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`max` takes NaN in the first place for the largest, so layer 0 would be chosen."""
    break_heads(monkeypatch, 0, N_LAYERS + 1)
    toy = cell()
    data = make_data(toy)
    store = store_of(toy, data)
    place = place_of(toy, store)
    rows = probe(toy, data, store, place)

    broken = [row for row in rows if row.failed is not None]
    assert [row.head_name for row in broken] == ["layer_00", "weighted"] * 2
    for row in broken:
        assert row.failed == "outputs on val are not finite in any epoch"
        assert (row.value, row.ci_low, row.epoch, row.weights_end) == (None, None, 0, None)
    chosen, oracle = best_layer(rows, "val"), best_layer(rows, "test")
    assert chosen is not None and chosen.layer != 0
    assert oracle is not None and oracle.layer != 0

    text = (place.folder / FILE).read_text()
    assert "NaN" not in text and "Infinity" not in text
    assert [json.loads(line)["head"] for line in text.splitlines() if '"value": null' in line]
    assert read_rows(place.folder, toy.hash, toy.metrics) == rows
    with np.load(place.folder / "predictions.npz") as kept:
        expected = [broken[0].failed, *[""] * N_LAYERS, broken[0].failed]
        assert kept["val_failed"].tolist() == kept["test_failed"].tolist() == expected

    capsys.readouterr()
    print_scores(toy, rows, 1.0)
    printed = capsys.readouterr().out
    assert ", weighted sum failed, linear " in printed
    reason = "layer_00, weighted failed: outputs on val are not finite in any epoch"
    assert f"toy nsynth_instrument: by accuracy, {reason}\n" in printed


def test_a_cell_without_any_score_leaves_no_results(cell: Setting) -> None:
    toy = cell("seed=3")
    toy = replace(toy, protocol=replace(toy.protocol, lr=1e30))  # settings refuse it
    data = make_data(toy)
    store = store_of(toy, data)
    place = place_of(toy, store)
    with pytest.raises(
        FailedCellError,
        match=r"no probe of toy for nsynth_instrument has a score: outputs on val are not finite "
        r"in any epoch\. Look at protocol\.lr \(1e\+30\) and at the labels of val$",
    ):
        probe(toy, data, store, place)
    assert not place.folder.exists()
    assert "features" not in vars(data)


def test_a_metric_that_is_not_defined_on_a_split_is_no_score_there(
    cell: Setting, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As R2 of targets that are all alike; epochs are chosen by another metric, and as ever."""

    def undefined(_metric: TrackMetric, predicted: Tensor, _target: Tensor) -> Tensor:
        return torch.full((len(predicted),), -math.inf)

    toy = cell("seed=4")
    monkeypatch.setattr("mirprobe.probing.rows.score_once", undefined)
    rows = run(toy)
    assert {row.failed for row in rows if row.split == "test"} == {
        "accuracy is not defined on test"
    }
    assert all(row.epoch > 0 for row in rows if row.probe == "mlp")
    (weighted,) = head_rows(rows, "test", single=False)
    assert weighted.weights_end is not None, "it was trained for all that"

    capsys.readouterr()
    print_scores(toy, rows, 1.0)
    assert "no layer has a score on val by accuracy, n=48/24/24" in capsys.readouterr().out


# -- counts and constants --------------------------------------------------------------------------


def test_a_train_track_that_is_left_out_shows_in_the_printed_line(
    cell: Setting, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = []
    for exclude in ("[]", "[train0_synthetic_000-048-000]"):
        toy = cell("seed=5", f"data.exclude={exclude}")
        rows = run(toy)
        capsys.readouterr()
        print_scores(toy, rows, 1.0)
        lines.append(capsys.readouterr().out)
    assert "n=48/24/24 of 289205/12678/4096" in lines[0]
    assert "n=47/24/24 of 289205/12678/4096" in lines[1]


def test_every_row_counts_all_splits_and_has_the_constant_of_its_own(cell: Setting) -> None:
    toy = cell("seed=6")
    rows, data = run(toy), make_data(toy)
    n_tracks = {"train": 48, "val": 24, "test": 24}
    for row in rows:
        assert (row.n_tracks, row.n_expected) == (n_tracks, dict(data.expected))
        assert row.constant == pytest.approx(1 / 3)
        assert row.value is not None and row.ci_low is not None and row.ci_high is not None
        assert row.ci_low <= row.value <= row.ci_high and row.n_left_out == 0


def test_where_the_complete_dataset_is_not_known_what_is_there_is_expected(
    cell: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy = cell("seed=7")
    monkeypatch.setattr(type(make_data(toy)), "expected", {})
    rows = run(toy)
    assert {tuple(row.n_expected.items()) for row in rows} == {tuple(rows[0].n_tracks.items())}
