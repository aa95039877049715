"""Probes of one cell: stored features into files and rows."""

from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from devices import GPU
from toy_backbone import N_LAYERS, Statistics

from datamodules.digests import KnownDigests
from datamodules.errors import UserError
from datamodules.features.store import FeatureStore, store_id_text
from datamodules.listing import hash_text, list_text
from datamodules.task import TaskDataModule
from mirprobe.assembly import Job, make_data
from mirprobe.cell import STORE, Cell
from mirprobe.extraction.extract import extract
from mirprobe.probing.bank import WEIGHTED, ProbeBank
from mirprobe.probing.linear import MEAN_ALL, PENALTIES, LinearHeads, fit_linear
from mirprobe.probing.probe import open_store, probe
from mirprobe.probing.training import TrainedBank, train_bank
from mirprobe.provenance import MadeOf, Result, result_of
from mirprobe.results import Row, is_done, read_rows
from mirprobe.settings import compose_cell

LAYERS = [f"layer_{layer:02d}" for layer in range(N_LAYERS + 1)]
HEADS, LINEAR_HEADS = [*LAYERS, WEIGHTED], [*LAYERS, MEAN_ALL]


@pytest.fixture(scope="module")
def store_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("probe")


@pytest.fixture
def cell(settings: Callable[..., list[str]], store_folder: Path) -> Cell:
    composed = compose_cell(settings("task=nsynth_instrument", out=store_folder))
    return replace(composed, model={"name": "toy"})


@pytest.fixture
def data(cell: Cell) -> TaskDataModule:
    return make_data(cell)


@pytest.fixture
def store(cell: Cell, data: TaskDataModule, store_folder: Path) -> FeatureStore:
    return extract(Job((cell,), (data,), KnownDigests(store_folder / "known")), Statistics())


def place_of(cell: Cell, data: TaskDataModule, store: FeatureStore) -> Result:
    """Where the cell's results on these features go."""
    tracks = hash_text(list_text(data.tracks(), audio=True))
    return result_of(cell, MadeOf(store.id.fingerprint, tracks, store.id.hash))


@pytest.fixture
def place(cell: Cell, data: TaskDataModule, store: FeatureStore) -> Result:
    return place_of(cell, data, store)


@pytest.fixture
def rows(cell: Cell, data: TaskDataModule, store: FeatureStore, place: Result) -> list[Row]:
    return probe(cell, data, store, place)


def test_every_head_has_a_row_for_val_and_test(rows: list[Row], cell: Cell, place: Result) -> None:
    linear = [f"linear {head}" for head in LINEAR_HEADS]
    assert [(row.split, row.head_name) for row in rows] == [
        (split, head) for heads in (HEADS, linear) for split in ("val", "test") for head in heads
    ]
    assert read_rows(place.folder, cell.hash, cell.metrics) == rows
    for row in rows:
        assert row.ci_low <= row.value <= row.ci_high
        assert row.interval == "wilson"
        assert (row.model, row.task, row.seed) == ("toy", "nsynth_instrument", 0)
        assert (row.n_tracks["test"], row.constant, row.demo) == (24, pytest.approx(1 / 3), False)
        assert row.config_hash == cell.hash
        if row.probe == "mlp":
            assert 1 <= row.epoch <= cell.protocol.max_epochs and not row.chosen
        else:
            assert row.epoch is None and row.chosen["penalty"] in PENALTIES


def test_a_row_names_what_it_was_made_of(
    rows: list[Row], store: FeatureStore, data: TaskDataModule
) -> None:
    listed = hash_text(list_text(data.tracks(), audio=True))
    made_of = {(row.weights, row.tracks_hash, row.store_hash) for row in rows}
    assert made_of == {(Statistics().fingerprint(), listed, store.id.hash)}


def test_only_the_weighted_head_has_layer_weights(rows: list[Row]) -> None:
    for row in rows:
        if row.probe == "linear":
            assert row.layer == (None if row.head == MEAN_ALL else HEADS.index(row.head))
            assert row.weights_start is None and row.weights_end is None
        elif row.head == WEIGHTED:
            assert row.layer is None
            assert row.weights_start == pytest.approx([1 / N_LAYERS] * N_LAYERS)
            assert sum(row.weights_end or []) == pytest.approx(1)
            assert row.weights_end != row.weights_start
        else:
            assert row.layer == HEADS.index(row.head)
            assert row.weights_start is None and row.weights_end is None


def test_scores_follow_from_the_outputs_that_are_kept(rows: list[Row], place: Result) -> None:
    with np.load(place.folder / "predictions.npz") as kept:
        assert kept["heads"].tolist() == HEADS
        assert kept["linear_heads"].tolist() == LINEAR_HEADS
        for split, prefix in product(("val", "test"), ("", "linear_")):
            logits, target = kept[f"{prefix}{split}_logits"], kept[f"{split}_target"]
            assert logits.shape[:2] == (len(HEADS), len(target))
            assert kept[f"{split}_track_ids"].shape == target.shape
            right = (logits.argmax(axis=2) == target).mean(axis=1)
            probe = "linear" if prefix else "mlp"
            values = [row.value for row in rows if (row.split, row.probe) == (split, probe)]
            assert values == pytest.approx(right.tolist())


def test_the_linear_twin_is_left_out_on_request(
    cell: Cell, data: TaskDataModule, store: FeatureStore, place: Result
) -> None:
    protocol = replace(cell.protocol, linear=False, max_epochs=1)
    other = replace(cell, protocol=protocol)
    rows = probe(other, data, store, place)
    assert {row.probe for row in rows} == {"mlp"}
    assert read_rows(place.folder, other.hash, other.metrics) == rows


