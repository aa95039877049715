"""The fate of a batch: stored and counted; after a signal the open shard is closed."""

import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from conftest import RATE

from datamodules.audio.clips import Clip
from datamodules.audio.loader import ReadFile
from datamodules.digests import KnownDigests, read_digest
from datamodules.features.shards import ClipFeatures, ShardWriter
from datamodules.tracks import ClipPlace, UnusableFile
from mirprobe.extraction.writer import StoreWriter
from mirprobe.progress import ProgressReport

SIGNALS = (signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGUSR1)
MODULE: Any = None  # the hooks' second argument, which the writer does not look at


def trainer(world_size: int = 1, is_global_zero: bool = True) -> Any:
    return SimpleNamespace(world_size=world_size, is_global_zero=is_global_zero)


def file(name: str, n_clips: int = 2) -> ReadFile:
    """A file with one track, which gives some clips."""
    places = [ClipPlace(name, index, n_clips, 0.1 * index) for index in range(n_clips)]
    return ReadFile(1, clips=[Clip(place, np.zeros(1600, np.float32), name) for place in places])


def features(files: list[ReadFile]) -> list[ClipFeatures]:
    clips = [clip for one in files for clip in one.clips]
    return [ClipFeatures(clip.place, np.ones((3, 1, 4), np.float16)) for clip in clips]


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[StoreWriter]:
    """A writer whose shards are never full."""
    shards = ShardWriter(tmp_path, {"backbone": "toy"}, shard_clips=1000)
    with ProgressReport("toy", 100, "tracks", quiet=True) as progress:
        yield StoreWriter(shards, KnownDigests(tmp_path / "known.jsonl"), progress, RATE)
    shards.close()


@pytest.fixture
def handlers() -> Iterator[dict[int, Any]]:
    """Those before the test, which get their signals back whatever it does."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield before
    for number, handler in before.items():
        signal.signal(number, handler)


def end_batch(writer: StoreWriter, batch: list[ReadFile], of: Any) -> None:
    writer.write_on_batch_end(of, MODULE, features(batch), None, batch, 0, 0)


def test_tracks_and_seconds_are_counted_for_all_ranks(writer: StoreWriter) -> None:
    broken = UnusableFile("c", Path("c.wav"), "is empty (0 bytes)")
    batch = [file("a"), file("b", 3), ReadFile(1, unusable=[broken])]
    end_batch(writer, batch, trainer(world_size=2))
    assert writer.progress.done == 2 * 3
    assert writer.progress.audio_s == pytest.approx(2 * 5 * 0.1)
    assert writer.unusable == [broken]


def test_what_was_read_is_remembered_with_the_shard(writer: StoreWriter, tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(b"sound")
    os.utime(path, (1e9, 1e9))
    end_batch(writer, [replace(file("a"), digest=read_digest(path))], trainer())
    writer.on_predict_end(trainer(), MODULE)
    assert KnownDigests(tmp_path / "known.jsonl").find(path) == read_digest(path).sha256


def test_shards_are_written_at_the_end(writer: StoreWriter, tmp_path: Path) -> None:
    end_batch(writer, [file("a")], trainer())
    assert not list(tmp_path.glob("part-*.h5"))
    writer.on_predict_end(trainer(), MODULE)
    assert len(list(tmp_path.glob("part-*.h5"))) == 1


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_is_obeyed_after_the_batch_with_the_shard_on_disk(
    writer: StoreWriter,
    tmp_path: Path,
    handlers: dict[int, Any],
    capsys: pytest.CaptureFixture[str],
    number: signal.Signals,
) -> None:
    writer.on_predict_start(trainer(), MODULE)
    end_batch(writer, [file("a")], trainer())
    signal.raise_signal(number)  # in the middle of the next forward pass: nothing happens yet
    assert not list(tmp_path.glob("part-*.h5"))

    with pytest.raises(SystemExit) as ended:
        end_batch(writer, [file("b")], trainer())
    assert ended.value.code == 128 + number
    assert len(list(tmp_path.glob("part-*.h5"))) == 1
    assert f"stopped by {number.name}: everything so far is stored" in capsys.readouterr().out


def test_a_second_ctrl_c_ends_the_process_at_once(
    writer: StoreWriter, handlers: dict[int, Any]
) -> None:
    writer.on_predict_start(trainer(), MODULE)
    signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) == signal.SIG_DFL
    assert signal.getsignal(signal.SIGTERM) != signal.SIG_DFL


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_that_comes_twice_loses_no_shard(
    writer: StoreWriter, tmp_path: Path, handlers: dict[int, Any], number: signal.Signals
) -> None:
    """SLURM sends its warning to a rank and to the process that hands it on."""
    writer.on_predict_start(trainer(), MODULE)
    signal.raise_signal(number)
    signal.raise_signal(number)
    with pytest.raises(SystemExit) as ended:
        end_batch(writer, [file("a")], trainer())
    assert ended.value.code == 128 + number
    assert len(list(tmp_path.glob("part-*.h5"))) == 1


def test_what_nohup_ignores_stays_ignored(writer: StoreWriter, handlers: dict[int, Any]) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    writer.on_predict_start(trainer(), MODULE)
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN


def test_an_error_keeps_what_is_complete_and_gives_the_signals_back(
    writer: StoreWriter, tmp_path: Path, handlers: dict[int, Any]
) -> None:
    writer.on_predict_start(trainer(), MODULE)
    end_batch(writer, [file("a")], trainer())
    writer.on_exception(trainer(), MODULE, ValueError("of the backbone"))
    assert len(list(tmp_path.glob("part-*.h5"))) == 1
    assert {number: signal.getsignal(number) for number in SIGNALS} == handlers


def test_an_error_after_a_signal_is_its_consequence(
    writer: StoreWriter, handlers: dict[int, Any]
) -> None:
    """Ctrl-C ends the decoders first; what is said is that it was Ctrl-C."""
    writer.on_predict_start(trainer(), MODULE)
    signal.raise_signal(signal.SIGTERM)
    with pytest.raises(SystemExit) as ended:
        writer.on_exception(trainer(), MODULE, RuntimeError("DataLoader worker exited"))
    assert ended.value.code == 128 + signal.SIGTERM


def test_a_rank_leaves_without_a_word(
    writer: StoreWriter,
    handlers: dict[int, Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """And without the teardown of Lightning, which would wait for the others; the process that
    started the ranks says that they were stopped.
    """
    codes: list[int] = []
    monkeypatch.setattr("os._exit", codes.append)
    writer.on_predict_start(trainer(2), MODULE)
    signal.raise_signal(signal.SIGTERM)
    with pytest.raises(SystemExit):  # only because the test has taken os._exit away
        end_batch(writer, [file("a")], trainer(2, is_global_zero=True))
    assert codes == [128 + signal.SIGTERM]
    assert capsys.readouterr().out == ""
