"""Extraction: every clip once, at any number of processes; bad audio, bad values, full disks."""

import hashlib
import json
import math
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import soundfile
import torch
from conftest import RATE, write_notes
from devices import DEVICES, accelerator, tf32
from torch import Tensor
from toy_backbone import N_LAYERS, Rounded, Statistics

from datamodules import digests as digests_module
from datamodules import workers
from datamodules.audio.clips import ClipRule
from datamodules.datasets.nsynth import NSynthPitch
from datamodules.digests import KnownDigests
from datamodules.errors import UserError
from datamodules.features.frames import open_features
from datamodules.features.shards import PATTERN
from datamodules.features.store import FeatureStore, parse_store_id
from datamodules.task import FrameTask, TaskDataModule
from datamodules.tracks import Segment, Split, Track
from mirprobe.assembly import Job, make_backbone, make_data
from mirprobe.cell import STORE, Cell, write_cell
from mirprobe.extraction import extract as extract_module
from mirprobe.extraction import sizes
from mirprobe.extraction.extract import extract
from mirprobe.settings import compose_cell

N_CLIPS = 3  # of a note of 0.25 s: two of 0.1 s and a rest of 0.05 s


@dataclass(frozen=True)
class Extraction:
    """A job of one cell with a toy backbone; every run sees the store as a new process does."""

    cell: Cell
    data: TaskDataModule
    backbone: Statistics

    @property
    def job(self) -> Job:
        known = Path(self.cell.paths.features) / "known" / "toy.jsonl"
        return Job((self.cell,), (self.data,), KnownDigests(known))

    @property
    def folder(self) -> Path:
        return self.job.store(self.backbone).folder

    def run(self) -> FeatureStore:
        return extract(self.job, self.backbone)

    def shards(self) -> list[Path]:
        return sorted(self.folder.glob(PATTERN))

    def stored(self) -> list[tuple[str, int]]:
        """Audio and place of every clip in every shard, read with nothing of ours."""
        return [clip for path in self.shards() for clip in clips_in(path)]

    def everything(self, n_clips: int = N_CLIPS) -> list[tuple[str, int]]:
        """What `stored` holds when all is there: audio is known by the content of its file."""
        digests = [
            hashlib.sha256(track.path.read_bytes()).hexdigest() for track in self.data.tracks()
        ]
        return sorted((digest[:24], clip) for digest in digests for clip in range(n_clips))


def clips_in(shard: Path) -> list[tuple[str, int]]:
    with h5py.File(shard) as file:
        return list(zip(file["audio_id"].asstr()[:], file["clip"][:].tolist(), strict=True))


@pytest.fixture
def cell(settings: Callable[..., list[str]]) -> Cell:
    quick = ("extract.batch_seconds=1.0", "extract.shard_clips=16", "extract.shard_seconds=60")
    return replace(compose_cell(settings("task=nsynth_pitch", *quick)), model={"name": "toy"})


@pytest.fixture
def extraction(cell: Cell, tmp_path: Path) -> Extraction:
    root = write_notes(tmp_path / "data", per_pitch={"train": 1, "valid": 1, "test": 1})
    data = NSynthPitch(root / "NSynth", ClipRule(seconds=0.1, tail_seconds=0.02))
    return Extraction(cell, data, Statistics())


def on_device(extraction: Extraction, device: str) -> Extraction:
    """The same on one device of a kind."""
    launcher = replace(extraction.cell.launcher, accelerator=accelerator(device), devices=1)
    cell = replace(extraction.cell, launcher=launcher)
    return replace(extraction, cell=cell, backbone=extraction.backbone.to(device))


@pytest.mark.parametrize("device", DEVICES)
def test_every_clip_once_and_its_numbers(extraction: Extraction, device: str) -> None:
    extraction = on_device(extraction, device)
    store = extraction.run()
    assert sorted(extraction.stored()) == extraction.everything()

    tracks = extraction.data.tracks()
    clips = store.read(tracks)
    values = clips.read_all()
    assert values.shape == (N_LAYERS + 1, N_CLIPS * len(tracks), 2)
    for row, index in enumerate(clips.track):
        audio, _ = soundfile.read(tracks[index].path, dtype="float32")
        start = 1600 * (row % N_CLIPS)
        piece = audio[start : start + 1600]
        assert values[0, row, 0] == pytest.approx(np.mean(piece**2), rel=1e-3)
        assert values[2, row, 1] == pytest.approx(3 * len(piece) / RATE, rel=1e-3)


