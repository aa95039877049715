"""Small shards joined at the end of an extraction, unless somebody else is at work there."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from toy_store import ID, item, shard_paths, wanted, write_items

from datamodules.errors import UserError
from datamodules.features import merging
from datamodules.features.store import FeatureStore
from datamodules.files import lock, share
from datamodules.task import TaskDataModule
from mirprobe.__main__ import main
from mirprobe.cell import Cell
from mirprobe.extraction.extract import join_shards
from mirprobe.provenance import Result
from mirprobe.sweep import run

NAMES = [f"t{number}" for number in range(10)]


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    """Ten shards of one clip."""
    for name in NAMES:
        write_items(tmp_path, item(name, 0, 1))
    return FeatureStore(tmp_path, ID)


def join(store: FeatureStore) -> int:
    """The number of shards afterwards."""
    join_shards(SimpleNamespace(tracks=lambda: wanted(*NAMES)), store)  # type: ignore[arg-type]
    return len(shard_paths(store.folder))


def test_extraction_ends_with_few_shards(
    settings: Callable[..., list[str]], tmp_path: Path
) -> None:
    quick = ("model=fbank_chroma", "task=nsynth_pitch", "baseline=null", "extract.shard_clips=4")
    arguments = settings(*quick, "extract.batch_seconds=0.5", "protocol.max_epochs=1")
    assert main(["extract", *arguments]) == 0
    assert len(list(tmp_path.glob("features/nsynth-*/part-*.h5"))) == 1
    assert main(["probe", *arguments]) == 0


def test_whoever_writes_there_is_not_disturbed(store: FeatureStore) -> None:
    with lock(store.folder / ".lock", wait=False):
        assert join(store) == 10
    assert join(store) == 1


def test_whoever_reads_there_keeps_the_shards(store: FeatureStore) -> None:
    """Probes of another command: two may read at once, and the shards stay for both."""
    with share(store.folder / ".readers"), share(store.folder / ".readers"):
        assert join(store) == 10
    assert join(store) == 1


def test_probes_share_the_store_that_they_read(
    settings: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def look(_cell: Cell, _data: TaskDataModule, store: FeatureStore, _place: Result) -> None:
        with pytest.raises(UserError), lock(store.folder / ".readers", wait=False):
            pass
        seen.append(store)
        raise UserError("seen")

    monkeypatch.setattr(run, "probe", look)
    arguments = settings("model=fbank_chroma", "task=nsynth_pitch", "baseline=null")
    assert main(["sweep", *arguments]) != 0
    assert len(seen) == 1


def test_a_store_that_cannot_be_written_stays(
    store: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FeatureStore, "is_read_only", True)
    assert join(store) == 10


def test_what_is_in_the_way_is_said(
    store: FeatureStore, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(merging, "free_bytes", lambda _folder: 0)
    assert join(store) == 10
    assert "10 small shards in" in capsys.readouterr().out


def test_a_broken_shard_is_named(store: FeatureStore) -> None:
    torn = shard_paths(store.folder)[0]
    torn.write_bytes(b"")
    with pytest.raises(UserError, match=f"shard {torn} is broken"):
        join(store)
