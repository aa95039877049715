"""The feature store: what it holds and lacks, and that it reads each shard once."""

import errno
import json
import os
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from toy_store import (
    AUDIO,
    DIM,
    ID,
    N_LAYERS,
    TRACKS,
    item,
    shard_paths,
    stacked,
    values_of,
    wanted,
    write_items,
    write_toy_store,
)
from toy_tracks import audio_of

import datamodules.features.shards
import datamodules.features.store
from datamodules.errors import UserError
from datamodules.features.store import (
    FeatureStore,
    StoredAudio,
    parse_store_id,
    store_id_text,
)


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    """Three tracks of two clips each, in two shards that the object has not seen yet."""
    return write_toy_store(tmp_path)


# What a store is asked for; each needs every shard.
QUESTIONS: dict[str, Callable[[FeatureStore], object]] = {
    "shards": lambda store: store.shards(),
    "inventory": lambda store: store.inventory(),
    "missing": lambda store: store.missing(wanted(*TRACKS)),
    "read": lambda store: store.read(wanted(*TRACKS)),
}
asked = pytest.mark.parametrize("ask", QUESTIONS.values(), ids=QUESTIONS)

# -- round trip ------------------------------------------------------------------------------------


def test_values_and_ids_come_back_sorted_by_track_and_clip(store: FeatureStore) -> None:
    clips = store.read(wanted(*TRACKS))
    assert clips.shape == (N_LAYERS, DIM)
    assert clips.track.tolist() == [0, 0, 1, 1, 2, 2]
    assert clips.start_s.tolist() == [0.0, 1.5] * 3
    assert clips.n_rows.tolist() == [1] * 6

    values = clips.read_all()
    assert values.dtype == np.float16
    assert values.shape == (N_LAYERS, 6, DIM)
    expected = stacked([(track, clip) for track in TRACKS for clip in (0, 1)])
    np.testing.assert_array_equal(values, expected)


def test_clips_are_read_one_by_one_or_all_at_once(store: FeatureStore) -> None:
    clips = store.read(wanted(*TRACKS))
    assert len(clips) == 6
    one_by_one = np.concatenate([clips.read(clip) for clip in range(len(clips))], axis=1)
    np.testing.assert_array_equal(one_by_one, clips.read_all())


def test_tracks_come_in_the_order_they_were_asked_for_and_others_stay_out(
    store: FeatureStore,
) -> None:
    two = ["rock.00000", "blues.00029"]
    clips = store.read(wanted(*two))
    assert clips.track.tolist() == [0, 0, 1, 1]
    expected = stacked([(track, clip) for track in two for clip in (0, 1)])
    np.testing.assert_array_equal(clips.read_all(), expected)


def test_more_than_ten_clips_of_a_track_are_sorted_as_numbers(tmp_path: Path) -> None:
    write_items(tmp_path, *[item("a", clip, 12) for clip in reversed(range(12))])
    values = FeatureStore(tmp_path, ID).read(wanted("a")).read_all()
    np.testing.assert_array_equal(values, stacked([("a", clip) for clip in range(12)]))


@pytest.mark.parametrize(
    "track_id", ["Überlauf/é 1", "bass_synthetic_009-010-025", "1224698", "日本"]
)
def test_any_name_of_audio_survives(tmp_path: Path, track_id: str) -> None:
    write_items(tmp_path, item(track_id, 0, 1))
    store = FeatureStore(tmp_path, ID)
    assert list(store.inventory()) == [audio_of(track_id)]
    values = store.read(wanted(track_id)).read_all()
    np.testing.assert_array_equal(values[:, 0], values_of(track_id, 0))


def test_clips_of_several_rows_are_read_whole(tmp_path: Path) -> None:
    """Frames of the label grid: clip after clip in a shard, of different lengths."""
    rows = {"a": 4, "b": 1, "c": 7}
    values = {
        name: np.stack([values_of(name, row) for row in range(n_rows)], axis=1)
        for name, n_rows in rows.items()
    }
    write_items(tmp_path, *[replace(item(name, 0, 1), values=values[name]) for name in "cab"])
    clips = FeatureStore(tmp_path, ID).read(wanted("a", "b", "c"))
    assert clips.n_rows.tolist() == [4, 1, 7]
    for position, name in enumerate("abc"):
        np.testing.assert_array_equal(clips.read(position), values[name])


