"""What a sweep would cost: counts by hand, hours by arithmetic, and a disk that is too small."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import SECONDS

from datamodules.errors import UserError
from mirprobe.__main__ import main
from mirprobe.assembly import make_backbone
from mirprobe.settings import compose_cell, compose_cells
from mirprobe.sweep.forecast import (
    Facts,
    check_room,
    download_lines,
    facts_of,
    forecast_job,
    speed_lines,
)
from mirprobe.sweep.plan import Plan, make_plan
from mirprobe.sweep.speed import Speed, dry_run

Settings = Callable[..., list[str]]
QUICK = ("task=nsynth_pitch", "model=fbank_chroma", "baseline=null")
N_NOTES = 96


def plan_of(*arguments: str) -> Plan:
    return make_plan(compose_cells(arguments))


def test_a_store_is_counted_by_headers_and_the_cutting_rule(settings: Settings) -> None:
    """A note of 0.25 s is two clips of 0.1 s."""
    (job,) = plan_of(*settings(*QUICK, "task.clip.seconds=0.1", "extract.batch_seconds=1")).jobs
    found = forecast_job(job, Facts(n_layers=12, dim=1024, sample_rate=16000))
    assert found.size.audio_s == pytest.approx(N_NOTES * SECONDS)
    assert found.size.n_clips == found.size.n_rows == 2 * N_NOTES
    assert found.n_bytes == 2 * N_NOTES * 13 * 1024 * 2
    assert found.n_passes == -(-2 * N_NOTES // 8), "a clip has 0.125 s of audio on average"


@pytest.mark.parametrize(
    ("model", "facts"),
    [("fcpe", Facts(6, 512, 16000)), ("fbank_chroma", Facts(0, 92, 24000))],
)
def test_facts_need_no_weights(model: str, facts: Facts) -> None:
    assert facts_of(compose_cell([f"model={model}"])) == facts


def test_decoding_binds_until_there_are_cores_enough() -> None:
    speed = Speed(decoding=100.0, forward=250.0, device="cuda", n_clips=20)
    assert (speed.n_decoders, speed.cpus_per_task) == (3, 4)
    audio_s = 250 * 3600.0
    assert speed.hours(audio_s, n_cpus=2) == pytest.approx(2.5)
    assert speed.hours(audio_s, n_cpus=4) == speed.hours(audio_s, n_cpus=16) == pytest.approx(1.0)


@pytest.mark.parametrize(("n_cpus", "what"), [(3, "decoding"), (4, "the network")])
def test_what_binds_is_said_with_the_cores_that_help(n_cpus: int, what: str) -> None:
    slurm = ["launcher=slurm", f"launcher.cpus_per_task={n_cpus}", "launcher.gpus_per_node=2"]
    cell = compose_cell([*slurm, "launcher.nodes=2"])
    speed = Speed(decoding=100.0, forward=250.0, device="cuda", n_clips=20)
    _, line = speed_lines(cell, speed, 250 * 3600.0)
    assert f"{what} binds with {n_cpus} cores a process; launcher.cpus_per_task=4 keeps" in line
    hours = speed.hours(250 * 3600.0, n_cpus)
    assert line.strip().startswith(f"{hours:.2f} h of one GPU, {hours / 4:.2f} h on 4;")


def test_the_hours_of_a_gpu_are_not_those_of_the_login_node() -> None:
    cell = compose_cell(["launcher=slurm"])
    _, line = speed_lines(cell, Speed(100.0, 10.0, "cpu", 20), 3600.0)
    assert "not measured, no GPU here" in line


def test_a_dry_run_measures_twenty_clips_and_stores_nothing(
    settings: Settings, tmp_path: Path
) -> None:
    (job,) = plan_of(*settings(*QUICK)).jobs
    speed = dry_run(job, make_backbone(job.cells[0]))
    assert speed.n_clips == 20 and speed.device == "cpu"
    assert speed.decoding > 1 and speed.forward > 1
    assert not (tmp_path / "features").exists() and not (tmp_path / "runs").exists()


def test_plan_prints_all_of_it(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = settings(*QUICK, "seed=0,1,2", "launcher=slurm", "launcher.gpus_per_node=null")
    assert main(["plan", *arguments]) == 0
    shown = capsys.readouterr().out
    for text in (
        "3 cells, 0 of them done",
        "fbank_chroma over nsynth (whole): nsynth_pitch (3)",
        "96 tracks, 96 clips, 0.01 h of audio, 1 forward passes, 0.000 GB of features",
        "dry run on 20 clips: decoding ",
        "free under ",
        "extraction jobs: 1, each of 1 x 1 processes; arrays: 1, with 1 tasks of up to 4 cells",
    ):
        assert text in shown


def test_data_that_is_not_there_is_said_and_the_rest_is_planned(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = settings("task=nsynth_pitch,gtzan_genre", "model=fbank_chroma", "baseline=null")
    assert main(["plan", *arguments]) == 0
    shown = capsys.readouterr().out
    assert "fbank_chroma over gtzan: not known, no gtzan data" in shown
    assert "to download: GTZAN, " in shown and "GB (mirprobe fetch)" in shown
    assert "96 tracks, 96 clips" in shown


def test_weights_that_are_not_there_have_a_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mirprobe.backbones.hub.try_to_load_from_cache", lambda *_, **__: None)
    (line,) = download_lines([compose_cell(["model=musicfm"])])
    assert "weights of musicfm (1." in line and "mirprobe fetch model=musicfm" in line


# -- disk ------------------------------------------------------------------------------------------


def free(monkeypatch: pytest.MonkeyPatch, n_bytes: int) -> None:
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=n_bytes))


def test_a_sweep_that_the_disk_cannot_hold_is_refused_before_its_first_store(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each of two stores fits, both together do not."""
    tasks = settings(*QUICK, "task.clip.seconds=null,0.1")
    of_both = 3 * N_NOTES * 92 * 2
    free(monkeypatch, of_both)
    check_room(plan_of(*tasks))
    free(monkeypatch, of_both - 1)
    with pytest.raises(UserError, match="no space for the features of this sweep"):
        check_room(plan_of(*tasks))
    assert main(["sweep", *tasks]) == 2
    assert "over nsynth" not in capsys.readouterr().out, "nothing was extracted"


def test_features_that_are_stored_need_no_room(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["extract", *settings(*QUICK)]) == 0
    free(monkeypatch, 0)
    check_room(plan_of(*settings(*QUICK)))
    check_room(plan_of(*settings(*QUICK, "seed=1")))
