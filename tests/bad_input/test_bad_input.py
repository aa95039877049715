"""Bad input: one line, the right exit code, nothing lost. The table of cases is `cases.py`."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from bad_input.cases import CASES, TRACKED, Case
from bad_input.world import QUICK, build_world, contents, restore, settings
from wandb_reader import read_offline_runs

from mirprobe import settings as settings_module
from mirprobe.__main__ import main

pytestmark = pytest.mark.trial

NOBODY = 65534
LEFT_BEHIND = (".tmp", ".part-")


@pytest.fixture(scope="module")
def pristine() -> Iterator[Path]:
    """The world as it is before any accident: a cell is done. Anybody may enter it."""
    base = Path(tempfile.mkdtemp(prefix="bad-input-"))
    base.chmod(0o755)
    world = base / "world"
    world.mkdir()
    build_world(world)
    assert main(["sweep", *settings(world), *QUICK]) == 0
    shutil.copytree(world, base / "pristine")
    yield base / "pristine"
    shutil.rmtree(base, ignore_errors=True)


@pytest.fixture
def world(pristine: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The world, put back; where it stands is part of what results were made of."""
    folder = pristine.parent / "world"
    restore(pristine, folder)
    (folder / "here").mkdir()
    monkeypatch.chdir(folder / "here")
    monkeypatch.setattr(settings_module, "conf_dir", lambda: folder / "conf")
    for name in os.environ:
        if name.startswith(("WANDB_", "MIRPROBE_", "SLURM_")):
            monkeypatch.delenv(name)
    return folder