def test_values_stay_on_disk_until_they_are_read(store: FeatureStore) -> None:
    """The arrays of a store are views of its files, not copies."""
    clips = store.read(wanted(*TRACKS))
    layers = [layer for shard in store.shards() for layer in shard.layers()]
    assert len(layers) == 2 * N_LAYERS
    assert all(isinstance(layer.base, np.memmap) for layer in layers)
    assert sum(len(stored.clips) for stored in store.inventory().values()) == len(clips)


def test_tracks_of_equal_audio_each_have_its_clips(store: FeatureStore) -> None:
    """Equal files under several names are stored once."""
    first, other = wanted("rock.00000", "blues.00029")
    copies = [replace(first, track_id="copy"), other, first]
    clips = store.read(copies)
    assert clips.track.tolist() == [0, 0, 1, 1, 2, 2]
    rock = stacked([("rock.00000", 0), ("rock.00000", 1)])
    values = clips.read_all()
    np.testing.assert_array_equal(values[:, :2], rock)
    np.testing.assert_array_equal(values[:, 4:], rock)
    np.testing.assert_array_equal(values[:, 2:4], stacked([("blues.00029", n) for n in (0, 1)]))


def test_a_track_is_found_by_its_audio_and_not_by_its_name(store: FeatureStore) -> None:
    (rock,) = wanted("rock.00000")
    renamed = replace(rock, track_id="renamed")
    assert store.missing([renamed]) == []
    np.testing.assert_array_equal(store.read([renamed]).read(1), store.read([rock]).read(1))

    other_audio = replace(rock, audio_id="another sound")
    not_read_yet = replace(rock, audio_id="")
    assert store.missing([other_audio, not_read_yet]) == [other_audio, not_read_yet]
    with pytest.raises(UserError, match=r"1 of 1 tracks have no features .*first: rock\.00000"):
        store.read([other_audio])


# -- several writers -------------------------------------------------------------------------------


def test_shards_of_several_writers_are_merged(tmp_path: Path) -> None:
    ids = [f"t{number:02d}" for number in range(20)]
    writers = [FeatureStore(tmp_path, ID).writer(shard_clips=3) for _ in range(2)]
    for number, track in enumerate(ids):
        writers[number % 2].add([item(track, 1), item(track, 0)])
    for writer in writers:
        writer.close()

    store = FeatureStore(tmp_path, ID)
    assert len(shard_paths(store.folder)) > 2
    clips = store.read(wanted(*ids))
    assert clips.track.tolist() == [track for track in range(20) for _ in range(2)]
    expected = stacked([(track, clip) for track in ids for clip in (0, 1)])
    np.testing.assert_array_equal(clips.read_all(), expected)


def test_a_clip_that_two_writers_stored_counts_once(tmp_path: Path, store: FeatureStore) -> None:
    write_items(tmp_path, item("jazz.00099", 0), item("jazz.00099", 1))
    assert store.read(wanted(*TRACKS)).track.tolist() == [0, 0, 1, 1, 2, 2]
    assert store.inventory()[audio_of("jazz.00099")].clips == {0, 1}


def test_a_clip_that_stands_twice_in_one_shard_counts_once(tmp_path: Path) -> None:
    write_items(tmp_path, item("a", 0), item("a", 1), item("a", 0))
    assert FeatureStore(tmp_path, ID).read(wanted("a")).track.tolist() == [0, 0]


# -- what is there, and what is not ----------------------------------------------------------------


def test_inventory_tells_whole_and_partial_tracks(tmp_path: Path) -> None:
    store, a, b = FeatureStore(tmp_path, ID), audio_of("a"), audio_of("b")
    assert store.inventory() == {}
    write_items(tmp_path, item("a", 0, 1), item("b", 2, 3))
    write_items(tmp_path, item("b", 0, 3))
    inventory = store.inventory()
    assert inventory == {
        a: StoredAudio(1, frozenset({0})),
        b: StoredAudio(3, frozenset({0, 2})),
    }
    assert (inventory[a].complete, inventory[b].complete) == (True, False)


def test_tracks_that_are_not_wholly_stored_are_missing(tmp_path: Path) -> None:
    tracks = wanted("partial", "complete", "absent")
    store = FeatureStore(tmp_path, ID)
    assert store.missing(tracks) == tracks  # there is not even a folder

    write_items(tmp_path, item("partial", 0, 3), item("complete", 0), item("partial", 2, 3))
    write_items(tmp_path, item("complete", 1))
    assert [track.track_id for track in store.missing(tracks)] == ["partial", "absent"]


