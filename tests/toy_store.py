"""A small feature store whose values no other clip has, for the tests of datamodules.features."""

from dataclasses import asdict
from pathlib import Path

import numpy as np
from toy_tracks import audio_of, with_audio

from datamodules.features.shards import PATTERN, ClipFeatures, write_shard
from datamodules.features.store import FeatureStore, StoreId
from datamodules.tracks import ClipPlace, Track

ID = StoreId("fcpe", "0a1b2c", "toy", "1s", "mean", "soxr-HQ", "float32")
N_LAYERS, DIM = 3, 5  # layers 0..2
TRACKS = ("blues.00029", "jazz.00099", "rock.00000")  # two clips each
AUDIO = tuple(audio_of(track_id) for track_id in TRACKS)


def wanted(*track_ids: str) -> list[Track]:
    """Tracks of these ids, to ask a store for."""
    return with_audio(Track(track_id, Path("none"), "train", 0) for track_id in track_ids)


def values_of(track_id: str, clip: int, n_layers: int = N_LAYERS, dim: int = DIM) -> np.ndarray:
    """(L+1, D) float16 that no other clip has."""
    seed = int.from_bytes(f"{track_id}/{clip}".encode(), "little") % 2**32
    return np.random.default_rng(seed).standard_normal((n_layers, dim)).astype(np.float16)


def item(track_id: str, clip: int = 0, n_clips: int = 2) -> ClipFeatures:
    """A clip of one row."""
    place = ClipPlace(audio_of(track_id), clip, n_clips, 1.5 * clip)
    return ClipFeatures(place, values_of(track_id, clip)[:, None])


def stacked(clips: list[tuple[str, int]]) -> np.ndarray:
    """(L+1, N, D) values of some clips, in that order."""
    return np.stack([values_of(track_id, clip) for track_id, clip in clips], axis=1)


def write_items(parent: Path, *items: ClipFeatures, id: StoreId = ID) -> Path:
    """Adds a shard, that no `FeatureStore` knows yet, to the store of `ID`; gives its path."""
    return write_shard(parent / ID.folder, asdict(id), items).path


def write_toy_store(parent: Path) -> FeatureStore:
    """`TRACKS` in two shards that cut through the second track, in no good order."""
    write_items(parent, item("rock.00000", 1), item("jazz.00099", 0), item("blues.00029", 1))
    write_items(parent, item("blues.00029", 0), item("jazz.00099", 1), item("rock.00000", 0))
    return FeatureStore(parent, ID)


def shard_paths(folder: Path) -> list[Path]:
    """Files of all shards of a store, by name."""
    return sorted(folder.glob(PATTERN))


def flip(path: Path, offset: int) -> None:
    """Changes one bit of a file."""
    content = bytearray(path.read_bytes())
    content[offset] ^= 0x01
    path.write_bytes(content)
