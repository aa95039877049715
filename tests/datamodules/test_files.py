"""Files are whole or absent: errors, interrupts and full disks leave nothing half-written."""

import errno
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from datamodules.errors import UserError
from datamodules.files import atomic, is_disk_full, remove_temporary, write_text


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
