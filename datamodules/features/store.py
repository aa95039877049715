"""The feature store: a backbone's features of every clip, found by the content of its audio.

Conventions: one folder per (backbone fingerprint, dataset, clip rule, pooling, resampler,
precision); its name is readable and ends in a hash of exactly these. Inside are immutable shards,
written by any number of processes. The clips inside the shards are the only list of what is done;
they are known by the content of the audio that they were made of, never by names or folders.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from datamodules.errors import UserError
from datamodules.features.shards import PATTERN, Shard, ShardWriter, check_identity, read_shard
from datamodules.files import make_folder, remove_temporary, write_text
from datamodules.tracks import Track

DESCRIPTION = "store.json"
LOCK = ".lock"  # held by whoever writes in a store's folder, or deletes it
READERS = ".readers"  # shared by whoever reads there; held while shards give way to bigger ones


@dataclass(frozen=True)
class StoreId:
    """Exactly what identifies features; two stores with equal ids hold the same numbers."""

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
        readable = (self.dataset, self.clip_rule, self.backbone, self.pooling, self.precision)
        return "-".join([*readable, self.hash])


@dataclass(frozen=True)
class StoredAudio:
    """The clips of one piece of audio in the store: how many it gives, and which are there."""

    n_clips: int
    clips: frozenset[int]

    @property
    def complete(self) -> bool:
        """Whether all of its clips are stored."""
        return len(self.clips) == self.n_clips


def missing_of(stored: Mapping[str, StoredAudio], tracks: Iterable[Track]) -> list[Track]:
    """The tracks whose clips are not all among those stored, or whose audio is not known yet."""
    done = {audio for audio, clips in stored.items() if clips.complete}
    return [track for track in tracks if track.audio_id not in done]


class FeatureStore:
    """A folder of features: the one place that knows what is in it and what it lacks.

    A shard is read and verified once in the life of this object, whatever is asked of it.

    Args:
        parent: folder of all stores (`paths.features`).
        id: what identifies the features.
    """

    def __init__(self, parent: Path, id: StoreId) -> None:
        self.id = id
        self.folder = Path(parent) / id.folder
        self._shards: dict[str, Shard] = {}

    @property
    def is_read_only(self) -> bool:
        """Whether it is there and nothing can be added to it."""
        return self.folder.is_dir() and not os.access(self.folder, os.W_OK)

    def prepare(self) -> None:
        """Makes the folder with a description, and removes what a killed writer left in it.

        Raises:
            UserError: the folder holds features of another configuration, or cannot be written.
        """
        make_folder(self.folder)
        remove_temporary(self.folder)

        description = self.folder / DESCRIPTION
        if description.exists():
            check_identity(description, _read(description), asdict(self.id))
        else:
            text = json.dumps(asdict(self.id), indent=1, sort_keys=True) + "\n"
            write_text(description, text)

    def writer(self, *, shard_clips: int = 512, shard_seconds: float = 60.0) -> ShardWriter:
        """Takes clips and writes shards, which this store then knows without reading them."""
        return ShardWriter(
            self.folder,
            asdict(self.id),
            self._remember,
            shard_clips=shard_clips,
            shard_seconds=shard_seconds,
        )

    def inventory(self) -> dict[str, StoredAudio]:
        """What is stored, by audio id.

        Raises:
            UserError: a shard is broken or belongs to another configuration.
        """
        found: dict[str, StoredAudio] = {}
        for shard in self.shards():
            columns = (shard.clips[name].tolist() for name in ("clip", "n_clips"))
            for audio, clip, n_clips in zip(shard.audio_ids, *columns, strict=True):
                before = found[audio].clips if audio in found else frozenset[int]()
                found[audio] = StoredAudio(n_clips, before | {clip})
        return found

    def missing(self, tracks: Iterable[Track]) -> list[Track]:
        """The tracks whose clips are not all stored, or whose audio is not known yet."""
        return missing_of(self.inventory(), tracks)

    def read(self, tracks: Sequence[Track]) -> "StoredClips":
        """The clips of some tracks, whose values are read when they are asked for.

        Raises:
            UserError: a shard is broken or belongs to another configuration, or a track is not
                (wholly) stored.
        """
        shards = self.shards()
        clips = _places(shards, tracks)

        n_found = np.bincount(clips["track"], minlength=len(tracks))
        whole = clips["track"][n_found[clips["track"]] == clips["n_clips"]]
        missing = np.setdiff1d(np.arange(len(tracks)), whole)
        if len(missing):
            raise UserError(
                f"{len(missing)} of {len(tracks)} tracks have no features in {self.folder} "
                f"(first: {tracks[missing[0]].track_id}): run `mirprobe extract` with the same "
                "settings"
            )
        return StoredClips(shards, clips)

    def shards(self) -> list[Shard]:
        """All shards, by name; those that this process has not seen yet are read and verified."""
        paths = sorted(self.folder.glob(PATTERN))
        for path in paths:
            if path.name in self._shards:
                continue
            try:
                self._remember(read_shard(path, asdict(self.id)))
            except UserError:
                if path.exists():
                    raise
                return self.shards()  # another process has just joined it with others
        return [self._shards[path.name] for path in paths]

    def _remember(self, shard: Shard) -> None:
        self._shards[shard.path.name] = shard


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror}): move it away") from error


def _places(shards: Sequence[Shard], tracks: Sequence[Track]) -> NDArray[np.void]:
    """Where the clips of some tracks lie: records, sorted by track and place in it, each once."""
    names = list(dict.fromkeys(track.audio_id for track in tracks))
    number_of = {name: number for number, name in enumerate(names)}
    clips = _clips_of_audio(shards, number_of)

    # Several tracks may have the same audio: each gets its clips.
    numbers = np.array([number_of[track.audio_id] for track in tracks], dtype=np.int64)
    first = np.searchsorted(clips["track"], numbers, side="left")
    end = np.searchsorted(clips["track"], numbers, side="right")
    rows = [np.arange(start, stop) for start, stop in zip(first, end, strict=True)]
    places: NDArray[np.void] = clips[np.concatenate([np.empty(0, np.int64), *rows])]
    places["track"] = np.repeat(np.arange(len(tracks)), end - first)
    return places


def _clips_of_audio(shards: Sequence[Shard], number_of: Mapping[str, int]) -> NDArray[np.void]:
    """Records of all clips of some audio, sorted; their `track` is the number of the audio."""
    found = [np.empty(0, _PLACE)]
    for number, shard in enumerate(shards):
        here = np.empty(len(shard.clips), _PLACE)
        here["track"] = [number_of.get(name, -1) for name in shard.audio_ids]
        here["shard"] = number
        for name in ("clip", "n_clips", "row", "n_rows", "start_s", "last_row"):
            here[name] = shard.clips[name]
        found.append(here[here["track"] >= 0])

    # A clip may be there twice, where two runs were at work: the first of equals counts.
    clips = np.concatenate(found)
    _, first = np.unique(clips[["track", "clip"]], return_index=True)
    return clips[first]


_PLACE = np.dtype(
    [(name, np.int64) for name in ("track", "clip", "n_clips", "shard", "row", "n_rows")]
    + [(name, np.float64) for name in ("start_s", "last_row")]
)


class StoredClips:
    """Clips of some tracks, sorted by track and place in it; their values stay on disk until read.

    Attributes:
        track: (N,) int64, position of each clip's track in the list that was asked for.
        start_s: (N,) float64, where each clip starts in its track, in s.
        n_rows: (N,) int64, rows of each clip: one, or the frames of the label grid.
        shape: number of layers L+1 and of features D.
    """

    def __init__(self, shards: Sequence[Shard], clips: NDArray[np.void]) -> None:
        self._shards, self._clips = shards, clips
        self.track: NDArray[np.int64] = clips["track"]
        self.start_s: NDArray[np.float64] = clips["start_s"]
        self.n_rows: NDArray[np.int64] = clips["n_rows"]
        self.shape = (len(shards[0].layer_starts), shards[0].layer_shape[1])

    def __len__(self) -> int:
        return len(self._clips)

    def read(self, clip: int) -> NDArray[np.float16]:
        """All layers of one clip: (L+1, n_rows, D) float16."""
        place = self._clips[clip]
        rows = slice(place["row"], place["row"] + place["n_rows"])
        return np.stack([layer[rows] for layer in self._shards[place["shard"]].layers()])

    def read_layer(self, layer: int) -> NDArray[np.float16]:
        """All rows of one layer, clip after clip: (sum of `n_rows`, D) float16."""
        ends = np.cumsum(self.n_rows)
        values = np.empty((int(self.n_rows.sum()), self.shape[1]), dtype=np.float16)
        for number, shard in enumerate(self._shards):
            here = np.flatnonzero(self._clips["shard"] == number)
            if not len(here):
                continue
            stored = shard.layers()[layer]
            for end, place in zip(ends[here], self._clips[here], strict=True):
                first, n_rows = place["row"], place["n_rows"]
                values[end - n_rows : end] = stored[first : first + n_rows]
        return values

    def read_all(self, layers: Sequence[int] | None = None) -> NDArray[np.float16]:
        """All layers of all clips, of clips with several rows their mean: (L+1, N, D) float16.

        Args:
            layers: that are wanted, in this order; None for all of them.
        """
        n_layers, dim = self.shape
        wanted = range(n_layers) if layers is None else layers
        values = np.empty((len(wanted), len(self), dim), dtype=np.float16)
        by_shard = np.argsort(self._clips["shard"], kind="stable")
        n_of_shard = np.bincount(self._clips["shard"], minlength=len(self._shards))
        places = np.split(by_shard, np.cumsum(n_of_shard)[:-1])

        for shard, here in zip(self._shards, places, strict=True):
            if not len(here):
                continue
            clips = self._clips[here]
            is_single = bool(np.all(clips["n_rows"] == 1))
            stored = shard.layers()
            for place, layer in enumerate(wanted):
                if is_single:
                    _copy(stored[layer], clips["row"], values[place], here)
                else:
                    values[place, here] = _means(stored[layer], clips)
        return values


def _copy(
    source: NDArray[np.float16],
    rows: NDArray[np.int64],
    target: NDArray[np.float16],
    places: NDArray[np.int64],
) -> None:
    """Copies rows of one array to places in another, which ascend."""
    first, last = int(places[0]), int(places[-1])
    if last - first == len(places) - 1:  # they follow each other, as in a shard that was merged
        # Each row is copied once, from file to place. (Mode `raise` would copy it twice.)
        np.take(source, rows, axis=0, out=target[first : last + 1], mode="clip")
    else:
        target[places] = source[rows]


def _means(layer: NDArray[np.float16], places: NDArray[np.void]) -> NDArray[np.float16]:
    """Mean over the rows of each clip, weighted by the time that they cover: (n, D)."""
    n_rows = places["n_rows"]

    # The rows of all clips, one after the other: they may lie in another order in the shard.
    ends = np.cumsum(n_rows)
    starts = ends - n_rows
    rows = np.arange(n_rows.sum()) + np.repeat(places["row"] - starts, n_rows)
    weights = np.ones(len(rows), dtype=np.float32)
    weights[ends - 1] = places["last_row"]

    weighted = layer[rows] * weights[:, None]
    covered = n_rows - 1 + places["last_row"]
    sums = np.add.reduceat(weighted, starts, axis=0)
    means: NDArray[np.float16] = (sums / covered[:, None]).astype(np.float16)
    return means


def store_id_text(id: StoreId) -> str:
    """A store's id as JSON, from which `parse_store_id` makes an equal one."""
    return json.dumps(asdict(id), indent=1, sort_keys=True) + "\n"


def parse_store_id(text: str) -> StoreId:
    """The id that `store_id_text` wrote.

    Raises:
        ValueError: the text is not the JSON of an id.
    """
    try:
        fields = json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error
    if not isinstance(fields, Mapping) or not all(isinstance(v, str) for v in fields.values()):
        raise ValueError("expected an object of strings")
    try:
        return StoreId(**fields)
    except TypeError as error:
        raise ValueError(str(error)) from error