def test_the_id_of_the_store_lies_in_the_folder_of_the_cell(extraction: Extraction) -> None:
    store = extraction.run()
    written = (extraction.cell.folder / STORE).read_text()
    assert parse_store_id(written) == store.id
    assert json.loads((store.folder / "store.json").read_text()) == json.loads(written)


class Steps(FrameTask):
    """Tracks whose loudness is their label: one second each of three levels."""

    dataset, classes = "steps", ("soft", "middle", "loud")

    def read_tracks(self) -> list[Track]:
        segments = tuple(Segment(float(second), second + 1.0, second) for second in range(3))
        splits: tuple[Split, ...] = ("train", "val", "test")
        return [
            Track(f"{number}", self.root / f"{number}.wav", splits[number % 3], segments)
            for number in range(6)
        ]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("rate", [10.0, 40.0, 100.0, 200.0])
def test_features_of_frames_line_up_with_their_labels(
    cell: Cell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rate: float, device: str
) -> None:
    """Every frame of the grid says how loud its own time is, across clips and at the joined rest,
    also above the hop's rate.
    """
    levels = np.repeat([0.1, 0.2, 0.4], RATE).astype(np.float32)
    audio = levels[: round(2.9 * RATE)]  # a rest of 0.1 s
    for number in range(6):
        soundfile.write(tmp_path / f"{number}.wav", audio, RATE)
    rule = ClipRule(seconds=0.8, tail_seconds=0.6, join_rest=True)
    data = Steps(tmp_path, rule, frame_rate=rate)

    extraction = on_device(Extraction(cell, data, Statistics()), device)
    store = extraction.run()
    assert store.id.pooling == f"{rate:g}Hz" and f"{rate:g}Hz" in store.id.folder

    data.features = open_features(
        store, data.tracks(), n_classes=3, frame_rate=rate, batch_size=64, seed=0
    )
    for loader in (data.train_dataloader(), data.val_dataloader(), data.test_dataloader()):
        batches = list(loader)
        power = torch.cat([batch["features"][0, :, 0] for batch in batches]).float()
        target = torch.cat([batch["target"] for batch in batches])
        assert len(target) == 2 * round(2.9 * rate)
        expected = torch.tensor([0.01, 0.04, 0.16])[target]
        torch.testing.assert_close(power, expected, rtol=2e-3, atol=0)

    refuse_forward_passes(monkeypatch)
    extraction.run()


def refuse_forward_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(_self: Statistics, _audio: Tensor) -> Tensor:
        pytest.fail("a stored clip was computed again")

    monkeypatch.setattr(Statistics, "states", never)


def settle(data: TaskDataModule) -> None:
    """Makes the audio older than the grain of a clock: then what was read is remembered."""
    for track in data.tracks():
        os.utime(track.path, (1e9, 1e9))


