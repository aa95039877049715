"""Downloads from a real server on this machine, and what remains of them when they go wrong."""

import hashlib
import importlib
import io
import json
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from datamodules import download, unpack
from datamodules.card import Archive, Card
from datamodules.download import fetch_archives, is_fetched
from datamodules.errors import UserError
from datamodules.files import lock

CONTENT = bytes(range(256)) * 2000
HALF = 200_000


class Server:
    """Serves `files`; `plan` says how each request is answered, the last entry for ever.

    ok, drop (HALF of what is wanted, then the connection breaks), stall (the same, but it stays
    open), whole (no ranges), unsized (no Content-Length), cut (unsized, and only HALF), or a
    status.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.plan: list[str] = ["ok"]
        self.asked: list[str] = []  # Range headers
        self.n_sent = 0
        self.release = threading.Event()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None: ...

            def do_GET(self) -> None:
                server.answer(self)

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.handle_error = lambda *_: None  # of killed clients
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(
            target=self.http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        ).start()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        mode = self.plan.pop(0) if len(self.plan) > 1 else self.plan[0]
        wanted = request.headers.get("Range", "")
        self.asked.append(wanted)
        body = self.files[request.path.removeprefix("/").partition("?")[0]]
        if mode.isdecimal():
            return self.send(request, int(mode), {"Retry-After": "3"}, b"")
        first = (
            int(wanted.removeprefix("bytes=").removesuffix("-"))
            if wanted and mode != "whole"
            else 0
        )
        if first >= len(body):
            return self.send(request, 416, {"Content-Range": f"bytes */{len(body)}"}, b"")
        headers = {"Content-Range": f"bytes {first}-{len(body) - 1}/{len(body)}"} if first else {}
        if mode in ("unsized", "cut"):
            headers["Connection"] = "close"
        return self.send(request, 206 if first else 200, headers, body[first:], mode)

    def send(
        self,
        request: BaseHTTPRequestHandler,
        status: int,
        headers: dict[str, str],
        body: bytes,
        mode: str = "ok",
    ) -> None:
        request.send_response(status)
        for name, value in headers.items():
            request.send_header(name, value)
        if mode not in ("unsized", "cut"):
            request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        sent = body[:HALF] if mode in ("drop", "stall", "cut") else body
        request.wfile.write(sent)
        request.wfile.flush()
        self.n_sent += len(sent)
        if mode == "stall":
            self.release.wait(20)
        request.close_connection = mode != "ok"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "127.0.0.1")
    running = Server()
    yield running
    running.release.set()
    running.http.shutdown()
    running.http.server_close()


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Pauses between attempts, which are not made."""
    slept: list[float] = []
    monkeypatch.setattr(download.time, "sleep", slept.append)
    return slept


def publish(
    server: Server,
    content: bytes,
    path: str = "a.bin",
    *,
    n_bytes: int | None = None,
    md5: bool = False,
) -> Archive:
    server.files[Path(path).name] = content
    checksum = (
        {"md5": hashlib.md5(content).hexdigest()}
        if md5
        else {"sha256": hashlib.sha256(content).hexdigest()}
    )
    return Archive(f"{server.url}/{Path(path).name}?download=1", path, n_bytes=n_bytes, **checksum)


