"""Shards: what is written is read back, what is torn or foreign is never read."""

import hashlib
import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from toy_store import (
    DIM,
    ID,
    N_LAYERS,
    flip,
    item,
    shard_paths,
    stacked,
    wanted,
    write_items,
)
from toy_tracks import audio_of

from datamodules.errors import UserError
from datamodules.features.shards import Shard, ShardWriter, read_shard, write_shard
from datamodules.features.store import FeatureStore

STORE = asdict(ID)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A shard of three clips."""
    return write_items(
        tmp_path, item("rock.00000", 1), item("jazz.00099", 0), item("blues.00029", 1)
    )


def writer_to(folder: Path, **options: float) -> ShardWriter:
    return ShardWriter(folder, STORE, **options)  # type: ignore[arg-type]


# -- round trip ------------------------------------------------------------------------------------


def test_a_shard_comes_back_as_it_was_written(path: Path) -> None:
    shard = read_shard(path, STORE)
    assert shard.path == path
    assert shard.audio_ids == [
        audio_of(name) for name in ("rock.00000", "jazz.00099", "blues.00029")
    ]
    assert shard.clips["clip"].tolist() == [1, 0, 1]
    assert shard.clips["n_clips"].tolist() == [2, 2, 2]
    assert shard.clips["start_s"].tolist() == [1.5, 0.0, 1.5]
    assert shard.clips["row"].tolist() == [0, 1, 2]
    assert shard.clips["n_rows"].tolist() == [1, 1, 1]
    expected = stacked([("rock.00000", 1), ("jazz.00099", 0), ("blues.00029", 1)])
    np.testing.assert_array_equal(np.stack(shard.layers()), expected)


def test_what_the_writer_knows_is_what_a_reader_finds(tmp_path: Path) -> None:
    written = write_shard(tmp_path, STORE, [item("a", 1), item("b", 0, 1), item("a", 0)])
    check_equal(written, read_shard(written.path, STORE))


def check_equal(first: Shard, second: Shard) -> None:
    assert first.path == second.path
    assert first.audio_ids == second.audio_ids
    np.testing.assert_array_equal(first.clips, second.clips)
    np.testing.assert_array_equal(np.stack(first.layers()), np.stack(second.layers()))


def test_extreme_float16_values_survive(tmp_path: Path) -> None:
    values = np.array([[65504, -65504, 6e-8, 0, -0.0]] * N_LAYERS, np.float16)
    path = write_items(tmp_path, replace(item("a", 0, 1), values=values[:, None]))
    layers = np.stack(read_shard(path, STORE).layers())
    np.testing.assert_array_equal(layers[:, 0], values)


def test_a_shard_holds_one_contiguous_float16_dataset_per_layer(path: Path) -> None:
    with h5py.File(path) as file:
        layers = [name for name in file if name.startswith("layer")]
        assert layers == ["layer_00", "layer_01", "layer_02"]
        for name in layers:
            assert file[name].shape == (3, DIM)
            assert file[name].dtype == np.float16
            assert file[name].chunks is None  # contiguous
            assert file[name].compression is None
            assert file[name].id.get_offset() is not None


def test_a_shard_tells_ids_places_and_configuration(tmp_path: Path) -> None:
    second = replace(item("a", 1), values=np.repeat(item("a", 1).values, 3, axis=1))
    with h5py.File(write_items(tmp_path, item("a", 0), second)) as file:
        assert file["audio_id"].asstr()[:].tolist() == [audio_of("a")] * 2
        assert file["clip"][:].tolist() == [0, 1]
        assert file["n_clips"][:].tolist() == [2, 2]
        assert file["start_s"][:].tolist() == [0.0, 1.5]
        assert file["n_rows"][:].tolist() == [1, 3]
        assert json.loads(file.attrs["key"]) == STORE


def test_a_shard_with_a_column_that_is_no_longer_written_is_read(path: Path) -> None:
    """Features that are stored already had `n_frames`, a clip's frames before pooling."""
    before = read_shard(path, STORE)
    with h5py.File(path, "a") as file:
        file["n_frames"] = np.array([99, 100, 99], np.int32)
    older = renamed_by_content(path)
    after = read_shard(older, STORE)
    check_equal(replace(before, path=older), replace(after, path=older))


