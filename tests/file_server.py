"""A real server of files on this machine, which can fail in many ways, and archives to serve."""

import hashlib
import io
import tarfile
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from datamodules.card import Archive

HALF = 200_000  # bytes after which a connection breaks

# A program for a process that will be killed; its arguments are an archive and a folder.
FETCH = """
import sys
from datamodules.download import *

fetch_archives([eval(sys.argv[1])], Path(sys.argv[2]))
"""


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

        first = 0
        if wanted and mode != "whole":
            first = int(wanted.removeprefix("bytes=").removesuffix("-"))
        if first >= len(body):
            return self.send(request, 416, {"Content-Range": f"bytes */{len(body)}"}, b"")

        headers = {}
        if first:
            headers["Content-Range"] = f"bytes {first}-{len(body) - 1}/{len(body)}"
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


def publish(
    server: Server,
    content: bytes,
    path: str = "a.bin",
    *,
    n_bytes: int | None = None,
    md5: bool = False,
) -> Archive:
    """Puts a file on the server."""
    name = Path(path).name
    server.files[name] = content
    url = f"{server.url}/{name}?download=1"
    if md5:
        return Archive(url, path, md5=hashlib.md5(content).hexdigest(), n_bytes=n_bytes)
    return Archive(url, path, sha256=hashlib.sha256(content).hexdigest(), n_bytes=n_bytes)


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
    files = {}
    for path in folder.rglob("*"):
        relative = path.relative_to(folder)
        if path.is_file() and not any(part.startswith(".") for part in relative.parts):
            files[relative.as_posix()] = path.read_bytes()
    return files


def hidden(folder: Path) -> set[str]:
    """Names of files and folders that are hidden, but for the lock."""
    return {path.name for path in folder.rglob(".*")} - {".fetch.lock"}
