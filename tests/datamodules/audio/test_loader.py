"""Clips of tracks: shared out over ranks, batched, known by content; files of no use."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from toy_tracks import (
    EVERY_CLIP,
    N_CLIPS,
    PLAN,
    RATE,
    RULE,
    samples_of,
    toy_tracks,
    write_audio,
)

import datamodules.audio.loader
from datamodules.audio.clips import Clip, ClipRule
from datamodules.audio.decode import load_audio
from datamodules.audio.loader import ClipLoader, ReadFile, deal, lengths_s
from datamodules.tracks import Track, UnusableFile, audio_id

Items = list[Clip | UnusableFile]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_audio(tmp_path)


def loader(root: Path, **changes: object) -> ClipLoader:
    """A loader of all clips of the toy tracks."""
    options: dict[str, object] = {
        "tracks": toy_tracks(root),
        "rule": RULE,
        "stored": {},
        "sample_rate": RATE,
        "min_samples": 10,
        "batch_seconds": 0.4,
        "n_workers": 0,
    }
    return ClipLoader(**(options | changes))  # type: ignore[arg-type]


def files_of(clips: ClipLoader, rank: int = 0, n_ranks: int = 1) -> list[ReadFile]:
    return [file for batch in clips.batches(rank, n_ranks) for file in batch]


def items_of(clips: ClipLoader, rank: int = 0, n_ranks: int = 1) -> Items:
    files = files_of(clips, rank, n_ranks)
    return [item for file in files for item in (*file.clips, *file.unusable)]


def sha256_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def name_of(root: Path, track_id: str) -> str:
    """The id of a track's audio, by its file."""
    return sha256_of(root / f"{track_id}.wav")[:24]


def places(items: Sequence[Clip | UnusableFile]) -> list[tuple[str, int]]:
    return [(item.track_id, item.place.index) for item in items if isinstance(item, Clip)]


# -- shares ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_ranks", [1, 2, 3, 9])
def test_every_clip_is_seen_exactly_once_by_all_ranks_together(root: Path, n_ranks: int) -> None:
    clips = loader(root)
    shares = [places(items_of(clips, rank, n_ranks)) for rank in range(n_ranks)]
    seen = Counter(clip for share in shares for clip in share)
    assert set(seen) == EVERY_CLIP
    assert set(seen.values()) == {1}
    if n_ranks <= 3:
        assert all(shares)


def test_ranks_get_equal_shares_of_time_and_not_of_files(tmp_path: Path) -> None:
    """One long and six short files: by counting, a rank would work five times as long."""
    seconds = [6.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]
    tracks = []
    for number, length in enumerate(seconds):
        path = tmp_path / f"{number}.wav"
        soundfile.write(path, np.zeros(round(8000 * length)), 8000)
        tracks.append([Track(str(number), path, "train", 0)])

    first, second = deal(tracks, 2)
    assert first == [tracks[0]] and second == tracks[1:]
    assert deal(tracks, 1) == [tracks]
    assert deal(tracks, 9)[7:] == [[], []]


def test_parts_of_a_file_count_by_their_own_length(tmp_path: Path) -> None:
    path = tmp_path / "long.wav"
    soundfile.write(path, np.zeros(80_000), 8000)
    places = [(0.0, 6.0), (6.0, 7.0), (7.0, 8.0), (8.0, None)]
    parts = [
        [Track(str(start), path, "train", 0, start_s=start, end_s=end)] for start, end in places
    ]
    first, second = deal(parts, 2)
    assert (first, second) == ([parts[0]], parts[1:])


def test_a_rank_without_tracks_gets_an_empty_loader(root: Path) -> None:
    assert items_of(loader(root), rank=8, n_ranks=9) == []
    assert items_of(loader(root, n_workers=1), rank=8, n_ranks=9) == []


def test_worker_processes_give_the_same_clips(root: Path) -> None:
    alone = items_of(loader(root))
    assert places(items_of(loader(root, n_workers=1))) == places(alone)


def test_batches_hold_about_batch_seconds_and_at_least_one_track(root: Path) -> None:
    def tracks_per_batch(batch_seconds: float) -> list[int]:
        batches = loader(root, batch_seconds=batch_seconds).batches()
        return [sum(file.n_tracks for file in batch) for batch in batches]

    assert tracks_per_batch(0.7) == [2, 2, 2, 1]  # judged by t0's 0.35 s
    assert tracks_per_batch(0.001) == [1] * 7


# -- clips -----------------------------------------------------------------------------------------


