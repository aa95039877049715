"""Files are whole or absent, locks keep others out, and a disk that is too small is said."""

import errno
import fcntl
import hashlib
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from datamodules.errors import UserError
from datamodules.files import (
    atomic,
    check_free_space,
    is_disk_full,
    lock,
    remove_orphans,
    remove_temporary,
    sha256_of,
    write_text,
)

# -- writing ---------------------------------------------------------------------------------------


def everything(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_finished_block_leaves_the_file_and_nothing_else(tmp_path: Path) -> None:
    with atomic(tmp_path / "a.bin") as temporary:
        temporary.write_bytes(b"abc")
        assert not (tmp_path / "a.bin").exists()
    assert everything(tmp_path) == ["a.bin"]
    assert (tmp_path / "a.bin").read_bytes() == b"abc"


def test_folders_on_the_way_are_made(tmp_path: Path) -> None:
    write_text(tmp_path / "runs" / "fcpe" / "a.txt", "Käse\n")
    assert (tmp_path / "runs" / "fcpe" / "a.txt").read_text(encoding="utf-8") == "Käse\n"


def test_the_temporary_file_lies_hidden_beside_the_target(tmp_path: Path) -> None:
    with atomic(tmp_path / "a.bin") as temporary:
        temporary.touch()
        assert temporary.parent == tmp_path
        assert temporary.name.startswith(".a.bin.")
        assert temporary.name.endswith(".tmp")


def test_two_writers_of_one_file_do_not_share_a_temporary_file(tmp_path: Path) -> None:
    with atomic(tmp_path / "a.txt") as first, atomic(tmp_path / "a.txt") as second:
        assert first != second
        first.write_text("first")
        second.write_text("second")
    assert (tmp_path / "a.txt").read_text() in ("first", "second")
    assert everything(tmp_path) == ["a.txt"]


@pytest.mark.parametrize(
    "error",
    [ValueError("bad"), KeyboardInterrupt(), SystemExit(143), PermissionError(errno.EACCES, "no")],
)
def test_an_error_in_the_block_leaves_no_file_and_is_passed_on(
    tmp_path: Path, error: BaseException
) -> None:
    with pytest.raises(type(error)), atomic(tmp_path / "a.bin") as temporary:
        temporary.write_bytes(b"half")
        raise error
    assert everything(tmp_path) == []


def test_an_error_in_the_block_keeps_the_old_file(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "old")
    with pytest.raises(ValueError, match="bad"), atomic(tmp_path / "a.txt") as temporary:
        temporary.write_text("new")
        raise ValueError("bad")
    assert everything(tmp_path) == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "old"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux' always full device")
def test_a_full_disk_is_a_user_error_that_names_the_file(tmp_path: Path) -> None:
    with (
        pytest.raises(UserError, match=r"no space left while writing .*a\.txt: free some space"),
        atomic(tmp_path / "a.txt"),
    ):
        Path("/dev/full").write_text("x")
    assert everything(tmp_path) == []


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_disk_quota_and_size_limit_all_count_as_no_space(tmp_path: Path, code: int) -> None:
    with pytest.raises(UserError, match="no space left"), atomic(tmp_path / "a.txt"):
        raise OSError(code, os.strerror(code))


def test_a_disk_that_is_full_at_flushing_is_a_user_error_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="no space left"):
        write_text(tmp_path / "a.txt", "x")
    assert everything(tmp_path) == []


def test_a_disk_that_is_full_at_making_the_folder_is_a_user_error_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_args: object, **_options: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "mkdir", full)
    with pytest.raises(UserError, match="no space left"):
        write_text(tmp_path / "new" / "a.txt", "x")


def test_a_file_size_limit_is_met_for_real(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(UserError, match="no space left"):
            write_text(tmp_path / "a.txt", "x" * 5000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert everything(tmp_path) == []


def test_disk_full_is_recognised_in_hdf5s_words_and_not_in_others() -> None:
    assert is_disk_full(
        OSError(
            "Can't write data (file write failed: errno = 28, error message = 'No space left on "
            "device')"
        )
    )
    assert not is_disk_full(OSError(errno.EACCES, os.strerror(errno.EACCES)))
    assert not is_disk_full(FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT)))


def test_leftovers_of_killed_writers_are_removed_and_nothing_else(tmp_path: Path) -> None:
    deeper = tmp_path / "deeper"
    deeper.mkdir()
    kept = [
        tmp_path / "part-1.h5",
        tmp_path / "notes.tmp",
        tmp_path / ".lock",
        deeper / ".a.txt.12345678.tmp",
    ]
    for path in [*kept, tmp_path / ".part-2.h5.12345678.tmp"]:
        path.touch()
    remove_temporary(tmp_path)
    assert everything(tmp_path) == [".lock", "deeper", "notes.tmp", "part-1.h5"]
    assert everything(deeper) == [".a.txt.12345678.tmp"]