def renamed_by_content(path: Path) -> Path:
    """The shard under the name that its checksum gives it."""
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    return path.rename(path.with_name(f"part-{digest}.h5"))


# -- what must not be read -------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.0, 0.05, 0.5, 0.9, 0.999])
def test_a_truncated_shard_is_named_and_told_to_be_deleted(path: Path, share: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    pattern = rf"shard .*{path.name} is broken: .*Delete this file and run the same command"
    with pytest.raises(UserError, match=pattern) as error:
        read_shard(path, STORE)
    assert "\n" not in str(error.value)


def test_a_shard_that_is_no_hdf5_is_broken(path: Path) -> None:
    path.write_text("<html>not found</html>")
    with pytest.raises(UserError, match="is broken"):
        read_shard(path, STORE)
    with pytest.raises(UserError, match="is broken"):
        read_shard(renamed_by_content(path), STORE)


@pytest.mark.parametrize("layer", range(N_LAYERS))
@pytest.mark.parametrize("byte", [0, 2 * 3 * DIM - 1])
def test_one_flipped_bit_in_any_layer_is_found_by_the_checksum(
    path: Path, layer: int, byte: int
) -> None:
    flip(path, read_shard(path, STORE).layer_starts[layer] + byte)
    pattern = rf"{path.name} is broken: its checksum does not match its content"
    with pytest.raises(UserError, match=pattern):
        read_shard(path, STORE)


def test_one_flipped_bit_in_a_clip_number_is_found(path: Path) -> None:
    with h5py.File(path) as file:
        offset = file["clip"].id.get_offset()
    flip(path, offset)
    with pytest.raises(UserError, match="is broken"):
        read_shard(path, STORE)


def test_one_flipped_bit_in_the_id_of_audio_is_found(path: Path) -> None:
    flip(path, path.read_bytes().index(b"blues.00029"))  # becomes clues.00029
    with pytest.raises(UserError, match="is broken"):
        read_shard(path, STORE)


@pytest.mark.parametrize("signature", [b"OHDR", b"FRHP", b"FHDB", b"BTHD"])
def test_a_damaged_hdf5_structure_is_a_broken_shard_and_no_traceback(
    tmp_path: Path, signature: bytes
) -> None:
    deep = replace(item("a"), values=np.repeat(item("a").values, 4, axis=0))  # FCPE has 7 layers
    path = write_items(tmp_path, deep)
    before = read_shard(path, STORE)
    flip(path, path.read_bytes().index(signature) + 4)
    with pytest.raises(UserError, match=f"{path.name} is broken"):
        read_shard(path, STORE)

    # As if it had been written like that: the checksum is right, HDF5 has to find it.
    damaged = renamed_by_content(path)
    try:
        after = read_shard(damaged, STORE)
    except UserError as error:
        assert f"{damaged.name} is broken" in str(error)
        assert "\n" not in str(error)
    else:  # this part of the file is not needed
        assert after.audio_ids == before.audio_ids
        np.testing.assert_array_equal(after.clips, before.clips)


def test_a_shard_of_another_configuration_is_refused_and_the_difference_told(path: Path) -> None:
    pattern = r"written by another configuration \(fingerprint is '0a1b2c', wanted 'ffffff'\)"
    with pytest.raises(UserError, match=pattern):
        read_shard(path, {**STORE, "fingerprint": "ffffff"})


def test_a_shard_that_is_gone_when_its_values_are_read_is_said(path: Path) -> None:
    shard = read_shard(path, STORE)
    path.unlink()
    pattern = rf"cannot read the shard .*{path.name} \(No such file or directory\)"
    with pytest.raises(UserError, match=pattern):
        shard.layers()


# -- the writer ------------------------------------------------------------------------------------


def test_a_shard_is_closed_at_shard_clips(tmp_path: Path) -> None:
    writer = writer_to(tmp_path, shard_clips=4)
    for number in range(10):
        writer.add([item(f"t{number}", 0, 1)])
    writer.close()
    sizes = [len(read_shard(path, STORE).clips) for path in shard_paths(tmp_path)]
    assert sorted(sizes) == [2, 4, 4]


def test_a_shard_is_closed_after_shard_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    writer = writer_to(tmp_path, shard_clips=512, shard_seconds=60.0)
    for second in (0, 30, 59):
        now[0] = 1000.0 + second
        writer.add([item(f"t{second}", 0, 1)])
    assert shard_paths(tmp_path) == []

    now[0] = 1061.0
    writer.add([item("t61", 0, 1)])
    writer.add([item("t62", 0, 1)])  # opens the next shard, whose clock starts here
    now[0] = 1120.0
    writer.add([item("t120", 0, 1)])
    writer.close()

    contents = [read_shard(path, STORE).audio_ids for path in shard_paths(tmp_path)]
    expected = [("t0", "t30", "t59", "t61"), ("t62", "t120")]
    assert sorted(contents) == [[audio_of(name) for name in names] for names in expected]


def test_closing_writes_what_is_open_once_and_nothing_makes_no_shard(tmp_path: Path) -> None:
    writer = writer_to(tmp_path)
    writer.close()
    assert shard_paths(tmp_path) == []

    writer = writer_to(tmp_path)
    writer.add([])
    writer.add([item("a", 0, 1)])
    writer.close()
    writer.close()
    assert len(shard_paths(tmp_path)) == 1


def test_every_shard_is_told_when_it_is_on_disk(tmp_path: Path) -> None:
    told: list[Shard] = []
    writer = ShardWriter(tmp_path, STORE, told.append, shard_clips=2)
    for number in range(5):
        writer.add([item(f"t{number}", 0, 1)])
        assert all(shard.path.exists() for shard in told)
    writer.close()
    expected = [("t0", "t1"), ("t2", "t3"), ("t4",)]
    assert [shard.audio_ids for shard in told] == [
        [audio_of(name) for name in names] for names in expected
    ]
    assert sorted(shard.path for shard in told) == shard_paths(tmp_path)


def test_an_error_of_the_writing_thread_reaches_the_caller(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_arguments: object) -> None:
        raise UserError("no space left while writing X")

    monkeypatch.setattr("datamodules.features.shards.write_shard", fail)
    writer = writer_to(tmp_path, shard_clips=1)
    writer.add([item("a")])
    with pytest.raises(UserError, match="no space left"):
        writer.add([item("b")])

    writer = writer_to(tmp_path, shard_clips=512)
    writer.add([item("a")])
    with pytest.raises(UserError, match="no space left"):
        writer.close()


# -- kills and full disks, for real ----------------------------------------------------------------

WRITER = """
import resource, sys
from pathlib import Path
import numpy as np
from datamodules.errors import UserError
from datamodules.features.shards import ClipFeatures
from datamodules.features.store import FeatureStore, StoreId
from datamodules.tracks import ClipPlace

parent, limit, n_clips = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
writer = FeatureStore(parent, StoreId(*ID)).writer(shard_clips=8)
values = np.arange(7 * 512, dtype=np.float16).reshape(7, 1, 512) / 4096
try:
    for number in range(n_clips):
        place = ClipPlace(f"sound of t{number}", 0, 1, 0.0)
        writer.add([ClipFeatures(place, values + number % 7)])
        print(number + 1, flush=True)
    writer.close()
except UserError as error:
    print(error, flush=True)
    sys.exit(2)
""".replace("*ID", ", ".join(map(repr, STORE.values())))


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

    store = FeatureStore(tmp_path, ID)
    inventory = store.inventory()
    assert len(inventory) % 8 == 0
    n_closed = 8 * (acknowledged // 8 - 1)  # before the shard that is being written
    assert len(inventory) >= n_closed
    ids = [f"t{number}" for number in range(len(inventory))]
    assert set(inventory) == {audio_of(name) for name in ids}
    if ids:
        base = np.arange(7 * 512, dtype=np.float16).reshape(7, 512) / 4096
        expected = np.stack([base + np.float16(number % 7) for number in range(len(ids))], axis=1)
        values = store.read(wanted(*ids)).read_all()
        np.testing.assert_array_equal(values, expected.astype(np.float16))

    store.prepare()
    assert not list(store.folder.glob(".*"))


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
    assert list((tmp_path / ID.folder).iterdir()) == []
