"""Stored features as arrays, for people who go on with them by themselves.

Conventions: layer 0 is the input of the first block, 1..L are the block outputs. A row of an array
is a track: the mean over its clips, each of which counts alike, as a track's outputs are the mean
over its clips where it is probed. What is stored is float16; a track of one clip has just these
values.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from datamodules.errors import UserError
from datamodules.features.store import FeatureStore, StoredClips
from datamodules.tracks import Track


@dataclass(frozen=True)
class Features:
    """Features of some audio, which lie in a store and are read when they are asked for.

    Attributes:
        ids: of the N tracks: the files as they were named, or the ids of a task's tracks.
        tracks: the same, as records.
        store: that holds them.
        settings: that they were made with, `key=value` as on the command line.
    """

    ids: tuple[str, ...]
    tracks: tuple[Track, ...]
    store: FeatureStore
    settings: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def n_layers(self) -> int:
        """L: there are the layers 0..L."""
        return self._clips().shape[0] - 1

    @property
    def dim(self) -> int:
        """D, the width of every layer."""
        return self._clips().shape[1]

    def layer(self, layer: int) -> NDArray[np.float32]:
        """One layer of all tracks: (N, D) float32, in the order of `ids`.

        Raises:
            UserError: there is no such layer, or a shard is broken.
        """
        clips = self._clips()
        check_layer(layer, clips.shape[0] - 1, self.store.id.backbone)
        return mean_of_tracks(clips.read_all([layer]), clips.track).squeeze(0)

    def to_numpy(self) -> NDArray[np.float32]:
        """All layers of all tracks: (L+1, N, D) float32, in the order of `ids`.

        Raises:
            UserError: a shard is broken.
        """
        clips = self._clips()
        return mean_of_tracks(clips.read_all(), clips.track)

    def _clips(self) -> StoredClips:
        return self.store.read(self.tracks)

    def __repr__(self) -> str:
        where = self.store.folder
        return f"Features({len(self)} tracks, layers 0..{self.n_layers} of {self.dim}, in {where})"


def check_layer(layer: int, n_layers: int, backbone: str) -> None:
    """Raises UserError unless the backbone has the layer: 0..L, not counted from the end."""
    if not 0 <= layer <= n_layers:
        raise UserError(f"{backbone} has no layer {layer}: it has 0 (the input) to {n_layers}")


def mean_of_tracks(values: NDArray[np.float16], track: NDArray[np.int64]) -> NDArray[np.float32]:
    """Mean over the clips of each track: (L, clips, D) -> (L, N, D) float32.

    Args:
        values: of clips, sorted by track.
        track: (clips,) the track of each, 0..N-1, none left out.

    >>> clips = np.array([[[1.0], [3.0], [5.0]]], dtype=np.float16)
    >>> mean_of_tracks(clips, np.array([0, 0, 1])).tolist()
    [[[2.0], [5.0]]]
    """
    counts = np.bincount(track)
    starts = np.cumsum(counts) - counts
    sums: NDArray[np.float32] = np.add.reduceat(values.astype(np.float32), starts, axis=1)
    np.divide(sums, counts[:, None], out=sums, casting="same_kind")
    return sums
