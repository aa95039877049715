"""Speed of the feature store beside a plain file, in one run.

    python tests/bench/bench_store.py [--shards 64] [--clips 512] [--small-shards 1000]
                                      [--small-clips 30] [--ranks 1] [--scale 1] [--repeat 15]
                                      [--folder /tmp]

Conventions: a layer of all clips is read into memory as probing reads it, from the shards as they
were written, through a virtual dataset over them, and from merged shards; each beside a plain copy
of as many contiguous bytes out of a mapped file, in turns, so that what disturbs the machine
disturbs both. A ratio is of one turn; its median and range over all turns are shown, and the best
time of each. Everything lies in the page cache, where the pass over the checksums leaves it. With
several ranks, each shard holds every n-th track.
"""

import argparse
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from datamodules.features.merging import merge_shards
from datamodules.features.shards import ClipFeatures
from datamodules.features.store import FeatureStore, StoredClips, StoreId
from datamodules.tracks import ClipPlace, Track

N_LAYERS, DIM = 13, 1024
LAYER = 5  # that is read
ID = StoreId("bench", "0a1b2c", "none", "4s", "mean", "soxr-HQ", "float32")
Read = Callable[[], NDArray[np.float16]]


def main() -> None:
    """Writes two stores and reads them in every way."""
    options = parse_options()
    n_big = max(1, round(options.shards * options.scale))
    n_small = max(1, round(options.small_shards * options.scale))
    for n_shards, n_clips in ((n_big, options.clips), (n_small, options.small_clips)):
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            bench(Path(folder), n_shards, n_clips, options.ranks, options.repeat)


def parse_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shards", type=int, default=64, help="of the first store")
    parser.add_argument("--clips", type=int, default=512, help="in each of its shards")
    parser.add_argument("--small-shards", type=int, default=1000, help="of the second store")
    parser.add_argument("--small-clips", type=int, default=30, help="in each of its shards")
    parser.add_argument("--ranks", type=int, default=1, help="that dealt the tracks out")
    parser.add_argument("--scale", type=float, default=1.0, help="of the numbers of shards")
    parser.add_argument("--repeat", type=int, default=15, help="turns of each reading")
    parser.add_argument("--folder", type=Path, help="for two copies of the features (1.8 GB)")
    return parser.parse_args()


def bench(folder: Path, n_shards: int, n_clips: int, n_ranks: int, repeat: int) -> None:
    """Prints how one store is written, merged and read."""
    tracks = [
        Track(f"{number:06d}", Path("none"), "train", 0, audio_id=f"{number:016x}")
        for number in range(n_shards * n_clips)
    ]
    n_bytes = len(tracks) * N_LAYERS * DIM * 2
    print(
        f"{n_shards} shards of {n_clips} clips x {N_LAYERS} x {DIM} float16: {n_bytes / 1e6:.0f} MB"
    )

    start_s = time.perf_counter()
    write(FeatureStore(folder, ID), tracks, n_clips, n_ranks)
    write_s = time.perf_counter() - start_s
    print(
        f"  writer                {n_bytes / 1e6 / write_s:6.0f} MB/s, "
        f"{len(tracks) / write_s:.0f} clips/s; a tenth: {len(tracks) / write_s / 10:.0f} clips/s"
    )

    store = FeatureStore(folder, ID)
    start_s = time.perf_counter()
    store.shards()
    print(f"  checksums, once       {n_bytes / 1e6 / (time.perf_counter() - start_s):6.0f} MB/s")

    layer = one_layer(store, tracks)
    plain = folder / "plain"
    layer.tofile(plain)
    compare("shards as written", layer, plain, lambda: one_layer(store, tracks), repeat)

    virtual = build_virtual(store, folder / "virtual.h5")
    with h5py.File(virtual) as file:
        compare("virtual dataset", None, plain, lambda: file["layer"][:], repeat)

    start_s = time.perf_counter()
    problem = merge_shards(store, tracks)
    assert problem is None, problem
    print(f"  merging, checked      {n_bytes / 1e6 / (time.perf_counter() - start_s):6.0f} MB/s")
    merged = FeatureStore(folder, ID)
    n_merged = len(merged.shards())
    compare(f"{n_merged} merged shards", layer, plain, lambda: one_layer(merged, tracks), repeat)


def write(store: FeatureStore, tracks: Sequence[Track], n_clips: int, n_ranks: int) -> None:
    """Features of all tracks, one clip each, by one writer a rank."""
    values = np.random.default_rng(0).standard_normal((n_clips, N_LAYERS, 1, DIM))
    values = values.astype(np.float16)
    writers = [store.writer(shard_clips=n_clips, shard_seconds=math.inf) for _ in range(n_ranks)]
    for number, track in enumerate(tracks):
        place = ClipPlace(track.audio_id, 0, 1, 0.0)
        clip = ClipFeatures(place, values[(number * 7) % n_clips])
        writers[number % n_ranks].add([clip])
    for writer in writers:
        writer.close()


def one_layer(store: FeatureStore, tracks: Sequence[Track]) -> NDArray[np.float16]:
    """One layer of all clips, (N, D), by the code that reads all layers for probing."""
    key = id(store)
    if key not in _CLIPS:
        shards = [
            replace(shard, layer_starts=shard.layer_starts[LAYER : LAYER + 1])
            for shard in store.shards()
        ]
        _CLIPS[key] = StoredClips(shards, store.read(tracks)._clips)
    return _CLIPS[key].read_all()[0]


_CLIPS: dict[int, StoredClips] = {}  # where the clips lie, which is looked up once


def build_virtual(store: FeatureStore, path: Path) -> Path:
    """A file whose dataset `layer` is one layer of all shards, by name."""
    shards = store.shards()
    n_rows = sum(shard.layer_shape[0] for shard in shards)
    layout = h5py.VirtualLayout((n_rows, DIM), np.float16)
    first = 0
    for shard in shards:
        source = h5py.VirtualSource(shard.path, f"layer_{LAYER:02d}", shard.layer_shape, np.float16)
        layout[first : first + shard.layer_shape[0]] = source
        first += shard.layer_shape[0]
    with h5py.File(path, "w", libver="latest") as file:
        file.create_virtual_dataset("layer", layout)
    return path


def compare(
    what: str, expected: NDArray[np.float16] | None, plain: Path, read: Read, repeat: int
) -> None:
    """Reads in turns with a plain copy of as many bytes, and prints both speeds and the ratio."""
    shape = read().shape
    if expected is not None:
        np.testing.assert_array_equal(read().view(np.uint16), expected.view(np.uint16))

    def copy() -> NDArray[np.float16]:
        return np.array(np.memmap(plain, np.float16, "r", shape=shape))

    n_mb = 2 * math.prod(shape) / 1e6
    own_s, plain_s = [], []
    for _ in range(repeat):
        plain_s.append(timed(copy))
        own_s.append(timed(read))

    ratios = [before / after for before, after in zip(plain_s, own_s, strict=True)]
    best = min(plain_s) / min(own_s)
    print(
        f"  {what:20}  {n_mb / min(own_s):6.0f} MB/s at best, plain {n_mb / min(plain_s):5.0f}; "
        f"ratio of the best {best:.2f}, of turns {statistics.median(ratios):.2f} "
        f"[{min(ratios):.2f}, {max(ratios):.2f}]",
        flush=True,
    )


def timed(call: Read) -> float:
    """Seconds of one call."""
    start_s = time.perf_counter()
    call()
    return time.perf_counter() - start_s


if __name__ == "__main__":
    main()