def test_kill_9_while_writing_leaves_the_old_file_and_one_temporary_file(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    write_text(target, "old")
    script = (
        "import sys, time\nfrom pathlib import Path\nfrom datamodules.files import atomic\n"
        "with atomic(Path(sys.argv[1])) as temporary:\n"
        "    temporary.write_text('half'); print('writing', flush=True); time.sleep(60)\n"
    )
    writer = subprocess.Popen(
        [sys.executable, "-c", script, str(target)], stdout=subprocess.PIPE, text=True
    )
    assert writer.stdout is not None
    assert writer.stdout.readline() == "writing\n"
    writer.kill()
    writer.wait()
    writer.stdout.close()
    assert target.read_text() == "old"
    assert len(everything(tmp_path)) == 2
    remove_temporary(tmp_path)
    assert everything(tmp_path) == ["a.txt"]


# -- locks -----------------------------------------------------------------------------------------


@contextmanager
def other_process(path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the lock until it is killed."""
    script = (
        "import sys, time\nfrom pathlib import Path\nfrom datamodules.files import lock\n"
        "with lock(Path(sys.argv[1]), wait=False):\n"
        "    print('locked', flush=True); time.sleep(60)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "locked\n"
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_a_lock_that_is_held_names_its_holder(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    with other_process(path) as holder:
        with pytest.raises(UserError) as caught, lock(path, wait=False):
            pass
        assert str(caught.value) == (
            f"{tmp_path} is being written by process {holder.pid} on {socket.gethostname()}: "
            "wait for it, or stop it"
        )


def test_a_holder_that_has_no_name_yet_is_another_process(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with (
            pytest.raises(UserError, match="is being written by another process: wait for it"),
            lock(path, wait=False),
        ):
            pass


@pytest.mark.parametrize("wait", [False, True])
def test_a_lock_is_free_again_after_the_block_and_after_an_error_in_it(
    tmp_path: Path, wait: bool
) -> None:
    path = tmp_path / ".lock"
    with pytest.raises(ValueError, match="bad"), lock(path, wait=wait):
        raise ValueError("bad")
    with lock(path, wait=wait):
        assert path.read_text() == f"process {os.getpid()} on {socket.gethostname()}"
    assert everything(tmp_path) == [".lock"]
    assert path.read_text() == ""


def test_a_killed_holder_leaves_no_lock(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    with other_process(path) as holder:
        holder.kill()
        holder.wait()
        assert f"process {holder.pid} " in path.read_text()
        with lock(path, wait=False):
            assert f"process {os.getpid()} " in path.read_text()


def test_who_waits_enters_when_the_holder_has_left(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    events: list[str] = []

    def enter() -> None:
        with lock(path, wait=True):
            events.append("entered")

    waiter = threading.Thread(target=enter)
    with lock(path, wait=False):
        waiter.start()
        waiter.join(timeout=0.1)
        events.append("left")
    waiter.join(timeout=10)
    assert events == ["left", "entered"]


def test_a_file_system_without_locks_lets_everybody_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(_file: object, _operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with lock(tmp_path / ".lock", wait=False), lock(tmp_path / ".lock", wait=True):
        pass


# -- what is there ---------------------------------------------------------------------------------


@pytest.mark.parametrize("n_bytes", [0, 3, 5_000_000])
def test_sha256_is_that_of_the_whole_file(tmp_path: Path, n_bytes: int) -> None:
    content = bytes(range(256)) * (n_bytes // 256 + 1)
    (tmp_path / "a.bin").write_bytes(content[:n_bytes])
    assert sha256_of(tmp_path / "a.bin") == hashlib.sha256(content[:n_bytes]).hexdigest()


def test_a_disk_that_is_too_small_is_said_with_both_sizes_and_a_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1_500_000_000))
    check_free_space(tmp_path, 1_500_000_000, "the features")
    with pytest.raises(UserError) as caught:
        check_free_space(tmp_path, 2_000_000_000, "the features")
    assert str(caught.value) == (
        f"no space for the features: 2.00 GB needed at least, 1.50 GB free under {tmp_path}. "
        "Free some, or set a folder on a larger disk"
    )
    with pytest.raises(UserError, match=r"Free some, or set another data\.root$"):
        check_free_space(tmp_path, 2_000_000_000, "a.zip", remedy="set another data.root")


# -- what killed writers left ----------------------------------------------------------------------


def test_what_a_killed_writer_left_is_deleted_and_what_a_living_one_writes_is_not(
    tmp_path: Path,
) -> None:
    here = socket.gethostname()
    ended = subprocess.Popen(["true"])
    ended.wait()
    names = {
        f".a.0123abcd-{ended.pid}@{here}.tmp": False,
        f".b.0123abcd-{os.getppid()}@{here}.tmp": True,
        ".c.0123abcd-1@another-machine.tmp": True,
        ".d.0123abcd.tmp": True,  # of an earlier version
        "e.tmp": True,
    }
    for name in names:
        (tmp_path / name).touch()
    remove_orphans(tmp_path)
    assert everything(tmp_path) == sorted(name for name, stays in names.items() if stays)

    for name in everything(tmp_path):
        os.utime(tmp_path / name, (1e9, 1e9))
    remove_orphans(tmp_path)
    assert everything(tmp_path) == sorted([f".b.0123abcd-{os.getppid()}@{here}.tmp", "e.tmp"])


def test_a_temporary_file_names_its_writer(tmp_path: Path) -> None:
    with atomic(tmp_path / "a.bin") as temporary:
        temporary.touch()
        assert temporary.name.endswith(f"-{os.getpid()}@{socket.gethostname()}.tmp")
        assert temporary.name.startswith(".a.bin.")
