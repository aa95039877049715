"""The feature store: what is written is read back, what is torn or foreign is never read."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from datamodules.audio.clips import Clip
from datamodules.errors import UserError
from datamodules.features.shards import ClipFeatures, ShardWriter, write_shard
from datamodules.features.store import (
    StoredTrack,
    StoreKey,
    prepare_store,
    read_features,
    read_inventory,
)

KEY = StoreKey("fcpe", "0a1b2c", "toy", "1s", "mean", "soxr-HQ", "float32")
N_LAYERS, DIM = 3, 5  # layers 0..2
TRACKS = ("blues.00029", "jazz.00099", "rock.00000")


def values_of(track_id: str, clip: int, n_layers: int = N_LAYERS, dim: int = DIM) -> np.ndarray:
    """(L+1, D) float16 that no other clip has."""
    seed = int.from_bytes(f"{track_id}/{clip}".encode(), "little") % 2**32
    return np.random.default_rng(seed).standard_normal((n_layers, dim)).astype(np.float16)


def item(track_id: str, clip: int = 0, n_clips: int = 2) -> ClipFeatures:
    audio = np.zeros(1, np.float32)
    return ClipFeatures(
        Clip(track_id, clip, n_clips, 1.5 * clip, audio, 1234),
        99 + clip,
        values_of(track_id, clip)[:, None],
    )


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Three tracks of two clips each, in two shards that cut through the second track, in no good
    order.
    """
    write_shard(
        tmp_path, KEY, [item("rock.00000", 1), item("jazz.00099", 0), item("blues.00029", 1)]
    )
    write_shard(
        tmp_path, KEY, [item("blues.00029", 0), item("jazz.00099", 1), item("rock.00000", 0)]
    )
    return tmp_path


def shards(folder: Path) -> list[Path]:
    return sorted(folder.glob("part-*.h5"))


def flip(path: Path, offset: int) -> None:
    content = bytearray(path.read_bytes())
    content[offset] ^= 0x01
    path.write_bytes(content)


# -- round trip ------------------------------------------------------------------------------------


def test_values_and_ids_come_back_sorted_by_track_and_clip(store: Path) -> None:
    features = read_features(store, KEY, TRACKS)
    assert features.values.dtype == np.float16
    assert features.values.shape == (N_LAYERS, 6, DIM)
    assert features.track.tolist() == [0, 0, 1, 1, 2, 2]
    expected = np.stack([values_of(track, clip) for track in TRACKS for clip in (0, 1)], axis=1)
    np.testing.assert_array_equal(features.values, expected)


def test_tracks_come_in_the_order_they_were_asked_for_and_others_stay_out(store: Path) -> None:
    features = read_features(store, KEY, ["rock.00000", "blues.00029"])
    assert features.track.tolist() == [0, 0, 1, 1]
    expected = np.stack(
        [values_of(track, clip) for track in ("rock.00000", "blues.00029") for clip in (0, 1)],
        axis=1,
    )
    np.testing.assert_array_equal(features.values, expected)


def test_more_than_ten_clips_of_a_track_are_sorted_as_numbers(tmp_path: Path) -> None:
    write_shard(tmp_path, KEY, [item("a", clip, 12) for clip in reversed(range(12))])
    expected = np.stack([values_of("a", clip) for clip in range(12)], axis=1)
    np.testing.assert_array_equal(read_features(tmp_path, KEY, ["a"]).values, expected)


@pytest.mark.parametrize(
    "track_id", ["Überlauf/é 1", "bass_synthetic_009-010-025", "1224698", "日本"]
)
def test_any_track_id_survives(tmp_path: Path, track_id: str) -> None:
    write_shard(tmp_path, KEY, [item(track_id, 0, 1)])
    assert list(read_inventory(tmp_path, KEY)) == [track_id]
    np.testing.assert_array_equal(
        read_features(tmp_path, KEY, [track_id]).values[:, 0], values_of(track_id, 0)
    )


def test_extreme_float16_values_survive(tmp_path: Path) -> None:
    values = np.array([[65504, -65504, 6e-8, 0, -0.0]] * N_LAYERS, np.float16)
    write_shard(tmp_path, KEY, [replace(item("a", 0, 1), values=values[:, None])])
    np.testing.assert_array_equal(read_features(tmp_path, KEY, ["a"]).values[:, 0], values)


def test_a_shard_holds_one_contiguous_float16_dataset_per_layer(store: Path) -> None:
    with h5py.File(shards(store)[0]) as file:
        layers = [name for name in file if name.startswith("layer")]
        assert layers == ["layer_00", "layer_01", "layer_02"]
        for name in layers:
            assert file[name].shape == (3, DIM)
            assert file[name].dtype == np.float16
            assert file[name].chunks is None  # contiguous
            assert file[name].compression is None
            assert file[name].id.get_offset() is not None


