"""What a machine may lack: standard streams that take our output, a home for caches.

Conventions: who reads our output may leave (`| head`), its disk may be full, there may be nobody at
all (`>&-`), and a terminal may know no letter beyond ASCII. The work goes on all the same; what
could not be written is gone. Only a full disk is an error, which is said at the end. Nothing of
ours lies in a home; libraries keep their caches there, if they can.
"""

import errno
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

_READER_LEFT = (errno.EPIPE, errno.ECONNRESET, errno.EIO)  # the last: of a terminal that is gone

# Of numba, which librosa compiles with, and matplotlib: without a place one fails, one is slow.
_CACHES = {"NUMBA_CACHE_DIR": "numba", "MPLCONFIGDIR": "matplotlib"}


class _Patient(io.RawIOBase):
    """Writes to a file descriptor until that fails, and then nowhere."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.error: OSError | None = None

    def write(self, content: Any) -> int:
        if self.error is None:
            try:
                return os.write(self.descriptor, content)
            except OSError as error:
                self.error = error
        return len(content)

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self.descriptor

    def isatty(self) -> bool:
        return os.isatty(self.descriptor)


@contextmanager
def patient_streams() -> Iterator[list[str]]:
    """Makes stdout and stderr patient for this block; at its end gives what was lost.

    Streams that somebody has put in their place, such as a notebook's or a test's, stay as they
    are.
    """
    for descriptor in (0, 1, 2):
        _fill(descriptor)

    lost: list[str] = []
    before = sys.stdout, sys.stderr
    raw = {}
    if sys.stdout is None or sys.stdout is sys.__stdout__:
        raw["stdout"] = _Patient(1)
        sys.stdout = _text(raw["stdout"], before[0], line_buffering=os.isatty(1))
    if sys.stderr is None or sys.stderr is sys.__stderr__:
        raw["stderr"] = _Patient(2)
        sys.stderr = _text(raw["stderr"], before[1], line_buffering=True)
    try:
        yield lost
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for name, stream in raw.items():
            if stream.error is not None and stream.error.errno not in _READER_LEFT:
                lost.append(f"{name} could not be written ({stream.error.strerror})")
        sys.stdout, sys.stderr = before


def _fill(descriptor: int) -> None:
    """Opens a closed standard descriptor on nothing, before a file of ours gets its number."""
    try:
        os.fstat(descriptor)
    except OSError:
        # The lowest free number is taken: this one, since those below are open.
        os.open(os.devnull, os.O_RDWR)


def _text(raw: _Patient, like: TextIO | None, *, line_buffering: bool) -> io.TextIOWrapper:
    encoding = None if like is None else like.encoding
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=encoding,
        errors="backslashreplace",
        line_buffering=line_buffering,
    )


def keep_caches_below(folder: Path) -> None:
    """Gives the caches of libraries a place in `folder`, if the home is not there to be written."""
    try:
        home = Path.home()
    except RuntimeError:  # a user whom the system does not know
        home = None
    if home is not None and os.access(home, os.W_OK):
        return
    for variable, name in _CACHES.items():
        os.environ.setdefault(variable, str((folder / ".cache" / name).absolute()))
