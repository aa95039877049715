"""Downloads of a dataset's public archives: resumed, checked, unpacked, and not done twice.

Conventions: beside a file NAME, `.NAME.part` is what has come so far, and `.NAME.ok`, written last,
says that all is there: the checksums of what was fetched and the names of what it has put into the
folder. An archive is deleted once it is unpacked, so that the disk does not hold the data twice.
Whatever is killed when, the same call goes on where it stopped. A file is pinned by its checksum,
so a resumed download needs no ETag: pieces of two versions cannot pass. Proxies are those of the
environment.
"""

import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx2

from datamodules.card import Archive
from datamodules.errors import UserError
from datamodules.files import check_free_space, is_disk_full, lock, sha256_of, write_text
from datamodules.unpack import is_packed, unpack

ATTEMPTS = 5  # in a row that bring not one byte
LONGEST_WAIT_S = 60.0
_TIMEOUT = httpx2.Timeout(60.0, connect=30.0)  # s without a byte, not of the whole file
_AGAIN = "run the same command again, it goes on where it stopped"


def is_fetched(archives: Sequence[Archive], folder: Path) -> bool:
    """Whether all archives were fetched into `folder`, and what they put there still exists."""
    recorded = all(_is_recorded(volumes, folder) for volumes in _by_file(archives).values())
    return recorded and not _left_over(archives, folder)


def fetch_archives(
    archives: Sequence[Archive],
    folder: Path,
    *,
    progress: Callable[[int, int], None] | None = None,
    say: Callable[[str], None] | None = None,
) -> None:
    """Brings a dataset's archives into its folder, unpacked; asks only for what is not there.

    Args:
        archives: files; those named X.001, X.002, ... are volumes of one archive X.
        folder: the dataset's, made where it is missing.
        progress: called with the bytes that are there and those of all archives, as far as their
            sizes are known.
        say: called with what else takes time.

    Raises:
        UserError: no network, a file that is gone or is not the published one, a full disk, a
            folder that cannot be written or that another process is fetching into.
    """
    if progress is None:
        progress = _report_nothing
    if say is None:
        say = _report_nothing
    fetcher = _Fetcher(folder, progress, say)

    try:
        folder.mkdir(parents=True, exist_ok=True)

        # Two writers of one part would not pass the checksum, so a file system without locks is
        # no danger.
        with lock(folder / ".fetch.lock", wait=False):
            fetcher.fetch_missing(archives)
    except OSError as error:
        if is_disk_full(error):
            raise UserError(f"no space left under {folder}: free some and {_AGAIN}") from error
        raise UserError(
            f"cannot write under {folder} ({error.strerror or error}): "
            "put it right, or set another data.root"
        ) from error


def _report_nothing(*_what: object) -> None:
    """Stands in for a callback that is not given."""


class _UnfinishedError(Exception):
    """A download that is worth another attempt.

    Args:
        reason: why it has ended.
        wait_s: how long the server asks to wait.
    """

    def __init__(self, reason: str, wait_s: float = 0.0) -> None:
        super().__init__(reason)
        self.wait_s = wait_s