def test_a_shard_tells_ids_lengths_and_configuration(tmp_path: Path) -> None:
    write_shard(tmp_path, KEY, [item("a", 0), item("a", 1)])
    with h5py.File(shards(tmp_path)[0]) as file:
        assert file["track_id"].asstr()[:].tolist() == ["a", "a"]
        assert file["clip"][:].tolist() == [0, 1]
        assert file["n_clips"][:].tolist() == [2, 2]
        assert file["start_s"][:].tolist() == [0.0, 1.5]
        assert file["n_frames"][:].tolist() == [99, 100]
        assert json.loads(file.attrs["key"]) == asdict(KEY)


# -- several writers -------------------------------------------------------------------------------


def test_shards_of_several_writers_are_merged(tmp_path: Path) -> None:
    ids = [f"t{number:02d}" for number in range(20)]
    writers = [ShardWriter(tmp_path, KEY, shard_clips=3) for _ in range(2)]
    for number, track in enumerate(ids):
        writers[number % 2].add([item(track, 1), item(track, 0)])
    for writer in writers:
        writer.close()
    assert len(shards(tmp_path)) > 2
    features = read_features(tmp_path, KEY, ids)
    assert features.track.tolist() == [track for track in range(20) for _ in range(2)]
    expected = np.stack([values_of(track, clip) for track in ids for clip in (0, 1)], axis=1)
    np.testing.assert_array_equal(features.values, expected)


def test_a_clip_that_two_writers_stored_counts_once(store: Path) -> None:
    write_shard(store, KEY, [item("jazz.00099", 0), item("jazz.00099", 1)])
    features = read_features(store, KEY, TRACKS)
    assert features.track.tolist() == [0, 0, 1, 1, 2, 2]
    assert read_inventory(store, KEY)["jazz.00099"].clips == {0, 1}


def test_a_clip_that_stands_twice_in_one_shard_counts_once(tmp_path: Path) -> None:
    write_shard(tmp_path, KEY, [item("a", 0), item("a", 1), item("a", 0)])
    assert read_features(tmp_path, KEY, ["a"]).track.tolist() == [0, 0]


def test_inventory_tells_whole_and_partial_tracks(tmp_path: Path) -> None:
    assert read_inventory(tmp_path, KEY) == {}
    write_shard(tmp_path, KEY, [item("a", 0, 1), item("b", 2, 3)])
    write_shard(tmp_path, KEY, [item("b", 0, 3)])
    inventory = read_inventory(tmp_path, KEY)
    assert inventory == {
        "a": StoredTrack(1, 1234, frozenset({0})),
        "b": StoredTrack(3, 1234, frozenset({0, 2})),
    }
    assert (inventory["a"].complete, inventory["b"].complete) == (True, False)


# -- what must not be read -------------------------------------------------------------------------


def test_missing_tracks_are_counted_and_the_first_is_named(store: Path) -> None:
    with pytest.raises(
        UserError,
        match=r"2 of 4 tracks have no features in .* \(first: pop\.00001\): run `mirprobe extract`",
    ):
        read_features(store, KEY, ["rock.00000", "pop.00001", "blues.00029", "pop.00002"])