def test_tf32_is_off_in_forward_passes(
    extraction: Extraction, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store says float32: on a GPU that allows itself TF32 its features would have ten bits."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    states, allowed = Statistics.states, set()

    def watch(self: Statistics, audio: Tensor) -> Tensor:
        allowed.add((matmul.allow_tf32, cudnn.allow_tf32))
        return states(self, audio)

    monkeypatch.setattr(Statistics, "states", watch)
    with tf32(allowed=True):
        extraction.run()
    assert allowed == {(False, False)}


def test_files_are_decoded_by_other_processes(extraction: Extraction) -> None:
    """Also on a CPU, where the backbone would otherwise wait for every file."""
    settings = replace(extraction.cell.extract, n_workers=None)
    run = replace(extraction, cell=replace(extraction.cell, extract=settings))
    run.run()
    assert run.data.audio.n_workers >= 1
    assert len(run.stored()) == N_CLIPS * len(run.data.tracks())


def test_second_run_reads_no_audio(extraction: Extraction, monkeypatch: pytest.MonkeyPatch) -> None:
    settle(extraction.data)
    extraction.run()
    refuse_forward_passes(monkeypatch)
    monkeypatch.setattr(soundfile, "SoundFile", lambda *_, **__: pytest.fail("audio was opened"))
    monkeypatch.setattr(digests_module, "read_digest", lambda _: pytest.fail("a file was read"))
    extraction.run()


def test_lost_shard_is_the_only_thing_computed_again(
    extraction: Extraction, monkeypatch: pytest.MonkeyPatch
) -> None:
    extraction.run()
    lost = extraction.shards()[0]
    n_lost = len(clips_in(lost))
    lost.unlink()

    states, seen = Statistics.states, []

    def count(self: Statistics, audio: Tensor) -> Tensor:
        seen.append(len(audio))
        return states(self, audio)

    monkeypatch.setattr(Statistics, "states", count)
    extraction.run()
    assert sum(seen) == n_lost
    stored = extraction.stored()
    assert len(stored) == len(set(stored)) == N_CLIPS * len(extraction.data.tracks())


def test_unusable_files_are_all_named_and_the_rest_is_stored(extraction: Extraction) -> None:
    tracks = extraction.data.tracks()
    tracks[0].path.write_bytes(b"not audio at all")
    tracks[1].path.write_bytes(b"")
    soundfile.write(tracks[2].path, np.full(4000, np.nan), RATE, subtype="FLOAT")
    soundfile.write(tracks[3].path, np.zeros(100), RATE)
    reasons = ("cannot be decoded", "is empty (0 bytes)", "NaN or infinite", "too short (100 sampl")

    with pytest.raises(UserError) as caught:
        extraction.run()
    text = str(caught.value)
    assert text.startswith("4 of 72 audio files cannot be used: ") and "\n" not in text
    for track, reason in zip(tracks[:4], reasons, strict=True):
        assert str(track.path) in text and reason in text

    names = sorted(track.track_id for track in tracks[:4])
    assert f"'data.exclude=[{','.join(f'nsynth:{name}' for name in names)}]'" in text
    assert len(extraction.stored()) == N_CLIPS * 68
    assert not (extraction.cell.folder / STORE).exists(), "the store is not complete"

    kept = NSynthPitch(extraction.data.root, extraction.data.clip, exclude=names)
    replace(extraction, data=kept).run()


@pytest.mark.parametrize("gain", [float("nan"), float("inf"), 1e9])
def test_values_that_do_not_fit_stop_the_run_with_the_track(
    extraction: Extraction, gain: float
) -> None:
    name = r"(train|valid|test)\d_synthetic_\d{3}-\d{3}-000"
    with pytest.raises(UserError, match=rf"not finite, or beyond 65504, for track {name}"):
        replace(extraction, backbone=Statistics(gain)).run()


def test_changed_audio_is_extracted_anew_beside_the_old(extraction: Extraction) -> None:
    extraction.run()
    before = set(extraction.stored())
    soundfile.write(extraction.data.tracks()[5].path, np.zeros(4000), RATE)

    store = extraction.run()
    assert len(set(extraction.stored()) - before) == N_CLIPS
    assert set(extraction.stored()) == before | set(extraction.everything())
    silent = store.read([extraction.data.tracks()[5]]).read_all()[0, :, 0]
    assert silent.tolist() == [0.0] * N_CLIPS, "the labels' track has the new audio's features"


def test_audio_under_another_name_is_not_extracted_again(
    extraction: Extraction, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    extraction.run()
    root = tmp_path / "moved"
    shutil.copytree(extraction.data.root, root)
    refuse_forward_passes(monkeypatch)
    replace(extraction, data=NSynthPitch(root, extraction.data.clip)).run()


def test_equal_files_are_extracted_once(extraction: Extraction) -> None:
    first, second, *_ = extraction.data.tracks()
    shutil.copy(first.path, second.path)
    store = extraction.run()
    assert sorted(extraction.stored()) == sorted(set(extraction.everything()))
    values = [store.read([track]).read_all() for track in extraction.data.tracks()[:2]]
    np.testing.assert_array_equal(*values)


def test_store_of_another_backbone_is_refused(extraction: Extraction) -> None:
    """Somebody has moved a folder: its name says one backbone, its content another."""
    extraction.run()
    other = replace(extraction, backbone=Statistics(2.0))
    extraction.folder.rename(other.folder)
    with pytest.raises(
        UserError, match=r"part-\w+.h5 was written by another configuration \(fingerprint is"
    ):
        other.run()

    for shard in other.shards():
        shard.unlink()
    with pytest.raises(
        UserError, match=r"store.json was written by another configuration \(fingerprint is"
    ):
        other.run()


def test_truncated_shard_is_named_with_the_way_out(extraction: Extraction) -> None:
    extraction.run()
    shard = extraction.shards()[0]
    shard.write_bytes(shard.read_bytes()[:700])
    with pytest.raises(
        UserError,
        match=rf"shard {shard} is broken: .* Delete this file and run the same command again",
    ):
        extraction.run()
    shard.unlink()
    extraction.run()


def test_a_store_that_another_process_writes_is_left_alone(extraction: Extraction) -> None:
    from mirprobe.extraction.extract import _only_writer

    with (
        _only_writer(extraction.folder),
        pytest.raises(UserError, match=r"is being written by process \d+ on .*: wait for it"),
    ):
        extraction.run()
    extraction.run()


def test_what_a_killed_writer_left_is_cleared(extraction: Extraction) -> None:
    left = extraction.folder / ".part-0123456789abcdef.h5.deadbeef.tmp"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half a shard")
    extraction.run()
    assert not left.exists()


def test_full_disk_is_said_before_and_during(
    extraction: Extraction, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=10))
    with pytest.raises(
        UserError, match=r"no space for the features: .* GB needed at least, 0.00 GB free under"
    ):
        extraction.run()
    monkeypatch.undo()

    program = (
        "import resource, sys; sys.path[:0] = sys.argv[1:3]\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "from pathlib import Path; import numpy as np\n"
        "from datamodules.tracks import ClipPlace\n"
        "from datamodules.features.shards import ClipFeatures, write_shard\n"
        "from datamodules.errors import UserError\n"
        "place = ClipPlace('t', 0, 1, 0.0)\n"
        "clip = ClipFeatures(place, np.zeros((3, 1, 50000), np.float16))\n"
        "try: write_shard(Path(sys.argv[3]), {'backbone': 'toy'}, [clip])\n"
        "except UserError as error: print(error)\n"
    )
    here = [str(Path(__file__).parents[2]), str(Path(__file__).parents[3])]
    ran = subprocess.run(
        [sys.executable, "-c", program, *here, str(extraction.folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "no space left while writing" in ran.stdout, ran.stderr
    assert not list(extraction.folder.glob("*.h5"))
    assert not list(extraction.folder.glob(".*.tmp"))


@pytest.mark.parametrize(
    ("seconds", "tail", "n_rows"),
    [(None, None, 1), (0.1, None, 2), (0.1, 0.02, 3), (0.02, None, 12)],
)
def test_room_is_asked_for_every_clip_and_not_for_every_track(
    extraction: Extraction,
    monkeypatch: pytest.MonkeyPatch,
    seconds: float | None,
    tail: float | None,
    n_rows: int,
) -> None:
    """GiantSteps has four clips a track, EmoMusic nine; these notes last 0.25 s."""
    asked: list[int] = []
    monkeypatch.setattr(
        extract_module, "check_free_space", lambda folder, needed, *_, **__: asked.append(needed)
    )
    monkeypatch.setattr(sizes, "_MOST_HEADERS", 10)
    cut = NSynthPitch(extraction.data.root, ClipRule(seconds, tail))
    replace(extraction, data=cut).run()
    assert asked == [72 * n_rows * (N_LAYERS + 1) * 2 * 2]


def test_no_room_is_asked_for_audio_that_is_stored_under_other_names(
    extraction: Extraction, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    extraction.run()
    root = tmp_path / "moved"
    shutil.copytree(extraction.data.root, root)
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=0))
    replace(extraction, data=NSynthPitch(root, extraction.data.clip)).run()


def test_files_that_other_ranks_have_read_just_after_they_were_written_are_read_again(
    extraction: Extraction, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is younger than the grain of a clock is remembered by nobody."""
    extraction.run()
    monkeypatch.setattr(extract_module, "fill_store", lambda *_, **__: None)  # as of a rank
    fresh = replace(extraction, data=NSynthPitch(extraction.data.root, extraction.data.clip))
    store = fresh.run()
    assert not store.missing(fresh.data.tracks())


def test_decoders_are_as_many_as_the_share_of_cores_allows(
    extraction: Extraction, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rank of four on a machine of 64 cores, of which the job has 12."""
    monkeypatch.setattr(workers, "n_cores", lambda: 12)
    monkeypatch.delenv("SLURM_CPUS_PER_TASK", raising=False)
    settings = replace(extraction.cell.extract, n_workers=None)
    runner = SimpleNamespace(
        strategy=SimpleNamespace(root_device=torch.device("cuda")), num_devices=4, world_size=32
    )
    loader = extract_module._loader(
        runner, extraction.backbone, extraction.data, extraction.data.tracks(), {}, settings
    )
    assert loader.n_workers == 12 // 4 - 1


def test_under_slurm_the_cores_are_those_of_one_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    """With `--cpus-per-task=6` on a node with four ranks each has six, not one."""
    monkeypatch.setattr(workers.os, "sched_getaffinity", lambda _: set(range(64)))
    monkeypatch.setattr(workers.os, "cpu_count", lambda: 64)
    monkeypatch.setattr(workers, "_quota", lambda *_: math.inf)
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "6")
    assert workers.cores_of_rank(4) == 6
    monkeypatch.delenv("SLURM_CPUS_PER_TASK")
    assert workers.cores_of_rank(4) == 16


def test_another_number_of_ranks_than_was_asked_for_is_refused() -> None:
    runner = SimpleNamespace(world_size=1)
    with pytest.raises(UserError, match=r"^8 processes were asked for .* Lightning found 1"):
        extract_module._check_world(runner, {"devices": 4, "num_nodes": 2})
    extract_module._check_world(runner, {"accelerator": "cpu", "devices": 1})


def test_a_rank_deals_out_what_the_first_one_has_found() -> None:
    """One that comes late finds shards of the others, and would deal out another list."""
    found_first = extract_module.Work({}, frozenset(), {})
    strategy = SimpleNamespace(setup_environment=lambda: None, broadcast=lambda _: found_first)
    late = SimpleNamespace(is_global_zero=False, world_size=2, strategy=strategy)
    looked = partial(pytest.fail, "it looked for itself")
    assert extract_module._agree_on(late, looked) is found_first


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("rate", ["7Hz", "30Hz"])
def test_rows_of_a_clip_give_the_means_that_clip_pooling_stores(
    extraction: Extraction, rate: str, device: str
) -> None:
    """Clips of 0.1 s and 0.05 s: one row or two of 7 Hz, three and a half of 30 Hz."""
    extraction = on_device(extraction, device)
    means = extraction.run()
    settings = replace(extraction.cell.extract, pooling=rate)
    by_rows = replace(extraction, cell=replace(extraction.cell, extract=settings))
    store = by_rows.run()
    assert store.id.pooling == f"mean_at_{rate}" and store.folder != means.folder

    tracks = extraction.data.tracks()
    clips = store.read(tracks)
    assert set(clips.n_rows) == ({1} if rate == "7Hz" else {2, 3})
    np.testing.assert_array_equal(clips.track, means.read(tracks).track)
    expected = means.read(tracks).read_all().astype(float)
    np.testing.assert_allclose(clips.read_all(), expected, rtol=2e-3, atol=1e-6)


def test_a_store_of_another_precision_lies_apart_and_knows_its_error(
    extraction: Extraction, capsys: pytest.CaptureFixture[str]
) -> None:
    exact = extraction.run()
    assert not list(exact.folder.glob("precision.json"))

    coarse = replace(extraction, backbone=Rounded().at("bf16"))
    store = coarse.run()
    assert store.folder != exact.folder and "bf16" in store.folder.name
    note = json.loads((store.folder / "precision.json").read_text())
    assert (note["precision"], note["n_clips"]) == ("bf16", 20)

    # By hand, over the same clips: each track's first, as there are more tracks than clips.
    tracks = coarse.data.tracks()
    some = tracks[:: len(tracks) // 20][:20]
    audio = [soundfile.read(track.path, dtype="float32")[0][:1600] for track in some]
    states = np.stack([Rounded().freeze()(torch.from_numpy(a)[None])[0].numpy() for a in audio])
    change = states.astype(np.float64) - torch.from_numpy(states).bfloat16().double().numpy()
    expected = np.sqrt((change**2).sum((0, 2, 3)) / (states.astype(float) ** 2).sum((0, 2, 3)))
    np.testing.assert_allclose(note["rms"], expected, rtol=1e-5)
    assert f"off those in float32 by {min(expected):.2g} .. " in capsys.readouterr().out

    coarse.run()
    assert "off those" not in capsys.readouterr().out, "it is measured once"


def test_a_store_may_have_more_shards_than_a_process_may_open_files(
    extraction: Extraction,
) -> None:
    """A day of extraction at a shard a minute gives 1440; the usual limit is 1024."""
    settings = replace(extraction.cell.extract, batch_seconds=0.25, shard_clips=1)
    many = replace(extraction, cell=replace(extraction.cell, extract=settings))
    n_open = len(list(Path("/proc/self/fd").iterdir()))
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (n_open + 40, limits[1]))
    try:
        store = many.run()
        clips = store.read(many.data.tracks())
        assert len(many.shards()) == 72
        assert clips.read_all().shape == (N_LAYERS + 1, N_CLIPS * 72, 2)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_batch_is_halved_where_memory_runs_out(
    extraction: Extraction,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    states, sizes = Statistics.states, []

    def small(self: Statistics, audio: Tensor) -> Tensor:
        sizes.append(len(audio))
        if len(audio) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return states(self, audio)

    monkeypatch.setattr(Statistics, "states", small)
    extraction.run()
    stored = extraction.stored()
    assert len(stored) == len(set(stored)) == N_CLIPS * len(extraction.data.tracks())
    assert sizes.count(4) == 1 and max(sizes[1:]) <= 3, "small after the first failure"
    said = "out of memory at 4 clips a batch: going on with 0.1 s of audio a batch"
    assert said in capsys.readouterr().out


def test_single_clip_that_does_not_fit_is_said(
    extraction: Extraction, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(self: Statistics, audio: Tensor) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Statistics, "states", never)
    with pytest.raises(UserError, match=r"out of memory on a single clip of 0\.(1|05) s"):
        extraction.run()


def test_inside_a_slurm_job_the_launcher_still_decides(
    extraction: Extraction, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lightning's SLURM environment would count the job's tasks, and wait for ranks that nobody
    starts.
    """
    monkeypatch.setenv("SLURM_NTASKS", "4")
    monkeypatch.setenv("SLURM_JOB_NAME", "sweep")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_PROCID", "1")
    extraction.run()
    assert len(extraction.stored()) == N_CLIPS * len(extraction.data.tracks())


# -- several processes -----------------------------------------------------------------------------


def extract_in_processes(*cells: Cell) -> subprocess.CompletedProcess[str]:
    """`mirprobe extract --cell FILE --cell ...`, to its end."""
    files = []
    for cell in cells:
        file = cell.folder / "config.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(write_cell(cell))
        files.append(f"--cell={file}")
    return subprocess.run(
        [sys.executable, "-m", "mirprobe", "extract", *files],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.mark.trial
def test_two_processes_store_every_clip_once(settings: Callable[..., list[str]]) -> None:
    """Real processes under Lightning's DDP (gloo): killed once, then to the end, then with fewer
    tracks left than ranks.
    """
    quick = ("launcher.devices=2", "extract.batch_seconds=0.5", "extract.shard_clips=6")
    arguments = settings("task=nsynth_pitch", "baseline=null", *quick)
    cell = compose_cell(arguments)
    extraction = Extraction(cell, make_data(cell), make_backbone(cell))  # type: ignore[arg-type]
    everything = extraction.everything(n_clips=1)

    kill_sweep_after_first_shard(arguments, extraction.folder)
    assert 0 < len(extraction.stored()) < len(everything)
    ran = extract_in_processes(cell)
    assert ran.returncode == 0, ran.stderr
    assert sorted(extraction.stored()) == everything

    drop_last_clip(extraction.shards()[0])
    assert len(extraction.stored()) == len(everything) - 1
    ran = extract_in_processes(cell)
    assert ran.returncode == 0, ran.stderr
    assert sorted(extraction.stored()) == everything
    assert json.loads((extraction.folder / "store.json").read_text())["dataset"] == "nsynth"


def kill_sweep_after_first_shard(arguments: list[str], folder: Path) -> None:
    """kill -9 for the sweep alone; its two extracting processes have to end by themselves."""
    process = subprocess.Popen([sys.executable, "-m", "mirprobe", "sweep", *arguments])
    deadline = time.monotonic() + 90
    while not list(folder.glob(PATTERN)):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.005)
    process.kill()
    process.wait()

    # The ranks are known by their settings, in which this test's own folder stands.
    find_ranks = ["pgrep", "-f", str(folder.parents[1])]
    while subprocess.run(find_ranks, capture_output=True, check=False).returncode == 0:
        assert time.monotonic() < deadline, "the ranks outlive the sweep"
        time.sleep(0.1)


def drop_last_clip(path: Path) -> None:
    """Puts a shard without its last clip in its place: one track is left for two ranks."""
    with h5py.File(path, "r+") as shard:
        columns = {name: shard[name][:-1] for name in shard}
        for name, values in columns.items():
            del shard[name]
            shard[name] = values
    path.rename(path.with_name(f"part-{hashlib.sha256(path.read_bytes()).hexdigest()[:16]}.h5"))


@pytest.mark.trial
def test_several_cells_are_extracted_in_one_process_group(
    settings: Callable[..., list[str]],
) -> None:
    """Two tasks on one store and a third on another, by the same two ranks one after the other."""
    quick = ("launcher.devices=2", "extract.batch_seconds=0.5", "extract.shard_clips=6")
    pitch, instrument, pieces = (
        compose_cell(settings(*overrides, *quick))
        for overrides in (
            ["task=nsynth_pitch"],
            ["task=nsynth_instrument"],
            ["task=nsynth_pitch", "task.clip.seconds=0.1"],
        )
    )
    ran = extract_in_processes(pitch, instrument, pieces)
    assert ran.returncode == 0, ran.stderr

    ids = [parse_store_id((cell.folder / STORE).read_text()) for cell in (pitch, instrument)]
    assert ids[0] == ids[1]
    other = parse_store_id((pieces.folder / STORE).read_text())
    assert (ids[0].clip_rule, other.clip_rule) == ("whole", "0.1s")

    (known,) = Path(pitch.paths.features).glob("known/*.jsonl")
    tracks = KnownDigests(known).identify(make_data(pitch).tracks())
    assert all(track.audio_id for track in tracks)
    for store_id in (ids[0], other):
        store = FeatureStore(Path(pitch.paths.features), store_id)
        assert not store.missing(tracks)
        shards = list(store.folder.glob(PATTERN))
        clips = [clip for path in shards for clip in clips_in(path)]
        assert len(shards) == 1 and len(set(clips)) == len(clips), "small shards were joined"
    assert len(list(Path(pitch.paths.features).glob("nsynth-*"))) == 2


@pytest.mark.trial
def test_unusable_files_of_two_ranks_are_said_once(
    settings: Callable[..., list[str]], tmp_path: Path
) -> None:
    root = write_notes(tmp_path / "bad", per_pitch={"train": 1, "valid": 1, "test": 1})
    overrides = [f"data.root={root}", "launcher.devices=2"]
    cell = compose_cell([*settings("task=nsynth_pitch"), *overrides])
    for track in make_data(cell).tracks()[:2]:  # one of each rank
        track.path.write_bytes(b"not audio at all")

    ran = extract_in_processes(cell)
    assert ran.returncode == 2
    assert ran.stderr.count("mirprobe: ") == 1 and "Traceback" not in ran.stderr
    assert "2 of 72 audio files cannot be used: " in ran.stderr
