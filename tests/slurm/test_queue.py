"""Sweeps through a real queue: from end to end, and through what queues do to jobs."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from slurm.cluster import Cluster

from datamodules.features.store import FeatureStore, parse_store_id
from mirprobe.settings import compose_cells
from mirprobe.sweep.queue import read_records
from mirprobe.sweep.status import CellState, states

pytestmark = pytest.mark.trial

ROOT = Path(__file__).parents[2]
N_NOTES = 96
STRANGE = "a b'c\" $(touch owned) ü"  # a folder that somebody has
SLURM = (
    *("launcher=slurm", "launcher.accelerator=cpu", "launcher.gpus_per_node=1"),
    *("launcher.cpus_per_task=1", 'launcher.time="00:05:00"', "launcher.cells_per_task=1"),
    # Nodes have no names here that a resolver knows; a site may need such a line too.
    'launcher.setup=["export MASTER_ADDR=127.0.0.1"]',
)
BASELINE = ("model=fbank_chroma", "baseline=null")


@dataclass(frozen=True)
class Site:
    """A user's folder and the commands that are given there.

    Attributes:
        out: folder of features and runs.
        settings: of all commands.
    """

    out: Path
    settings: tuple[str, ...]

    def run(self, verb: str, *more: str, code: int = 0) -> str:
        """What a command prints."""
        done = subprocess.run(
            [sys.executable, "-m", "mirprobe", verb, *self.settings, *more],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stdout + done.stderr
        return done.stdout + done.stderr

    def states(self, *more: str) -> list[CellState]:
        return states(compose_cells([*self.settings, *more]))

    def jobs(self, kind: str) -> list[str]:
        """Numbers of the jobs of a kind."""
        records = read_records(self.out / "runs" / "slurm").values()
        return [job for record in records if record.kind == kind for job in record.jobs]

    def log(self, kind: str) -> str:
        paths = sorted((self.out / "runs" / "slurm" / "logs").glob(f"{kind}-*.out"))
        return "\n".join(path.read_text() for path in paths)

    def shards(self) -> list[list[tuple[str, int]]]:
        """Audio and place of each clip, for every shard."""
        found = []
        for description in self.out.glob("features/*/store.json"):
            store_id = parse_store_id(description.read_text())
            for shard in FeatureStore(description.parents[1], store_id).shards():
                found.append(list(zip(shard.audio_ids, shard.clips["clip"].tolist(), strict=True)))
        return found

    def check_every_clip_once(self) -> None:
        clips = [clip for shard in self.shards() for clip in shard]
        assert len(clips) == len(set(clips)) == N_NOTES


@pytest.fixture
def site(
    cluster: Cluster, tmp_path: Path, notes_root: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Site]:
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}:{ROOT / 'tests'}")

    def make(*more: str, out: Path = tmp_path, runs: Path | None = None) -> Site:
        out.mkdir(exist_ok=True)
        place = runs or out
        paths = [
            f"paths.features={quoted(out / 'features')}",
            f"paths.runs={quoted(place / 'runs')}",
        ]
        quick = [
            "protocol.hidden=32",
            "protocol.max_epochs=4",
            "extract.n_workers=0",
            "logger=none",
        ]
        settings = (f"data.root={quoted(notes_root)}", *paths, *quick, *SLURM, *more)
        return Site(place, settings)

    return make


def quoted(path: Path | str) -> str:
    """A path or a text as a setting: Hydra wants quotes around strange signs."""
    escaped = str(path).replace('"', '\\"')
    return f'"{escaped}"'


def slow(seconds: float, shard: int = 8) -> tuple[str, ...]:
    """A backbone that takes `seconds` for each clip until its job is stopped, and shards of `shard`
    clips.
    """
    model = ["model=fcpe", "model.name=slow", "model._target_=slow_backbone.SlowBackbone"]
    shards = [f"extract.shard_clips={shard}", "extract.batch_seconds=0.5"]
    first = f"[ $((SLURM_RESTART_COUNT)) != 0 ] || export SLOW_SECONDS={seconds}"
    return (*model, *shards, "baseline=null", "task=nsynth_pitch", f'launcher.setup=["{first}"]')


def slurm(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def job_facts(job: str) -> str:
    return slurm("scontrol", "show", "job", job)


def wait_for(what: Callable[[], object], seconds: float = 90.0) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, slurm("squeue") + slurm("scontrol", "show", "job")
        time.sleep(0.2)


def wait_for_the_end(seconds: float = 150.0) -> None:
    wait_for(lambda: not slurm("squeue", "--noheader").strip(), seconds)


def words(found: Sequence[CellState]) -> list[str]:
    return [state.word for state in found]


# -- from end to end -------------------------------------------------------------------------------


def test_a_sweep_through_the_queue_and_a_second_one(
    site: Callable[..., Site], tmp_path: Path
) -> None:
    """In a folder with a name that would be commands in a script that quotes badly."""
    strange = 'x # y \\ "z" $(touch owned) `touch owned` ü'
    comment = "+launcher.sbatch.comment=" + quoted(strange)
    tasks = "task=nsynth_pitch,nsynth_instrument"
    here = site(*BASELINE, tasks, comment, out=tmp_path / STRANGE)

    shown = here.run("sweep", "--dry-run")
    assert shown.count("to start at") == 3 and not here.jobs("extract")

    here.run("sweep")
    assert "2 of 2 cells are queued already" in here.run("sweep"), "a second submission"
    (extract,) = here.jobs("extract")
    assert f"Comment={strange} \n" in job_facts(extract), "as it was given"

    wait_for_the_end()
    assert words(here.states()) == ["done", "done"]
    here.check_every_clip_once()
    assert "Table 1" in here.log("report") and "2 cells: 2 done" in here.log("report")
    assert "efficiency: 96 clips in " in here.log("extract")
    assert "everything is done" in here.run("sweep")
    assert not list(ROOT.glob("owned")) and not list(tmp_path.rglob("owned"))


def test_two_nodes_extract_every_clip_once(site: Callable[..., Site]) -> None:
    here = site(*BASELINE, "task=nsynth_pitch", "launcher.nodes=2")
    here.run("extract")
    wait_for_the_end()
    assert "NodeList=n[1-2]" in job_facts(here.jobs("extract")[0])
    here.check_every_clip_once()
    assert len(here.shards()) == 2, "each rank has written its own"
    assert "0: efficiency: 48 clips" in here.log("extract")


def test_a_cell_that_fails_stops_no_other_and_the_report_says_which(
    site: Callable[..., Site],
) -> None:
    broken = 'launcher.setup=["[ \\"$SLURM_ARRAY_TASK_ID\\" != 1 ] || exit 7"]'
    here = site(*BASELINE, "task=nsynth_pitch,nsynth_instrument", broken)
    here.run("sweep")
    wait_for_the_end()
    found = here.states()
    assert words(found) == ["done", "failed"]
    failed = found[1]
    assert "has ended without a result (FAILED)" in failed.why and failed.log is not None

    report = here.log("report")
    assert "2 cells: 1 done, 1 failed" in report
    line = next(line for line in report.splitlines() if line.startswith("failed "))
    assert failed.hash in line and failed.log in line

    whole = Site(here.out, tuple(text for text in here.settings if text != broken))
    whole.run("sweep")
    assert len(whole.jobs("extract")) == 1, "its features are there"
    wait_for_the_end()
    assert words(whole.states()) == ["done", "done"]


# -- what queues do to jobs ------------------------------------------------------------------------


def test_a_preempted_extraction_goes_on_where_it_was(site: Callable[..., Site]) -> None:
    here = site(*slow(0.12), "launcher.partition=preempt")
    here.run("sweep")
    wait_for(lambda: len(here.shards()) >= 2)
    (extract,) = here.jobs("extract")
    urgent = [
        "--partition=urgent",
        "--nodes=1",
        "--exclusive",
        "--wrap=sleep 1",
        "--output=/dev/null",
    ]
    slurm("sbatch", *urgent)

    wait_for(lambda: "Restarts=1" in job_facts(extract))
    n_before = sum(len(shard) for shard in here.shards())
    assert 16 <= n_before < N_NOTES, "preempted too late to be a test"
    wait_for_the_end()
    here.check_every_clip_once()
    assert f"efficiency: {N_NOTES - n_before} clips in " in here.log("extract"), "no more"
    assert words(here.states()) == ["done"], "what waited for it was not lost"


def test_at_its_time_limit_a_job_stores_what_it_has_and_goes_on(
    site: Callable[..., Site],
) -> None:
    limit = ['launcher.time="00:01:00"', "launcher.signal_delay_s=10"]
    here = site(*slow(0.65, shard=512), *limit)
    here.run("extract")
    (extract,) = here.jobs("extract")
    wait_for(lambda: "Restarts=1" in job_facts(extract), 90)
    (open_shard,) = here.shards()
    assert 0 < len(open_shard) < N_NOTES, "it was closed in time"
    assert "stopped by SIGUSR1: everything so far is stored" in here.log("extract")
    wait_for_the_end()
    here.check_every_clip_once()


def test_a_cancelled_job_stays_cancelled_and_the_next_one_goes_on(
    site: Callable[..., Site],
) -> None:
    here = site(*slow(0.12))
    here.run("sweep")
    wait_for(lambda: len(here.shards()) >= 2)
    (extract,) = here.jobs("extract")
    slurm("scancel", extract)
    wait_for_the_end()
    facts = job_facts(extract)
    assert "JobState=CANCELLED" in facts and "Restarts=0" in facts
    (state,) = here.states()
    assert (state.word, state.features) == ("failed", "failed")
    assert "(CANCELLED)" in state.why
    n_before = sum(len(shard) for shard in here.shards())

    here.run("sweep", "launcher.setup=[]")
    wait_for_the_end()
    here.check_every_clip_once()
    assert f"efficiency: {N_NOTES - n_before} clips in " in here.log("extract")
    assert words(here.states()) == ["done"]


# -- nodes that do not see what they should --------------------------------------------------------


def test_a_node_without_the_shared_folder_is_said(
    site: Callable[..., Site], cluster: Cluster, tmp_path: Path
) -> None:
    if cluster.hidden is None:
        pytest.skip("no process here may have mounts of its own")
    island = (*BASELINE, "task=nsynth_pitch", "launcher.partition=island")

    features = site(*island, out=cluster.hidden / "one", runs=tmp_path)
    features.run("extract")
    wait_for_the_end()
    (state,) = features.states()
    assert state.word == "failed"
    where = f"does not see {cluster.hidden / 'one' / 'features'} as the machine does"
    assert where in features.log("extract")

    everything = site(*island, out=cluster.hidden / "two")
    everything.run("extract")
    wait_for_the_end()
    (state,) = everything.states()
    assert (state.word, state.log) == ("failed", None)
    assert "has left no log: cancelled, or its node does not see this folder" in state.why


def test_a_step_without_its_tasks_is_an_error_and_not_one_process(
    site: Callable[..., Site],
) -> None:
    """Lightning would go on alone and tell nobody."""
    held = ("launcher.gpus_per_node=2", "+launcher.sbatch.hold=true")
    here = site(*BASELINE, "task=nsynth_pitch", *held)
    here.run("extract")
    (extract,) = here.jobs("extract")
    assert "Reason=JobHeldUser" in job_facts(extract)
    slurm("scancel", extract)
    (script,) = (here.out / "runs" / "slurm").glob("extract-*.sh")
    cells = json.loads(script.with_suffix(".json").read_text())["tasks"][0]
    command = [
        "srun",
        "--ntasks=1",
        sys.executable,
        "-m",
        "mirprobe",
        "extract",
        f"--cell={cells[0]}",
    ]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ}, timeout=60
    )
    assert done.returncode == 2
    assert "2 processes on 1 nodes were asked for" in done.stderr
