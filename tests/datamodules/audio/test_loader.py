"""Clips of tracks: shared out over ranks, batched, and the files that cannot be used."""

from collections import Counter
from collections.abc import Sequence
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

from datamodules.audio.clips import Clip, ClipRule
from datamodules.audio.loader import ClipLoader, lengths_s
from datamodules.tracks import UnusableFile

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


def items_of(clips: ClipLoader, rank: int = 0, n_ranks: int = 1) -> Items:
    return [item for batch in clips.batches(rank, n_ranks) for item in batch]


def places(items: Sequence[Clip | UnusableFile]) -> list[tuple[str, int]]:
    return [(item.place.track_id, item.place.index) for item in items if isinstance(item, Clip)]


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


def test_a_rank_without_tracks_gets_an_empty_loader(root: Path) -> None:
    assert items_of(loader(root), rank=8, n_ranks=9) == []
    assert items_of(loader(root, n_workers=1), rank=8, n_ranks=9) == []


def test_worker_processes_give_the_same_clips(root: Path) -> None:
    alone = items_of(loader(root))
    assert places(items_of(loader(root, n_workers=1))) == places(alone)


def test_batches_hold_about_batch_seconds_and_at_least_one_track(root: Path) -> None:
    def tracks_per_batch(batch_seconds: float) -> list[int]:
        batches = loader(root, batch_seconds=batch_seconds).batches()
        return [len({name for name, _ in places(batch)}) for batch in batches]

    assert tracks_per_batch(0.7) == [2, 2, 2, 1]  # judged by t0's 0.35 s
    assert tracks_per_batch(0.001) == [1] * 7


# -- clips -----------------------------------------------------------------------------------------


def test_clips_hold_the_samples_of_their_track_and_the_size_of_its_file(root: Path) -> None:
    for clip in items_of(loader(root)):
        assert isinstance(clip, Clip)
        name, index = clip.place.track_id, clip.place.index
        expected = samples_of(name)[index * 800 : (index + 1) * 800]
        np.testing.assert_array_equal(clip.audio, expected)
        assert clip.place.n_clips == N_CLIPS[name]
        assert clip.place.file_bytes == (root / f"{name}.wav").stat().st_size


def test_audio_comes_at_the_rate_that_was_asked_for(root: Path) -> None:
    items = items_of(loader(root, rule=ClipRule(), sample_rate=16000, batch_seconds=1.0))
    lengths = {item.place.track_id: len(item.audio) for item in items if isinstance(item, Clip)}
    assert lengths == {name: round(seconds * 16000) for name, (_, seconds) in PLAN.items()}


def test_what_is_stored_is_not_given_again_and_a_partial_track_gives_the_rest(root: Path) -> None:
    stored = {
        "t0": frozenset({0, 2}),  # one clip is missing
        "t1": frozenset({0, 1}),  # complete
        "t5": frozenset[int](),
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
    stored = {name: frozenset(range(n_clips)) for name, n_clips in N_CLIPS.items()}
    assert items_of(loader(root, stored=stored)) == []
    assert items_of(loader(root, tracks=[])) == []


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


def test_an_unreadable_first_file_does_not_stop_the_loader(root: Path) -> None:
    spoil(root / "t0.wav", "empty")
    assert len(places(items_of(loader(root)))) == len(EVERY_CLIP) - 3


def test_lengths_are_those_of_the_headers_and_unreadable_files_have_none(root: Path) -> None:
    seconds = [seconds for _, seconds in PLAN.values()]
    assert lengths_s(toy_tracks(root)) == pytest.approx(seconds)
    spoil(root / "t0.wav", "empty")
    assert lengths_s(toy_tracks(root)) == pytest.approx(seconds[1:])
