"""The demo corpus is whole, exact in layout, the same every time, and survives being killed."""

import hashlib
import io
import json
import multiprocessing
import os
import re
import resource
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import soundfile

from datamodules.demo import build as demo
from datamodules.demo import giantsteps
from datamodules.demo.workers import write_items
from datamodules.errors import UserError
from datamodules.files import sha256_of

FORK = multiprocessing.get_context("fork")
RECIPES = {name: dataset.recipe for name, dataset in demo._DATASETS.items()}


def content(folder: Path) -> dict[str, str]:
    """SHA-256 of every file that is not a lock."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {
        path.relative_to(folder).as_posix(): sha256_of(path)
        for path in paths
        if path.name != ".build.lock"
    }


def audio_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix in {".wav", ".mp3"})


def wait_until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def test_second_build_elsewhere_is_bit_identical(corpus: Path, tmp_path: Path, tiny: float) -> None:
    demo.build(tmp_path, "nsynth", scale=tiny, n_jobs=1)
    assert content(tmp_path / "NSynth") == content(corpus / "NSynth")


@pytest.mark.parametrize("dataset", demo.DATASETS)
def test_another_process_renders_the_same_bytes(corpus: Path, dataset: str, tiny: float) -> None:
    for item in RECIPES[dataset](tiny).items[3::11]:
        assert item.encode() == (demo.dataset_root(corpus, dataset) / item.path).read_bytes()


@pytest.mark.parametrize("dataset", demo.DATASETS)
def test_items_of_a_small_scale_are_items_of_a_larger_one(dataset: str) -> None:
    small, large = RECIPES[dataset](0.3).items, RECIPES[dataset](2.0).items
    assert len(small) < len(large)
    assert set(small) <= set(large)
    assert len({item.path for item in large}) == len(large)


def test_marker_says_what_is_built(
    corpus: Path, monkeypatch: pytest.MonkeyPatch, tiny: float
) -> None:
    marker = json.loads((corpus / "NSynth" / "demo.json").read_text())
    assert marker == {
        "recipe_version": demo.RECIPE_VERSION,
        "scale": tiny,
        "n_files": len(audio_files(corpus / "NSynth")),
    }
    assert all(demo.is_built(corpus, dataset, tiny) for dataset in demo.DATASETS)
    assert not demo.is_built(corpus, "nsynth", 1.0)
    monkeypatch.setattr(demo, "RECIPE_VERSION", demo.RECIPE_VERSION + 1)
    assert not demo.is_built(corpus, "nsynth", tiny)


def test_torn_or_absent_marker_is_not_built(tmp_path: Path) -> None:
    assert not demo.is_built(tmp_path, "gtzan", 1.0)
    (tmp_path / "GTZAN").mkdir()
    (tmp_path / "GTZAN" / "demo.json").write_text('{"recipe_ver')
    assert not demo.is_built(tmp_path, "gtzan", 1.0)


def test_change_of_what_is_composed_comes_with_a_new_version() -> None:
    texts = []
    for dataset in ("nsynth", "giantsteps", "gtzan"):
        texts += [item.path for item in RECIPES[dataset](1.0).items]
    for track in giantsteps.recipe(1.0).items[::10]:
        texts += [
            f"{n.onset_s:.6f} {n.hold_s:.6f} {n.program} {n.pitch} {n.velocity} {n.gain:g}"
            for n in track.song().notes
        ]
    found = hashlib.sha256("\n".join(texts).encode()).hexdigest()[:16]
    assert (demo.RECIPE_VERSION, found) == (1, "68812894a9f58fc1"), (
        "what is composed has changed: raise RECIPE_VERSION and write both here"
    )


@pytest.mark.parametrize(
    ("dataset", "every", "expected_db"),
    [
        ("nsynth", 200, (-52.976, -52.960, -19.208, -24.727)),
        ("gtzan", 60, (-15.600, -19.566, -14.841)),
        ("musictaste", 20, (-19.917, -19.387, -17.538)),
    ],
)
def test_change_of_what_is_rendered_comes_with_a_new_version(
    dataset: str, every: int, expected_db: tuple[float, ...]
) -> None:
    items = RECIPES[dataset](1.0).items[::every]
    levels_db = [loudness_db(item.encode()) for item in items]
    assert levels_db == pytest.approx(expected_db, abs=0.01), (
        "what is rendered has changed: raise RECIPE_VERSION"
    )


def loudness_db(wav: bytes) -> float:
    audio, _ = soundfile.read(io.BytesIO(wav))
    return float(20 * np.log10(np.sqrt(np.mean(audio**2))))


def test_only_missing_files_are_rendered_again(tmp_path: Path, tiny: float) -> None:
    demo.build(tmp_path, "nsynth", scale=tiny)
    before, files = content(tmp_path), audio_files(tmp_path)
    times = {path: path.stat().st_mtime_ns for path in files}
    lost = files[1:20:6]
    for path in lost:
        path.unlink()
    (lost[0].parent / ".x.wav.0123abcd.tmp").write_bytes(b"left by a killed build")
    reports: list[tuple[int, int]] = []
    demo.build(
        tmp_path, "nsynth", scale=tiny, progress=lambda done, total: reports.append((done, total))
    )
    assert content(tmp_path) == before
    assert {path for path in files if path.stat().st_mtime_ns != times[path]} == set(lost)
    assert reports == [(n, len(files)) for n in range(len(files) - len(lost), len(files) + 1)]


def test_changed_label_is_written_again(tmp_path: Path, tiny: float) -> None:
    demo.build(tmp_path, "nsynth", scale=tiny)
    before = content(tmp_path)
    (tmp_path / "NSynth" / "nsynth-valid" / "examples.json").write_text("{}")
    demo.build(tmp_path, "nsynth", scale=tiny)
    assert content(tmp_path) == before


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def has_ended(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_build_killed_in_the_middle_goes_on_to_the_same_corpus(tmp_path: Path) -> None:
    demo.build(tmp_path / "whole", "nsynth", scale=0.1)
    root = tmp_path / "killed"
    process = FORK.Process(target=demo.build, args=(root, "nsynth"), kwargs={"scale": 0.1})
    process.start()
    wait_until(lambda: len(audio_files(root)) >= 5)
    workers = children(process.pid or 0)
    process.kill()
    process.join()
    assert len(workers) == 2
    assert not demo.is_built(root, "nsynth", 0.1)
    wait_until(lambda: all(map(has_ended, workers)), seconds=5)
    n_left = len(audio_files(root))
    rendered: list[int] = []
    demo.build(root, "nsynth", scale=0.1, progress=lambda done, total: rendered.append(done))
    assert rendered[0] == n_left < rendered[-1]
    assert content(root) == content(tmp_path / "whole")


def test_two_builds_at_once_wait_for_each_other(corpus: Path, tmp_path: Path, tiny: float) -> None:
    processes = [
        FORK.Process(target=demo.build, args=(tmp_path, "nsynth"), kwargs={"scale": tiny})
        for _ in range(2)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=20)
    assert [process.exitcode for process in processes] == [0, 0]
    assert content(tmp_path / "NSynth") == content(corpus / "NSynth")


def build_until_interrupted(root: Path, errors: Path) -> None:
    os.setpgid(0, 0)
    os.dup2(os.open(errors, os.O_WRONLY | os.O_CREAT), 2)
    try:
        demo.build(root, "nsynth")
    except KeyboardInterrupt:
        os._exit(130)


def test_ctrl_c_ends_without_a_word_from_the_workers(tmp_path: Path) -> None:
    process = FORK.Process(
        target=build_until_interrupted, args=(tmp_path / "demo", tmp_path / "errors")
    )
    process.start()
    wait_until(lambda: len(audio_files(tmp_path / "demo")) >= 2)
    workers = children(process.pid or 0)
    os.killpg(process.pid or 0, signal.SIGINT)
    process.join(timeout=10)
    assert process.exitcode == 130
    assert all(map(has_ended, workers))
    assert (tmp_path / "errors").read_text() == ""
    assert not list(tmp_path.rglob("*.tmp"))


@contextmanager
def largest_file(n_bytes: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_full_disk_is_one_line(tmp_path: Path, tiny: float) -> None:
    with largest_file(50_000), pytest.raises(UserError) as caught:
        demo.build(tmp_path, "nsynth", scale=tiny)
    pattern = (
        r"no space left while writing .*\.wav: "
        "free some space there and run the same command again"
    )
    assert re.fullmatch(pattern, str(caught.value))
    assert not audio_files(tmp_path)
    assert not list(tmp_path.rglob("*.tmp"))


def test_folder_that_cannot_be_made_is_one_line(tmp_path: Path, tiny: float) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(
        UserError,
        match=r"cannot write the demo corpus to .*NSynth \(Not a directory\): make room there",
    ):
        demo.build(tmp_path / "file", "nsynth", scale=tiny)


def test_unknown_dataset_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match="no demo corpus for 'musdb': there is one for nsynth, giantsteps, gtzan"
    ):
        demo.build(tmp_path, "musdb")


@pytest.mark.parametrize("wrong", [{"scale": 0.0}, {"scale": float("nan")}, {"n_jobs": 0}])
def test_scale_and_jobs_are_above_0(tmp_path: Path, wrong: dict[str, float]) -> None:
    with pytest.raises(
        UserError, match=r"needs a scale and a number of jobs above 0, found scale=.* n_jobs="
    ):
        demo.build(tmp_path, "nsynth", **wrong)


@dataclass(frozen=True)
class Suicidal:
    path: str = "x.wav"

    def encode(self) -> bytes:
        os.kill(os.getpid(), signal.SIGKILL)
        return b""


def test_killed_worker_is_told_instead_of_waited_for(tmp_path: Path) -> None:
    with pytest.raises(
        UserError,
        match="was killed, perhaps for want of memory: run the same command again with fewer jobs",
    ):
        write_items(tmp_path, [Suicidal()], 2, lambda: None)