def test_an_empty_or_missing_store_misses_every_track(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(UserError, match=r"1 of 1 tracks have no features .*first: a"):
            read_features(folder, KEY, ["a"])


def test_a_track_of_which_some_clips_are_missing_is_not_read(store: Path) -> None:
    shards(store)[0].unlink()  # every track has lost one of its two clips
    with pytest.raises(UserError, match="3 of 3 tracks"):
        read_features(store, KEY, TRACKS)


READERS: list[Callable[[Path], object]] = [
    lambda folder: read_features(folder, KEY, TRACKS),
    lambda folder: read_inventory(folder, KEY),
]


@pytest.mark.parametrize("read", READERS, ids=["features", "inventory"])
@pytest.mark.parametrize("share", [0.0, 0.05, 0.5, 0.9, 0.999])
def test_a_truncated_shard_is_named_and_told_to_be_deleted(
    store: Path, read: Callable[[Path], object], share: float
) -> None:
    broken = shards(store)[1]
    content = broken.read_bytes()
    broken.write_bytes(content[: int(share * len(content))])
    with pytest.raises(
        UserError,
        match=rf"shard .*{broken.name} is broken: .*Delete this file and run the same command",
    ) as error:
        read(store)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("read", READERS, ids=["features", "inventory"])
def test_a_shard_that_is_no_hdf5_is_broken(store: Path, read: Callable[[Path], object]) -> None:
    shards(store)[0].write_text("<html>not found</html>")
    with pytest.raises(UserError, match="is broken"):
        read(store)


@pytest.mark.parametrize("layer", range(N_LAYERS))
@pytest.mark.parametrize("byte", [0, 2 * 3 * DIM - 1])
def test_one_flipped_bit_in_any_layer_is_found_by_the_checksum(
    store: Path, layer: int, byte: int
) -> None:
    broken = shards(store)[0]
    with h5py.File(broken) as file:
        offset = file[f"layer_{layer:02d}"].id.get_offset()
    flip(broken, offset + byte)
    with pytest.raises(
        UserError, match=rf"{broken.name} is broken: its checksum does not match its content"
    ):
        read_features(store, KEY, TRACKS)


def test_one_flipped_bit_in_a_clip_number_is_found(store: Path) -> None:
    broken = shards(store)[0]
    with h5py.File(broken) as file:
        offset = file["clip"].id.get_offset()
    flip(broken, offset)
    with pytest.raises(UserError, match="is broken"):
        read_features(store, KEY, TRACKS)


def test_one_flipped_bit_in_a_track_id_is_found(store: Path) -> None:
    broken = shards(store)[0]
    flip(broken, broken.read_bytes().index(b"blues.00029"))  # becomes clues.00029
    with pytest.raises(UserError, match="is broken"):
        read_features(store, KEY, TRACKS)


@pytest.mark.parametrize("read", READERS, ids=["features", "inventory"])
@pytest.mark.parametrize("signature", [b"OHDR", b"FRHP", b"FHDB", b"BTHD"])
def test_a_damaged_hdf5_structure_is_a_broken_shard_and_no_traceback(
    store: Path, read: Callable[[Path], object], signature: bytes
) -> None:
    broken = shards(store)[0]
    before = read(store)
    flip(broken, broken.read_bytes().index(signature) + 4)
    try:
        after = read(store)
    except UserError as error:
        assert f"{broken.name} is broken" in str(error)
    else:  # this part of the file is not needed by this reader
        assert repr(after) == repr(before)


@pytest.mark.parametrize("read", READERS, ids=["features", "inventory"])
def test_a_shard_of_another_configuration_is_refused_and_the_difference_told(
    store: Path, read: Callable[[Path], object]
) -> None:
    write_shard(store, replace(KEY, fingerprint="ffffff"), [item("pop.00001")])
    with pytest.raises(
        UserError,
        match=r"written by another configuration \(fingerprint is 'ffffff', wanted '0a1b2c'\)",
    ):
        read(store)


def test_temporary_files_of_a_running_writer_are_never_read(store: Path) -> None:
    (store / ".part-0123.h5.89abcdef.tmp").write_bytes(b"half")
    assert set(read_inventory(store, KEY)) == set(TRACKS)


# -- the folder ------------------------------------------------------------------------------------


def test_prepare_store_writes_the_key_and_removes_what_a_killed_writer_left(tmp_path: Path) -> None:
    folder = tmp_path / KEY.folder
    prepare_store(folder, KEY)
    assert json.loads((folder / "store.json").read_text()) == asdict(KEY)
    (folder / ".part-0123.h5.89abcdef.tmp").write_bytes(b"half")
    prepare_store(folder, KEY)
    assert [path.name for path in folder.iterdir()] == ["store.json"]


def test_prepare_store_refuses_a_folder_of_another_configuration(tmp_path: Path) -> None:
    prepare_store(tmp_path, KEY)
    other = replace(KEY, clip_rule="30s", precision="bf16")
    with pytest.raises(
        UserError,
        match=r"clip_rule is '1s', wanted '30s', precision is 'float32', wanted 'bf16'.*extract again",
    ):
        prepare_store(tmp_path, other)


@pytest.mark.parametrize("text", ["", "{", "[]", "7"])
def test_prepare_store_refuses_a_description_that_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "store.json").write_text(text)
    with pytest.raises(UserError, match=r"store\.json is not a description of a feature store"):
        prepare_store(tmp_path, KEY)


def test_every_field_of_the_key_changes_its_hash_and_its_folder() -> None:
    others = [replace(KEY, **{name: "other"}) for name in asdict(KEY)]
    assert len({key.hash for key in [KEY, *others]}) == 8
    assert len({key.folder for key in [KEY, *others]}) == 8
    assert KEY.folder == f"toy-1s-fcpe-mean-float32-{KEY.hash}"
    assert len(KEY.hash) == 12


# -- the writer ------------------------------------------------------------------------------------


def test_a_shard_is_closed_at_shard_clips(tmp_path: Path) -> None:
    writer = ShardWriter(tmp_path, KEY, shard_clips=4)
    for number in range(10):
        writer.add([item(f"t{number}", 0, 1)])
    writer.close()
    sizes = []
    for path in shards(tmp_path):
        with h5py.File(path) as file:
            sizes.append(len(file["clip"]))
    assert sorted(sizes) == [2, 4, 4]