def test_clips_hold_the_samples_of_their_track_and_the_name_of_its_content(root: Path) -> None:
    for clip in items_of(loader(root)):
        assert isinstance(clip, Clip)
        name, index = clip.track_id, clip.place.index
        expected = samples_of(name)[index * 800 : (index + 1) * 800]
        np.testing.assert_array_equal(clip.audio, expected)
        assert clip.place.n_clips == N_CLIPS[name]
        assert clip.place.audio_id == name_of(root, name)


def test_audio_comes_at_the_rate_that_was_asked_for(root: Path) -> None:
    items = items_of(loader(root, rule=ClipRule(), sample_rate=16000, batch_seconds=1.0))
    lengths = {item.track_id: len(item.audio) for item in items if isinstance(item, Clip)}
    assert lengths == {name: round(seconds * 16000) for name, (_, seconds) in PLAN.items()}


def test_what_is_stored_is_not_given_again_and_a_partial_track_gives_the_rest(root: Path) -> None:
    stored = {
        name_of(root, "t0"): frozenset({0, 2}),  # one clip is missing
        name_of(root, "t1"): None,  # complete
        name_of(root, "t5"): frozenset[int](),
    }
    wanted = EVERY_CLIP - {("t0", 0), ("t0", 2), ("t1", 0), ("t1", 1)}
    assert Counter(places(items_of(loader(root, stored=stored)))) == Counter(wanted)


def test_what_is_left_out_is_not_decoded(root: Path) -> None:
    """A complete track is not among the loader's tracks; its file may be gone."""
    (root / "t1.wav").unlink()
    waiting = [track for track in toy_tracks(root) if track.track_id != "t1"]
    items = items_of(loader(root, tracks=waiting))
    assert set(places(items)) == EVERY_CLIP - {("t1", 0), ("t1", 1)}
    assert len(places(items)) == len(items)


def test_nothing_is_given_when_all_is_stored(root: Path) -> None:
    stored = {name_of(root, name): frozenset(range(n)) for name, n in N_CLIPS.items()}
    assert items_of(loader(root, stored=stored)) == []
    assert items_of(loader(root, tracks=[])) == []


