"""Small shards joined into bigger ones: nothing lost, nothing twice, whenever it is interrupted."""

import os
from pathlib import Path

import numpy as np
import pytest
from toy_store import ID, flip, item, shard_paths, stacked, values_of, wanted, write_items
from toy_tracks import audio_of

from datamodules.errors import UserError
from datamodules.features import merging
from datamodules.features.merging import merge_shards
from datamodules.features.shards import ClipFeatures
from datamodules.features.store import FeatureStore
from datamodules.tracks import ClipPlace, Track

NAMES = [f"t{number:02d}" for number in range(20)]


@pytest.fixture
def tracks() -> list[Track]:
    return wanted(*NAMES)


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    """Twenty tracks of two clips each in ten shards, as five ranks would deal them out."""
    for part in range(10):
        write_items(tmp_path, *[item(name, part % 2) for name in NAMES[part // 2 :: 5]])
    return FeatureStore(tmp_path, ID)


def check_values(store: FeatureStore, tracks: list[Track]) -> None:
    """Raises unless the store holds every clip, for this process and for a new one."""
    expected = stacked([(name, clip) for name in NAMES for clip in (0, 1)])
    for each in (store, FeatureStore(store.folder.parent, ID)):
        np.testing.assert_array_equal(each.read(tracks).read_all(), expected)


def test_small_shards_become_one_with_the_same_values(
    store: FeatureStore, tracks: list[Track]
) -> None:
    before = store.inventory()
    assert merge_shards(store, tracks) is None
    assert len(shard_paths(store.folder)) == 1
    assert store.inventory() == before
    check_values(store, tracks)


def test_clips_lie_in_the_order_of_the_tracks_and_those_of_nobody_come_last(
    store: FeatureStore, tracks: list[Track]
) -> None:
    claimed = [tracks[number] for number in (7, 3, 7, 12)]  # one of them twice
    merge_shards(store, claimed)
    (shard,) = store.shards()
    assert shard.audio_ids[:6] == [claimed[n].audio_id for n in (0, 0, 1, 1, 3, 3)]
    assert shard.clips["clip"].tolist() == [0, 1] * 20
    assert shard.clips["start_s"].tolist() == [0.0, 1.5] * 20
    assert set(shard.clips["n_clips"].tolist()) == {2}
    check_values(store, tracks)


def test_a_big_shard_stays_and_new_ones_are_cut_at_the_size(
    store: FeatureStore, tracks: list[Track], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("datamodules.features.shards.SHARD_BYTES", 16 * 30)  # 30 bytes a clip
    merge_shards(store, tracks)
    assert sorted(len(shard.audio_ids) for shard in store.shards()) == [8, 16, 16]
    check_values(store, tracks)

    small = min(path.stat().st_size for path in shard_paths(store.folder)) + 1
    monkeypatch.setattr(merging, "_SMALL_BYTES", small)
    for number in range(10):
        write_items(store.folder.parent, item(f"u{number}", 0, 1))
    big = [path for path in shard_paths(store.folder) if path.stat().st_size >= small]
    merge_shards(store, tracks)
    assert {*big} < {*shard_paths(store.folder)}
    assert len(shard_paths(store.folder)) == len(big) + 2
    check_values(store, tracks)


def test_few_small_shards_stay_as_they_are(tmp_path: Path) -> None:
    names = NAMES[:7]
    paths = [write_items(tmp_path, item(name, 0, 1)) for name in names]
    merge_shards(FeatureStore(tmp_path, ID), wanted(*names))
    assert shard_paths(tmp_path / ID.folder) == sorted(paths)


def test_clips_of_several_rows_stay_whole(tmp_path: Path) -> None:
    frames = {
        name: np.stack([values_of(name, row) for row in range(n_rows)], axis=1)
        for n_rows, name in enumerate(NAMES[:9], start=1)
    }
    for name, values in frames.items():
        clip = item(name, 0, 1)
        write_items(tmp_path, type(clip)(clip.place, values))
    store = FeatureStore(tmp_path, ID)
    merge_shards(store, wanted(*frames))
    assert len(store.shards()) == 1
    clips = store.read(wanted(*frames))
    for position, values in enumerate(frames.values()):
        np.testing.assert_array_equal(clips.read(position), values)


def test_a_second_merge_changes_nothing(store: FeatureStore, tracks: list[Track]) -> None:
    merge_shards(store, tracks)
    (path,) = shard_paths(store.folder)
    before = path.stat()
    merge_shards(store, tracks)
    assert shard_paths(store.folder) == [path]
    assert path.stat() == before


class _Killed(BaseException):
    pass


@pytest.mark.parametrize("n_deleted", range(10))
def test_a_kill_between_any_two_deletions_loses_nothing_and_the_next_merge_clears_up(
    n_deleted: int, store: FeatureStore, tracks: list[Track], monkeypatch: pytest.MonkeyPatch
) -> None:
    left = [n_deleted]
    real = Path.unlink

    def unlink(path: Path, missing_ok: bool = False) -> None:
        if path.name.startswith("part-"):
            if left[0] == 0:
                raise _Killed
            left[0] -= 1
        real(path, missing_ok=missing_ok)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", unlink)
        with pytest.raises(_Killed):
            merge_shards(store, tracks)
    assert len(shard_paths(store.folder)) == 11 - n_deleted
    check_values(FeatureStore(store.folder.parent, ID), tracks)

    merge_shards(FeatureStore(store.folder.parent, ID), tracks)
    assert len(shard_paths(store.folder)) == 1
    check_values(store, tracks)


def test_what_is_in_a_big_shard_already_is_not_written_again(
    tmp_path: Path, store: FeatureStore, tracks: list[Track], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a kill before the first deletion."""
    big = write_items(tmp_path, *[item(name, clip) for name in NAMES for clip in (0, 1)])
    monkeypatch.setattr(merging, "_SMALL_BYTES", big.stat().st_size)
    merge_shards(store, tracks)
    assert shard_paths(store.folder) == [big]
    check_values(store, tracks)


def test_a_kill_before_the_new_shard_is_whole_leaves_the_old_ones(
    store: FeatureStore, tracks: list[Track], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = shard_paths(store.folder)

    def die(_descriptor: int) -> None:
        raise _Killed

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", die)
        with pytest.raises(_Killed):
            merge_shards(store, tracks)
    assert shard_paths(store.folder) == before
    check_values(store, tracks)


def test_a_new_shard_that_did_not_reach_the_disk_costs_no_old_one(
    store: FeatureStore, tracks: list[Track], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = shard_paths(store.folder)
    real = merging.ShardWriter.close

    def close(writer: merging.ShardWriter) -> None:
        real(writer)
        (new,) = set(shard_paths(store.folder)) - set(before)
        flip(new, 2000)

    monkeypatch.setattr(merging.ShardWriter, "close", close)
    with pytest.raises(UserError, match=r"shard .* is broken: its checksum"):
        merge_shards(store, tracks)
    assert {*before} < {*shard_paths(store.folder)}


def test_a_torn_shard_is_named_and_nothing_is_touched(
    store: FeatureStore, tracks: list[Track]
) -> None:
    torn = shard_paths(store.folder)[4]
    torn.write_bytes(torn.read_bytes()[:-1])
    before = shard_paths(store.folder)
    with pytest.raises(UserError, match=f"shard {torn} is broken"):
        merge_shards(store, tracks)
    assert shard_paths(store.folder) == before


def test_a_shard_that_vanishes_on_the_way_is_named_and_no_other_is_deleted(
    store: FeatureStore, tracks: list[Track], monkeypatch: pytest.MonkeyPatch
) -> None:
    *others, gone = shard_paths(store.folder)
    monkeypatch.setattr(merging, "free_bytes", lambda _folder: gone.unlink() or 10**12)
    with pytest.raises(UserError, match=f"cannot read the shard {gone}"):
        merge_shards(store, tracks)
    assert {*others} <= {*shard_paths(store.folder)}


def test_without_room_for_a_copy_the_shards_stay_and_it_is_said(
    store: FeatureStore, tracks: list[Track], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = shard_paths(store.folder)
    monkeypatch.setattr(merging, "free_bytes", lambda _folder: 1000)
    problem = merge_shards(store, tracks)
    assert problem is not None
    assert problem.startswith(f"10 small shards in {store.folder} are not joined")
    assert shard_paths(store.folder) == before
    monkeypatch.undo()


def test_more_small_shards_than_a_process_may_open_files(
    store: FeatureStore, tracks: list[Track], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mapped files stay open, so only some are mapped at once."""
    monkeypatch.setattr(merging, "_MOST_OPEN", 2)
    merge_shards(store, tracks)
    check_values(store, tracks)


def test_a_reader_that_lists_the_shards_just_before_they_are_joined_finds_the_new_one(
    store: FeatureStore, tracks: list[Track], monkeypatch: pytest.MonkeyPatch
) -> None:
    other = FeatureStore(store.folder.parent, ID)
    real = merging.FeatureStore.shards.__globals__["read_shard"]
    is_first = [True]

    def merge_first(path: Path, identity: object) -> object:
        if is_first.pop() if is_first else False:
            monkeypatch.undo()
            merge_shards(other, tracks)
        return real(path, identity)

    monkeypatch.setattr("datamodules.features.store.read_shard", merge_first)
    assert len(store.read(tracks)) == 40
    check_values(store, tracks)


def test_the_time_that_a_last_row_covers_goes_along(tmp_path: Path) -> None:
    """Else the mean of a clip with a short rest would change when its shard is joined."""
    shares = [0.25, 1.0, 0.5]
    for number, share in enumerate(shares):
        values = np.arange(45, dtype=np.float16).reshape(3, 3, 5)
        place = ClipPlace(audio_of(NAMES[number]), 0, 1, 0.0)
        write_items(tmp_path, ClipFeatures(place, values + number, share))
    tracks = wanted(*NAMES[:3])
    expected = FeatureStore(tmp_path, ID).read(tracks).read_all()

    many = FeatureStore(tmp_path, ID)
    for number in range(3, 12):  # so many that joining pays
        write_items(tmp_path, item(NAMES[number], n_clips=1))
    merge_shards(many, wanted(*NAMES))
    assert len(shard_paths(many.folder)) == 1
    np.testing.assert_array_equal(FeatureStore(tmp_path, ID).read(tracks).read_all(), expected)
