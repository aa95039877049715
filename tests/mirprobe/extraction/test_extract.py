"""Extraction: every clip once, at any number of processes; bad audio, bad values, full disks."""

import hashlib
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
import pytest
import soundfile
import torch
from conftest import RATE, write_notes
from torch import Tensor

from datamodules.audio.clips import ClipRule
from datamodules.datasets.nsynth import NSynthPitch
from datamodules.errors import UserError
from datamodules.features.store import read_features
from datamodules.task import FrameTask
from datamodules.tracks import Segment, Split, Track
from mirprobe.assembly import make_backbone, make_data, store_key, store_key_of
from mirprobe.backbones.backbone import Backbone
from mirprobe.cell import ExtractConfig, write_cell
from mirprobe.extraction.extract import extract
from mirprobe.settings import compose_cell

SETTINGS = ExtractConfig(batch_seconds=1.0, n_workers=0, shard_clips=16, shard_seconds=60.0)


class Statistics(Backbone):
    """A backbone whose states say what it heard: layer l holds mean square and length, times l + 1."""

    sample_rate, hop, n_layers, dim, min_samples = RATE, 0.01, 2, 2, 160

    def __init__(self, gain: float = 1.0) -> None:
        super().__init__()
        self.register_buffer("gain", torch.tensor(gain))
        self.freeze()

    def states(self, audio: Tensor) -> Tensor:
        frames = audio.unfold(1, 160, 160)
        power = frames.square().mean(dim=2) * self.get_buffer("gain")
        state = torch.stack([power, torch.full_like(power, audio.shape[1] / RATE)], dim=2)
        return torch.stack([state * (layer + 1) for layer in range(3)], dim=1)


class Job(NamedTuple):
    data: NSynthPitch
    backbone: Statistics
    folder: Path

    def run(self) -> None:
        key = store_key(self.backbone, "statistics", self.data)
        extract(self.backbone, key, self.data, self.folder, SETTINGS, accelerator="cpu", devices=1)

    def stored(self) -> list[tuple[str, int]]:
        found = []
        for path in sorted(self.folder.glob("part-*.h5")):
            with h5py.File(path) as shard:
                found += list(
                    zip(shard["track_id"].asstr()[:], shard["clip"][:].tolist(), strict=True)
                )
        return found


@pytest.fixture
def job(tmp_path: Path) -> Job:
    root = write_notes(tmp_path / "data", per_pitch={"train": 1, "valid": 1, "test": 1})
    return Job(
        NSynthPitch(root / "NSynth", ClipRule(seconds=0.1, tail_seconds=0.02)),
        Statistics(),
        tmp_path / "store",
    )


def test_every_clip_once_and_its_numbers(job: Job) -> None:
    job.run()
    tracks = job.data.tracks()
    assert sorted(job.stored()) == [(track.track_id, clip) for track in tracks for clip in range(3)]
    features = read_features(
        job.folder, store_key(job.backbone, "statistics", job.data), [t.track_id for t in tracks]
    )
    for row, index in enumerate(features.track):
        audio, _ = soundfile.read(tracks[index].path, dtype="float32")
        clip = row % 3
        piece = audio[1600 * clip : 1600 * (clip + 1)]
        assert features.values[0, row, 0] == pytest.approx(np.mean(piece**2), rel=1e-3)
        assert features.values[2, row, 1] == pytest.approx(3 * len(piece) / RATE, rel=1e-3)


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


@pytest.mark.parametrize("rate", [10.0, 40.0, 100.0, 200.0])
def test_features_of_frames_line_up_with_their_labels(tmp_path: Path, rate: float) -> None:
    """Every frame of the grid says how loud its own time is, across clips and at the joined rest,
    also above the hop's rate.
    """
    levels = np.repeat([0.1, 0.2, 0.4], RATE).astype(np.float32)
    for number in range(6):
        soundfile.write(
            tmp_path / f"{number}.wav", levels[: round(2.9 * RATE)], RATE
        )  # a rest of 0.1 s
    data = Steps(tmp_path, ClipRule(seconds=0.8, tail_seconds=0.6, join_rest=True), frame_rate=rate)
    key = store_key(Statistics(), "statistics", data)
    assert key.pooling == f"{rate:g}Hz" and f"{rate:g}Hz" in key.folder
    extract(Statistics(), key, data, tmp_path / "store", SETTINGS, accelerator="cpu", devices=1)
    data.load_features(tmp_path / "store", key, batch_size=64, seed=0)
    for loader in (data.train_dataloader(), data.val_dataloader(), data.test_dataloader()):
        batches = list(loader)
        power = torch.cat([batch["features"][0, :, 0] for batch in batches]).float()
        target = torch.cat([batch["target"] for batch in batches])
        assert len(target) == 2 * round(2.9 * rate)
        torch.testing.assert_close(
            power, torch.tensor([0.01, 0.04, 0.16])[target], rtol=2e-3, atol=0
        )
    extract(Statistics(), key, data, tmp_path / "store", SETTINGS, accelerator="cpu", devices=1)
    assert data.n_waiting == 0


