"""Files that are either whole or absent, whatever is killed when; locks, checksums and free space.

Conventions: a file is written under a temporary name in its own folder, which names its writer
(`.NAME.HEX-PROCESS@HOST.tmp`), flushed to disk and renamed. What a killed process leaves behind is
a temporary file, which `remove_temporary` and `remove_orphans` delete. Sizes are bytes, and 1 GB is
10^9 of them.
"""

import errno
import fcntl
import hashlib
import os
import re
import shutil
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from datamodules.errors import UserError

_WRITER = re.compile(r"-(?P<process>\d+)@(?P<host>.+)\.tmp$")
_DAY_S = 86400.0
_DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


# -- writing ---------------------------------------------------------------------------------------


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yields a temporary path; what is there when the block ends without error becomes `path`.

    That is durable: once the block is left, the file survives a power cut.

    Raises:
        UserError: the disk is full.
    """
    writer = f"{uuid.uuid4().hex[:8]}-{os.getpid()}@{socket.gethostname()}"
    temporary = path.parent / f".{path.name}.{writer}.tmp"
    try:
        make_folder(path.parent)
        yield temporary

        # The content reaches the disk before the name does, or a crash could leave an empty file.
        _fsync(temporary)
        temporary.replace(path)
        _fsync(path.parent)
    except OSError as error:
        if is_disk_full(error):
            raise UserError(
                f"no space left while writing {path}: "
                "free some space there and run the same command again"
            ) from error
        raise
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def make_folder(folder: Path) -> None:
    """Makes a folder with its parents.

    Raises:
        UserError: it cannot be made or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if is_disk_full(error):
            raise
        raise UserError(
            f"cannot make the folder {folder} ({error.strerror}): set another one under paths"
        ) from error

    if not os.access(folder, os.W_OK):
        raise UserError(
            f"cannot write in the folder {folder}: set another one under paths, or its permissions"
        )


def write_text(path: Path, text: str) -> None:
    """Writes a text file atomically."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def remove_temporary(folder: Path) -> None:
    """Deletes what killed writers left directly in `folder`; only for who holds that folder."""
    for path in folder.glob(".*.tmp"):
        path.unlink(missing_ok=True)


def remove_orphans(folder: Path) -> None:
    """Deletes what killed writers left directly in `folder`, where others may be at work.

    Whether a writer on another machine still lives cannot be known: its files stay for a day.
    """
    for path in folder.glob(".*.tmp"):
        with suppress(OSError):  # another process may be as quick, or own the folder
            if _is_orphan(path):
                path.unlink(missing_ok=True)


def _is_orphan(path: Path) -> bool:
    writer = _WRITER.search(path.name)
    if writer is None or writer["host"] != socket.gethostname():
        return time.time() - path.stat().st_mtime > _DAY_S

    process = int(writer["process"])
    if process == os.getpid():
        return True  # of an earlier container: this process writes nothing just now
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except OSError:  # somebody else's
        return False
    return False


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# -- one at a time ---------------------------------------------------------------------------------


@contextmanager
def lock(path: Path, *, wait: bool) -> Iterator[None]:
    """Keeps every other process that locks `path` out of this block.

    The lock goes with the process, however that ends, and with what it has forked. Some network
    file systems know no locks; there the block is entered all the same, so whoever uses this must
    stay correct, at the price of wasted work, when two enter at once.

    Args:
        path: of the lock file, in a folder that exists; made where it is missing, never deleted.
        wait: for the holder to end, instead of raising.

    Raises:
        UserError: another process holds the lock; the text names it.
    """
    with path.open("a+b", buffering=0) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            holder = file.read().decode() or "another process"
            raise UserError(
                f"{path.parent} is being written by {holder}: wait for it, or stop it"
            ) from error
        except OSError:
            pass  # a file system without locks

        file.truncate(0)  # of the name that a killed holder left
        with suppress(OSError):  # the name is a help only: a full disk is said by what needs it
            file.write(f"process {os.getpid()} on {socket.gethostname()}".encode())
        try:
            yield
        finally:
            file.truncate(0)


@contextmanager
def share(path: Path) -> Iterator[None]:
    """Keeps every process that locks `path` out of this block; others that share it may enter.

    Waits for a holder of the lock. Where a lock file cannot be made, as in a folder that is read
    only, and on file systems without locks, nobody is kept out: as with `lock`.
    """
    with ExitStack() as held:
        with suppress(OSError):
            file = held.enter_context(path.open("a+b", buffering=0))
            fcntl.flock(file, fcntl.LOCK_SH)
        yield


# -- what is there ---------------------------------------------------------------------------------


def sha256_of(path: Path) -> str:
    """SHA-256 of a file in 64 hex digits, read in pieces (1.3 GB take about a second)."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_free_space(
    folder: Path, needed_bytes: int, what: str, *, remedy: str = "set a folder on a larger disk"
) -> None:
    """Refuses to begin what the disk cannot hold.

    Args:
        folder: where it will be written; exists.
        needed_bytes: what it takes at least.
        what: will be written, such as `the features`.
        remedy: what helps beside freeing some space; the text ends with it.

    Raises:
        UserError: the disk of `folder` has less space.
    """
    found_bytes = free_bytes(folder)
    if needed_bytes > found_bytes:
        raise UserError(
            f"no space for {what}: {needed_bytes / 1e9:.2f} GB needed at least, "
            f"{found_bytes / 1e9:.2f} GB free under {folder}. Free some, or {remedy}"
        )


def free_bytes(folder: Path) -> int:
    """What is free on the disk of a folder that exists, for this user."""
    return shutil.disk_usage(folder).free


def is_disk_full(error: OSError) -> bool:
    """Whether an error says that a disk, a quota or a file size limit is exhausted."""
    if error.errno in _DISK_FULL:
        return True

    # HDF5 sets no number and hides the system's words in its text.
    return any(os.strerror(code) in str(error) for code in _DISK_FULL)
