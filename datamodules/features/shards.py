"""Shards: immutable HDF5 files with the features of some clips. The one home of h5py.

Conventions: a shard is written under a temporary name, flushed and renamed, so that a kill loses
the open shard and nothing else. Its name holds the SHA-256 of its bytes, which is checked before
HDF5 sees them. It holds one contiguous (rows, D) float16 dataset per layer (layer 0 = input of the
first block), because a contiguous layer is read 20 times faster than one layer out of (rows, L, D)
(measured: facts/infra section 4). A clip has one row in it where frames are pooled over time, and
one for every frame of the label grid where tracks are scored by frames: clip after clip.
"""

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from datamodules.errors import UserError
from datamodules.files import atomic
from datamodules.tracks import ClipPlace

FLOAT16_MAX = 65504.0
PATTERN = "part-*.h5"
SHARD_BYTES = 2**28  # a shard is closed at this size too: one clip by frames may hold 5 MB
_CLIP = np.dtype(
    [(name, np.int64) for name in ("clip", "n_clips", "n_rows", "row")]
    + [(name, np.float64) for name in ("start_s", "last_row")]
)


@dataclass(frozen=True)
class ClipFeatures:
    """States of one clip: `values` (L+1, rows, D) float16, finite.

    Rows are means over equal times; the last one covers a share of it, `last_row`.
    """

    place: ClipPlace
    values: NDArray[np.float16]
    last_row: float = 1.0


@dataclass(frozen=True)
class Shard:
    """One shard, known to hold what was written; its values stay on disk until they are read.

    Attributes:
        path: its file.
        audio_ids: of the audio of its n clips.
        clips: (n,) records: `clip` and `n_clips` (place in the audio, and how many it gives),
            `start_s`, `row` and `n_rows` (where in each layer), and `last_row` (what the last of
            them covers of the time of the others).
        layer_starts: where each of layers 0..L begins in the file, in bytes.
        layer_shape: (rows, D) of each layer.
    """

    path: Path
    audio_ids: Sequence[str]
    clips: NDArray[np.void]
    layer_starts: Sequence[int]
    layer_shape: tuple[int, int]

    def layers(self) -> list[NDArray[np.float16]]:
        """Maps layers 0..L from the file: (rows, D) float16 each.

        The file is open as long as these arrays live, since a store may have more shards than a
        process may open files.

        Raises:
            UserError: the file cannot be read any more.
        """
        try:
            image = np.memmap(self.path, mode="r")
        except OSError as error:
            raise UserError(_unreadable(self.path, error)) from error
        return [
            np.ndarray(self.layer_shape, np.float16, image, start) for start in self.layer_starts
        ]


def write_shard(folder: Path, store: Mapping[str, str], clips: Sequence[ClipFeatures]) -> Shard:
    """Writes one immutable shard, durably.

    It is built in memory, since HDF5 does not survive a full disk, and only then written.

    Args:
        folder: of the store.
        store: what identifies the store; kept in the shard.
        clips: what it is to hold.

    Raises:
        UserError: no space left on the disk.
    """
    content = _build(store, clips)
    path = folder / f"part-{_digest(content)}.h5"
    with atomic(path) as temporary:
        temporary.write_bytes(content)

    return _parse(path, content)