# -- content ---------------------------------------------------------------------------------------


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Files that were decoded, one entry for each time."""
    paths: list[Path] = []

    def counted(path: Path, *arguments: object, **options: object) -> object:
        paths.append(path)
        return load_audio(path, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(datamodules.audio.loader, "load_audio", counted)
    return paths


def test_every_file_that_was_read_gives_the_digest_of_its_content(root: Path) -> None:
    files = files_of(loader(root))
    assert len(files) == len(PLAN)
    for file, name in zip(files, PLAN, strict=True):
        path = root / f"{name}.wav"
        assert file.digest is not None
        assert (file.digest.path, file.digest.sha256) == (str(path), sha256_of(path))
        status = path.stat()
        assert (file.digest.size, file.digest.changed_ns) == (status.st_size, status.st_mtime_ns)


def test_audio_that_is_stored_under_another_name_is_read_but_not_decoded(
    root: Path, decoded: list[Path]
) -> None:
    """Renamed, moved and copied files find their features; their digests are learned."""
    stored = {name_of(root, "t3"): None, name_of(root, "t4"): None}
    (root / "t3.wav").rename(root / "x.wav")
    (root / "deeper").mkdir()
    (root / "t4.wav").rename(root / "deeper" / "t4.wav")
    tracks = [Track("x", root / "x.wav", "val", 0), Track("y", root / "deeper/t4.wav", "val", 0)]
    files = files_of(loader(root, tracks=tracks, stored=stored))
    assert [(file.n_tracks, file.clips, file.unusable) for file in files] == [(1, [], [])] * 2
    assert [file.digest.sha256[:24] for file in files if file.digest] == list(stored)
    assert decoded == []


def test_other_audio_under_a_stored_name_is_given(root: Path) -> None:
    """Same name, same size, other samples: a size tells nothing."""
    stored = {name_of(root, "t3"): None}
    size = (root / "t3.wav").stat().st_size
    soundfile.write(root / "t3.wav", -samples_of("t3"), RATE, subtype="FLOAT")
    assert (root / "t3.wav").stat().st_size == size
    (track,) = [track for track in toy_tracks(root) if track.track_id == "t3"]
    (file,) = files_of(loader(root, tracks=[track], stored=stored))
    assert [clip.place.index for clip in file.clips] == [0, 1, 2]
    np.testing.assert_array_equal(file.clips[1].audio, -samples_of("t3")[800:1600])
    assert file.clips[0].place.audio_id == name_of(root, "t3")


def test_parts_of_a_file_are_other_audio_than_the_whole_and_share_one_reading(root: Path) -> None:
    whole = Track("whole", root / "t0.wav", "train", 0)
    parts = [
        replace(whole, track_id="start", end_s=0.2),
        replace(whole, track_id="end", start_s=0.2),
        replace(whole, track_id="middle", start_s=0.1, end_s=0.2),
    ]
    (file,) = files_of(loader(root, tracks=[whole, *parts]))
    assert file.n_tracks == 4
    sha256 = sha256_of(root / "t0.wav")
    spans = {"whole": (0.0, None), "start": (0.0, 0.2), "end": (0.2, None), "middle": (0.1, 0.2)}
    expected = {name: audio_id(sha256, *span) for name, span in spans.items()}
    assert {clip.track_id: clip.place.audio_id for clip in file.clips} == expected
    assert len(set(expected.values())) == 4

    known = {expected["whole"]: None, expected["middle"]: None}
    (rest,) = files_of(loader(root, tracks=[whole, *parts], stored=known))
    assert {clip.track_id for clip in rest.clips} == {"start", "end"}


def test_a_long_file_of_many_parts_is_hashed_once_by_each_process(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digests = Counter[Path]()
    read_digest = datamodules.audio.loader.read_digest

    def counted(path: Path) -> object:
        digests[path] += 1
        return read_digest(path)

    monkeypatch.setattr(datamodules.audio.loader, "read_digest", counted)
    datamodules.audio.loader._digest_once.cache_clear()
    part = Track("part", root / "t0.wav", "train", 0)
    spans = [(n / 10, (n + 1) / 10) for n in range(3)]
    parts = [replace(part, track_id=f"{start}", start_s=start, end_s=end) for start, end in spans]
    files = files_of(loader(root, tracks=parts, batch_seconds=0.1))
    assert len(files) == 3
    assert digests == {root / "t0.wav": 1}


# -- files that cannot be used ---------------------------------------------------------------------


def spoil(path: Path, how: str) -> None:
    if how == "empty":
        path.write_bytes(b"")
    elif how == "NaN":
        soundfile.write(path, np.full(2000, np.nan, np.float32), RATE, subtype="FLOAT")
    elif how == "no samples":
        soundfile.write(path, np.zeros(0, np.float32), RATE)
    elif how == "decoded":
        path.write_bytes(b"not audio " * 50)
    else:
        soundfile.write(path, np.zeros(9, np.float32), RATE)


@pytest.mark.parametrize("how", ["empty", "NaN", "no samples", "decoded", "too short"])
def test_an_unusable_file_is_reported_with_its_reason_and_the_others_go_on(
    root: Path, how: str
) -> None:
    spoil(root / "t3.wav", how)
    items = items_of(loader(root))
    reports = [item for item in items if isinstance(item, UnusableFile)]
    assert [(report.track_id, report.path) for report in reports] == [("t3", root / "t3.wav")]
    assert how in reports[0].reason
    assert set(places(items)) == {clip for clip in EVERY_CLIP if clip[0] != "t3"}


def test_a_track_that_is_too_short_says_how_long_it_is_and_what_is_needed(root: Path) -> None:
    items = items_of(loader(root, rule=ClipRule(), min_samples=1000))
    reports = [item for item in items if isinstance(item, UnusableFile)]
    assert [report.track_id for report in reports] == ["t2", "t5"]
    assert reports[0].reason == "is too short (800 samples at 8000 Hz, the backbone needs 1000)"


def test_a_file_that_is_gone_or_not_allowed_is_reported_for_each_of_its_tracks(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "t3.wav").unlink()
    stat = Path.stat

    def refused(path: Path, **options: bool) -> object:
        if path.name == "t5.wav":
            raise PermissionError(13, "Permission denied", str(path))
        return stat(path, **options)

    monkeypatch.setattr(Path, "stat", refused)
    part = replace(toy_tracks(root)[3], track_id="part", start_s=0.1)
    files = files_of(loader(root, tracks=[*toy_tracks(root), part]))
    reports = [report for file in files for report in file.unusable]
    assert {(report.track_id, report.reason) for report in reports} == {
        ("t3", "does not exist"),
        ("part", "does not exist"),
        ("t5", "cannot be read (Permission denied)"),
    }
    assert len([file for file in files if file.digest is None]) == 2


def test_an_unreadable_first_file_does_not_stop_the_loader(root: Path) -> None:
    spoil(root / "t0.wav", "empty")
    assert len(places(items_of(loader(root)))) == len(EVERY_CLIP) - 3


def test_lengths_are_those_of_the_headers_and_unreadable_files_have_none(root: Path) -> None:
    seconds = [seconds for _, seconds in PLAN.values()]
    assert lengths_s(toy_tracks(root)) == pytest.approx(seconds)
    spoil(root / "t0.wav", "empty")
    assert lengths_s(toy_tracks(root)) == pytest.approx(seconds[1:])