def test_nothing_is_missing_when_all_is_stored(store: FeatureStore) -> None:
    assert store.missing(wanted(*TRACKS)) == []


def test_missing_tracks_are_counted_and_the_first_is_named(store: FeatureStore) -> None:
    pattern = r"2 of 4 tracks have no features in .* \(first: pop\.00001\): run `mirprobe extract`"
    with pytest.raises(UserError, match=pattern):
        store.read(wanted("rock.00000", "pop.00001", "blues.00029", "pop.00002"))


def test_an_empty_or_missing_store_misses_every_track(tmp_path: Path) -> None:
    empty = FeatureStore(tmp_path, ID)
    empty.prepare()
    for store in (empty, FeatureStore(tmp_path / "nowhere", ID)):
        with pytest.raises(UserError, match=r"1 of 1 tracks have no features .*first: a"):
            store.read(wanted("a"))


def test_a_track_of_which_some_clips_are_missing_is_not_read(store: FeatureStore) -> None:
    shard_paths(store.folder)[0].unlink()  # every track has lost one of its two clips
    with pytest.raises(UserError, match="3 of 3 tracks"):
        store.read(wanted(*TRACKS))


# -- each shard once -------------------------------------------------------------------------------


@pytest.fixture
def n_calls(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How often shards were read from disk, and how often a checksum was taken."""
    counts = {"read_shard": 0, "_digest": 0}

    def count(module: object, name: str) -> None:
        function = getattr(module, name)

        def counted(*arguments: object) -> object:
            counts[name] += 1
            return function(*arguments)

        monkeypatch.setattr(module, name, counted)

    count(datamodules.features.store, "read_shard")
    count(datamodules.features.shards, "_digest")
    return counts


def test_a_shard_is_read_and_verified_once_whatever_is_asked(
    store: FeatureStore, n_calls: dict[str, int]
) -> None:
    for _ in range(3):
        for ask in QUESTIONS.values():
            ask(store)
        clips = store.read(wanted(*TRACKS[1:]))
        clips.read(0)
        clips.read_all()
    assert n_calls == {"read_shard": 2, "_digest": 2}


def test_only_the_shard_that_another_process_added_is_read(
    tmp_path: Path, store: FeatureStore, n_calls: dict[str, int]
) -> None:
    assert set(store.inventory()) == set(AUDIO)
    path = write_items(tmp_path, item("pop.00001", 0, 1))
    before = dict(n_calls)
    assert set(store.inventory()) == {*AUDIO, audio_of("pop.00001")}
    assert {name: n_calls[name] - before[name] for name in n_calls} == {
        "read_shard": 1,
        "_digest": 1,
    }

    path.unlink()  # what is gone is no longer said to be there
    assert set(store.inventory()) == set(AUDIO)


def test_a_shard_that_this_process_wrote_is_not_read_again(
    tmp_path: Path, n_calls: dict[str, int]
) -> None:
    store = FeatureStore(tmp_path, ID)
    store.prepare()
    writer = store.writer(shard_clips=2)
    for track in TRACKS:
        writer.add([item(track, 1), item(track, 0)])
    writer.close()

    for ask in QUESTIONS.values():
        ask(store)
    values = store.read(wanted(*TRACKS)).read_all()
    assert n_calls == {"read_shard": 0, "_digest": 3}  # the checksums name the three files

    again = FeatureStore(tmp_path, ID)  # what was remembered is what is in the files
    assert again.inventory() == store.inventory()
    np.testing.assert_array_equal(again.read(wanted(*TRACKS)).read_all(), values)
    assert n_calls["read_shard"] == 3


def test_a_store_may_have_more_shards_than_a_process_may_open_files(tmp_path: Path) -> None:
    def n_open_files() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    before = n_open_files()
    for number in range(20):
        write_items(tmp_path, item(f"t{number}", 0, 1))
    store = FeatureStore(tmp_path, ID)
    clips = store.read(wanted(*(f"t{number}" for number in range(20))))
    clips.read_all()
    assert n_open_files() - before < 5


# -- what must not be read -------------------------------------------------------------------------


@asked
def test_a_broken_shard_is_named_whatever_is_asked(
    store: FeatureStore, ask: Callable[[FeatureStore], object]
) -> None:
    broken = shard_paths(store.folder)[1]
    broken.write_bytes(broken.read_bytes()[:-1])
    pattern = rf"shard .*{broken.name} is broken: .*Delete this file and run the same command"
    for _ in range(2):  # it is not remembered as good
        with pytest.raises(UserError, match=pattern):
            ask(store)

    broken.unlink()
    store.inventory()


@asked
@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO])
def test_a_shard_that_cannot_be_read_is_not_called_broken(
    store: FeatureStore,
    monkeypatch: pytest.MonkeyPatch,
    ask: Callable[[FeatureStore], object],
    number: int,
) -> None:
    """The advice to delete it would cost features that are fine."""

    def refuse(path: Path) -> bytes:
        raise OSError(number, os.strerror(number), str(path))

    first = shard_paths(store.folder)[0]
    with monkeypatch.context() as patched:
        patched.setattr(Path, "read_bytes", refuse)
        with pytest.raises(UserError) as error:
            ask(store)
    assert str(error.value) == (
        f"cannot read the shard {first} ({os.strerror(number)}): check its permissions and its disk"
    )
    assert first.exists()
    ask(store)  # once it can be read, all is well


@asked
def test_a_shard_of_another_configuration_is_refused_and_the_difference_told(
    tmp_path: Path, store: FeatureStore, ask: Callable[[FeatureStore], object]
) -> None:
    write_items(tmp_path, item("pop.00001"), id=replace(ID, fingerprint="ffffff"))
    pattern = r"written by another configuration \(fingerprint is 'ffffff', wanted '0a1b2c'\)"
    with pytest.raises(UserError, match=pattern):
        ask(store)


def test_temporary_files_of_a_running_writer_are_never_read(store: FeatureStore) -> None:
    (store.folder / ".part-0123.h5.89abcdef.tmp").write_bytes(b"half")
    assert set(store.inventory()) == set(AUDIO)


# -- the folder ------------------------------------------------------------------------------------


def test_prepare_describes_the_store_and_removes_what_a_killed_writer_left(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path, ID)
    assert store.folder == tmp_path / ID.folder
    store.prepare()
    assert json.loads((store.folder / "store.json").read_text()) == asdict(ID)
    (store.folder / ".part-0123.h5.89abcdef.tmp").write_bytes(b"half")
    store.prepare()
    assert [path.name for path in store.folder.iterdir()] == ["store.json"]


def test_prepare_refuses_a_folder_of_another_configuration(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path, ID)
    store.prepare()
    other = replace(ID, clip_rule="30s", precision="bf16")
    (store.folder / "store.json").write_text(store_id_text(other))
    pattern = (
        r"clip_rule is '30s', wanted '1s', precision is 'bf16', wanted 'float32'.*extract again"
    )
    with pytest.raises(UserError, match=pattern):
        store.prepare()


@pytest.mark.parametrize("text", ["", "{", "[]", "7"])
def test_prepare_refuses_a_description_that_is_none(tmp_path: Path, text: str) -> None:
    store = FeatureStore(tmp_path, ID)
    store.folder.mkdir()
    (store.folder / "store.json").write_text(text)
    with pytest.raises(UserError, match=r"store\.json is not a description of a feature store"):
        store.prepare()


# -- the id ----------------------------------------------------------------------------------------


def test_every_field_of_the_id_changes_its_hash_and_its_folder() -> None:
    others = [replace(ID, **{name: "other"}) for name in asdict(ID)]
    assert len({id.hash for id in [ID, *others]}) == 8
    assert len({id.folder for id in [ID, *others]}) == 8
    assert ID.folder == f"toy-1s-fcpe-mean-float32-{ID.hash}"
    assert len(ID.hash) == 12


def test_the_hash_is_the_one_that_stores_on_disk_have() -> None:
    assert ID.hash == "1a3a63a3d946"


def test_an_id_comes_back_from_its_text() -> None:
    assert parse_store_id(store_id_text(ID)) == ID
    assert json.loads(store_id_text(ID)) == asdict(ID)


@pytest.mark.parametrize("text", ["", "{", "[]", "7", '{"backbone": "fcpe"}', '{"backbone": 3}'])
def test_a_text_that_is_no_id_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_store_id(text)


def test_an_id_with_a_field_too_many_is_refused() -> None:
    with pytest.raises(ValueError, match="key"):
        parse_store_id(json.dumps({**asdict(ID), "key": "C major"}))
