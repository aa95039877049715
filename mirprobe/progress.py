"""Progress that teaches on a terminal and keeps quiet in a log.

Conventions: on a terminal a bar with the time that is left; elsewhere one plain line every 30 s and
one at the end.
"""

import logging
import sys
import time
import warnings
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

LINE_EVERY_S = 30.0
LOG_COLUMNS = 132  # wide enough for Table 1, which a log would otherwise break at 80


def console() -> Console:
    """The console that people read: stderr stays free for errors, and a log has no colour."""
    width = None if sys.stdout.isatty() else LOG_COLUMNS
    return Console(width=width, highlight=False)


def quiet_lightning() -> None:
    """Silences what Lightning reports at every start and a user can do nothing about."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    silenced = (
        *(".*LeafSpec.*", ".*transfer_batch_to_device.*", ".*does not have many workers.*"),
        ".*`srun` command is available.*",  # whoever starts ranks here does it on purpose
    )
    for text in silenced:
        warnings.filterwarnings("ignore", text)


class ProgressReport:
    """Counts items, and with them s of audio, between `with` and its end.

    Args:
        what: stands before the bar.
        total: number of items.
        unit: what an item is, in the plural.
        quiet: count only (ranks but the first).
        passing: leave neither the bar nor a last line behind.
    """

    def __init__(
        self, what: str, total: int, unit: str, *, quiet: bool = False, passing: bool = False
    ) -> None:
        self.what = what
        self.total = total
        self.unit = unit
        self.quiet = quiet
        self.passing = passing
        self.done = 0
        self.audio_s = 0.0
        self._bar = _make_bar(transient=passing) if sys.stdout.isatty() and not quiet else None

    def __enter__(self) -> Self:
        self._start = self._last_line = time.monotonic()
        if self._bar is not None:
            self._bar.start()
            self._task = self._bar.add_task(self.what, total=self.total, rate="")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
        elif kind is None and not self.passing:
            self._print_line()

    def advance(self, items: int, audio_s: float = 0.0) -> None:
        """Counts `items` more, which held `audio_s` s of audio."""
        self.audio_s += audio_s
        self.update(self.done + items, self.total)

    def update(self, done: int, total: int) -> None:
        """Sets how many items are done, and of how many, for work that counts by itself."""
        self.total = total
        self.done = min(done, total)

        if self._bar is not None:
            self._bar.update(self._task, completed=self.done, total=total, rate=self._rate())
        elif time.monotonic() - self._last_line > LINE_EVERY_S:
            self._last_line = time.monotonic()
            self._print_line()

    def _rate(self) -> str:
        """Speed over the whole time; nothing where no audio is counted."""
        elapsed = max(time.monotonic() - self._start, 1e-3)
        return f"{self.audio_s / elapsed:.0f} x real time" if self.audio_s else ""

    def _print_line(self) -> None:
        if self.quiet:
            return

        elapsed = time.monotonic() - self._start
        parts = [f"{self.what}: {self.done}/{self.total} {self.unit} in {elapsed:.0f} s"]
        if self.audio_s:
            parts.append(self._rate())
        if self.done < self.total:
            left = elapsed / self.done * (self.total - self.done) if self.done else 0.0
            parts.append(f"{left:.0f} s left")
        print(", ".join(parts), flush=True)


def _make_bar(*, transient: bool) -> Progress:
    return Progress(
        TextColumn("{task.description}", markup=False),  # it holds names from users
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[rate]}"),
        transient=transient,
    )
