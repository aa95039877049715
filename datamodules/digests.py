"""Content of files: SHA-256 digests, remembered so that a second run reads no file again.

Conventions: a digest is remembered for a path with its size and time of change; a file of which one
of them differs is read anew. A file that has just been changed is never remembered, since a second
change within the clock's grain would not show. What is remembered lies in a file of JSON lines that
any number of processes may add to; a torn line is as good as none.
"""

import hashlib
import json
import os
import re
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from datamodules.tracks import Track, audio_id

_SHA256 = re.compile("[0-9a-f]{64}")
_GRAIN_NS = 2_000_000_000  # FAT and some network file systems count time in steps of 2 s


@dataclass(frozen=True)
class FileDigest:
    """A file as it was when it was read: its size, its time of change, and what it held.

    Attributes:
        path: absolute.
        size: in bytes.
        changed_ns: time of change, in ns.
        sha256: of the content, 64 hex digits.
        is_settled: whether the file was old enough, when it was read, for its time to tell of a
            change.
    """

    path: str
    size: int
    changed_ns: int
    sha256: str
    is_settled: bool = True

    def is_of(self, path: Path) -> bool:
        """Whether a file has the size and the time of change of the one that was read."""
        try:
            status = path.stat()
        except OSError:
            return False
        return (status.st_size, status.st_mtime_ns) == (self.size, self.changed_ns)


def read_digest(path: Path) -> FileDigest:
    """Reads a file for its digest.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        now_ns = time.time_ns()
        status = os.fstat(file.fileno())
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    is_settled = now_ns - status.st_mtime_ns > _GRAIN_NS
    return FileDigest(str(path.absolute()), status.st_size, status.st_mtime_ns, digest, is_settled)


class KnownDigests:
    """Digests of files that were read before, by this process or another.

    Args:
        file: where they are remembered; need not exist.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self._known: dict[str, FileDigest] = {}
        self._learned: dict[str, FileDigest] = {}
        self._new: list[FileDigest] = []
        self.load()

    def load(self) -> None:
        """Takes what other processes have remembered by now.

        A file that cannot be read is as good as none: what it would say is found out again.
        """
        if not self.file.is_file():
            return
        remembered: dict[str, FileDigest] = {}
        with suppress(OSError), self.file.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                digest = _parse(line)
                if digest is not None:
                    remembered[digest.path] = digest

        # Of a file that this process has read, it knows the latest, remembered or not.
        self._known |= remembered | self._learned

    def find(self, path: Path) -> str | None:
        """SHA-256 of a file, if it was read before and has not changed since."""
        known = self._known.get(str(path.absolute()))
        return known.sha256 if known is not None and known.is_of(path) else None

    def get(self, path: Path) -> str:
        """SHA-256 of a file, which is read if it has to be.

        Raises:
            OSError: it cannot be read.
        """
        found = self.find(path)
        if found is None:
            digest = read_digest(path)
            self.learn([digest])
            found = digest.sha256
        return found

    def learn(self, digests: Iterable[FileDigest]) -> None:
        """Takes digests of files that were read just now; `save` keeps them for the next run."""
        for digest in digests:
            self._known[digest.path] = self._learned[digest.path] = digest
            if digest.is_settled:
                self._new.append(digest)

    def identify(self, tracks: Iterable[Track]) -> list[Track]:
        """The tracks with the ids of their audio; without one where the file is not known."""
        named = []
        for track in tracks:
            sha256 = self.find(track.path)
            name = "" if sha256 is None else audio_id(sha256, track.start_s, track.end_s)
            named.append(replace(track, audio_id=name))
        return named

    def save(self) -> str | None:
        """Adds what was learned to the file; gives what stands in the way, which harms nobody."""
        if not self._new:
            return None
        lines = [
            json.dumps([digest.path, digest.size, digest.changed_ns, digest.sha256]) + "\n"
            for digest in self._new
        ]
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            # One write at the end of the file: lines of several processes do not mix. The empty
            # line ends a torn one, that a killed process has left.
            with self.file.open("ab") as file:
                file.write("".join(["\n", *lines]).encode())
        except OSError as error:
            return f"what was read cannot be remembered in {self.file} ({error.strerror})"
        self._new.clear()
        return None


def _parse(line: str) -> FileDigest | None:
    """The digest in a line that `save` wrote; None for any other."""
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(fields, list) or [type(field) for field in fields] != [str, int, int, str]:
        return None
    digest = FileDigest(*fields)
    return digest if _SHA256.fullmatch(digest.sha256) else None
