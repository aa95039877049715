"""Small shards of a complete store, joined into bigger ones.

Conventions: a slow backbone closes its shards by time, and each of many ranks leaves shards of its
own; a layer of a thousand small shards is read at a fifth of the disk's speed. The bigger shards
are written first, read back, and only then the small ones are deleted: at every moment each clip is
in a shard, and one that is there twice counts once. So an interruption loses nothing, and the next
merge takes away what is double. Clips come in the order of the tracks, in which tasks read them.
"""

import math
import sys
from collections.abc import Iterator, Sequence, Set
from dataclasses import asdict
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from datamodules.features.shards import SHARD_BYTES, ClipFeatures, Shard, ShardWriter
from datamodules.features.store import FeatureStore
from datamodules.files import free_bytes
from datamodules.tracks import ClipPlace, Track

_SMALL_BYTES = SHARD_BYTES // 2
_FEWEST = 8  # small shards: fewer cost nothing worth a copy
_MOST_OPEN = 64  # shards at once, far below the number of files that a process may open


def merge_shards(store: FeatureStore, tracks: Sequence[Track]) -> str | None:
    """Joins the small shards of a store, in the order of some tracks.

    Only for who holds the store's lock, when nobody else of the same run reads in it.

    Args:
        store: to work on.
        tracks: the tracks that it was filled with; clips of others come last.

    Returns:
        Why the shards stay as they are though they are small and many; else None.

    Raises:
        UserError: a shard is broken or missing; the text names it.
    """
    big, small = _by_size(store.shards())
    places = _in_order(small, tracks, _clips_of(big))
    is_double = len(places) < sum(len(shard.audio_ids) for shard in small)
    if len(small) < _FEWEST and not is_double:
        return None

    needed_bytes = sum(shard.path.stat().st_size for shard in small)
    if needed_bytes > free_bytes(store.folder):
        return (
            f"{len(small)} small shards in {store.folder} are not joined, for which "
            f"{needed_bytes / 1e9:.2f} GB would have to be free: they are only read more slowly"
        )

    written: list[Shard] = []
    writer = ShardWriter(
        store.folder,
        asdict(store.id),
        written.append,
        shard_clips=sys.maxsize,
        shard_seconds=math.inf,
    )
    try:
        for clip in _read(small, places):
            writer.add([clip])
    finally:
        writer.close()

    store.shards()  # reads the new ones back: from here on they are known to be good
    kept = {shard.path for shard in written}
    for shard in small:
        if shard.path not in kept:  # one that holds just what was there has its name too
            shard.path.unlink(missing_ok=True)
    return None


def _by_size(shards: Sequence[Shard]) -> tuple[list[Shard], list[Shard]]:
    """Those that stay as they are, and those that are small."""
    big: list[Shard] = []
    small: list[Shard] = []
    for shard in shards:
        (small if shard.path.stat().st_size < _SMALL_BYTES else big).append(shard)
    return big, small


def _clips_of(shards: Sequence[Shard]) -> set[tuple[str, int]]:
    """Audio and place of every clip of some shards."""
    found: set[tuple[str, int]] = set()
    for shard in shards:
        found.update(zip(shard.audio_ids, shard.clips["clip"].tolist(), strict=True))
    return found


def _in_order(
    shards: Sequence[Shard], tracks: Sequence[Track], stored: Set[tuple[str, int]]
) -> list[tuple[int, int]]:
    """Numbers of the shard and places in it of every clip, each once: by track, and by its place in
    that. Those that are stored elsewhere are left out.
    """
    rank_of: dict[str, int] = {}
    for track in tracks:
        rank_of.setdefault(track.audio_id, len(rank_of))

    # By rank, audio and place; of a clip that is there twice the first counts, as in reading.
    found: dict[tuple[int, str, int], tuple[int, int]] = {}
    for number, shard in enumerate(shards):
        clips = zip(shard.audio_ids, shard.clips["clip"].tolist(), strict=True)
        for position, (audio, clip) in enumerate(clips):
            if (audio, clip) not in stored:
                rank = rank_of.get(audio, len(rank_of))
                found.setdefault((rank, audio, clip), (number, position))
    return [found[key] for key in sorted(found)]


def _read(shards: Sequence[Shard], places: Sequence[tuple[int, int]]) -> Iterator[ClipFeatures]:
    """The clips at some places of some shards."""

    @lru_cache(maxsize=_MOST_OPEN)
    def layers(number: int) -> list[NDArray[np.float16]]:
        return shards[number].layers()

    for number, position in places:
        yield _clip(shards[number], position, layers(number))


def _clip(shard: Shard, position: int, layers: Sequence[NDArray[np.float16]]) -> ClipFeatures:
    """One clip of a shard, with its values in memory."""
    clip = shard.clips[position]
    place = ClipPlace(
        audio_id=shard.audio_ids[position],
        index=int(clip["clip"]),
        n_clips=int(clip["n_clips"]),
        start_s=float(clip["start_s"]),
    )
    rows = slice(clip["row"], clip["row"] + clip["n_rows"])
    values = np.stack([layer[rows] for layer in layers])
    return ClipFeatures(place, values, float(clip["last_row"]))
