"""The demo corpus is whole, exact in layout, the same every time, and survives being killed."""

import csv
import hashlib
import io
import json
import multiprocessing
import os
import re
import resource
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import soundfile

from datamodules.datasets.gtzan import GENRES, read_split
from datamodules.datasets.nsynth import FAMILIES
from datamodules.demo import build as demo
from datamodules.demo import giantsteps, gtzan, nsynth
from datamodules.demo.recipe import demo_root
from datamodules.demo.workers import write_items
from datamodules.errors import UserError

TINY = 0.02
FORK = multiprocessing.get_context("fork")
FLATS = ("C", "Db", "D", "Eb", "E", "F", "Gb", "G", "Ab", "A", "Bb", "B")
SHARPS = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = demo_root(tmp_path_factory.mktemp("demo"), TINY)
    for dataset in demo.DATASETS:
        demo.build(root, dataset, scale=TINY)
    return root


def content(folder: Path) -> dict[str, str]:
    """SHA-256 of every file that is not a lock."""
    files = (
        path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != ".build.lock"
    )
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


def audio_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix in {".wav", ".mp3"})


def wait_until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


PLANS = {name: dataset.plan for name, dataset in demo._DATASETS.items()}


def test_second_build_elsewhere_is_bit_identical(corpus: Path, tmp_path: Path) -> None:
    demo.build(tmp_path, "nsynth", scale=TINY, n_jobs=1)
    assert content(tmp_path / "NSynth") == content(corpus / "NSynth")


@pytest.mark.parametrize("dataset", demo.DATASETS)
def test_another_process_renders_the_same_bytes(corpus: Path, dataset: str) -> None:
    for item in PLANS[dataset](TINY).items[3::11]:
        assert item.encode() == (demo.dataset_root(corpus, dataset) / item.path).read_bytes()


@pytest.mark.parametrize("dataset", demo.DATASETS)
def test_items_of_a_small_scale_are_items_of_a_larger_one(dataset: str) -> None:
    small, large = PLANS[dataset](0.3).items, PLANS[dataset](2.0).items
    assert len(small) < len(large)
    assert set(small) <= set(large)
    assert len({item.path for item in large}) == len(large)


def test_scale_1_has_the_promised_counts() -> None:
    assert Counter(note.split for note in nsynth.plan(1.0).items) == {
        "train": 396,
        "val": 100,
        "test": 140,
    }
    assert Counter(track.folder for track in giantsteps.plan(1.0).items) == {
        giantsteps.TEST_FOLDER: 48,
        giantsteps.MTG_FOLDER: 24 * 5 + 5,
    }
    assert len(gtzan.plan(1.0).items) == 10 * (8 + 4 + 6)
    assert len(gtzan.plan(1000.0).items) == 930


