"""A hundred thousand clips of a simulated backbone, and what writer and store hold of them."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from toy_store import ID
from toy_tracks import audio_of

from datamodules.features.shards import ClipFeatures
from datamodules.features.store import FeatureStore
from datamodules.tracks import ClipPlace

N_CLIPS, SHARD, BATCH = 100_000, 512, 64
N_LAYERS, DIM = 3, 32
SHARD_BYTES = SHARD * N_LAYERS * DIM * 2
KNOWN_BYTES = (
    250  # of a clip that a store knows: its audio's id and its place; MusicFM's has 26,624
)


@pytest.mark.trial
def test_memory_does_not_grow_with_the_clips_that_are_written(tmp_path: Path) -> None:
    """What the store knows of a clip is a hundredth of its features; the writer keeps nothing."""
    store = FeatureStore(tmp_path, ID)
    store.prepare()
    writer = store.writer(shard_clips=SHARD)
    peaks, held = [], []

    tracemalloc.start()
    for first in range(0, N_CLIPS, BATCH):
        values = np.full((N_LAYERS, 1, DIM), first % 1000, np.float16)
        places = [
            ClipPlace(audio_of(str(number)), 0, 1, 0.0) for number in range(first, first + BATCH)
        ]
        writer.add([ClipFeatures(place, values.copy()) for place in places])
        if (first // BATCH) % 125 == 124:  # every 8000 clips
            writer.flush()
            current, peak = tracemalloc.get_traced_memory()
            held.append(current)
            peaks.append(peak - current)
            tracemalloc.reset_peak()
    writer.close()
    tracemalloc.stop()

    clips_between = (len(held) - 2) * 125 * BATCH
    assert (held[-1] - held[1]) / clips_between < KNOWN_BYTES
    assert max(peaks[1:]) < 12 * SHARD_BYTES
    assert max(peaks[-3:]) < min(peaks[1:4]) + 4 * SHARD_BYTES
    assert len(store.inventory()) == -(-N_CLIPS // BATCH) * BATCH
