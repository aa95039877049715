import hashlib
import socket
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub import constants

from datamodules.errors import UserError
from mirprobe.backbones import hub
from mirprobe.backbones.hub import PublishedFile, fetch, locate

CONTENT = b"weights"
FILE = PublishedFile(
    model="musicfm",
    repo="minzwon/MusicFM",
    revision="4513b38bc25ad1d227b1980819b9691ba97f4d87",
    name="pretrained_msd.pt",
    n_bytes=len(CONTENT),
    sha256=hashlib.sha256(CONTENT).hexdigest(),
)


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """An empty cache, and no network."""

    def refuse(*_: object) -> None:
        raise AssertionError("looked at the network")

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    return tmp_path


def put(cache: Path, content: bytes) -> Path:
    path = cache / "models--minzwon--MusicFM" / "snapshots" / FILE.revision / FILE.name
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    return path


def test_cached_file_is_found_without_network(cache):
    path = put(cache, CONTENT)
    assert locate(FILE) == path


def test_missing_file_names_the_command(cache):
    with pytest.raises(UserError) as caught:
        locate(FILE)
    assert str(caught.value) == (
        "the weights pretrained_msd.pt of minzwon/MusicFM are not on this machine. "
        "Run: mirprobe fetch model=musicfm, or set model.checkpoint=/path/to/pretrained_msd.pt"
    )


def test_offline_fetch_says_what_to_check(cache, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    problem = r"cannot download pretrained_msd.pt of minzwon/MusicFM at 4513b38bc25a: .*HF_HUB_OFF"
    with pytest.raises(UserError, match=problem):
        fetch(FILE)


def test_offline_fetch_returns_what_is_cached(cache, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    path = put(cache, CONTENT)
    assert fetch(FILE) == path


class Hub:
    """A stand-in for hf_hub_download: the cached file, or what the server sends where it must."""

    def __init__(self, path: Path, sent: bytes) -> None:
        self.path, self.sent, self.forced = path, sent, []

    def __call__(self, repo: str, name: str, *, revision: str, force_download: bool) -> str:
        assert (repo, name, revision) == (FILE.repo, FILE.name, FILE.revision)
        self.forced.append(force_download)
        if force_download or not self.path.exists():
            self.path.write_bytes(self.sent)
        return str(self.path)


def test_fetch_replaces_a_damaged_copy(tmp_path, monkeypatch):
    path = tmp_path / FILE.name
    path.write_bytes(b"weight")
    server = Hub(path, CONTENT)
    monkeypatch.setattr(hub, "hf_hub_download", server)

    assert fetch(FILE).read_bytes() == CONTENT
    assert server.forced == [False, True]

    assert fetch(FILE) == path
    assert server.forced == [False, True, False]


def test_fetch_refuses_another_file(tmp_path, monkeypatch):
    monkeypatch.setattr(hub, "hf_hub_download", Hub(tmp_path / FILE.name, b"WEIGHTS"))
    problem = r"is not the published file: its SHA-256 is not .*Try again"
    with pytest.raises(UserError, match=problem):
        fetch(FILE)


# -- files of which we know no pin -----------------------------------------------------------------

UNPINNED = replace(FILE, revision=None, n_bytes=None, sha256=None)
PIN = f"model.revision={FILE.revision} model.sha256={FILE.sha256}"


@pytest.fixture
def told(monkeypatch) -> SimpleNamespace:
    """What the hub says of the file; its `asked` are the addresses that were asked for."""
    answer = SimpleNamespace(etag=FILE.sha256, size=len(CONTENT), asked=[])
    monkeypatch.setattr(hub, "get_hf_file_metadata", lambda url: answer.asked.append(url) or answer)
    return answer


def newest(monkeypatch, path: Path) -> None:
    monkeypatch.setattr(hub, "hf_hub_download", lambda *_, **__: str(path))


def test_fetch_says_the_pin_that_the_hub_tells(cache, monkeypatch, told, capsys):
    path = put(cache, CONTENT)
    newest(monkeypatch, path)
    assert fetch(UNPINNED) == path
    printed = capsys.readouterr().out
    assert "is not pinned by mirprobe. The hub says: revision 4513b38bc25a" in printed
    assert f"7 bytes, SHA-256 {FILE.sha256}. To pin it: {PIN}" in printed
    assert FILE.revision in told.asked[0]


def test_what_came_is_held_against_what_the_hub_tells(cache, monkeypatch, told):
    newest(monkeypatch, put(cache, b"WEIGHTS"))
    with pytest.raises(UserError, match=r"its SHA-256 is not .*Try again"):
        fetch(UNPINNED)


def test_where_the_hub_tells_nothing_fetch_says_so(cache, monkeypatch, capsys):
    path = put(cache, CONTENT)
    newest(monkeypatch, path)

    def refuse(url: str) -> None:
        raise OSError("no\nroute")

    monkeypatch.setattr(hub, "get_hf_file_metadata", refuse)
    assert fetch(UNPINNED) == path
    assert "the hub does not tell its checksum (no route)" in capsys.readouterr().out
