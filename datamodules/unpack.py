"""Archives into folders: whole or not at all, whatever is killed when.

Conventions: an archive NAME is unpacked under `.NAME.unpacking`, renamed to `.NAME.unpacked` when
that is complete, and its top-level files and folders are moved from there; the same call goes on at
any of these points. A folder that exists is filled up, files in it that have the same name are
replaced. What macOS adds (`__MACOSX`, `._*`, `.DS_Store`) is left out. Links, devices and names
that lead out of the folder are refused: no dataset needs them.
"""

import io
import json
import os
import shutil
import tarfile
import zipfile
import zlib
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from datamodules.errors import UserError

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2")
_OF_MACOS = ("__MACOSX", ".DS_Store")

# In `.NAME.unpacked`: a list of the top level, written last, and the folder with the content.
_NAMES = "names.json"
_FILES = "files"


def is_packed(name: str) -> bool:
    """Whether a file is an archive, by its name.

    >>> is_packed("a.tar.gz"), is_packed("a.zip"), is_packed("a.csv")
    (True, True, False)
    """
    return name.endswith(SUFFIXES)


def unpack(volumes: Sequence[Path], name: str, folder: Path) -> list[str]:
    """Unpacks an archive into `folder` and returns the names of what it has put there.

    Args:
        volumes: the file, or the files that make it up when joined.
        name: of the archive; its suffix says what it is.
        folder: where to; exists.

    Raises:
        UserError: it is damaged, or holds what it must not hold.
    """
    unpacked = folder / f".{name}.unpacked"
    if not (unpacked / _NAMES).is_file():
        _unpack_aside(volumes, name, unpacked)

    names: list[str] = json.loads((unpacked / _NAMES).read_text(encoding="utf-8"))
    for made in names:
        if (unpacked / _FILES / made).exists():  # else it was moved before a kill
            _move(unpacked / _FILES / made, folder / made)

    shutil.rmtree(unpacked)
    return names


def _unpack_aside(volumes: Sequence[Path], name: str, unpacked: Path) -> None:
    """Makes the folder `unpacked`: the archive's content, and the names of its top level."""
    unpacking = unpacked.with_suffix(".unpacking")
    for left_over in (unpacking, unpacked):
        if left_over.exists():
            shutil.rmtree(left_over)
    (unpacking / _FILES).mkdir(parents=True)

    extract = _extract_zip if name.endswith(".zip") else _extract_tar
    try:
        with io.BufferedReader(_Joined(volumes)) as file:
            extract(file, unpacking / _FILES)
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, ValueError) as error:
        shutil.rmtree(unpacking)
        reason = " ".join(str(error).split())  # in one line
        raise UserError(f"{name} cannot be unpacked ({reason}): get the dataset by hand") from error

    names = sorted(path.name for path in (unpacking / _FILES).iterdir())
    (unpacking / _NAMES).write_text(json.dumps(names), encoding="utf-8")
    unpacking.rename(unpacked)


def _extract_zip(file: BinaryIO, folder: Path) -> None:
    with zipfile.ZipFile(file) as archive:
        for member in archive.infolist():
            if _is_wanted(member.filename):
                archive.extract(member, folder)


def _extract_tar(file: BinaryIO, folder: Path) -> None:
    with tarfile.open(fileobj=file, mode="r:*") as archive:
        for member in archive:
            if not _is_wanted(member.name):
                continue
            if not (member.isfile() or member.isdir()):
                raise ValueError(f"{member.name} is neither a file nor a folder")
            archive.extract(member, folder, set_attrs=False, filter="data")


def _is_wanted(name: str) -> bool:
    """Whether a member is not one of those that macOS adds.

    Raises:
        ValueError: its name leads out of the folder.
    """
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise ValueError(f"{name} leads out of the folder")
    return not any(part in _OF_MACOS or part.startswith("._") for part in path.parts)


def _move(source: Path, target: Path) -> None:
    """Moves a file, or what is in a folder: what else the target folder holds stays there."""
    if source.is_dir() and target.is_dir():
        for child in sorted(source.iterdir()):
            _move(child, target / child.name)
        source.rmdir()
    else:
        source.replace(target)


class _Joined(io.RawIOBase):
    """The bytes of several files, one after the other."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._files = [path.open("rb", buffering=0) for path in paths]
        self._ends = list(accumulate(path.stat().st_size for path in paths))
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        origins = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._ends[-1]}
        self._at = origins[whence] + offset
        return self._at

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]  # the stub wants any buffer
        volume = bisect_right(self._ends, self._at)
        if volume == len(self._files):
            return 0

        # Up to the end of this volume at most: a raw file may give less than it is asked for.
        start = self._ends[volume - 1] if volume else 0
        file = self._files[volume]
        file.seek(self._at - start)
        n_read = file.readinto(buffer)

        self._at += n_read
        return n_read

    def close(self) -> None:
        for file in self._files:
            file.close()
        super().close()
