"""Progress: plain lines in a log, a bar on a terminal."""

import io
import sys

import pytest

from mirprobe import progress
from mirprobe.progress import ProgressReport


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time in s, as its only item, which a test can set."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_a_log_gets_one_line_at_the_end(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with ProgressReport("reading", 3, "files") as report:
        for _ in range(3):
            clock[0] += 2
            report.advance(1)
    assert capsys.readouterr().out == "reading: 3/3 files in 6 s\n"


def test_a_log_gets_a_line_every_30_s_with_the_time_that_is_left(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with ProgressReport("extracting", 4, "tracks") as report:
        for moment in (15, 40, 55, 60):
            clock[0] = moment
            report.advance(1, audio_s=300)
    assert capsys.readouterr().out.splitlines() == [
        "extracting: 2/4 tracks in 40 s, 15 x real time, 40 s left",
        "extracting: 4/4 tracks in 60 s, 20 x real time",
    ]


def test_update_takes_a_total_that_is_found_out_on_the_way(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with ProgressReport("rendering", 0, "files") as report:
        report.update(5, 10)
        assert (report.done, report.total) == (5, 10)
        report.update(7, 20)
        report.update(20, 20)
    assert capsys.readouterr().out == "rendering: 20/20 files in 0 s\n"


def test_no_more_is_done_than_there_is() -> None:
    with ProgressReport("probing", 3, "epochs", quiet=True) as report:
        report.advance(5)
        assert report.done == 3
        report.update(9, 4)
        assert (report.done, report.total) == (4, 4)


def test_nothing_is_left_of_what_is_quiet_passing_or_broken_off(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with ProgressReport("probing", 1, "epochs", passing=True) as report:
        report.advance(1)
    with ProgressReport("extracting", 1, "tracks", quiet=True) as report:
        clock[0] += 100
        report.advance(1)
    with pytest.raises(KeyboardInterrupt), ProgressReport("reading", 1, "files"):
        raise KeyboardInterrupt
    assert capsys.readouterr().out == ""


def test_a_terminal_gets_a_bar_with_names_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(screen, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("TERM", "xterm")
    with ProgressReport("reading data of [x]mine[/x]", 2, "files") as report:
        report.update(1, 2)
        report.update(2, 2)
    assert "reading data of [x]mine[/x]" in screen.getvalue()
    assert "2/2" in screen.getvalue()
    assert "files in" not in screen.getvalue()
