"""Downloads of a dataset's public archives: resumed where they stopped, checked, unpacked, and not
done twice.

Conventions: beside a file NAME, `.NAME.part` is what has come so far, and `.NAME.ok`, written last,
says that all is there: the checksums of what was fetched and the names of what it has put into the
folder. An archive is deleted once it is unpacked, so that the disk does not hold the data twice.
Whatever is killed when, the same call goes on. A file is pinned by its checksum,
so a resumed download needs no ETag: pieces of two versions cannot pass. Proxies are those of the
environment.
"""

import fcntl
import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx2

from datamodules.card import Archive
from datamodules.errors import UserError
from datamodules.files import is_disk_full, write_text
from datamodules.unpack import is_packed, unpack

ATTEMPTS = 5  # in a row that bring not one byte
LONGEST_WAIT_S = 60.0
_TIMEOUT = httpx2.Timeout(60.0, connect=30.0)  # s without a byte, not of the whole file
_AGAIN = "run the same command again, it goes on where it stopped"


def is_fetched(archives: Sequence[Archive], folder: Path) -> bool:
    """Whether all archives were fetched into `folder`, and what they have put there still exists."""
    recorded = all(_is_recorded(volumes, folder) for volumes in _by_file(archives).values())
    return recorded and not _left_over(archives, folder)


def fetch_archives(
    archives: Sequence[Archive],
    folder: Path,
    *,
    progress: Callable[[int, int], None] | None = None,
    say: Callable[[str], None] | None = None,
) -> None:
    """Brings a dataset's archives into its folder, unpacked; what is there already is not asked for
    again.

    Args:
        archives: files; those named X.001, X.002, ... are volumes of one archive X.
        folder: the dataset's, made where it is missing.
        progress: called with the bytes that are there and those of all archives, as far as their
            sizes are known.
        say: called with what else takes time.

    Raises:
        UserError: no network, a file that is gone or is not the published one, a full disk, a
            folder that cannot be written.
    """
    fetcher = _Fetcher(
        folder, progress or (lambda _done, _total: None), say or (lambda _text: None)
    )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (
            _only_fetcher(folder),
            httpx2.Client(follow_redirects=True, timeout=_TIMEOUT) as client,
        ):
            missing = {
                name: volumes
                for name, volumes in _by_file(archives).items()
                if not _is_recorded(volumes, folder)
            }
            fetcher.sizes.update(
                {one.path: one.n_bytes or 0 for volumes in missing.values() for one in volumes}
            )
            for name, volumes in _by_file(archives).items():
                if name in missing:
                    fetcher.fetch(client, name, volumes)
                for path in _left_over(volumes, folder):
                    path.unlink()
    except OSError as error:
        if is_disk_full(error):
            raise UserError(f"no space left under {folder}: free some and {_AGAIN}") from error
        raise UserError(
            f"cannot write under {folder} ({error.strerror or error}): put it right, or set "
            "another data.root"
        ) from error


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

    def fetch(self, client: httpx2.Client, name: str, volumes: Sequence[Archive]) -> None:
        """Fetches one file, perhaps in volumes, and records what it has put into the folder."""
        target = self.folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        paths = [self.download(client, archive) for archive in volumes]
        if is_packed(name):
            self.say(f"unpacking {target.name}")
            made = unpack(paths, target.name, target.parent)
        else:
            made = [path.name for path in paths]
        write_text(
            _marker(volumes, self.folder),
            json.dumps({"checksums": _checksums(volumes), "made": made}) + "\n",
        )

    def download(self, client: httpx2.Client, archive: Archive) -> Path:
        """The path of one file, whole and checked."""
        target = self.folder / archive.path
        part = target.with_name(f".{target.name}.part")
        if target.is_file():
            _verify(target, archive, "remove it, or put the published file in its place")
        else:
            self._attempts(client, archive, part)
            self.say(f"checking {target.name}")
            try:
                _verify(
                    part,
                    archive,
                    "it was deleted. Run the same command again, or get the dataset by hand",
                )
            except UserError:
                part.unlink()
                raise
            part.replace(target)
        self._count(archive, target.stat().st_size, target.stat().st_size)
        return target

    def _attempts(self, client: httpx2.Client, archive: Archive, part: Path) -> None:
        failures = 0
        while True:
            before = _size(part)
            try:
                return self._attempt(client, archive, part)
            except (_UnfinishedError, httpx2.RequestError) as error:
                failures = 1 if _size(part) > before else failures + 1
                reason = f"{type(error).__name__ if not str(error) else ' '.join(str(error).split())[:200]}"
                if failures == ATTEMPTS:
                    raise UserError(
                        f"cannot download {archive.url}: {reason}. Check the network and {_AGAIN}"
                    ) from error
                wait = min(
                    max(2.0 ** (failures - 1), getattr(error, "wait_s", 0.0)), LONGEST_WAIT_S
                )
                self.say(f"{part.name[1:-5]}: {reason}; trying again in {wait:.0f} s")
                time.sleep(wait)

    def _attempt(self, client: httpx2.Client, archive: Archive, part: Path) -> None:
        """Brings a part to its end with one request, or raises."""
        n_there = _size(part)
        headers = {"Accept-Encoding": "identity", "User-Agent": "mirprobe"}
        if n_there:
            headers["Range"] = f"bytes={n_there}-"
        with client.stream("GET", archive.url, headers=headers) as response:
            first, total = _range(response)
            if response.status_code == 416 and n_there and n_there == (total or archive.n_bytes):
                return
            if response.status_code == 416 or first not in (0, n_there):
                part.unlink(missing_ok=True)
                raise _UnfinishedError("the server does not go on from where it stopped")
            _check_answer(response, archive, total)
            _check_space(part.parent, archive, (total or archive.n_bytes or 0) - first)
            with part.open("ab" if first else "wb") as file:
                for chunk in response.iter_raw():
                    file.write(chunk)
                    file.flush()  # so that a kill loses nothing
                    self._count(archive, file.tell(), total)
                os.fsync(file.fileno())
        if total is not None and _size(part) < total:
            raise _UnfinishedError(f"the connection ended after {_size(part)} of {total} bytes")

    def _count(self, archive: Archive, done: int, total: int | None) -> None:
        self.done[archive.path] = done
        self.sizes[archive.path] = total or max(done, archive.n_bytes or 0)
        self.progress(sum(self.done.values()), sum(self.sizes.values()))


