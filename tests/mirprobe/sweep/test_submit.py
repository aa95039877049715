"""What goes into the queue and what `status` says of it, with stand-ins for SLURM's commands."""

import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from mirprobe.__main__ import main
from mirprobe.cell import STORE, Cell, read_cell
from mirprobe.settings import compose_cells
from mirprobe.sweep.failures import note_failure
from mirprobe.sweep.queue import read_records
from mirprobe.sweep.status import CellState, states, states_json
from mirprobe.sweep.submit import cell_file

Settings = Callable[..., list[str]]
QUICK = ("model=fbank_chroma", "baseline=null", "task=nsynth_pitch,nsynth_instrument")
SLURM = ("launcher=slurm", "launcher.accelerator=cpu", "launcher.gpus_per_node=null")

SBATCH = """#!{python}
import pathlib, sys
here = pathlib.Path(__file__).parent
if (here / "refusal").exists():
    sys.exit((here / "refusal").read_text())
if "--test-only" in sys.argv:
    assert "dependency" not in sys.stdin.read(), "it knows no job that is not there"
    sys.exit(print("sbatch: Job 99 to start", file=sys.stderr))
numbers = here / "n_jobs"
number = int(numbers.read_text()) + 1 if numbers.exists() else 10
numbers.write_text(str(number))
script = pathlib.Path(sys.argv[-1])
assert script.is_file(), "submitted in the folder of the scripts"
with (here / "submitted").open("a") as file:
    file.write(f"{{number}} {{script.stem}}\\n")
print(f"{{number}};cluster")
"""
SQUEUE = "#!/bin/sh\ncat {here}/queue\n"
SCONTROL = """#!/bin/sh
if [ $2 = config ]; then echo 'MaxArraySize = 3'; else grep "JobId=$4 " {here}/jobs; fi
"""


@dataclass(frozen=True)
class Cluster:
    """Stand-ins on the path, and the files that they read and write."""

    folder: Path
    runs: Path

    def submitted(self) -> list[str]:
        """Names of the jobs, in order."""
        path = self.folder / "submitted"
        lines = path.read_text().splitlines() if path.exists() else []
        return [line.split()[1] for line in lines]

    def show(self, *lines: str) -> None:
        """What squeue shows from now on."""
        (self.folder / "queue").write_text("".join(f"{line}\n" for line in lines))

    def script(self, name: str) -> str:
        return (self.runs / "slurm" / f"{name}.sh").read_text()


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, text in (("sbatch", SBATCH), ("squeue", SQUEUE), ("scontrol", SCONTROL)):
        (folder / name).write_text(text.format(python=sys.executable, here=folder))
        (folder / name).chmod(0o755)
    for name in ("queue", "jobs"):
        (folder / name).touch()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return Cluster(folder, tmp_path / "runs")


def kinds(names: list[str]) -> list[str]:
    return [name.split("-")[0] for name in names]


def words(cells: list[Cell]) -> list[str]:
    return [state.word for state in states(cells)]


# -- submission ------------------------------------------------------------------------------------


