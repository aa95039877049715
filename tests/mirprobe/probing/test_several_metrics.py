"""Probes of a task with several metrics: each has numbers of its own."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from torch import Tensor
from toy_backbone import Statistics

from datamodules.digests import KnownDigests
from datamodules.listing import hash_text, list_text
from mirprobe.assembly import Job, make_data
from mirprobe.extraction.extract import extract
from mirprobe.probing.probe import probe
from mirprobe.provenance import MadeOf, result_of
from mirprobe.scoring.metrics import METRICS, TrackMetric, accuracy
from mirprobe.scoring.selection import by_metric
from mirprobe.settings import compose_cell


def errors(predicted: Tensor, target: Tensor, counts: Tensor) -> Tensor:
    return 1 - accuracy(predicted, target, counts)


def test_every_metric_of_a_task_has_numbers_of_its_own(
    settings: Callable[..., list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Metrics of one kind are made of the same outputs; torchmetrics' compute groups may take two
    of them for one.
    """
    monkeypatch.setitem(METRICS, "errors", TrackMetric("classification", errors))  # type: ignore[arg-type]
    cell = compose_cell(settings("task=nsynth_instrument", "protocol.max_epochs=1"))
    task = replace(cell.task, metrics=["accuracy", "errors"])
    cell = replace(cell, task=task, model={"name": "toy"})
    data = make_data(cell)
    store = extract(Job((cell,), (data,), KnownDigests(tmp_path / "known")), Statistics())
    listed = hash_text(list_text(data.tracks(), audio=True))
    place = result_of(cell, MadeOf(store.id.fingerprint, listed, store.id.hash))

    rows = by_metric(probe(cell, data, store, place))
    assert list(rows) == ["accuracy", "errors"]
    for right, wrong in zip(rows["accuracy"], rows["errors"], strict=True):
        assert (right.head, right.split) == (wrong.head, wrong.split)
        assert wrong.value == pytest.approx(1 - right.value)
    assert any(row.value != 0.5 for row in rows["accuracy"])