def read_shard(path: Path, store: Mapping[str, str]) -> Shard:
    """Reads and checks a shard that some process has written.

    Raises:
        UserError: it cannot be read, is broken, or belongs to another store.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(_unreadable(path, error)) from error

    # HDF5 may crash or hang on bytes that are not those it wrote.
    if path.stem != f"part-{_digest(content)}":
        raise UserError(_broken(path, "its checksum does not match its content"))
    try:
        check_identity(path, _stored_identity(content), store)
        return _parse(path, content)
    except (OSError, KeyError, RuntimeError) as error:
        raise UserError(_broken(path, _reason(error))) from error


def count_clips(path: Path) -> int:
    """How many clips a shard says it holds; no checksum is taken, so none of its values is read.

    Raises:
        UserError: it cannot be read, or is broken.
    """
    if not path.is_file():  # a pipe would be waited for
        raise UserError(_broken(path, "it is not a file"))
    try:
        # HDF5 guards what is read here, the description of a column, by checksums of its own.
        with h5py.File(path, "r", locking=False) as file:
            return len(file["clip"])
    except PermissionError as error:
        raise UserError(_unreadable(path, error)) from error
    except (OSError, KeyError, RuntimeError, TypeError) as error:
        raise UserError(_broken(path, _reason(error))) from error


def check_identity(path: Path, found: str, wanted: Mapping[str, str]) -> None:
    """Refuses a file whose JSON says that it belongs to another store.

    Raises:
        UserError: it does; the text names what differs.
    """
    try:
        stored = json.loads(found)
    except (ValueError, RecursionError):
        stored = None
    if not isinstance(stored, dict):
        raise UserError(
            f"{path} is not a description of a feature store: delete this file and run the same "
            "command again"
        )
    if stored == wanted:
        return

    differences = ", ".join(
        f"{name} is {stored.get(name)!r}, wanted {value!r}"
        for name, value in wanted.items()
        if stored.get(name) != value
    )
    differences = differences or "it has fields of another version"
    raise UserError(
        f"{path} was written by another configuration ({differences}): move it away and extract "
        "again"
    )


def _build(store: Mapping[str, str], clips: Sequence[ClipFeatures]) -> bytes:
    """Bytes of a shard."""
    places = [clip.place for clip in clips]
    with h5py.File.in_memory(libver="latest") as file:
        for layer in range(len(clips[0].values)):
            file[f"layer_{layer:02d}"] = np.concatenate([clip.values[layer] for clip in clips])

        file["audio_id"] = np.array([p.audio_id for p in places], dtype=h5py.string_dtype())
        file["clip"] = np.array([p.index for p in places], dtype=np.int32)
        file["n_clips"] = np.array([p.n_clips for p in places], dtype=np.int32)
        file["start_s"] = np.array([p.start_s for p in places], dtype=np.float64)
        file["n_rows"] = np.array([clip.values.shape[1] for clip in clips], dtype=np.int32)
        file["last_row"] = np.array([clip.last_row for clip in clips], dtype=np.float64)
        file.attrs["key"] = json.dumps(store, sort_keys=True)

        file.flush()
        image: bytes = file.id.get_file_image()
    return image


def _stored_identity(content: bytes) -> str:
    with h5py.File.in_memory(content) as file:
        return str(file.attrs["key"])


def _parse(path: Path, content: bytes) -> Shard:
    """The list of clips out of a shard's bytes, and where its layers are."""
    with h5py.File.in_memory(content) as file:
        clips = np.empty(len(file["clip"]), _CLIP)
        for name in ("clip", "n_clips", "n_rows", "start_s"):
            clips[name] = file[name][:]
        clips["last_row"] = file["last_row"][:] if "last_row" in file else 1.0
        clips["row"] = np.cumsum(clips["n_rows"]) - clips["n_rows"]

        audio_ids = file["audio_id"].asstr()[:].tolist()
        names = sorted(name for name in file if name.startswith("layer_"))
        starts = [file[name].id.get_offset() for name in names]
        shape = file[names[0]].shape

    return Shard(path, audio_ids, clips, starts, shape)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _reason(error: Exception) -> str:
    """The first words of an error of HDF5."""
    return str(error).strip("\"'").split(", ")[0]


def _unreadable(path: Path, error: OSError) -> str:
    return f"cannot read the shard {path} ({error.strerror}): check its permissions and its disk"


def _broken(path: Path, why: str) -> str:
    return (
        f"shard {path} is broken: {why}. Delete this file and run the same command again: only its "
        "clips are extracted anew"
    )


class ShardWriter:
    """Collects clips and writes a shard whenever enough of them are there, in a thread.

    Args:
        folder: of the store.
        store: what identifies the store.
        on_written: is given each shard when it is on disk.
        shard_clips: a shard is closed after so many clips ...
        shard_seconds: ... or so many s, or 256 MB.
    """

    def __init__(
        self,
        folder: Path,
        store: Mapping[str, str],
        on_written: Callable[[Shard], None] = lambda shard: None,
        *,
        shard_clips: int = 512,
        shard_seconds: float = 60.0,
    ) -> None:
        self.folder = folder
        self.store = store
        self.on_written = on_written
        self.shard_clips = shard_clips
        self.shard_seconds = shard_seconds

        self._open: list[ClipFeatures] = []
        self._open_bytes = 0
        self._opened_at = 0.0
        self._closed = False
        self._thread = ThreadPoolExecutor(max_workers=1)
        self._writing: Future[Shard] | None = None

    def add(self, clips: Sequence[ClipFeatures]) -> None:
        """Takes pooled clips; raises what an earlier write in the background raised."""
        if not self._open:
            self._opened_at = time.monotonic()
        self._open.extend(clips)

        self._open_bytes += sum(clip.values.nbytes for clip in clips)
        is_old = time.monotonic() - self._opened_at > self.shard_seconds
        if len(self._open) >= self.shard_clips or self._open_bytes >= SHARD_BYTES or is_old:
            self.flush()

    def flush(self) -> None:
        """Hands the open shard to the writing thread, once the one before it is on disk."""
        self._wait()
        if self._open:
            clips, self._open = self._open, []
            self._open_bytes = 0
            self._writing = self._thread.submit(write_shard, self.folder, self.store, clips)

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
            self.on_written(writing.result())
