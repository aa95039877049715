"""Shards: immutable HDF5 files of clips, written beside the forward pass."""

import json
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from datamodules.audio.clips import Clip
from datamodules.features.store import StoreKey, _digest
from datamodules.files import atomic

FLOAT16_MAX = 65504.0


_SHARD_BYTES = 2**28  # a shard is closed at this size too: one clip by frames may hold 5 MB


@dataclass(frozen=True)
class ClipFeatures:
    """States of one clip: `values` (L+1, rows, D) float16, finite; `n_frames` is how many frames
    the backbone gave.
    """

    clip: Clip
    n_frames: int
    values: NDArray[np.float16]


class ShardWriter:
    """Collects clips and writes a shard at 512 clips, 60 s or 256 MB, in a thread beside the
    forward pass.
    """

    def __init__(
        self, folder: Path, key: StoreKey, *, shard_clips: int = 512, shard_seconds: float = 60.0
    ) -> None:
        self.folder, self.key = folder, key
        self.shard_clips, self.shard_seconds = shard_clips, shard_seconds
        self._open: list[ClipFeatures] = []
        self._opened_at = 0.0
        self._closed = False
        self._thread = ThreadPoolExecutor(max_workers=1)
        self._writing: Future[None] | None = None

    def add(self, clips: Sequence[ClipFeatures]) -> None:
        """Takes pooled clips; raises what an earlier write in the background raised."""
        if not self._open:
            self._opened_at = time.monotonic()
        self._open.extend(clips)
        full = (
            len(self._open) >= self.shard_clips
            or sum(item.values.nbytes for item in self._open) >= _SHARD_BYTES
        )
        if full or time.monotonic() - self._opened_at > self.shard_seconds:
            self.flush()

    def flush(self) -> None:
        """Closes the open shard: hands it to the writing thread, after the one before it is on
        disk.
        """
        self._wait()
        if self._open:
            shard, self._open = self._open, []
            self._writing = self._thread.submit(write_shard, self.folder, self.key, shard)

    def close(self) -> None:
        """Writes what is open and waits until everything is on disk; a second call does nothing."""
        if self._closed:
            return
        self._closed = True
        try:
            self.flush()
            self._wait()
        finally:
            self._thread.shutdown()

    def _wait(self) -> None:
        if self._writing is not None:
            writing, self._writing = self._writing, None
            writing.result()


def write_shard(folder: Path, key: StoreKey, shard: Sequence[ClipFeatures]) -> None:
    """Writes one immutable shard of n clips, durably.

    It is built in memory, since HDF5 does not survive a full disk, and only then written.

    Raises:
        UserError: no space left on the disk.
    """
    clips = [item.clip for item in shard]
    with h5py.File.in_memory(libver="latest") as file:
        for layer in range(len(shard[0].values)):
            file[f"layer_{layer:02d}"] = np.concatenate([item.values[layer] for item in shard])
        file["track_id"] = np.array([clip.track_id for clip in clips], dtype=h5py.string_dtype())
        file["clip"] = np.array([clip.index for clip in clips], dtype=np.int32)
        file["n_clips"] = np.array([clip.n_clips for clip in clips], dtype=np.int32)
        file["start_s"] = np.array([clip.start_s for clip in clips], dtype=np.float64)
        file["n_frames"] = np.array([item.n_frames for item in shard], dtype=np.int32)
        file["n_rows"] = np.array([item.values.shape[1] for item in shard], dtype=np.int32)
        file["file_bytes"] = np.array([clip.file_bytes for clip in clips], dtype=np.int64)
        file.attrs["key"] = json.dumps(asdict(key), sort_keys=True)
        file.flush()
        content = file.id.get_file_image()
    with atomic(folder / f"part-{_digest(content)}.h5") as temporary:
        temporary.write_bytes(content)