def test_second_run_reads_no_audio(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    job.run()
    monkeypatch.setattr(
        Statistics, "states", lambda self, audio: pytest.fail("a stored clip was computed again")
    )
    job.run()


def test_lost_shard_is_the_only_thing_computed_again(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    job.run()
    lost = sorted(job.folder.glob("part-*.h5"))[0]
    with h5py.File(lost) as shard:
        n_lost = len(shard["clip"])
    lost.unlink()
    seen: list[int] = []
    states = Statistics.states
    monkeypatch.setattr(
        Statistics, "states", lambda self, audio: seen.append(len(audio)) or states(self, audio)
    )
    job.run()
    assert sum(seen) == n_lost
    assert len(job.stored()) == len(set(job.stored())) == 3 * len(job.data.tracks())


def test_unusable_files_are_all_named_and_the_rest_is_stored(job: Job) -> None:
    tracks = job.data.tracks()
    tracks[0].path.write_bytes(b"not audio at all")
    tracks[1].path.write_bytes(b"")
    soundfile.write(tracks[2].path, np.full(4000, np.nan), RATE, subtype="FLOAT")
    soundfile.write(tracks[3].path, np.zeros(100), RATE)
    with pytest.raises(UserError) as caught:
        job.run()
    text = str(caught.value)
    assert text.startswith("4 of 72 audio files cannot be used: ") and "\n" not in text
    for track, reason in zip(
        tracks,
        ("cannot be decoded", "is empty (0 bytes)", "NaN or infinite", "too short (100 samples"),
        strict=False,
    ):
        assert f"{track.path} {reason}" in text or (str(track.path) in text and reason in text)
    names = sorted(track.track_id for track in tracks[:4])
    assert f"'data.exclude=[{','.join(f'nsynth:{name}' for name in names)}]'" in text
    assert len(job.stored()) == 3 * 68
    kept = NSynthPitch(job.data.root, job.data.clip, exclude=names)
    job._replace(data=kept).run()


@pytest.mark.parametrize("gain", [float("nan"), float("inf"), 1e9])
def test_values_that_do_not_fit_stop_the_run_with_the_track(job: Job, gain: float) -> None:
    with pytest.raises(
        UserError,
        match=r"not finite, or beyond 65504, for track (train|valid|test)\d_synthetic_\d{3}-\d{3}-000",
    ):
        job._replace(backbone=Statistics(gain)).run()


def test_changed_audio_is_noticed(job: Job) -> None:
    job.run()
    soundfile.write(job.data.tracks()[5].path, np.zeros(5000), RATE)
    with pytest.raises(
        UserError, match=r"1 nsynth files are not those that the stored features were made of"
    ):
        job.run()


def test_store_of_another_backbone_is_refused(job: Job) -> None:
    job.run()
    with pytest.raises(
        UserError, match=r"store.json was written by another configuration \(fingerprint is"
    ):
        job._replace(backbone=Statistics(2.0)).run()


def test_truncated_shard_is_named_with_the_way_out(job: Job) -> None:
    job.run()
    shard = sorted(job.folder.glob("part-*.h5"))[0]
    shard.write_bytes(shard.read_bytes()[:700])
    with pytest.raises(
        UserError,
        match=rf"shard {shard} is broken: .* Delete this file and run the same command again",
    ):
        job.run()
    shard.unlink()
    job.run()


def test_full_disk_is_said_before_and_during(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=10))
    with pytest.raises(
        UserError, match=r"no space for the features: .* GB needed at least, 0.00 GB free under"
    ):
        job.run()
    monkeypatch.undo()
    program = (
        "import resource, sys; sys.path[:0] = sys.argv[1:3]\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "from pathlib import Path; import numpy as np\n"
        "from datamodules.audio.clips import Clip; from datamodules.features.store import "
        "StoreKey\n"
        "from datamodules.features.shards import ClipFeatures, write_shard\n"
        "from datamodules.errors import UserError\n"
        "clip = ClipFeatures(Clip('t', 0, 1, 0.0, np.zeros(1, np.float32), 1), 1, np.zeros((3, 1, "
        "50000), np.float16))\n"
        "try: write_shard(Path(sys.argv[3]), StoreKey(*'abcdefg'), [clip])\n"
        "except UserError as error: print(error)\n"
    )
    here = [str(Path(__file__).parents[2]), str(Path(__file__).parents[3])]
    ran = subprocess.run(
        [sys.executable, "-c", program, *here, str(job.folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "no space left while writing" in ran.stdout, ran.stderr
    assert not list(job.folder.glob("*.h5")) and not list(job.folder.glob(".*.tmp"))


def test_two_processes_store_every_clip_once(
    settings: Callable[..., list[str]], tmp_path: Path
) -> None:
    """Real processes under Lightning's DDP (gloo): killed once, then to the end, then with fewer
    tracks left than ranks.
    """
    quick = ("launcher.devices=2", "extract.batch_seconds=0.5", "extract.shard_clips=6")
    cell = compose_cell(settings(*quick))
    file = tmp_path / "cell.yaml"
    file.write_text(write_cell(cell))
    key, tracks = store_key_of(cell, make_backbone(cell)), make_data(cell).tracks()
    job = Job(make_data(cell), Statistics(), Path(cell.paths.features) / key.folder)  # type: ignore[arg-type]
    everything = [(track.track_id, 0) for track in tracks]
    kill_sweep_after_first_shard(settings("task=nsynth_pitch", "baseline=null", *quick), job.folder)
    assert 0 < len(job.stored()) < len(everything)
    extract_here = [sys.executable, "-m", "mirprobe", "extract", "--cell", str(file)]
    subprocess.run(extract_here, check=True, timeout=120)
    assert sorted(job.stored()) == everything
    drop_last_clip(sorted(job.folder.glob("part-*.h5"))[0])
    assert len(job.stored()) == len(everything) - 1
    subprocess.run(extract_here, check=True, timeout=120)
    assert sorted(job.stored()) == everything
    assert json.loads((job.folder / "store.json").read_text())["dataset"] == "nsynth"


def kill_sweep_after_first_shard(arguments: list[str], folder: Path) -> None:
    """kill -9 for the sweep alone; its two extracting processes have to end by themselves."""
    process = subprocess.Popen([sys.executable, "-m", "mirprobe", "sweep", *arguments])
    deadline = time.monotonic() + 90
    while not list(folder.glob("part-*.h5")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.005)
    process.kill()
    process.wait()
    while (
        subprocess.run(
            ["pgrep", "-f", str(folder.parents[1])], capture_output=True, check=False
        ).returncode
        == 0
    ):
        assert time.monotonic() < deadline, "the ranks outlive the sweep"
        time.sleep(0.1)


def drop_last_clip(path: Path) -> None:
    """Puts a shard without its last clip in the place of a shard, so that one track is left for two
    ranks.
    """
    with h5py.File(path, "r+") as shard:
        columns = {name: shard[name][:-1] for name in shard}
        for name, values in columns.items():
            del shard[name]
            shard[name] = values
    path.rename(path.with_name(f"part-{hashlib.sha256(path.read_bytes()).hexdigest()[:16]}.h5"))


def test_batch_is_halved_where_memory_runs_out(
    job: Job, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    states, sizes = Statistics.states, []

    def small(self: Statistics, audio: Tensor) -> Tensor:
        sizes.append(len(audio))
        if len(audio) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return states(self, audio)

    monkeypatch.setattr(Statistics, "states", small)
    job.run()
    assert len(job.stored()) == len(set(job.stored())) == 3 * len(job.data.tracks())
    assert sizes.count(4) == 1 and max(sizes[1:]) <= 3, (
        "the batch stays small after the first failure"
    )
    assert (
        "out of memory at 4 clips a batch: going on with 0.1 s of audio a batch"
        in capsys.readouterr().out
    )


def test_single_clip_that_does_not_fit_is_said(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(self: Statistics, audio: Tensor) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Statistics, "states", never)
    with pytest.raises(UserError, match=r"out of memory on a single clip of 0\.(1|05) s"):
        job.run()


def test_inside_a_slurm_job_the_launcher_still_decides(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lightning's SLURM environment would count the job's tasks, and wait for ranks that nobody
    starts.
    """
    for name, value in {
        "SLURM_NTASKS": "4",
        "SLURM_JOB_NAME": "sweep",
        "SLURM_JOB_ID": "7",
        "SLURM_PROCID": "1",
    }.items():
        monkeypatch.setenv(name, value)
    job.run()
    assert len(job.stored()) == 3 * len(job.data.tracks())
