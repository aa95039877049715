"""Output that nobody takes, and a home that cannot be written: the work goes on."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mirprobe.streams import keep_caches_below

PRINTS = """
import sys
from mirprobe.streams import patient_streams
with patient_streams() as lost:
    for number in range(20000):
        print("line", number)
    open(sys.argv[1], "w").write("the work is done")
if lost:
    print(*lost, file=sys.stderr)
"""


def run(shell: str, *arguments: object, program: str = PRINTS) -> subprocess.CompletedProcess[str]:
    """Runs a program by a line of bash, in which it is "$@"."""
    command = ["bash", "-o", "pipefail", "-c", shell, "bash", sys.executable, "-c", program]
    return subprocess.run(
        [*command, *map(str, arguments)], capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("shell", ['"$@" | head -1', '"$@" >&-', '"$@" 2>&-', '"$@" <&- >&- 2>&-'])
def test_the_work_goes_on_without_a_reader(tmp_path: Path, shell: str) -> None:
    done = tmp_path / "done"
    ran = run(shell, done)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert done.read_text() == "the work is done", "and nothing was printed into the file"


def test_a_full_disk_is_said_at_the_end(tmp_path: Path) -> None:
    done = tmp_path / "done"
    ran = run('"$@" > /dev/full', done)
    assert done.exists()
    assert ran.stderr == "stdout could not be written (No space left on device)\n"


def test_letters_that_a_terminal_does_not_know_are_no_error(tmp_path: Path) -> None:
    program = (
        "from mirprobe.streams import patient_streams\n"
        "with patient_streams(): print('K\\u00e4se \\u266f', chr(0xdcff))"
    )
    ran = run('LC_ALL=C PYTHONUTF8=0 PYTHONCOERCECLOCALE=0 "$@"', program=program)
    assert (ran.returncode, ran.stdout) == (0, "K\\xe4se \\u266f \\udcff\n")


def test_streams_of_a_test_or_a_notebook_are_left_alone(
    capsys: pytest.CaptureFixture[str],
) -> None:
    from mirprobe.streams import patient_streams

    before = sys.stdout
    with patient_streams() as lost:
        assert sys.stdout is before
        print("seen")
    assert capsys.readouterr().out == "seen\n" and lost == []


# -- a home ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_there", [True, False])
def test_caches_of_libraries_come_to_us_only_without_a_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_there: bool
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path if is_there else tmp_path / "nowhere"))
    monkeypatch.setenv("NUMBA_CACHE_DIR", "")
    monkeypatch.delenv("NUMBA_CACHE_DIR")
    monkeypatch.setenv("MPLCONFIGDIR", "/chosen/by/the/user")
    keep_caches_below(tmp_path / "runs")
    expected = None if is_there else str(tmp_path / "runs" / ".cache" / "numba")
    assert os.environ.get("NUMBA_CACHE_DIR") == expected
    assert os.environ["MPLCONFIGDIR"] == "/chosen/by/the/user"


@pytest.mark.trial
@pytest.mark.parametrize("shell", ['"$@" | head -1', '"$@" >&- 2>&-', '"$@" > /dev/full'])
def test_a_sweep_is_done_whoever_reads_it(
    settings: Callable[..., list[str]], tmp_path: Path, shell: str
) -> None:
    quick = ("task=nsynth_pitch", "model=fbank_chroma", "baseline=null", "protocol.max_epochs=2")
    program = "import sys; from mirprobe.__main__ import main; sys.exit(main())"
    ran = run(shell, "sweep", *settings(*quick), program=program)
    assert len(list(tmp_path.glob("runs/fbank_chroma/*/*/*/rows.jsonl"))) == 1
    if "full" in shell:
        assert ran.returncode == 1
        assert ran.stderr.startswith("mirprobe: all is done, but stdout could not be written (No ")
    else:
        assert (ran.returncode, ran.stderr) == (0, "")


@pytest.mark.trial
def test_a_sweep_needs_no_home_to_write_and_no_utf8(
    settings: Callable[..., list[str]], tmp_path: Path
) -> None:
    quick = ("task=nsynth_pitch", "model=fbank_chroma", "baseline=null", "protocol.max_epochs=2")
    program = "import sys; from mirprobe.__main__ import main; sys.exit(main())"
    shell = f'HOME={tmp_path}/nowhere LC_ALL=C PYTHONUTF8=0 PYTHONCOERCECLOCALE=0 "$@"'
    ran = run(shell, "sweep", *settings(*quick), program=program)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "Table 1" in ran.stdout and ran.stdout.isascii()
    assert not (tmp_path / "nowhere").exists()