def test_a_shard_is_closed_after_shard_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    writer = ShardWriter(tmp_path, KEY, shard_clips=512, shard_seconds=60.0)
    for second in (0, 30, 59):
        now[0] = 1000.0 + second
        writer.add([item(f"t{second}", 0, 1)])
    assert shards(tmp_path) == []
    now[0] = 1061.0
    writer.add([item("t61", 0, 1)])
    writer.add([item("t62", 0, 1)])  # opens the next shard, whose clock starts here
    now[0] = 1120.0
    writer.add([item("t120", 0, 1)])
    writer.close()
    contents = []
    for path in shards(tmp_path):
        with h5py.File(path) as file:
            contents.append(file["track_id"].asstr()[:].tolist())
    assert sorted(contents) == [["t0", "t30", "t59", "t61"], ["t62", "t120"]]


def test_closing_writes_what_is_open_once_and_nothing_makes_no_shard(tmp_path: Path) -> None:
    writer = ShardWriter(tmp_path, KEY)
    writer.close()
    assert shards(tmp_path) == []
    writer = ShardWriter(tmp_path, KEY)
    writer.add([])
    writer.add([item("a", 0, 1)])
    writer.close()
    writer.close()
    assert len(shards(tmp_path)) == 1


def test_an_error_of_the_writing_thread_reaches_the_caller(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_arguments: object) -> None:
        raise UserError("no space left while writing X")

    monkeypatch.setattr("datamodules.features.shards.write_shard", fail)
    writer = ShardWriter(tmp_path, KEY, shard_clips=1)
    writer.add([item("a")])
    with pytest.raises(UserError, match="no space left"):
        writer.add([item("b")])
    writer = ShardWriter(tmp_path, KEY, shard_clips=512)
    writer.add([item("a")])
    with pytest.raises(UserError, match="no space left"):
        writer.close()


# -- kills and full disks, for real ----------------------------------------------------------------

WRITER = """
import resource, sys
from pathlib import Path
import numpy as np
from datamodules.audio.clips import Clip
from datamodules.errors import UserError
from datamodules.features.shards import ClipFeatures, ShardWriter
from datamodules.features.store import StoreKey

folder, limit, n_clips = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
writer = ShardWriter(folder, StoreKey(*KEY), shard_clips=8)
values = np.arange(7 * 512, dtype=np.float16).reshape(7, 1, 512) / 4096
try:
    for number in range(n_clips):
        writer.add([ClipFeatures(Clip(f"t{number}", 0, 1, 0.0, np.zeros(1, np.float32), 1), 9, values + number % 7)])
        print(number + 1, flush=True)
    writer.close()
except UserError as error:
    print(error, flush=True)
    sys.exit(2)
""".replace("*KEY", ", ".join(map(repr, asdict(KEY).values())))


@pytest.mark.parametrize("acknowledged", [1, 40, 133])
def test_kill_9_leaves_whole_shards_only_and_loses_no_closed_one(
    tmp_path: Path, acknowledged: int
) -> None:
    command = [sys.executable, "-c", WRITER, str(tmp_path), "0", "100000"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    while (line := process.stdout.readline()) and int(line) < acknowledged:
        pass
    os.kill(process.pid, 9)
    process.wait()
    process.stdout.close()
    inventory = read_inventory(tmp_path, KEY)
    assert len(inventory) % 8 == 0
    assert len(inventory) >= 8 * (
        acknowledged // 8 - 1
    )  # the shard before the one that is being written is on disk
    assert sorted(inventory) == sorted(f"t{number}" for number in range(len(inventory)))
    ids = [f"t{number}" for number in range(len(inventory))]
    if ids:
        base = np.arange(7 * 512, dtype=np.float16).reshape(7, 512) / 4096
        expected = np.stack([base + np.float16(number % 7) for number in range(len(ids))], axis=1)
        np.testing.assert_array_equal(
            read_features(tmp_path, KEY, ids).values, expected.astype(np.float16)
        )
    prepare_store(tmp_path, KEY)
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("limit", [500, 30_000, 59_000, 61_000])
def test_a_disk_that_fills_up_is_one_line_and_leaves_no_shard(tmp_path: Path, limit: int) -> None:
    """A limit on file sizes stands for the full disk; a shard here takes about 64 kB."""
    done = subprocess.run(
        [sys.executable, "-c", WRITER, str(tmp_path), str(limit), "16"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, "Traceback" in done.stderr) == (2, False), done.stderr[-800:]
    assert "no space left while writing" in done.stdout
    assert list(tmp_path.iterdir()) == []
