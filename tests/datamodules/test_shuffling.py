"""Labels dealt out anew: within splits, one for the pieces of a song, the same for one seed."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

from datamodules.shuffling import shuffle_labels
from datamodules.tracks import SPLITS, Track

TRACKS = [
    Track(f"{split}{number:02d}", Path("none"), split, number % 4 + 10 * place)
    for place, split in enumerate(SPLITS)
    for number in range(40)
]


def test_each_split_keeps_its_tracks_and_the_frequencies_of_its_labels() -> None:
    shuffled = shuffle_labels(TRACKS, seed=0)
    assert [replace(one, target=0) for one in shuffled] == [replace(o, target=0) for o in TRACKS]
    for split in SPLITS:
        before = [track.target for track in TRACKS if track.split == split]
        after = [track.target for track in shuffled if track.split == split]
        assert Counter(after) == Counter(before) and after != before
        # A quarter of the labels is right by chance, give or take 7 %.
        assert sum(one == other for one, other in zip(before, after, strict=True)) < 20


def test_a_seed_gives_one_order_whatever_the_order_of_the_tracks() -> None:
    first = shuffle_labels(TRACKS, seed=0)
    assert shuffle_labels(TRACKS[::-1], seed=0)[::-1] == first
    assert shuffle_labels(TRACKS, seed=1) != first


def test_pieces_of_a_song_keep_one_label() -> None:
    pieces = [
        Track(f"{song}/{piece}", Path("none"), "train", song, song=f"song{song}")
        for song in range(20)
        for piece in range(3)
    ]
    targets: dict[str | None, set[object]] = {}
    for track in shuffle_labels(pieces, seed=0):
        targets.setdefault(track.song, set()).add(track.target)
    assert all(len(found) == 1 for found in targets.values())
    assert sorted(next(iter(found)) for found in targets.values()) == list(range(20))