def tarball(names: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        for name, content in names.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return file.getvalue()


def zipped(names: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in names.items():
            archive.writestr(name, content)
    return file.getvalue()


def tree(folder: Path) -> dict[str, bytes]:
    """Files that are not hidden."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    }


def hidden(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob(".*")} - {".fetch.lock"}


# -- downloads -------------------------------------------------------------------------------------


@pytest.mark.parametrize("md5", [False, True])
def test_file_comes_whole_and_is_not_asked_for_again(
    server: Server, tmp_path: Path, md5: bool
) -> None:
    archive = publish(server, CONTENT, "sub/a.bin", n_bytes=len(CONTENT), md5=md5)
    seen: list[tuple[int, int]] = []
    assert not is_fetched([archive], tmp_path / "new")
    fetch_archives(
        [archive], tmp_path / "new", progress=lambda done, total: seen.append((done, total))
    )
    assert tree(tmp_path / "new") == {"sub/a.bin": CONTENT}
    assert hidden(tmp_path / "new") == {".a.bin.ok"}
    assert seen[-1] == (len(CONTENT), len(CONTENT)) and all(
        total == len(CONTENT) for _, total in seen
    )
    assert is_fetched([archive], tmp_path / "new")
    fetch_archives([archive], tmp_path / "new")
    assert server.asked == [""]


def test_lost_file_is_fetched_again(server: Server, tmp_path: Path) -> None:
    archive = publish(server, CONTENT)
    fetch_archives([archive], tmp_path)
    (tmp_path / "a.bin").unlink()
    assert not is_fetched([archive], tmp_path)
    fetch_archives([archive], tmp_path)
    assert tree(tmp_path) == {"a.bin": CONTENT}


def test_file_that_is_there_is_checked_without_a_request(server: Server, tmp_path: Path) -> None:
    archive = publish(server, CONTENT)
    (tmp_path / "a.bin").write_bytes(CONTENT)
    fetch_archives([archive], tmp_path)
    assert server.asked == [] and is_fetched([archive], tmp_path)


def test_other_file_of_that_name_is_kept_and_named(server: Server, tmp_path: Path) -> None:
    archive = publish(server, CONTENT)
    (tmp_path / "a.bin").write_bytes(b"mine")
    with pytest.raises(
        UserError,
        match=r"^a\.bin is not the file published at .*: its SHA-256 is .*; remove it, or put",
    ):
        fetch_archives([archive], tmp_path)
    assert (tmp_path / "a.bin").read_bytes() == b"mine" and server.asked == []


def test_dropped_connection_is_taken_up_where_it_broke(
    server: Server, tmp_path: Path, waits: list[float]
) -> None:
    archive = publish(server, CONTENT)
    server.plan = ["drop", "drop", "ok"]
    said: list[str] = []
    fetch_archives([archive], tmp_path, say=said.append)
    assert tree(tmp_path) == {"a.bin": CONTENT}
    assert server.asked == ["", f"bytes={HALF}-", f"bytes={2 * HALF}-"]
    assert server.n_sent == len(CONTENT)
    assert waits == [1.0, 1.0] and "trying again in 1 s" in said[0]


def test_unsized_answer_is_judged_by_the_checksum(server: Server, tmp_path: Path) -> None:
    archive = publish(server, CONTENT)
    server.plan = ["cut", "unsized"]
    with pytest.raises(UserError, match=r"is not the file published .* it was deleted"):
        fetch_archives([archive], tmp_path)
    fetch_archives([archive], tmp_path)
    assert tree(tmp_path) == {"a.bin": CONTENT}


def test_killed_process_leaves_a_part_that_is_taken_up(server: Server, tmp_path: Path) -> None:
    archive = publish(server, CONTENT)
    server.plan = ["stall", "ok"]
    code = "import sys; from datamodules.download import *; fetch_archives([eval(sys.argv[1])], Path(sys.argv[2]))"
    killed = subprocess.Popen([sys.executable, "-c", code, repr(archive), str(tmp_path)])
    part = tmp_path / ".a.bin.part"
    for _ in range(500):
        time.sleep(0.02)
        if part.exists() and part.stat().st_size == HALF:
            break
    killed.send_signal(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL and part.stat().st_size == HALF
    fetch_archives([archive], tmp_path)
    assert tree(tmp_path) == {"a.bin": CONTENT}
    assert server.asked == ["", f"bytes={HALF}-"] and server.n_sent == len(CONTENT)


def test_server_without_ranges_is_asked_for_all(server: Server, tmp_path: Path) -> None:
    archive = publish(server, CONTENT)
    (tmp_path / ".a.bin.part").write_bytes(CONTENT[:HALF])
    server.plan = ["whole"]
    fetch_archives([archive], tmp_path)
    assert tree(tmp_path) == {"a.bin": CONTENT} and server.n_sent == len(CONTENT)


def test_whole_part_is_only_checked(server: Server, tmp_path: Path) -> None:
    archive = publish(server, CONTENT)
    (tmp_path / ".a.bin.part").write_bytes(CONTENT)  # 416
    fetch_archives([archive], tmp_path)
    assert tree(tmp_path) == {"a.bin": CONTENT} and server.n_sent == 0


def test_part_that_is_too_long_is_started_anew(
    server: Server, tmp_path: Path, waits: list[float]
) -> None:
    archive = publish(server, CONTENT)
    (tmp_path / ".a.bin.part").write_bytes(CONTENT + b"more")  # 416
    fetch_archives([archive], tmp_path)
    assert tree(tmp_path) == {"a.bin": CONTENT} and len(waits) == 1


def test_wrong_bytes_are_deleted_and_named(server: Server, tmp_path: Path) -> None:
    archive = publish(server, CONTENT)
    server.files["a.bin"] = CONTENT[::-1]
    with pytest.raises(UserError) as caught:
        fetch_archives([archive], tmp_path)
    assert str(caught.value) == (
        f"a.bin is not the file published at {archive.url}: its SHA-256 is "
        f"{hashlib.sha256(CONTENT[::-1]).hexdigest()}, expected "
        f"{archive.sha256}; it was deleted. Run the same command again, or get the dataset by hand"
    )
    assert tree(tmp_path) == {} and hidden(tmp_path) == set()


def test_part_of_another_file_is_caught_by_the_checksum(server: Server, tmp_path: Path) -> None:
    archive = publish(server, CONTENT)
    (tmp_path / ".a.bin.part").write_bytes(b"x" * HALF)
    with pytest.raises(UserError, match="is not the file published"):
        fetch_archives([archive], tmp_path)
    fetch_archives([archive], tmp_path)
    assert tree(tmp_path) == {"a.bin": CONTENT}


def test_other_size_is_said_before_the_download(server: Server, tmp_path: Path) -> None:
    archive = publish(server, CONTENT, n_bytes=1234)
    with pytest.raises(
        UserError,
        match=r"not the published file any more: it has 512,000 bytes instead of 1,234. Get it by hand",
    ):
        fetch_archives([archive], tmp_path)
    assert hidden(tmp_path) == set()


def test_gone_file_is_one_line_at_once(server: Server, tmp_path: Path, waits: list[float]) -> None:
    archive = publish(server, CONTENT)
    server.plan = ["404"]
    with pytest.raises(UserError) as caught:
        fetch_archives([archive], tmp_path)
    assert (
        str(caught.value)
        == f"cannot download {archive.url}: the server answers 404 Not Found. Get it by hand"
    )
    assert waits == []


def test_busy_server_is_asked_again_after_the_time_it_wants(
    server: Server, tmp_path: Path, waits: list[float]
) -> None:
    archive = publish(server, CONTENT)
    server.plan = ["503", "429", "ok"]
    fetch_archives([archive], tmp_path)
    assert tree(tmp_path) == {"a.bin": CONTENT} and waits == [3.0, 3.0]


def test_broken_server_is_given_up(server: Server, tmp_path: Path, waits: list[float]) -> None:
    archive = publish(server, CONTENT)
    server.plan = ["500"]
    with pytest.raises(
        UserError,
        match=r"the server answers 500 Internal Server Error. Check the network and run the same comm",
    ):
        fetch_archives([archive], tmp_path)
    assert len(server.asked) == download.ATTEMPTS and waits == [3.0, 3.0, 4.0, 8.0]


def test_no_network_is_one_line(server: Server, tmp_path: Path, waits: list[float]) -> None:
    archive = Archive("http://127.0.0.1:1/a.bin", "a.bin", sha256="0" * 64)
    with pytest.raises(
        UserError,
        match=r"^cannot download http://127.0.0.1:1/a.bin: .*refused.*Check the network and run",
    ) as caught:
        fetch_archives([archive], tmp_path)
    assert "\n" not in str(caught.value)


def test_silent_server_ends_the_attempt(
    server: Server, tmp_path: Path, waits: list[float], monkeypatch
) -> None:
    monkeypatch.setattr(download, "_TIMEOUT", download.httpx2.Timeout(0.3))
    archive = publish(server, CONTENT)
    server.plan = ["stall", "ok"]
    fetch_archives([archive], tmp_path)
    assert tree(tmp_path) == {"a.bin": CONTENT} and server.n_sent == len(CONTENT)


def test_small_disk_is_said_before_the_download(
    server: Server, tmp_path: Path, monkeypatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=400_000))
    archive = publish(server, CONTENT)
    with pytest.raises(
        UserError,
        match=r"^no space for a\.bin: 0\.00 GB needed at least, 0\.00 GB free under .*"
        r"\. Free some, or set another data\.root$",
    ):
        fetch_archives([archive], tmp_path)
    assert hidden(tmp_path) == set()

    (tmp_path / ".a.bin.part").write_bytes(CONTENT[:HALF])  # only the rest counts
    fetch_archives([archive], tmp_path)


def test_full_disk_and_closed_folder_are_one_line(server: Server, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^cannot write under /proc/none .*set another data.root$"):
        fetch_archives([publish(server, CONTENT)], Path("/proc/none"))
    full = Path("/dev/full")
    if full.exists():
        (tmp_path / ".a.bin.part").symlink_to(full)
        with pytest.raises(
            UserError, match=r"no space left under .*: free some and run the same command again"
        ):
            fetch_archives([publish(server, CONTENT)], tmp_path)


def test_second_process_is_kept_out(server: Server, tmp_path: Path) -> None:
    with (
        lock(tmp_path / ".fetch.lock", wait=False),
        pytest.raises(
            UserError, match=r"is being written by process \d+ on .*: wait for it, or stop it"
        ),
    ):
        fetch_archives([publish(server, CONTENT)], tmp_path)


# -- archives --------------------------------------------------------------------------------------

FILES = {"top/a.txt": b"a", "top/deep/b.txt": b"b" * 5000, "c.txt": b"c"}
JUNK = {"__MACOSX/top/._a.txt": b"x", "top/._a.txt": b"x", "top/.DS_Store": b"x"}


@pytest.mark.parametrize(("name", "pack"), [("x.zip", zipped), ("x.tar.gz", tarball)])
def test_archive_is_unpacked_without_junk_and_deleted(
    server: Server, tmp_path: Path, name: str, pack
) -> None:
    archive = publish(server, pack({**FILES, **JUNK}), f"in/{name}")
    said: list[str] = []
    fetch_archives([archive], tmp_path, say=said.append)
    assert tree(tmp_path / "in") == FILES
    assert hidden(tmp_path) == {f".{name}.ok"}
    assert json.loads((tmp_path / f"in/.{name}.ok").read_text())["made"] == ["c.txt", "top"]
    assert said == [f"checking {name}", f"unpacking {name}"]
    assert is_fetched([archive], tmp_path)
    fetch_archives([archive], tmp_path)
    assert len(server.asked) == 1


def test_volumes_are_joined(server: Server, tmp_path: Path) -> None:
    packed = zipped(FILES)
    pieces = [packed[:1000], packed[1000:3000], packed[3000:]]
    volumes = [
        publish(server, piece, f"mp3/m.zip.{i:03d}", n_bytes=len(piece))
        for i, piece in enumerate(pieces, 1)
    ]
    table = publish(server, b"t", "t.csv")
    seen: list[tuple[int, int]] = []
    fetch_archives(
        [volumes[1], table, volumes[0], volumes[2]],
        tmp_path,
        progress=lambda *now: seen.append(now),
    )
    assert tree(tmp_path) == {
        "t.csv": b"t",
        **{f"mp3/{name}": content for name, content in FILES.items()},
    }
    assert hidden(tmp_path) == {".m.zip.ok", ".t.csv.ok"}
    assert seen[-1] == (len(packed) + 1, len(packed) + 1)
    assert is_fetched([*volumes, table], tmp_path) and len(server.asked) == 4


def test_folder_that_exists_is_filled_up(server: Server, tmp_path: Path) -> None:
    (tmp_path / "top/deep").mkdir(parents=True)
    (tmp_path / "top/deep/mine.txt").write_text("mine")
    (tmp_path / "top/a.txt").write_text("old")
    fetch_archives([publish(server, tarball(FILES), "x.tar.gz")], tmp_path)
    assert tree(tmp_path) == {**FILES, "top/deep/mine.txt": b"mine"}


@pytest.mark.parametrize(
    ("module", "function", "nth"),
    [
        (download, "unpack", 1),  # after the download
        (unpack, "_is_wanted", 2),  # while files are written
        (unpack, "_move", 1),  # before anything is in its place
        (unpack, "_move", 2),  # when a part is
        (download, "write_text", 1),  # before it is recorded
        (download, "_left_over", 1),  # before the archive is deleted
    ],
)
def test_unpacking_that_is_killed_goes_on(
    server: Server, tmp_path: Path, monkeypatch, module, function: str, nth: int
) -> None:
    archive = publish(server, tarball(FILES), "x.tar.gz")
    called, left = getattr(module, function), nth

    def kill(*arguments: object) -> object:
        nonlocal left
        left -= 1
        if left == 0:
            raise KeyboardInterrupt
        return called(*arguments)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(module, function, kill)
        fetch_archives([archive], tmp_path)
    assert not is_fetched([archive], tmp_path)
    fetch_archives([archive], tmp_path)
    assert tree(tmp_path) == FILES and hidden(tmp_path) == {".x.tar.gz.ok"}
    assert is_fetched([archive], tmp_path) and len(server.asked) == 1


def test_kill_9_while_unpacking_goes_on(server: Server, tmp_path: Path) -> None:
    files = {f"top/{i:05d}.txt": b"%d" % i for i in range(3000)}
    archive = publish(server, tarball(files), "x.tar.gz")
    code = "import sys; from datamodules.download import *; fetch_archives([eval(sys.argv[1])], Path(sys.argv[2]))"
    for seen in (".x.tar.gz.unpacking/files/top/00100.txt", ".x.tar.gz.unpacked", "top"):
        process = subprocess.Popen([sys.executable, "-c", code, repr(archive), str(tmp_path)])
        while process.poll() is None and not (tmp_path / seen).exists():
            time.sleep(0.001)
        process.kill()
        process.wait()
    fetch_archives([archive], tmp_path)
    assert (
        tree(tmp_path) == files and hidden(tmp_path) == {".x.tar.gz.ok"} and len(server.asked) == 1
    )


def linked(target: str) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        member = tarfile.TarInfo("link")
        member.type, member.linkname = tarfile.SYMTYPE, target
        archive.addfile(member)
    return file.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        (
            "x.zip",
            zipped({"a.txt": b"a", "../evil.txt": b"x"}),
            "../evil.txt leads out of the folder",
        ),
        ("x.zip", zipped({"/evil.txt": b"x"}), "/evil.txt leads out of the folder"),
        (
            "x.tar.gz",
            tarball({"a/../../evil.txt": b"x"}),
            "a/../../evil.txt leads out of the folder",
        ),
        ("x.tar.gz", tarball({"/evil.txt": b"x"}), "/evil.txt leads out of the folder"),
        ("x.tar.gz", linked("/etc"), "link is neither a file nor a folder"),
        ("x.zip", b"no zip", "File is not a zip file"),
        ("x.tar.gz", tarball(FILES)[:-40], ""),
        ("x.tar", b"no tar", ""),
    ],
    ids=[
        "zip-parent",
        "zip-absolute",
        "tar-parent",
        "tar-absolute",
        "tar-link",
        "no-zip",
        "tar-cut",
        "no-tar",
    ],
)
def test_archive_that_cannot_be_unpacked_is_one_line(
    server: Server, tmp_path: Path, name: str, content: bytes, reason: str
) -> None:
    with pytest.raises(
        UserError,
        match=f"^{name} cannot be unpacked .*{re.escape(reason)}.*: get the dataset by hand$",
    ) as caught:
        fetch_archives([publish(server, content, f"in/{name}")], tmp_path)
    assert "\n" not in str(caught.value)
    assert tree(tmp_path) == {f"in/{name}": content} and not list(tmp_path.rglob("evil*"))
    assert hidden(tmp_path) == set()


# -- cards -----------------------------------------------------------------------------------------

CONF = Path(__file__).parents[2] / "conf/task"


@pytest.mark.parametrize("task", sorted(path.stem for path in CONF.glob("*.yaml")))
def test_every_dataset_has_a_card_with_checked_archives(task: str) -> None:
    target = re.search(
        r"^_target_: (\S+)\.(\w+)", (CONF / f"{task}.yaml").read_text(), flags=re.MULTILINE
    )
    card: Card = getattr(importlib.import_module(target[1]), target[2]).card
    for text in (card.title, card.licence, card.citation, card.obtain):
        assert text.strip() == text and text
    assert all(len(line) <= 130 for line in card.obtain.splitlines())
    paths = [archive.path for archive in card.archives]
    assert len(set(paths)) == len(paths)
    for archive in card.archives:
        assert re.fullmatch(r"https?://[a-z0-9.]+\.[a-z]+/\S+", archive.url)
        assert re.fullmatch(r"[0-9a-f]{64}|", archive.sha256) and re.fullmatch(
            r"[0-9a-f]{32}|", archive.md5
        )
        assert archive.sha256 or archive.md5
        assert not Path(archive.path).is_absolute() and ".." not in archive.path
        assert archive.n_bytes is None or archive.n_bytes > 0
