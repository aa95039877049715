"""Archives that are fetched and unpacked: whole, without junk, and whatever is killed when."""

import io
import json
import re
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest
from file_server import FETCH, Server, hidden, publish, tarball, tree, zipped

from datamodules import download, unpack
from datamodules.download import fetch_archives, is_fetched
from datamodules.errors import UserError

LEADS_OUT = "leads out of the folder"

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
    volumes = []
    for number, piece in enumerate([packed[:1000], packed[1000:3000], packed[3000:]], start=1):
        volumes.append(publish(server, piece, f"mp3/m.zip.{number:03d}", n_bytes=len(piece)))
    table = publish(server, b"t", "t.csv")
    seen: list[tuple[int, int]] = []
    fetch_archives(
        [volumes[1], table, volumes[0], volumes[2]],
        tmp_path,
        progress=lambda *now: seen.append(now),
    )
    assert tree(tmp_path / "mp3") == FILES
    assert (tmp_path / "t.csv").read_bytes() == b"t"
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
    for seen in (".x.tar.gz.unpacking/files/top/00100.txt", ".x.tar.gz.unpacked", "top"):
        process = subprocess.Popen([sys.executable, "-c", FETCH, repr(archive), str(tmp_path)])
        while process.poll() is None and not (tmp_path / seen).exists():
            time.sleep(0.001)
        process.kill()
        process.wait()
    fetch_archives([archive], tmp_path)
    assert tree(tmp_path) == files
    assert hidden(tmp_path) == {".x.tar.gz.ok"}
    assert len(server.asked) == 1


def linked(target: str) -> bytes:
    """An archive that holds a link."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        member = tarfile.TarInfo("link")
        member.type, member.linkname = tarfile.SYMTYPE, target
        archive.addfile(member)
    return file.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("x.zip", zipped({"a.txt": b"a", "../evil.txt": b"x"}), f"../evil.txt {LEADS_OUT}"),
        ("x.zip", zipped({"/evil.txt": b"x"}), f"/evil.txt {LEADS_OUT}"),
        ("x.tar.gz", tarball({"a/../../evil.txt": b"x"}), f"a/../../evil.txt {LEADS_OUT}"),
        ("x.tar.gz", tarball({"/evil.txt": b"x"}), f"/evil.txt {LEADS_OUT}"),
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