@dataclass
class _Fetcher:
    """The fetching of one dataset, and how far it is: sizes and bytes that are there, by path."""

    folder: Path
    progress: Callable[[int, int], None]
    say: Callable[[str], None]
    sizes: dict[str, int] = field(default_factory=dict)
    done: dict[str, int] = field(default_factory=dict)

    def fetch_missing(self, archives: Sequence[Archive]) -> None:
        """Fetches every file that is not recorded, and deletes archives that are unpacked."""
        files = _by_file(archives)
        missing = [name for name in files if not _is_recorded(files[name], self.folder)]

        # All sizes come before the first byte, so that progress is that of the whole.
        for name in missing:
            self.sizes.update({volume.path: volume.n_bytes or 0 for volume in files[name]})

        with httpx2.Client(follow_redirects=True, timeout=_TIMEOUT) as client:
            for name, volumes in files.items():
                if name in missing:
                    self.fetch(client, name, volumes)
                for path in _left_over(volumes, self.folder):
                    path.unlink()

    def fetch(self, client: httpx2.Client, name: str, volumes: Sequence[Archive]) -> None:
        """Fetches one file, perhaps in volumes, and records what it has put into the folder."""
        target = self.folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        paths = [self.download(client, volume) for volume in volumes]

        if is_packed(name):
            self.say(f"unpacking {target.name}")
            made = unpack(paths, target.name, target.parent)
        else:
            made = [path.name for path in paths]

        record = {"checksums": _checksums(volumes), "made": made}
        write_text(_marker(volumes, self.folder), json.dumps(record) + "\n")

    def download(self, client: httpx2.Client, archive: Archive) -> Path:
        """Downloads one file where it is not there, and returns its path, whole and checked."""
        target = self.folder / archive.path
        if target.is_file():
            _verify(target, archive, "remove it, or put the published file in its place")
        else:
            self._download_part(client, archive, target)

        n_bytes = target.stat().st_size
        self._count(archive, n_bytes, n_bytes)
        return target

    def _download_part(self, client: httpx2.Client, archive: Archive, target: Path) -> None:
        """Downloads into the part, which becomes the target when its checksum is right."""
        part = target.with_name(f".{target.name}.part")
        self._attempt_until_done(client, archive, part)

        self.say(f"checking {target.name}")
        try:
            _verify(
                part,
                archive,
                "it was deleted. Run the same command again, or get the dataset by hand",
            )
        except UserError:
            part.unlink()  # or the next call would go on from bytes that are wrong
            raise
        part.replace(target)

    def _attempt_until_done(self, client: httpx2.Client, archive: Archive, part: Path) -> None:
        """Brings a part to its end, or gives up when several attempts in a row bring nothing."""
        name = part.name.removeprefix(".").removesuffix(".part")
        n_failures = 0
        while True:
            n_before = _size(part)
            try:
                return self._attempt(client, archive, part)
            except (_UnfinishedError, httpx2.RequestError) as error:
                n_failures = 1 if _size(part) > n_before else n_failures + 1
                reason = _one_line(error)
                if n_failures == ATTEMPTS:
                    raise UserError(
                        f"cannot download {archive.url}: {reason}. Check the network and {_AGAIN}"
                    ) from error

                # Twice as long each time, so that a busy server is not kept busy; longer if it
                # asks for that.
                asked_s = error.wait_s if isinstance(error, _UnfinishedError) else 0.0
                wait_s = min(max(2.0 ** (n_failures - 1), asked_s), LONGEST_WAIT_S)
                self.say(f"{name}: {reason}; trying again in {wait_s:.0f} s")
                time.sleep(wait_s)

    def _attempt(self, client: httpx2.Client, archive: Archive, part: Path) -> None:
        """Brings a part to its end with one request, or raises."""
        n_there = _size(part)
        headers = {"Accept-Encoding": "identity", "User-Agent": "mirprobe"}
        if n_there:
            headers["Range"] = f"bytes={n_there}-"

        with client.stream("GET", archive.url, headers=headers) as response:
            first, total = _range_of(response)
            if response.status_code == 416 and n_there and n_there == (total or archive.n_bytes):
                return  # nothing is left to ask for: the last attempt ended after the last byte
            if response.status_code == 416 or first not in (0, n_there):
                part.unlink(missing_ok=True)
                raise _UnfinishedError("the server does not go on from where it stopped")

            _check_answer(response, archive, total)
            n_needed = (total or archive.n_bytes or 0) - first
            check_free_space(part.parent, n_needed, archive.path, remedy="set another data.root")
            self._write_body(response, archive, part, append=first > 0, total=total)

        if total is not None and _size(part) < total:
            raise _UnfinishedError(f"the connection ended after {_size(part)} of {total} bytes")

    def _write_body(
        self,
        response: httpx2.Response,
        archive: Archive,
        part: Path,
        *,
        append: bool,
        total: int | None,
    ) -> None:
        with part.open("ab" if append else "wb") as file:
            for chunk in response.iter_raw():
                file.write(chunk)
                file.flush()  # so that a kill loses nothing
                self._count(archive, file.tell(), total)
            os.fsync(file.fileno())

    def _count(self, archive: Archive, done: int, total: int | None) -> None:
        self.done[archive.path] = done
        self.sizes[archive.path] = total or max(done, archive.n_bytes or 0)
        self.progress(sum(self.done.values()), sum(self.sizes.values()))