def _range(response: httpx2.Response) -> tuple[int, int | None]:
    """Where the body of an answer starts in the file, -1 if unknown, and the file's size if the
    server says it.
    """
    sent = re.fullmatch(
        r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", response.headers.get("Content-Range", "")
    )
    if sent is not None and response.status_code in (206, 416):
        return int(sent[1] or 0), None if sent[2] == "*" else int(sent[2])
    length = response.headers.get("Content-Length", "")
    first = -1 if response.status_code == 206 else 0
    return first, int(length) if length.isdecimal() and response.status_code == 200 else None


def _check_answer(response: httpx2.Response, archive: Archive, total: int | None) -> None:
    status = response.status_code
    if status == 429 or status >= 500:
        wait = response.headers.get("Retry-After", "")
        raise _UnfinishedError(
            f"the server answers {status} {response.reason_phrase}",
            float(wait) if wait.isdecimal() else 0.0,
        )
    if status not in (200, 206):
        raise UserError(
            f"cannot download {archive.url}: the server answers {status} {response.reason_phrase}. "
            "Get it by hand"
        )
    if archive.n_bytes is not None and total not in (None, archive.n_bytes):
        raise UserError(
            f"{archive.url} is not the published file any more: it has {total:,} bytes instead of "
            f"{archive.n_bytes:,}. Get it "
            "by hand"
        )


def _check_space(folder: Path, archive: Archive, n_needed: int) -> None:
    n_free = shutil.disk_usage(folder).free
    if n_needed > n_free:
        raise UserError(
            f"{archive.path} needs {n_needed / 1e9:.1f} GB more, {folder} has {n_free / 1e9:.1f} "
            "GB free: free some, or set "
            "another data.root"
        )


def _verify(path: Path, archive: Archive, remedy: str) -> None:
    name, expected = ("SHA-256", archive.sha256) if archive.sha256 else ("MD5", archive.md5)
    with path.open("rb") as file:
        digest = hashlib.file_digest(
            file, lambda: hashlib.new(name.replace("-", ""), usedforsecurity=False)
        )
    if digest.hexdigest() != expected:
        raise UserError(
            f"{path.name.removeprefix('.').removesuffix('.part')} is not the file published at "
            f"{archive.url}: its {name} is "
            f"{digest.hexdigest()}, expected {expected}; {remedy}"
        )


# -- what is there ---------------------------------------------------------------------------------


def _by_file(archives: Sequence[Archive]) -> dict[str, list[Archive]]:
    """Volumes by the file that they make up when joined."""
    files: dict[str, list[Archive]] = {}
    for archive in sorted(archives, key=lambda archive: archive.path):
        files.setdefault(re.sub(r"\.\d{3}$", "", archive.path), []).append(archive)
    return files


def _marker(volumes: Sequence[Archive], folder: Path) -> Path:
    path = folder / next(iter(_by_file(volumes)))
    return path.with_name(f".{path.name}.ok")


def _checksums(volumes: Sequence[Archive]) -> dict[str, str]:
    return {archive.path: archive.sha256 or archive.md5 for archive in volumes}


def _is_recorded(volumes: Sequence[Archive], folder: Path) -> bool:
    marker = _marker(volumes, folder)
    if not marker.is_file():
        return False
    record = json.loads(marker.read_text(encoding="utf-8"))
    return record["checksums"] == _checksums(volumes) and all(
        (marker.parent / name).exists() for name in record["made"]
    )


def _left_over(archives: Sequence[Archive], folder: Path) -> list[Path]:
    """Archives that a kill has left beside what they hold; only meant for recorded ones."""
    packed = [
        archive
        for name, volumes in _by_file(archives).items()
        if is_packed(name)
        for archive in volumes
    ]
    return [path for archive in packed if (path := folder / archive.path).exists()]


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


@contextmanager
def _only_fetcher(folder: Path) -> Iterator[None]:
    """Keeps a second process from writing the same part; the lock goes with the process."""
    with (folder / ".fetch.lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(
                f"another process is fetching into {folder}: wait for it, or stop it"
            ) from error
        except OSError:
            pass  # a file system without locks; two writers would fail the checksum
        yield
