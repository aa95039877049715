"""The feature store: what a backbone said about every clip, in HDF5. The one home of h5py.

Conventions: one folder per (backbone fingerprint, dataset, clip rule, pooling, resampler,
precision); its name is readable and ends in a hash of exactly these. Inside are immutable shards
`part-*.h5`, written by any number of processes under a temporary name, flushed and renamed, so that
a kill loses the open shard and nothing else. A shard's name holds the SHA-256 of its bytes, which
is checked before HDF5 sees them. The clip ids inside the shards are the only list of what is done.
A shard holds one contiguous (n, D) float16 dataset per layer (layer 0 = input of the first block),
because a contiguous layer is read 20 times faster than one layer out of (n, L, D) (measured:
facts/infra section 4). A clip has one row in it where frames are pooled over time, and one for
every frame of the label grid where tracks are scored by frames: clip after clip.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from datamodules.errors import UserError
from datamodules.files import make_folder, remove_temporary, write_text


@dataclass(frozen=True)
class StoreKey:
    """Exactly what identifies features; two stores with equal keys hold the same numbers."""

    backbone: str
    fingerprint: str
    dataset: str
    clip_rule: str
    pooling: str
    resampler: str
    precision: str

    @property
    def hash(self) -> str:
        """12 hex digits over all fields."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:12]

    @property
    def folder(self) -> str:
        """Name of the store's folder, such as `nsynth-whole-fcpe-mean-float32-1f2e3d4c5b6a`."""
        return f"{self.dataset}-{self.clip_rule}-{self.backbone}-{self.pooling}-{self.precision}-{self.hash}"


@dataclass(frozen=True)
class StoredTrack:
    """What the store knows of a track: how many clips it gives, which are there, and the size of
    its audio file.
    """

    n_clips: int
    file_bytes: int
    clips: frozenset[int]

    @property
    def complete(self) -> bool:
        """Whether all of the track's clips are stored."""
        return len(self.clips) == self.n_clips


@dataclass(frozen=True)
class Features:
    """Features of some tracks in memory.

    Attributes:
        values: (L+1, N, D) float16, N clips sorted by track and place in the track.
        track: (N,) int64, position of each clip's track in the list of track ids that was asked
            for.
    """

    values: NDArray[np.float16]
    track: NDArray[np.int64]


def prepare_store(folder: Path, key: StoreKey) -> None:
    """Makes the folder of a store, with its key in `store.json`, and removes what a killed writer
    left.

    Raises:
        UserError: the folder holds features of another configuration.
    """
    make_folder(folder)
    remove_temporary(folder)
    description = folder / "store.json"
    if description.exists():
        _check_key(description, description.read_text(encoding="utf-8"), key)
    write_text(description, json.dumps(asdict(key), indent=1, sort_keys=True) + "\n")


def read_inventory(folder: Path, key: StoreKey) -> dict[str, StoredTrack]:
    """What is done: track id -> clips that are stored.

    Raises:
        UserError: a shard is broken or belongs to another configuration.
    """
    found: dict[str, StoredTrack] = {}
    for path in sorted(folder.glob("part-*.h5")):
        with _open_shard(path, key) as shard:
            columns = (
                shard["track_id"].asstr()[:],
                shard["n_clips"][:],
                shard["file_bytes"][:],
                shard["clip"][:],
            )
        for track_id, n_clips, file_bytes, clip in zip(*columns, strict=True):
            before = found[track_id].clips if track_id in found else frozenset[int]()
            found[track_id] = StoredTrack(int(n_clips), int(file_bytes), before | {int(clip)})
    return found


def read_features(folder: Path, key: StoreKey, track_ids: Sequence[str]) -> Features:
    """All layers of all clips of the tracks asked for, in memory.

    Raises:
        UserError: a shard is broken or belongs to another configuration, or a track is not (wholly)
            stored.
    """
    paths = sorted(folder.glob("part-*.h5"))
    clips = _find_clips(folder, paths, key, track_ids)
    values: NDArray[np.float16] | None = None
    for number, path in enumerate(paths):
        here = np.flatnonzero(clips["shard"] == number)
        with _open_shard(path, key) as shard:
            layers = _layers(shard)
            if values is None:
                values = np.empty(
                    (len(layers), len(clips), shard[layers[0]].shape[1]), dtype=np.float16
                )
            for layer, name in enumerate(layers):
                values[layer, here] = shard[name][:][clips["row"][here]]
    assert values is not None, "a complete store has shards"
    return Features(values, clips["track"])


