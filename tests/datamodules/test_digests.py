"""Digests of files: what is remembered, what is read anew, and what a bad file of them costs."""

import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

import datamodules.digests
from datamodules.digests import FileDigest, KnownDigests, read_digest
from datamodules.tracks import Track, audio_id

OLD_S = 1_600_000_000


def write(path: Path, content: bytes, changed_s: float = OLD_S) -> Path:
    path.write_bytes(content)
    os.utime(path, (changed_s, changed_s))
    return path


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def song(tmp_path: Path) -> Path:
    return write(tmp_path / "song.wav", b"la la la")


@pytest.fixture
def known(tmp_path: Path) -> Path:
    """Where digests are remembered; in a folder that is not there yet."""
    return tmp_path / "known" / "toy.jsonl"


@pytest.fixture
def n_read(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Files that were read for their digests."""
    paths: list[Path] = []
    read = datamodules.digests.read_digest

    def counted(path: Path) -> FileDigest:
        paths.append(path)
        return read(path)

    monkeypatch.setattr(datamodules.digests, "read_digest", counted)
    return paths


def remember(known: Path, *paths: Path) -> None:
    digests = KnownDigests(known)
    for path in paths:
        digests.get(path)
    digests.save()


# -- one file --------------------------------------------------------------------------------------


def test_a_digest_is_that_of_the_content_with_size_and_time(song: Path) -> None:
    digest = read_digest(song)
    assert digest == FileDigest(str(song), 8, OLD_S * 10**9, sha256(b"la la la"))
    assert digest.is_settled


def test_a_relative_path_is_the_same_file(song: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(song.parent)
    assert read_digest(Path(song.name)) == read_digest(song)


def test_a_file_that_is_gone_is_an_error(tmp_path: Path, known: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_digest(tmp_path / "nothing.wav")
    assert KnownDigests(known).find(tmp_path / "nothing.wav") is None


# -- remembering -----------------------------------------------------------------------------------


def test_a_second_run_reads_nothing(song: Path, known: Path, n_read: list[Path]) -> None:
    remember(known, song)
    assert n_read == [song]
    digests = KnownDigests(known)
    assert digests.find(song) == digests.get(song) == sha256(b"la la la")
    assert n_read == [song]


def test_nothing_learned_is_nothing_written(known: Path) -> None:
    KnownDigests(known).save()
    assert not known.parent.exists()


@pytest.mark.parametrize(
    ("content", "changed_s"),
    [(b"la la lo", OLD_S + 0.001), (b"la la", OLD_S), (b"la la la", OLD_S + 5)],
    ids=["another time", "another size", "touched"],
)
def test_a_file_that_may_have_changed_is_read_anew(
    song: Path, known: Path, n_read: list[Path], content: bytes, changed_s: float
) -> None:
    remember(known, song)
    write(song, content, changed_s)
    digests = KnownDigests(known)
    assert digests.find(song) is None
    assert digests.get(song) == sha256(content)
    assert n_read == [song, song]

    digests.save()
    again = KnownDigests(known)
    assert again.find(song) == sha256(content)  # the last line of a path counts


def test_a_file_that_has_just_been_written_is_known_and_not_remembered(
    song: Path, known: Path
) -> None:
    """A second change within the clock's grain would leave the same time."""
    write(song, b"new", time.time())
    digests = KnownDigests(known)
    assert digests.get(song) == sha256(b"new")
    assert digests.find(song) == sha256(b"new")
    digests.save()
    assert KnownDigests(known).find(song) is None


def test_a_file_was_settled_or_not_when_it_was_read(
    song: Path, known: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not when its batch has passed the backbone, seconds later."""
    write(song, b"new", OLD_S)
    monkeypatch.setattr(time, "time_ns", lambda: OLD_S * 10**9 + 1_900_000_000)
    digest = read_digest(song)
    monkeypatch.setattr(time, "time_ns", lambda: OLD_S * 10**9 + 60_000_000_000)
    digests = KnownDigests(known)
    digests.learn([digest])
    digests.save()
    assert not digest.is_settled
    assert KnownDigests(known).find(song) is None


def test_a_clock_that_is_behind_remembers_nothing(song: Path, known: Path) -> None:
    """A file server whose clock is ahead of ours."""
    write(song, b"new", time.time() + 1000)
    remember(known, song)
    assert KnownDigests(known).find(song) is None


def test_what_others_remember_is_not_newer_than_what_was_read_here(song: Path, known: Path) -> None:
    """The file has changed a moment ago: what is remembered of it is out of date."""
    remember(known, song)
    write(song, b"new", time.time())
    digests = KnownDigests(known)
    digests.learn([read_digest(song)])
    digests.load()
    assert digests.find(song) == sha256(b"new")


def test_others_are_heard_by_loading_again(song: Path, known: Path) -> None:
    digests = KnownDigests(known)
    remember(known, song)
    assert digests.find(song) is None
    digests.load()
    assert digests.find(song) == sha256(b"la la la")


def test_any_name_of_a_file_is_remembered(tmp_path: Path, known: Path) -> None:
    names = ["Käse.wav", 'a"b\\c.wav', "new\nline.wav", "\udcff.wav", "tab\t.wav", "\u2028.wav"]
    paths = [write(tmp_path / name, name.encode("utf-8", "replace")) for name in names]
    remember(known, *paths)
    digests = KnownDigests(known)
    assert [digests.find(path) for path in paths] == [sha256(path.read_bytes()) for path in paths]


# -- a file of digests that is not as it was written -----------------------------------------------


def test_a_torn_line_is_as_good_as_none_and_spoils_no_other(tmp_path: Path, known: Path) -> None:
    paths = [write(tmp_path / f"{name}.wav", name.encode()) for name in "abc"]
    remember(known, *paths[:2])
    known.write_bytes(known.read_bytes()[:-30])
    assert [KnownDigests(known).find(path) is None for path in paths[:2]] == [False, True]

    remember(known, paths[2])  # behind the torn line
    digests = KnownDigests(known)
    assert [digests.find(path) is None for path in paths] == [False, True, False]


LINE = json.dumps(["/a.wav", 5, 10**18, "0" * 64])


@pytest.mark.parametrize(
    "garbage",
    [
        "",
        "{oops",
        "7",
        "null",
        "[]",
        "{}",
        '"text"',
        "[1, 2, 3, 4]",
        "[[1], 2, 3, 4]",
        '{"a": 1, "b": 2, "c": 3, "d": 4}',
        '["/a.wav", 3, 4, null]',
        '["/a.wav", 5, 7, 3]',
        '["/a.wav", 5, 7, "short"]',
        '["/a.wav", true, 7, "' + "0" * 64 + '"]',
        '["/a.wav", 5, ' + "9" * 5000 + ', ""]',
        "[" * 100_000,
        LINE[:30],  # torn
        "\x00\ufffd",
    ],
)
def test_foreign_lines_cost_nothing(song: Path, known: Path, garbage: str) -> None:
    remember(known, song)
    known.write_text(f"{garbage}\n{known.read_text()}{garbage}\n")
    digests = KnownDigests(known)
    assert digests.find(song) == sha256(b"la la la")
    assert list(digests._known) == [str(song)]


def test_bytes_that_are_no_text_are_as_good_as_none(known: Path) -> None:
    known.parent.mkdir()
    known.write_bytes(os.urandom(10_000))
    assert KnownDigests(known)._known == {}


@pytest.mark.parametrize("how", ["folder", "below a file"])
def test_what_cannot_be_remembered_is_said_and_harms_nobody(
    song: Path, tmp_path: Path, how: str
) -> None:
    file = tmp_path / "known.jsonl" if how == "folder" else song / "known.jsonl"
    if how == "folder":
        file.mkdir()
    digests = KnownDigests(file)
    assert digests.get(song) == sha256(b"la la la")
    problem = digests.save()
    assert problem is not None
    assert problem.startswith(f"what was read cannot be remembered in {file} (")
    assert digests.find(song) == sha256(b"la la la")


def test_a_remembered_digest_of_another_file_is_not_taken(tmp_path: Path, known: Path) -> None:
    """Size and time are not enough: the path counts too."""
    one, other = (write(tmp_path / name, content) for name, content in (("a", b"1"), ("b", b"2")))
    remember(known, one)
    assert KnownDigests(known).find(other) is None


WRITER = """
import sys
from pathlib import Path
from datamodules.digests import FileDigest, KnownDigests
digests = KnownDigests(Path(sys.argv[1]))
for number in range(300):
    digests.learn([FileDigest(f"/{sys.argv[2]}/{number}/" + "x" * 200, 1, 2, "ab" * 32)])
    digests.save()
"""


def test_two_writers_at_once_lose_nothing(known: Path) -> None:
    commands = [[sys.executable, "-c", WRITER, str(known), name] for name in ("one", "two")]
    writers = [subprocess.Popen(command) for command in commands]
    assert [writer.wait(timeout=60) for writer in writers] == [0, 0]

    lines = [line for line in known.read_text().splitlines() if line]
    paths = {json.loads(line)[0] for line in lines}
    assert len(lines) == len(paths) == 600


# -- tracks ----------------------------------------------------------------------------------------


def test_tracks_get_the_id_of_their_content_and_of_their_part(tmp_path: Path, known: Path) -> None:
    song = write(tmp_path / "song.wav", b"la la la")
    copy = write(tmp_path / "copy.wav", b"la la la", OLD_S + 7)
    unknown = write(tmp_path / "unknown.wav", b"la")
    gone = tmp_path / "gone.wav"
    remember(known, song, copy)
    tracks = [
        Track("whole", song, "train", 0),
        Track("part", song, "train", 0, start_s=0.5, end_s=2.0),
        Track("copy", copy, "train", 0),
        Track("unknown", unknown, "train", 0),
        Track("gone", gone, "train", 0),
    ]
    digests = KnownDigests(known)
    name = audio_id(sha256(b"la la la"))
    assert [track.audio_id for track in digests.identify(tracks)] == [
        name,
        f"{name}@0.5-2.0",
        name,
        "",
        "",
    ]
    assert [track.track_id for track in digests.identify(tracks)] == [t.track_id for t in tracks]


def test_a_track_loses_its_id_when_its_file_changes(song: Path, known: Path) -> None:
    digests = KnownDigests(known)
    digests.get(song)
    (track,) = digests.identify([Track("t", song, "train", 0)])
    write(song, b"other")
    (again,) = digests.identify([track])
    assert (track.audio_id != "", again.audio_id) == (True, "")


def test_ids_of_audio_tell_contents_and_parts_apart() -> None:
    digest = sha256(b"la la la")
    other = sha256(b"lo lo lo")
    parts = [(0.0, None), (0.0, 1.0), (1.0, None), (1.0, 2.0), (1.0000001, 2.0)]
    ids = {audio_id(content, *part) for content in (digest, other) for part in parts}
    assert len(ids) == 10