# -- what a server answers -------------------------------------------------------------------------


def _range_of(response: httpx2.Response) -> tuple[int, int | None]:
    """Where an answer's body starts in the file, and the size of the whole file.

    The start is -1 where an answer in part does not say it, the size None where none is said.
    """
    content_range = response.headers.get("Content-Range", "")
    sent = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", content_range)
    if sent is not None and response.status_code in (206, 416):
        return int(sent[1] or 0), None if sent[2] == "*" else int(sent[2])

    if response.status_code == 206:
        return -1, None
    length = response.headers.get("Content-Length", "")
    return 0, int(length) if length.isdecimal() and response.status_code == 200 else None


def _check_answer(response: httpx2.Response, archive: Archive, total: int | None) -> None:
    """Raises what an answer without the file means: try again, or get it by hand."""
    status = response.status_code
    answer = f"the server answers {status} {response.reason_phrase}"
    if status == 429 or status >= 500:
        wait = response.headers.get("Retry-After", "")
        raise _UnfinishedError(answer, float(wait) if wait.isdecimal() else 0.0)
    if status not in (200, 206):
        raise UserError(f"cannot download {archive.url}: {answer}. Get it by hand")

    if archive.n_bytes is not None and total not in (None, archive.n_bytes):
        raise UserError(
            f"{archive.url} is not the published file any more: "
            f"it has {total:,} bytes instead of {archive.n_bytes:,}. Get it by hand"
        )


def _one_line(error: Exception) -> str:
    """What an error says, or its name where it says nothing."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def _verify(path: Path, archive: Archive, remedy: str) -> None:
    """Checks a file, or its part, by the published checksum.

    Raises:
        UserError: it is another file; the text ends with `remedy`.
    """
    kind = "SHA-256" if archive.sha256 else "MD5"
    expected = archive.sha256 or archive.md5
    found = sha256_of(path) if archive.sha256 else _md5_of(path)
    if found != expected:
        name = path.name.removeprefix(".").removesuffix(".part")
        raise UserError(
            f"{name} is not the file published at {archive.url}: "
            f"its {kind} is {found}, expected {expected}; {remedy}"
        )


def _md5_of(path: Path) -> str:
    with path.open("rb") as file:
        md5 = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False))
    return md5.hexdigest()


# -- what is there ---------------------------------------------------------------------------------


def _by_file(archives: Sequence[Archive]) -> dict[str, list[Archive]]:
    """Volumes by the file that they make up when joined."""
    files: dict[str, list[Archive]] = {}
    for archive in sorted(archives, key=lambda archive: archive.path):
        name = re.sub(r"\.\d{3}$", "", archive.path)
        files.setdefault(name, []).append(archive)
    return files


def _marker(volumes: Sequence[Archive], folder: Path) -> Path:
    """Path of the record of one file's volumes."""
    (name,) = _by_file(volumes)
    path = folder / name
    return path.with_name(f".{path.name}.ok")


def _checksums(volumes: Sequence[Archive]) -> dict[str, str]:
    return {volume.path: volume.sha256 or volume.md5 for volume in volumes}


def _is_recorded(volumes: Sequence[Archive], folder: Path) -> bool:
    """Whether these very volumes were fetched, and what they have put there still exists."""
    marker = _marker(volumes, folder)
    if not marker.is_file():
        return False
    try:
        record = json.loads(marker.read_text(encoding="utf-8"))
        checksums, made = (
            dict(record["checksums"]),
            [marker.parent / name for name in record["made"]],
        )
        return checksums == _checksums(volumes) and all(path.exists() for path in made)
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(
            f"{marker} is no record of a download ({_one_line(error)}): delete it and {_AGAIN}"
        ) from error


def _left_over(archives: Sequence[Archive], folder: Path) -> list[Path]:
    """Archives that a kill has left beside what they hold; only meant for recorded ones."""
    paths = []
    for name, volumes in _by_file(archives).items():
        if is_packed(name):
            paths += [folder / volume.path for volume in volumes]
    return [path for path in paths if path.exists()]


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
