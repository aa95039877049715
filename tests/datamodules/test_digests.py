"""Digests of files: read once, remembered while they hold, and never trusted when damaged."""

import hashlib
import json
import os
from pathlib import Path

import pytest

from datamodules import digests as module
from datamodules.digests import KnownDigests, read_digest
from datamodules.tracks import Track, audio_id


def old_file(path: Path, content: bytes) -> Path:
    """A file whose time is older than the grain of any clock."""
    path.write_bytes(content)
    os.utime(path, (1e9, 1e9))
    return path


@pytest.fixture
def known(tmp_path: Path) -> KnownDigests:
    return KnownDigests(tmp_path / "known" / "toy.jsonl")


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_a_file_is_read_once_by_any_number_of_runs(
    known: KnownDigests, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = old_file(tmp_path / "a.wav", b"sound")
    assert known.find(path) is None
    assert known.get(path) == sha256(b"sound")
    assert known.save() is None

    monkeypatch.setattr(module, "read_digest", lambda _: pytest.fail("it was read again"))
    assert KnownDigests(known.file).get(path) == sha256(b"sound")


@pytest.mark.parametrize("size", [5, 6])
def test_a_file_that_has_changed_is_not_known(
    known: KnownDigests, tmp_path: Path, size: int
) -> None:
    path = old_file(tmp_path / "a.wav", b"sound")
    known.learn([read_digest(path)])
    path.write_bytes(b"noise!"[:size])
    assert known.find(path) is None
    path.unlink()
    assert known.find(path) is None


def test_what_has_just_been_written_is_not_remembered(known: KnownDigests, tmp_path: Path) -> None:
    """A second change within the grain of the clock would not show."""
    path = tmp_path / "a.wav"
    path.write_bytes(b"sound")
    known.learn([read_digest(path)])
    known.save()
    assert known.find(path) == sha256(b"sound"), "in this run"
    assert not known.file.exists()


def test_tracks_get_the_ids_of_their_audio(known: KnownDigests, tmp_path: Path) -> None:
    path = old_file(tmp_path / "a.wav", b"sound")
    known.learn([read_digest(path)])
    whole, part = Track("a", path, "train", 0), Track("b", path, "train", 0, None, 1.0, 2.0)
    other = Track("c", tmp_path / "c.wav", "train", 0)
    names = [track.audio_id for track in known.identify([whole, part, other])]
    assert names == [audio_id(sha256(b"sound")), audio_id(sha256(b"sound"), 1.0, 2.0), ""]


LINE = json.dumps(["/a.wav", 5, 10**18, "0" * 64])


@pytest.mark.parametrize(
    "damage",
    [
        "{oops",
        "7",
        "null",
        "[]",
        "{}",
        '"text"',
        "[1, 2, 3, 4]",
        '{"a": 1, "b": 2, "c": 3, "d": 4}',
        '["/a.wav", 5, 7, 3]',
        '["/a.wav", 5, 7, "short"]',
        '["/a.wav", true, 7, "' + "0" * 64 + '"]',
        '["/a.wav", 5, ' + "9" * 5000 + ', ""]',
        "[" * 100_000,
        LINE[:30],  # torn
        "\x00\ufffd",
    ],
)
def test_a_damaged_line_is_as_good_as_none(tmp_path: Path, damage: str) -> None:
    path = old_file(tmp_path / "a.wav", b"sound")
    known = KnownDigests(tmp_path / "known.jsonl")
    known.get(path)
    known.save()
    good = known.file.read_text()
    known.file.write_text(f"{damage}\n{good}{damage}\n")
    assert KnownDigests(known.file).find(path) == sha256(b"sound")
    assert list(KnownDigests(known.file)._known) == [str(path)]


def test_bytes_that_are_no_text_are_as_good_as_none(tmp_path: Path) -> None:
    file = tmp_path / "known.jsonl"
    file.write_bytes(os.urandom(10_000))
    assert KnownDigests(file)._known == {}


@pytest.mark.parametrize("how", ["folder", "below a file"])
def test_what_cannot_be_remembered_is_said_and_harms_nobody(tmp_path: Path, how: str) -> None:
    path = old_file(tmp_path / "a.wav", b"sound")
    if how == "folder":
        file = tmp_path / "known.jsonl"
        file.mkdir()
    else:
        file = path / "known.jsonl"
    known = KnownDigests(file)
    assert known.get(path) == sha256(b"sound")
    problem = known.save()
    assert problem is not None
    assert problem.startswith(f"what was read cannot be remembered in {file} (")
    assert known.find(path) == sha256(b"sound")