def test_marker_says_what_is_built(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    marker = json.loads((corpus / "NSynth" / "demo.json").read_text())
    assert marker == {
        "recipe_version": demo.RECIPE_VERSION,
        "scale": TINY,
        "n_files": len(audio_files(corpus / "NSynth")),
    }
    assert all(demo.is_built(corpus, dataset, TINY) for dataset in demo.DATASETS)
    assert not demo.is_built(corpus, "nsynth", 1.0)
    monkeypatch.setattr(demo, "RECIPE_VERSION", demo.RECIPE_VERSION + 1)
    assert not demo.is_built(corpus, "nsynth", TINY)


def test_torn_or_absent_marker_is_not_built(tmp_path: Path) -> None:
    assert not demo.is_built(tmp_path, "gtzan", 1.0)
    (tmp_path / "GTZAN").mkdir()
    (tmp_path / "GTZAN" / "demo.json").write_text('{"recipe_ver')
    assert not demo.is_built(tmp_path, "gtzan", 1.0)


def test_change_of_the_recipe_comes_with_a_new_version() -> None:
    texts = [
        item.path
        for dataset in ("nsynth", "giantsteps", "gtzan")
        for item in PLANS[dataset](1.0).items
    ]
    for track in giantsteps.plan(1.0).items[::10]:
        texts += [
            f"{n.onset_s:.6f} {n.hold_s:.6f} {n.program} {n.pitch} {n.velocity} {n.gain:g}"
            for n in track.song().notes
        ]
    found = hashlib.sha256("\n".join(texts).encode()).hexdigest()[:16]
    assert (demo.RECIPE_VERSION, found) == (1, "68812894a9f58fc1"), (
        "what is composed has changed: raise RECIPE_VERSION and write both here"
    )
    items = (
        *nsynth.plan(1.0).items[::200],
        *gtzan.plan(1.0).items[::60],
        *PLANS["musictaste"](1.0).items[::20],
    )
    expected = [
        -52.976,
        -52.960,
        -19.208,
        -24.727,
        -15.600,
        -19.566,
        -14.841,
        -19.917,
        -19.387,
        -17.538,
    ]
    assert [loudness_db(track.encode()) for track in items] == pytest.approx(expected, abs=0.01), (
        "what is rendered has changed: raise RECIPE_VERSION"
    )


def loudness_db(wav: bytes) -> float:
    return float(20 * np.log10(np.sqrt(np.mean(soundfile.read(io.BytesIO(wav))[0] ** 2))))


def test_only_missing_files_are_rendered_again(tmp_path: Path) -> None:
    demo.build(tmp_path, "nsynth", scale=TINY)
    before, files = content(tmp_path), audio_files(tmp_path)
    times = {path: path.stat().st_mtime_ns for path in files}
    lost = files[1:20:6]
    for path in lost:
        path.unlink()
    (lost[0].parent / ".x.wav.0123abcd.tmp").write_bytes(b"left by a killed build")
    reports: list[tuple[int, int]] = []
    demo.build(
        tmp_path, "nsynth", scale=TINY, progress=lambda done, total: reports.append((done, total))
    )
    assert content(tmp_path) == before
    assert {path for path in files if path.stat().st_mtime_ns != times[path]} == set(lost)
    assert reports == [(n, len(files)) for n in range(len(files) - len(lost), len(files) + 1)]


def test_changed_label_is_written_again(tmp_path: Path) -> None:
    demo.build(tmp_path, "nsynth", scale=TINY)
    before = content(tmp_path)
    (tmp_path / "NSynth" / "nsynth-valid" / "examples.json").write_text("{}")
    demo.build(tmp_path, "nsynth", scale=TINY)
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


def test_two_builds_at_once_wait_for_each_other(corpus: Path, tmp_path: Path) -> None:
    processes = [
        FORK.Process(target=demo.build, args=(tmp_path, "nsynth"), kwargs={"scale": TINY})
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


def test_full_disk_is_one_line(tmp_path: Path) -> None:
    with largest_file(50_000), pytest.raises(UserError) as caught:
        demo.build(tmp_path, "nsynth", scale=TINY)
    assert re.fullmatch(
        r"no space left while writing .*\.wav: free some space there and run the same command again",
        str(caught.value),
    )
    assert not audio_files(tmp_path)
    assert not list(tmp_path.rglob("*.tmp"))


def test_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(
        UserError,
        match=r"cannot write the demo corpus to .*NSynth \(Not a directory\): make room there or set",
    ):
        demo.build(tmp_path / "file", "nsynth", scale=TINY)


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


NSYNTH_FIELDS = {
    *(
        "note",
        "note_str",
        "instrument",
        "instrument_str",
        "pitch",
        "velocity",
        "sample_rate",
        "qualities",
        "qualities_str",
    ),
    *("instrument_family", "instrument_family_str", "instrument_source", "instrument_source_str"),
}


@pytest.mark.parametrize("folder", ["nsynth-train", "nsynth-valid", "nsynth-test"])
def test_nsynth_json_and_audio_are_those_of_the_real_release(corpus: Path, folder: str) -> None:
    examples = json.loads((corpus / "NSynth" / folder / "examples.json").read_text())
    assert set(examples) == {path.stem for path in (corpus / "NSynth" / folder / "audio").iterdir()}
    for name, entry in examples.items():
        assert set(entry) == NSYNTH_FIELDS
        assert (
            name
            == entry["note_str"]
            == f"{entry['instrument_str']}-{entry['pitch']:03d}-{entry['velocity']:03d}"
        )
        assert entry["instrument_str"].startswith(
            f"{entry['instrument_family_str']}_{entry['instrument_source_str']}_"
        )
        assert FAMILIES[entry["instrument_family"]] == entry["instrument_family_str"]
        assert ("acoustic", "electronic", "synthetic")[entry["instrument_source"]] == entry[
            "instrument_source_str"
        ]
        assert len(entry["qualities"]) == 10
        path = corpus / "NSynth" / folder / "audio" / f"{name}.wav"
        info = soundfile.info(path)
        assert (info.samplerate, info.channels, info.frames, info.subtype) == (
            16000,
            1,
            64000,
            "PCM_16",
        )
        assert 0.002 < np.abs(soundfile.read(path)[0]).max() < 0.99


def test_nsynth_splits_share_no_program_and_only_train_has_synth_lead() -> None:
    notes = nsynth.plan(1.0).items
    programs = {
        split: {note.program for note in notes if note.split == split}
        for split in ("train", "val", "test")
    }
    assert not programs["train"] & programs["val"]
    assert not programs["train"] & programs["test"]
    assert not programs["val"] & programs["test"]
    families = {split: {note.family for note in notes if note.split == split} for split in programs}
    assert families["train"] == set(FAMILIES)
    assert families["val"] == families["test"] == set(FAMILIES) - {"synth_lead"}


def test_nsynth_covers_pitches_and_velocities_evenly() -> None:
    train = [note for note in nsynth.plan(1.0).items if note.split == "train"]
    pitches = Counter(note.pitch for note in train)
    assert set(pitches) == set(range(36, 85))
    assert min(pitches.values()) >= 7
    assert set(Counter(note.velocity for note in train)) == {25, 50, 75, 100, 127}


def test_nsynth_names_stay_unique_when_all_notes_are_used_up() -> None:
    notes = nsynth.plan(100.0).items
    assert (
        len({note.name for note in notes})
        == len({note.entry()["note"] for note in notes})
        == len(notes)
    )


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


def val_ids(metadata: list[dict[str, str]], passes: int) -> set[str]:
    """The artist rule of jukemir, written down again from facts/tasks.md 3.3."""
    artists = {row["ID"]: [name.strip() for name in row["ARTIST"].split(",")] for row in metadata}
    val = {
        name
        for row in artists.values()
        for name in row
        if int(hashlib.sha1(name.lower().encode()).hexdigest(), 16) % 116 >= 100
    }
    for _ in range(passes):
        for row in artists.values():
            if val & set(row):
                val |= set(row)
    return {track for track, row in artists.items() if val & set(row)}


def test_giantsteps_test_set_spells_keys_with_flats(corpus: Path) -> None:
    folder = corpus / "GS" / "giantsteps-key-dataset"
    keys = [
        path.read_bytes().decode()
        for path in sorted((folder / "annotations" / "key").glob("*.LOFI.key"))
    ]
    assert keys == [f"{tonic} {mode}" for mode in ("major", "minor") for tonic in FLATS]
    assert {
        path.read_text() for path in (folder / "annotations" / "genre").glob("*.LOFI.genre")
    } <= set(GENRES)
    for path in (folder / "audio").iterdir():
        assert (folder / "md5" / f"{path.stem}.md5").read_text() == hashlib.md5(
            path.read_bytes()
        ).hexdigest()


def test_giantsteps_mtg_set_has_every_key_in_train_and_val_by_the_real_rule(corpus: Path) -> None:
    annotations = corpus / "GS" / "giantsteps-mtg-key-dataset" / "annotations"
    metadata, keys = (
        rows(annotations / "beatport_metadata.txt"),
        rows(annotations / "annotations.txt"),
    )
    assert list(metadata[0]) == [
        "ID",
        "ARTIST",
        "SONG TITLE",
        "MIX",
        "LABEL",
        "BP GENRE",
        "BP BPM",
        "BP KEY",
    ]
    assert list(keys[0]) == ["ID", "MANUAL KEY", "C"]
    kept = {
        row["ID"]: row["MANUAL KEY"]
        for row in keys
        if row["C"] == "2" and "/" not in row["MANUAL KEY"]
    }
    val = val_ids(metadata, passes=2)
    every_key = sorted(f"{tonic} {mode}" for mode in ("major", "minor") for tonic in SHARPS)
    assert sorted(key.strip() for track, key in kept.items() if track in val) == every_key
    assert sorted(key.strip() for track, key in kept.items() if track not in val) == every_key
    assert "B major " in kept.values()
    dropped = [(row["MANUAL KEY"], row["C"]) for row in keys if row["ID"] not in kept]
    assert dropped == [
        ("A minor", "1"),
        ("-", "0"),
        ("F minor / G# major", "2"),
        ("A-A# minor", "0"),
        (" ", "0"),
    ]


def test_giantsteps_val_needs_both_passes_and_the_dropped_rows(corpus: Path) -> None:
    metadata = rows(
        corpus / "GS" / "giantsteps-mtg-key-dataset" / "annotations" / "beatport_metadata.txt"
    )
    val = val_ids(metadata, passes=2)
    without_dropped = [row for row in metadata if int(row["ID"]) < 8_200_000]
    assert val - val_ids(metadata, passes=1) == {"8102000"}
    assert {"8103000"} == {
        track for track in val - val_ids(without_dropped, passes=2) if int(track) < 8_200_000
    }


def test_giantsteps_mtg_key_files_have_their_own_format(corpus: Path) -> None:
    folder = corpus / "GS" / "giantsteps-mtg-key-dataset"
    assert (folder / "annotations" / "key" / "8015000.LOFI.key").read_text() == "d# minor\t2\t"
    for path in (folder / "audio").iterdir():
        assert (folder / "md5" / f"{path.stem}.md5").read_text() == hashlib.md5(
            path.read_bytes()
        ).hexdigest()


def test_giantsteps_audio_is_ten_seconds_of_mp3(corpus: Path) -> None:
    for path in audio_files(corpus / "GS")[::9]:
        audio, rate = soundfile.read(path)
        assert soundfile.info(path).format == "MP3"
        assert (len(audio), rate) == (220500, 22050)
        assert 0.3 < np.abs(audio).max() <= 1


def test_giantsteps_styles_are_not_tied_to_keys() -> None:
    tracks = [track for track in giantsteps.plan(3.0).items if track.track_id < 8_100_000]
    songs = Counter((track.key, track.song().genre) for track in tracks)
    assert all(len({genre for k, genre in songs if k == key}) >= 4 for key in range(24))


def test_gtzan_clips_belong_to_the_real_splits(corpus: Path) -> None:
    split = read_split()
    files = audio_files(corpus / "GTZAN")
    found = Counter((path.parent.name, split[path.stem]) for path in files)
    assert found == {(genre, name): 1 for genre in GENRES for name in ("train", "val", "test")}
    for path in files:
        info = soundfile.info(path)
        assert (info.samplerate, info.channels, info.frames, info.subtype) == (
            22050,
            1,
            661794,
            "PCM_16",
        )
        assert path.stem.split(".")[0] == path.parent.name