@pytest.fixture(autouse=True)
def area(request: pytest.FixtureRequest, record_property: Callable[[str, object], None]) -> None:
    """Tells the table at the end which row a case counts for."""
    parameters = getattr(request.node, "callspec", None)
    case = None if parameters is None else parameters.params.get("case")
    marker = request.node.get_closest_marker("area")
    record_property("area", case.area if case else marker.args[0] if marker else "kills")


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.area}: {case.name}"[:90])
def test_bad_input_is_answered_in_one_line_and_nothing_is_lost(
    case: Case, world: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if case.make is not None:
        case.make(world)
    before = contents(world)
    for name, value in case.environment.items():
        monkeypatch.setenv(name, value.replace("{w}", str(world)))
    capsys.readouterr()

    with warnings_on_stderr():
        code = run_as_user(case, world)

    shown = capsys.readouterr()
    lines = shown.err.splitlines()
    assert code == case.code, shown.err
    assert "Traceback" not in shown.err + shown.out
    if case.code != 2:
        assert lines == []
    else:
        assert len(lines) == 1, shown.err[-3000:]
        assert lines[0].startswith("mirprobe: ")
        for word in case.says:
            assert word in lines[0]
    for word in case.prints:
        assert word in shown.out
    check_nothing_is_lost(world, before)
    for pattern in case.absent:
        assert not list(world.glob(pattern)), pattern


@contextmanager
def warnings_on_stderr() -> Iterator[None]:
    """Shows warnings where a user would see them, instead of keeping them for pytest's summary."""

    def show(message: object, *_rest: object, **_more: object) -> None:
        print(message, file=sys.stderr)

    with warnings.catch_warnings():
        warnings.simplefilter("default")
        for kind in (DeprecationWarning, PendingDeprecationWarning, FutureWarning, ResourceWarning):
            warnings.simplefilter("ignore", kind)
        warnings.showwarning = show  # type: ignore[assignment]
        yield


def run_as_user(case: Case, world: Path) -> int:
    """The exit code of a case, perhaps of a user to whom something may be forbidden."""
    is_root = os.geteuid() == 0
    if case.unprivileged and is_root:
        os.seteuid(NOBODY)
    try:
        return main(case.words(world))
    except SystemExit as ended:
        return int(ended.code or 0)
    finally:
        if is_root:
            os.seteuid(0)


def check_nothing_is_lost(world: Path, before: dict[str, str]) -> None:
    after = contents(world)
    lost = [name for name, digest in before.items() if after.get(name) != digest]
    assert not lost, f"lost or changed: {lost}"
    left = [name for name in after if any(part in name for part in LEFT_BEHIND)]
    assert not left, f"left behind: {left}"


# -- what needs a process of its own ---------------------------------------------------------------


@dataclass(frozen=True)
class Process:
    """A command line of a shell: `MIR` stands for mirprobe, `GIVEN` for the world's settings."""

    area: str
    name: str
    script: str
    code: int
    says: tuple[str, ...] = ()
    prints: str = ""
    n_lines: int | None = None


PROCESSES = [
    Process(
        "pipes and streams", "a reader that leaves", "MIR report GIVEN | head -1", 0, n_lines=0
    ),
    Process("pipes and streams", "a reader that leaves at once", "MIR list | true", 0, n_lines=0),
    Process(
        "pipes and streams",
        "a sweep whose reader leaves is done all the same",
        "MIR sweep GIVEN seed=3 | true; ls {w}/runs/*/*/*-s3-*/*/rows.jsonl",
        0,
        prints="rows.jsonl",
    ),
    Process("pipes and streams", "stdout that is closed", "MIR report GIVEN >&-", 0, n_lines=0),
    Process("pipes and streams", "stdin that is closed", "MIR report GIVEN <&-", 0, n_lines=0),
    Process("pipes and streams", "a full disk", "MIR report GIVEN >/dev/full", 1, ("No space",)),
    Process("pipes and streams", "stderr that is closed", "MIR sweep model=fcp 2>&-", 2, n_lines=0),
    Process(
        "locales",
        "a terminal of ASCII",
        "LC_ALL=C PYTHONUTF8=0 PYTHONCOERCECLOCALE=0 MIR report GIVEN task.label='\"Höhe\"'",
        0,
        prints="Table 1",
        n_lines=0,
    ),
    Process(
        "locales",
        "an error of ASCII",
        "LC_ALL=C PYTHONUTF8=0 PYTHONCOERCECLOCALE=0 MIR sweep model=fcpé",
        2,
        ("unknown model",),
    ),
    Process(
        "locales",
        "PYTHONIOENCODING=ascii",
        "PYTHONIOENCODING=ascii MIR report GIVEN task.label='\"Höhe\"'",
        0,
        prints="Table 1",
        n_lines=0,
    ),
    Process(
        "names and paths",
        "a working directory that was deleted",
        "mkdir {w}/gone; cd {w}/gone; rmdir {w}/gone; MIR sweep GIVEN",
        2,
        ("does not exist any more",),
    ),
    Process(
        "names and paths",
        "a home that may not be written",
        "HOME=/proc/1 XDG_CACHE_HOME=/proc/1 MIR report GIVEN",
        0,
        prints="Table 1",
        n_lines=0,
    ),
    Process(
        "cell files",
        "a pipe that nobody writes",
        "mkfifo {w}/p; MIR sweep --cell={w}/p",
        2,
        ("file",),
    ),
    Process(
        "fetch",
        "no network",
        "HF_HOME={w}/hub HF_ENDPOINT=http://127.0.0.1:9 MIR fetch model=musicfm",
        2,
        ("cannot download", "HF_HUB_OFFLINE"),
    ),
    Process(
        "fetch",
        "no network, by the hub's own word",
        "HF_HOME={w}/hub HF_HUB_OFFLINE=1 MIR fetch model=musicfm",
        2,
        ("cannot download", "HF_HUB_OFFLINE"),
    ),
]


@pytest.mark.parametrize("case", PROCESSES, ids=lambda case: f"{case.area}: {case.name}")
def test_what_is_around_a_process_does_not_stop_it(case: Process, world: Path) -> None:
    before = contents(world)
    ran = subprocess.run(
        ["bash", "-o", "pipefail", "-c", script_of(case.script, world)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == case.code, ran.stderr
    lines = ran.stderr.splitlines()
    n_lines = case.n_lines if case.n_lines is not None else int(bool(case.says))
    assert len(lines) == n_lines, ran.stderr[-3000:]
    for word in case.says:
        assert word in lines[0]
    assert case.prints in ran.stdout
    check_nothing_is_lost(world, before)


def script_of(text: str, world: Path) -> str:
    given = " ".join((*settings(world), *QUICK))
    command = text.replace("MIR", f"{sys.executable} -m mirprobe").replace("GIVEN", given)
    checkout = Path(__file__).parents[2]
    return f"export PYTHONPATH={checkout}; {command.replace('{w}', str(world))}"


# -- kills while a W&B run is written --------------------------------------------------------------


def _begun(world: Path) -> bool:
    """Whether a run is being written, wherever that is."""
    runs = world / "runs" / "wandb"
    return any(list(runs.glob(pattern)) for pattern in (".part-*", "offline-run-*"))


@pytest.mark.area("kills")
@pytest.mark.parametrize("moment_s", [0.0, 0.1, 0.2, 0.4, 0.7])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_killed_run_of_the_dashboard_is_never_synced(
    number: signal.Signals, moment_s: float, world: Path
) -> None:
    words = [*settings(world), *QUICK, *TRACKED.split()]
    command = [sys.executable, "-m", "mirprobe", "sweep", *words]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with (world / "here" / "out").open("w") as out:  # no pipe: W&B's own process may outlive ours
        process = subprocess.Popen(command, env=environment, stdout=out, stderr=out)
        while process.poll() is None and not _begun(world):
            time.sleep(0.005)
        time.sleep(moment_s)
        process.send_signal(number)
        process.wait(timeout=60)

        again = subprocess.run(command, env=environment, stdout=out, stderr=out, check=False)
        assert again.returncode == 0

    found = list(world.glob("runs/wandb/offline-run-*"))  # what the README's command would sync
    assert len(found) == 1
    (run,) = read_offline_runs(world / "runs" / "wandb")
    assert run.exit_code == 0
    assert run.summary["n_test"] == 24
    assert not list(world.glob("runs/wandb/.part-*"))
