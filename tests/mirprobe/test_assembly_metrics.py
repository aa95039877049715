"""The metrics that fit a task, and what is said of others."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from datamodules.datasets.giantsteps import KEYS
from datamodules.errors import UserError
from datamodules.task import TaskDataModule
from mirprobe.__main__ import main
from mirprobe.assembly import UnfitMetricError, make_data
from mirprobe.scoring.metrics import METRICS
from mirprobe.settings import compose_cell


def own_table(folder: Path, header: str, cells: Sequence[str]) -> list[str]:
    """Settings for own data of six tracks."""
    splits = ("train", "train", "train", "train", "val", "test")
    lines = [f"{n}.wav,{split},{cells[n % len(cells)]}" for n, split in enumerate(splits)]
    (folder / "my.csv").write_text("\n".join([f"path,split,{header}", *lines]) + "\n")
    for number in range(6):
        (folder / f"{number}.wav").touch()
    return ["task=manifest", f"task.options.file={folder}/my.csv", f"data.root={folder}"]


def data_of(settings: Sequence[str]) -> TaskDataModule:
    return make_data(compose_cell(settings))


def test_keys_are_scored_in_their_order_or_not_at_all(tmp_path: Path) -> None:
    keys = own_table(tmp_path, "label", ["A minor", "C major"])
    assert data_of([*keys, "task.select_by=key_weighted"]).classes == KEYS

    others = own_table(tmp_path, "label", ["rock", "jazz"])
    message = (
        r"task\.select_by=key_weighted does not fit manifest, a classification task \(it counts on "
        r"24: C major \.\. B minor in this order, the task has jazz, rock\): set one of accuracy$"
    )
    with pytest.raises(UnfitMetricError, match=message):
        data_of([*others, "task.select_by=key_weighted"])


def test_a_dimension_is_scored_by_its_name_or_not_at_all(tmp_path: Path) -> None:
    settings = own_table(tmp_path, "arousal,valence", ["1,2", "3,5", "2,1"])
    metrics = ["task.select_by=r2", "task.metrics=[r2,r2_arousal,r2_valence]"]
    right = data_of([*settings, *metrics, "task.options.targets=[arousal,valence]"])
    assert right.classes == METRICS["r2_arousal"].classes
    for targets in ("[valence,arousal]", "[arousal]"):
        with pytest.raises(UserError, match=r"r2_arousal does not fit .* arousal, valence in this"):
            data_of([*settings, *metrics, f"task.options.targets={targets}"])


def test_own_data_is_reported_by_several_metrics(tmp_path: Path) -> None:
    settings = own_table(tmp_path, "labels", ["a|b", "b", "a"])
    settings += ["task.select_by=roc_auc", "task.metrics=[roc_auc,average_precision]"]
    assert compose_cell(settings).metrics == ["roc_auc", "average_precision"]
    assert data_of(settings).kind == "multilabel"
    assert compose_cell(settings[:-1]).metrics == ["roc_auc"]


def test_a_metric_that_does_not_fit_is_not_called_missing_data(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = own_table(tmp_path, "labels", ["a|b", "b", "a"])
    assert main(["data", *settings, "task.select_by=r2", "baseline=null"]) == 2
    shown = capsys.readouterr()
    assert "no data to read" not in shown.out
    assert "task.select_by=r2 does not fit manifest, a multilabel task" in shown.err
