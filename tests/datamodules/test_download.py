"""Downloads from a real server on this machine, and what remains of them when they go wrong."""

import hashlib
import importlib
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from file_server import FETCH, HALF, Server, hidden, publish, tree

from datamodules import download
from datamodules.card import Archive, Card
from datamodules.download import fetch_archives, is_fetched
from datamodules.errors import UserError
from datamodules.files import lock

CONTENT = bytes(range(256)) * 2000


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Pauses between attempts, which are not made."""
    slept: list[float] = []
    monkeypatch.setattr(download.time, "sleep", slept.append)
    return slept


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
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert {total for _, total in seen} == {len(CONTENT)}

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
    killed = subprocess.Popen([sys.executable, "-c", FETCH, repr(archive), str(tmp_path)])
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
        match=r"not the published file any more: "
        r"it has 512,000 bytes instead of 1,234\. Get it by hand",
    ):
        fetch_archives([archive], tmp_path)
    assert hidden(tmp_path) == set()


def test_gone_file_is_one_line_at_once(server: Server, tmp_path: Path, waits: list[float]) -> None:
    archive = publish(server, CONTENT)
    server.plan = ["404"]
    with pytest.raises(UserError) as caught:
        fetch_archives([archive], tmp_path)
    text = f"cannot download {archive.url}: the server answers 404 Not Found. Get it by hand"
    assert str(caught.value) == text
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
        match=r"the server answers 500 Internal Server Error\. "
        r"Check the network and run the same command again",
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


@pytest.mark.parametrize(
    "record", ["{", "[1]", "{}", '{"checksums": 3, "made": []}', "[" * 100_000, b"\xff\xfe"]
)
def test_a_record_that_is_broken_is_named(
    record: str | bytes, server: Server, tmp_path: Path
) -> None:
    archive = publish(server, CONTENT)
    content = record.encode() if isinstance(record, str) else record
    (tmp_path / f".{archive.path}.ok").write_bytes(content)
    with pytest.raises(
        UserError, match=r"\.ok is no record of a download \(.*\): delete it and run"
    ):
        is_fetched([archive], tmp_path)


def test_second_process_is_kept_out(server: Server, tmp_path: Path) -> None:
    with (
        lock(tmp_path / ".fetch.lock", wait=False),
        pytest.raises(
            UserError, match=r"is being written by process \d+ on .*: wait for it, or stop it"
        ),
    ):
        fetch_archives([publish(server, CONTENT)], tmp_path)


# -- cards -----------------------------------------------------------------------------------------

CONF = Path(__file__).parents[2] / "conf/task"


@pytest.mark.parametrize("task", sorted(path.stem for path in CONF.glob("*.yaml")))
def test_every_dataset_has_a_card_with_checked_archives(task: str) -> None:
    target = re.search(
        r"^_target_: (\S+)\.(\w+)", (CONF / f"{task}.yaml").read_text(), flags=re.MULTILINE
    )
    card: Card = getattr(importlib.import_module(target[1]), target[2]).card
    for text in (card.title, card.licence, card.citation, card.obtain):
        assert text
        assert text.strip() == text
    assert all(len(line) <= 130 for line in card.obtain.splitlines())
    paths = [archive.path for archive in card.archives]
    assert len(set(paths)) == len(paths)
    for archive in card.archives:
        assert re.fullmatch(r"https?://[a-z0-9.]+\.[a-z]+/\S+", archive.url)
        assert re.fullmatch(r"[0-9a-f]{64}|", archive.sha256)
        assert re.fullmatch(r"[0-9a-f]{32}|", archive.md5)
        assert archive.sha256 or archive.md5
        assert not Path(archive.path).is_absolute()
        assert ".." not in archive.path
        assert archive.n_bytes is None or archive.n_bytes > 0