@pytest.mark.parametrize("standardize", [True, False])
def test_the_twin_reads_features_as_the_bank_does(
    cell: Cell,
    data: TaskDataModule,
    store: FeatureStore,
    place: Result,
    standardize: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[torch.Tensor] = []

    def watch(*arguments: object) -> LinearHeads:
        features, read = data.features.splits["train"].features, arguments[3]
        seen.extend([features.double(), read(features)])  # type: ignore[operator]
        return fit_linear(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr("mirprobe.probing.probe.fit_linear", watch)
    protocol = replace(cell.protocol, standardize=standardize, max_epochs=1)
    probe(replace(cell, protocol=protocol), data, store, place)

    raw, read = seen
    expected = raw
    if standardize:
        deviation, mean = torch.std_mean(raw, dim=1, keepdim=True, correction=0)
        expected = (raw - mean) / torch.where(deviation > 0, deviation, 1)
    torch.testing.assert_close(read, expected, atol=1e-4, rtol=1e-4)


def test_the_probes_are_kept(rows: list[Row], cell: Cell, place: Result) -> None:
    probes = torch.load(place.folder / "probes.pt", weights_only=True)
    assert probes["hidden_weight"].shape == (len(HEADS), 2, cell.protocol.hidden)
    assert probes["layer_weights"].shape == (1, N_LAYERS)


def test_the_protocol_and_the_seed_of_the_cell_reach_the_bank(
    cell: Cell,
    data: TaskDataModule,
    store: FeatureStore,
    place: Result,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A setting without effect would show in no score."""
    banks: list[ProbeBank] = []

    def watch(bank: ProbeBank, *arguments: object, **more: object) -> TrainedBank:
        banks.append(bank)
        return train_bank(bank, *arguments, **more)  # type: ignore[arg-type]

    monkeypatch.setattr("mirprobe.probing.probe.train_bank", watch)
    settings = {"dropout": 0.35, "hidden": 9, "layer_weights_init": "normal", "max_epochs": 1}
    other = replace(cell, seed=6, protocol=replace(cell.protocol, **settings))
    rows = probe(other, data, store, place)

    (bank,) = banks
    assert (bank.dropout, bank.size.hidden) == (0.35, 9)
    assert {head.seed for head in bank.heads} == {6}
    for row in rows:
        assert row.head != WEIGHTED or row.weights_start != pytest.approx([0.5, 0.5])


@pytest.mark.parametrize("device", [pytest.param("gpu", marks=GPU)])
def test_on_a_gpu_rows_are_those_of_a_cpu(
    cell: Cell, data: TaskDataModule, store: FeatureStore, place: Result, device: str
) -> None:
    """But for a track or two that stand on a boundary."""
    short = replace(cell, seed=7, protocol=replace(cell.protocol, dropout=0.0, max_epochs=2))
    on_cpu = probe(short, data, store, place)
    on_gpu = probe(
        replace(short, launcher=replace(cell.launcher, accelerator=device)), data, store, place
    )
    assert [row.head for row in on_gpu] == [row.head for row in on_cpu]
    assert [row.value for row in on_gpu] == pytest.approx(
        [row.value for row in on_cpu], abs=2.01 / 24
    )


def test_features_leave_the_memory_with_the_probes(
    cell: Cell, data: TaskDataModule, store: FeatureStore, place: Result
) -> None:
    probe(cell, data, store, place)
    assert "features" not in vars(data)


def test_a_cell_is_not_done_before_its_other_files(
    cell: Cell, data: TaskDataModule, store: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise UserError("no space left while writing probes.pt")

    other = replace(cell, seed=1)
    place = place_of(other, data, store)
    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(UserError, match="no space left"):
        probe(other, data, store, place)
    assert place.folder.is_dir() and not is_done(place.folder)


def test_features_that_are_missing_are_said_for_all_splits_at_once(
    cell: Cell, data: TaskDataModule, tmp_path: Path, store: FeatureStore
) -> None:
    other, empty = replace(cell, seed=2), FeatureStore(tmp_path, store.id)
    with pytest.raises(UserError, match=r"96 of 96 tracks have no features in .*mirprobe extract"):
        probe(other, data, empty, place_of(other, data, empty))


# -- the store of a cell ---------------------------------------------------------------------------


def test_the_store_is_found_by_what_extraction_left(cell: Cell, store: FeatureStore) -> None:
    found = open_store(cell)
    assert (found.id, found.folder) == (store.id, store.folder)


def test_a_store_that_is_open_is_taken_if_it_is_the_one(cell: Cell, store: FeatureStore) -> None:
    assert open_store(cell, store) is store
    other = FeatureStore(store.folder.parent, replace(store.id, fingerprint="another"))
    assert open_store(cell, other) is not other


def test_probes_before_extraction_are_told_what_to_run(cell: Cell) -> None:
    with pytest.raises(
        UserError,
        match=r"no features of toy for nsynth_instrument yet: run `mirprobe extract` with the same",
    ):
        open_store(replace(cell, seed=3))


@pytest.mark.parametrize("text", ["", "{oops", "[]", '{"backbone": "toy"}', '{"backbone": 1}'])
def test_a_file_that_names_no_store_is_named(cell: Cell, text: str) -> None:
    other = replace(cell, seed=4)
    other.folder.mkdir(parents=True, exist_ok=True)
    (other.folder / STORE).write_text(text)
    with pytest.raises(UserError, match=r"features\.json does not name a feature store \(.*run "):
        open_store(other)


def test_a_stores_id_survives_its_file(cell: Cell, store: FeatureStore) -> None:
    other = replace(cell, seed=5)
    other.folder.mkdir(parents=True, exist_ok=True)
    (other.folder / STORE).write_text(store_id_text(store.id))
    assert open_store(other).id == store.id
