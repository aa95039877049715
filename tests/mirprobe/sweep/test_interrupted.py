"""Real processes, killed and asked to end: exit codes, one line, and no open shard lost."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import h5py
import pytest
from counted_backbone import VARIABLE

Settings = Callable[..., list[str]]
PYTHONPATH = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
SIGNALS = (signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGUSR1)
SHARD = 20  # clips
COUNTED = ("model.name=counted", "model._target_=counted_backbone.CountedBackbone")
SLOW = (
    *("task=nsynth_pitch", "baseline=null", "extract.batch_seconds=0.5", *COUNTED),
    *(f"extract.shard_clips={SHARD}", "protocol.max_epochs=1"),
)


def start(verb: str, arguments: list[str], **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "mirprobe", verb, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": PYTHONPATH, **environment},
    )


@pytest.fixture(autouse=True)
def _counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the backbone counts clips."""
    monkeypatch.setenv(VARIABLE, str(tmp_path / "passed"))


def n_passed(folder: Path, rank: str = "*") -> int:
    """Clips that passed the backbone, on one rank or on all."""
    return sum(path.stat().st_size for path in folder.glob(f"passed.{rank}"))


def wait_for_shard(folder: Path, process: subprocess.Popen[str]) -> None:
    """And a little longer, so that the next shard is likely to hold something."""
    deadline = time.monotonic() + 120
    while not list(folder.glob("features/*/part-*.h5")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    time.sleep(0.2)


def sizes_of_shards(folder: Path) -> list[int]:
    sizes = []
    for path in folder.glob("features/*/part-*.h5"):
        with h5py.File(path) as shard:
            sizes.append(len(shard["clip"]))
    return sizes


def processes(test: Callable[[int, Mapping[str, str]], bool]) -> list[int]:
    """Living processes whose number and environment pass a test."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            number = int(folder.name)
            text = (folder / "environ").read_bytes().decode(errors="replace")
            is_zombie = (folder / "stat").read_text().rpartition(")")[2].split()[0] == "Z"
        except (ValueError, OSError):
            continue
        variables = dict(entry.split("=", 1) for entry in text.split("\0") if "=" in entry)
        if not is_zombie and test(number, variables):
            found.append(number)
    return found


def parent_of(number: int) -> int:
    return int(Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[1])


def ranks_of(process: subprocess.Popen[str]) -> dict[str, int]:
    """The ranks of a sweep, without their decoders."""
    ranks = processes(
        lambda number, variables: (
            variables.get("MIRPROBE_IS_CHILD") == str(process.pid)
            and parent_of(number) == process.pid
        )
    )
    found = {}
    for number in ranks:
        text = Path(f"/proc/{number}/environ").read_text()
        found[text.split("LOCAL_RANK=")[1][0]] = number
    return found


def check_end(process: subprocess.Popen[str], code: int) -> str:
    out, err = process.communicate(timeout=60)
    assert process.returncode == code, (process.returncode, out[-2000:], err[-2000:])
    assert "Traceback" not in out + err, out + err
    return out + err


@pytest.mark.trial
@pytest.mark.parametrize("number", SIGNALS)
def test_two_ranks_close_their_shards_at_a_signal(
    settings: Settings, tmp_path: Path, number: signal.Signals
) -> None:
    process = start("sweep", settings(*SLOW, "launcher.devices=2"))
    wait_for_shard(tmp_path, process)
    process.send_signal(number)
    said = check_end(process, 128 + number)
    assert said.count(f"stopped by {number.name}: everything so far is stored") == 1
    sizes = sizes_of_shards(tmp_path)
    assert SHARD <= sum(sizes) == n_passed(tmp_path) < 96, "the open shards are on disk"
    assert not processes(
        lambda _, variables: variables.get("MIRPROBE_IS_CHILD") == str(process.pid)
    )


@pytest.mark.trial
@pytest.mark.parametrize("number", SIGNALS)
def test_one_process_closes_its_shard_at_a_signal_to_all(
    settings: Settings, tmp_path: Path, number: signal.Signals
) -> None:
    """As SLURM and a terminal send it: decoders get it too."""
    process = start("sweep", settings(*SLOW, "extract.n_workers=1"))
    wait_for_shard(tmp_path, process)
    os.killpg(process.pid, number)
    said = check_end(process, 128 + number)
    assert said.count("stopped by ") == 1
    assert SHARD <= sum(sizes_of_shards(tmp_path)) == n_passed(tmp_path) < 96


@pytest.mark.trial
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP])
def test_probes_are_stopped_like_extraction(
    settings: Settings, tmp_path: Path, number: signal.Signals
) -> None:
    endless = ["protocol.max_epochs=1000000", "protocol.patience=1000000"]
    quick = ["task=nsynth_pitch", "model=fbank_chroma", "baseline=null"]
    process = start("sweep", settings(*quick, *endless))
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("runs/*/*/*/*/made_of.json")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(2)
    process.send_signal(number)
    said = check_end(process, 128 + number)
    assert said.count(f"stopped by {number.name}; run the same command to go on") == 1


@pytest.mark.trial
@pytest.mark.parametrize("victim", ["0", "1"])
def test_a_rank_that_is_killed_is_named_and_the_other_stores_what_it_has(
    settings: Settings, tmp_path: Path, victim: str
) -> None:
    arguments = settings(*SLOW, "launcher.devices=2")
    process = start("sweep", arguments)
    wait_for_shard(tmp_path, process)
    os.kill(ranks_of(process)[victim], signal.SIGKILL)
    start_s = time.monotonic()
    said = check_end(process, 2)
    assert time.monotonic() - start_s < 30
    name = f"process {int(victim) + 1} of 2 that extracted was killed by SIGKILL"
    assert said.count("mirprobe: ") == 1 and name in said
    other = {"0": "1", "1": "0"}[victim]
    assert n_passed(tmp_path, other) <= sum(sizes_of_shards(tmp_path)) < 96
    check_end(start("extract", arguments), 0)
    assert sum(sizes_of_shards(tmp_path)) == 96


@pytest.mark.trial
@pytest.mark.parametrize("devices", [1, 2])
def test_a_decoder_that_is_killed_is_one_line_and_no_loss(
    settings: Settings, tmp_path: Path, devices: int
) -> None:
    """As the kernel does where memory runs out."""
    arguments = settings(*SLOW, "extract.n_workers=1", f"launcher.devices={devices}")
    process = start("sweep", arguments)
    wait_for_shard(tmp_path, process)
    owner = process.pid if devices == 1 else ranks_of(process)["0"]
    (decoder, *_) = processes(lambda number, _: parent_of(number) == owner)
    os.kill(decoder, signal.SIGKILL)
    said = check_end(process, 2)
    assert said.count("mirprobe: a process that decodes was killed, perhaps for want of ") == 1
    n_stored = sum(sizes_of_shards(tmp_path))
    assert n_passed(tmp_path, "0") <= n_stored <= n_passed(tmp_path) < 96


@pytest.mark.trial
@pytest.mark.parametrize(
    "left",
    [
        {"LOCAL_RANK": "0"},
        {"MASTER_PORT": "nonsense"},
        {"MASTER_ADDR": "node17.invalid", "MASTER_PORT": "29500"},
        {"WORLD_SIZE": "1", "RANK": "0", "LOCAL_RANK": "0", "GROUP_RANK": "3"},
        {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "4", "SLURM_PROCID": "0"},
    ],
)
def test_two_ranks_start_whatever_another_launcher_has_left(
    settings: Settings, tmp_path: Path, left: dict[str, str]
) -> None:
    """Rank 0 would wait seven days for a rank that nobody starts."""
    check_end(start("extract", settings(*SLOW, "launcher.devices=2"), **left), 0)
    assert sum(sizes_of_shards(tmp_path)) == 96


@pytest.mark.parametrize(
    ("rank", "n_lines"), [({"SLURM_PROCID": "0"}, 1), ({"SLURM_PROCID": "3"}, 0)]
)
def test_of_eight_sweeps_under_srun_one_says_that_it_is_wrong(
    settings: Settings, rank: dict[str, str], n_lines: int
) -> None:
    step = {"SLURM_NTASKS": "8", "SLURM_STEP_NUM_TASKS": "8", **rank}
    process = start("sweep", settings(*SLOW), **step)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err.count("\n")) == (2, "", n_lines)
    if n_lines:
        assert err.startswith("mirprobe: this command was started as one of several copies (SLURM")
