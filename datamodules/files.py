"""Files that are either whole or absent, whatever is killed when.

Conventions: a file is written under a temporary name in its own folder (`.NAME.HEX.tmp`), flushed
to disk and renamed. What a killed process leaves behind is a temporary file, which
`remove_temporary` deletes.
"""

import errno
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from datamodules.errors import UserError

_DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yields a temporary path; when the block ends without error the file there becomes `path`,
    durably.

    Raises:
        UserError: the disk is full.
    """
    temporary = path.parent / f".{path.name}.{uuid.uuid4().hex[:8]}.tmp"
    try:
        make_folder(path.parent)
        yield temporary
        _fsync(temporary)
        temporary.replace(path)
        _fsync(path.parent)
    except OSError as error:
        if is_disk_full(error):
            raise UserError(
                f"no space left while writing {path}: free some space there and run the same "
                "command again"
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
    """Deletes what killed writers left directly in `folder`; only for the one who holds the folder."""
    for path in folder.glob(".*.tmp"):
        path.unlink(missing_ok=True)


def is_disk_full(error: OSError) -> bool:
    """Whether an error says that a disk, a quota or a file size limit is exhausted (HDF5 hides the
    number in its text).
    """
    return error.errno in _DISK_FULL or any(os.strerror(code) in str(error) for code in _DISK_FULL)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