def test_a_sweep_is_an_extraction_an_array_and_a_report(
    settings: Settings, cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = settings(*QUICK, *SLURM, "launcher.cells_per_task=1")
    assert main(["sweep", *arguments]) == 0
    names = cluster.submitted()
    assert kinds(names) == ["extract", "probe", "report"]
    assert "--dependency" not in cluster.script(names[0])
    assert "#SBATCH --dependency=afterok:10\n" in cluster.script(names[1])
    assert "#SBATCH --kill-on-invalid-dep=yes\n" in cluster.script(names[1])
    assert "#SBATCH --array=0-1%16\n" in cluster.script(names[1])
    assert "#SBATCH --dependency=afterany:10:11\n" in cluster.script(names[2])
    assert f"scripts and logs: {cluster.runs}/slurm" in capsys.readouterr().out

    cells = compose_cells(arguments)
    assert [read_cell(Path(cell_file(cell))) for cell in cells] == cells
    records = read_records(cluster.runs / "slurm")
    assert records[names[1]].jobs == ("11",)
    assert records[names[1]].tasks == tuple((cell_file(cell),) for cell in cells)


def test_what_is_queued_is_not_submitted_again(settings: Settings, cluster: Cluster) -> None:
    arguments = settings(*QUICK, *SLURM, "launcher.cells_per_task=1")
    assert main(["sweep", *arguments]) == 0
    first = cluster.submitted()
    config = Path(cell_file(compose_cells(arguments)[0]))
    written = config.stat().st_mtime_ns

    cluster.show(
        f"10 RUNNING {first[0]} None",
        f"11_0 PENDING {first[1]} (Dependency)",
        f"11_1 PENDING {first[1]} (Dependency)",
        "77 RUNNING somebody-elses None",
    )
    assert main(["sweep", *arguments]) == 0
    assert cluster.submitted() == first, "nothing"

    cluster.show(f"10 RUNNING {first[0]} None", f"11_0 PENDING {first[1]} (Dependency)")
    assert main(["sweep", *arguments]) == 0
    again = cluster.submitted()[len(first) :]
    assert kinds(again) == ["probe", "report"], "its features are being extracted"
    script = cluster.script(again[0])
    assert "#SBATCH --array=0-0%16\n" in script and "=afterok:10\n" in script
    assert "nsynth_instrument" in script and "nsynth_pitch" not in script
    assert config.stat().st_mtime_ns == written, "a queued job finds its file as it was"


def test_a_second_extraction_of_a_store_waits_for_the_first(
    settings: Settings, cluster: Cluster
) -> None:
    one = settings("model=fbank_chroma", "baseline=null", "task=nsynth_pitch", *SLURM)
    assert main(["extract", *one]) == 0
    (first,) = cluster.submitted()
    cluster.show(f"10 PENDING {first} (Priority)")
    assert main(["extract", *settings(*QUICK, *SLURM)]) == 0
    second = cluster.submitted()[1]
    assert "#SBATCH --dependency=afterany:10\n" in cluster.script(second)
    assert "nsynth_pitch" not in cluster.script(second), "it is queued"


def test_what_is_extracted_is_only_probed_and_long_arrays_are_split(
    settings: Settings, cluster: Cluster
) -> None:
    local = settings(*QUICK, "seed=0,1")
    assert main(["extract", *local]) == 0
    arguments = settings(*QUICK, "seed=0,1", *SLURM, "launcher.cells_per_task=1")
    assert main(["sweep", *arguments]) == 0
    names = cluster.submitted()
    assert kinds(names) == ["probe", "probe", "report"], "MaxArraySize is 3"
    assert "#SBATCH --array=0-2%16\n" in cluster.script(names[0])
    assert "#SBATCH --array=0-0%16\n" in cluster.script(names[1])
    assert "--dependency" not in cluster.script(names[0])


def test_a_dry_run_shows_scripts_though_slurm_does_not_answer(
    settings: Settings, cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    """As on a laptop that has SLURM's commands and no cluster; submitting stays an error."""
    (cluster.folder / "squeue").write_text("#!/bin/sh\necho no controller >&2; exit 1\n")
    arguments = settings(*QUICK, *SLURM)
    assert main(["sweep", "--dry-run", *arguments]) == 0
    out = capsys.readouterr().out
    assert "shown without asking SLURM: squeue failed (no controller)" in out
    assert "#SBATCH --job-name=extract-" in out and "#SBATCH --job-name=report-" in out
    assert "to start" not in out

    assert main(["sweep", *arguments]) == 2
    assert cluster.submitted() == []


def test_a_dry_run_shows_scripts_and_asks_slurm_and_writes_no_cell(
    settings: Settings, cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sweep", "--dry-run", *settings(*QUICK, *SLURM)]) == 0
    shown = capsys.readouterr().out
    assert shown.count("#!/bin/bash") == 3 and shown.count("sbatch: Job 99 to start") == 3
    assert "#SBATCH --dependency=afterok:JOB1\n" in shown
    assert cluster.submitted() == []
    assert not list(cluster.runs.rglob("config.yaml"))


def test_what_slurm_refuses_is_one_line(
    settings: Settings, cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    (cluster.folder / "refusal").write_text("sbatch: error: invalid partition\nspecified: nope\n")
    assert main(["sweep", *settings(*QUICK, *SLURM)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("mirprobe: sbatch failed (sbatch: error: invalid partition specified")
    assert error.count("\n") == 1


def test_without_slurm_it_is_said_what_to_do(
    settings: Settings, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert main(["sweep", *settings(*QUICK, *SLURM)]) == 2
    assert "is not on this machine: run this on a login node" in capsys.readouterr().err
    assert main(["sweep", "--dry-run", *settings(*QUICK, *SLURM)]) == 0


def test_a_queue_that_does_not_answer_submits_nothing(settings: Settings, cluster: Cluster) -> None:
    arguments = settings(*QUICK, *SLURM)
    (cluster.folder / "squeue").write_text("#!/bin/sh\necho slurm_load_jobs error >&2; exit 1\n")
    assert main(["sweep", *arguments]) == 2
    assert cluster.submitted() == []


# -- status ----------------------------------------------------------------------------------------


def log(cluster: Cluster, name: str, number: str) -> Path:
    path = cluster.runs / "slurm" / "logs" / f"{name}-{number}.out"
    path.write_text("...\n")
    return path


def test_every_word_has_its_reason(settings: Settings, cluster: Cluster) -> None:
    arguments = settings(*QUICK, *SLURM, "launcher.cells_per_task=1")
    cells = compose_cells(arguments)
    assert words(cells) == ["missing", "missing"]

    assert main(["sweep", *arguments]) == 0
    extract, probe, _ = cluster.submitted()
    cluster.show(
        f"10 PENDING {extract} (Resources)",
        f"11_0 PENDING {probe} (Dependency)",
        f"11_1 PENDING {probe} (Dependency)",
    )
    first, _ = states(cells)
    assert (first.word, first.features, first.why) == ("queued", "queued", "Resources")
    assert first.job == "10"

    of_extract = log(cluster, extract, "10")
    cluster.show(
        f"10 RUNNING {extract} (None)",
        f"11_0 PENDING {probe} (Dependency)",
        f"11_1 PENDING {probe} (Dependency)",
    )
    first, _ = states(cells)
    assert (first.word, first.features, first.log) == ("running", "running", str(of_extract))

    for cell in cells:
        (cell.folder / STORE).write_text("{}")
    of_probe = log(cluster, probe, "11_0")
    cluster.show(f"11_0 RUNNING {probe} (None)", f"11_1 PENDING {probe} (JobArrayTaskLimit)")
    first, second = states(cells)
    assert (first.word, first.features, first.log) == ("running", "done", str(of_probe))
    assert (second.word, second.why, second.log) == ("queued", "JobArrayTaskLimit", None)


def test_a_job_that_has_left_without_rows_has_failed(settings: Settings, cluster: Cluster) -> None:
    arguments = settings(*QUICK, *SLURM, "launcher.cells_per_task=1")
    cells = compose_cells(arguments)
    assert main(["sweep", *arguments]) == 0
    extract, probe, _ = cluster.submitted()
    log(cluster, extract, "10")
    (cluster.folder / "jobs").write_text("JobId=10 JobState=TIMEOUT Reason=TimeLimit\n")
    first, _ = states(cells)
    assert (first.word, first.features) == ("failed", "failed")
    assert first.why == "job 10 has ended without a result (TIMEOUT)"

    for cell in cells:
        (cell.folder / STORE).write_text("{}")
    of_probe = log(cluster, probe, "11_0")
    note_failure(cells[:1], "no probe has a score")
    first, second = states(cells)
    assert (first.word, first.why, first.log) == ("failed", "no probe has a score", str(of_probe))
    assert second.word == "missing", "it was never begun"
    assert "has left no log: cancelled, or its node does not see this folder" in second.why


def test_status_prints_lines_and_json(
    settings: Settings, cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = settings(*QUICK, *SLURM)
    assert main(["status", *arguments]) == 0
    *lines, last = capsys.readouterr().out.splitlines()
    assert [line.split()[:3] for line in lines] == [
        ["missing", "fbank_chroma", "nsynth_pitch"],
        ["missing", "fbank_chroma", "nsynth_instrument"],
    ]
    assert last == "2 cells: 2 missing"

    assert main(["status", "--json", *arguments]) == 0
    shown = capsys.readouterr().out
    assert [CellState(**one) for one in json.loads(shown)] == states(compose_cells(arguments))
    assert states_json([]) == "[]"


def test_a_broken_record_is_named(
    settings: Settings, cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = cluster.runs / "slurm"
    folder.mkdir(parents=True)
    (folder / "probe-x.json").write_text('{"kind": "dance"}')
    assert main(["status", *settings(*QUICK, *SLURM)]) == 2
    assert "probe-x.json is no record of a job" in capsys.readouterr().err