class FrameClips:
    """The clips of some tracks by frames of the label grid; their values stay on disk until they
    are read.

    Attributes:
        track: (N,) int64, position of each clip's track in the list of track ids that was asked
            for; clips are sorted by it.
        start_s: (N,) float64, where each clip starts in its track.
        n_rows: (N,) int64, frames of each clip.
        shape: number of layers L+1 and of features D.
    """

    def __init__(self, folder: Path, key: StoreKey, track_ids: Sequence[str]) -> None:
        """Checks every shard once; afterwards they are only mapped, so that memory holds no more
        than what is read.

        Raises:
            UserError: a shard is broken or belongs to another configuration, or a track is not
                (wholly) stored.
        """
        paths = sorted(folder.glob("part-*.h5"))
        clips = _find_clips(folder, paths, key, track_ids)
        self.track, self.start_s, self.n_rows = clips["track"], clips["start_s"], clips["n_rows"]
        self._shard, self._row = clips["shard"], clips["row"]
        self._layers: list[list[NDArray[np.float16]]] = []
        for path in paths:
            with _open_shard(path, key) as shard:
                places = [
                    (shard[name].id.get_offset(), shard[name].shape) for name in _layers(shard)
                ]
            image = np.memmap(path, mode="r")
            self._layers.append(
                [np.ndarray(shape, np.float16, image, offset) for offset, shape in places]
            )
        self.shape = (len(self._layers[0]), self._layers[0][0].shape[1])

    def __len__(self) -> int:
        return len(self.track)

    def read(self, clip: int) -> NDArray[np.float16]:
        """All layers of one clip: (L+1, n_rows, D) float16."""
        first, n_rows = self._row[clip], self.n_rows[clip]
        return np.stack(
            [layer[first : first + n_rows] for layer in self._layers[self._shard[clip]]]
        )


_CLIP = np.dtype(
    [(name, np.int64) for name in ("track", "clip", "n_clips", "shard", "row", "n_rows")]
    + [("start_s", np.float64)]
)


def _find_clips(
    folder: Path, paths: Sequence[Path], key: StoreKey, track_ids: Sequence[str]
) -> NDArray[np.void]:
    """Where the clips of the tracks asked for lie: records of `_CLIP`, sorted by track and place in
    it, each clip once.
    """
    position = {track_id: index for index, track_id in enumerate(track_ids)}
    found = [np.empty(0, _CLIP)]
    for number, path in enumerate(paths):
        with _open_shard(path, key) as shard:
            here = np.empty(len(shard["clip"]), _CLIP)
            here["track"] = [
                position.get(track_id, -1) for track_id in shard["track_id"].asstr()[:]
            ]
            here["shard"] = number
            for name in ("clip", "n_clips", "n_rows", "start_s"):
                here[name] = shard[name][:]
            here["row"] = np.cumsum(here["n_rows"]) - here["n_rows"]
        found.append(here[here["track"] >= 0])
    clips = np.concatenate(found)
    clips = clips[
        np.unique(clips[["track", "clip"]], return_index=True)[1]
    ]  # sorted; the first of equals
    n_found = np.bincount(clips["track"], minlength=len(track_ids))
    _check_complete(
        track_ids, clips["track"][n_found[clips["track"]] == clips["n_clips"]].tolist(), folder
    )
    return clips


def _layers(shard: h5py.File) -> list[str]:
    return sorted(name for name in shard if name.startswith("layer_"))


@contextmanager
def _open_shard(path: Path, key: StoreKey) -> Iterator[h5py.File]:
    """A shard, opened only if its bytes are those that were written: HDF5 may crash or hang on
    others.
    """
    try:
        content = path.read_bytes()
        if path.stem != f"part-{_digest(content)}":
            raise UserError(_broken(path, "its checksum does not match its content"))
        with h5py.File.in_memory(content) as file:
            _check_key(path, str(file.attrs["key"]), key)
            yield file
    except (OSError, KeyError, RuntimeError) as error:
        raise UserError(_broken(path, str(error).strip("\"'").split(", ")[0])) from error


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _broken(path: Path, why: str) -> str:
    return f"shard {path} is broken: {why}. Delete this file and run the same command again: only its clips are extracted anew"


def _check_key(path: Path, found: str, key: StoreKey) -> None:
    try:
        stored = json.loads(found)
    except json.JSONDecodeError:
        stored = None
    if not isinstance(stored, dict):
        raise UserError(
            f"{path} is not a description of a feature store: delete its folder and extract again"
        )
    wanted = asdict(key)
    if stored != wanted:
        differs = ", ".join(
            f"{name} is {stored.get(name)!r}, wanted {value!r}"
            for name, value in wanted.items()
            if stored.get(name) != value
        )
        raise UserError(
            f"{path} was written by another configuration ({differs}): move it away and extract "
            "again"
        )


def _check_complete(track_ids: Sequence[str], found: Iterable[int], folder: Path) -> None:
    missing = sorted(set(range(len(track_ids))) - set(found))
    if missing:
        raise UserError(
            f"{len(missing)} of {len(track_ids)} tracks have no features in {folder} (first: "
            f"{track_ids[missing[0]]}): "
            "run `mirprobe extract` with the same settings"
        )
