"""Labels dealt out anew: the control of probes that learn what is not in the audio.

Conventions: targets change their tracks only within a split, so that each keeps its frequencies;
pieces of one song, which are scored as one, keep one target.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from datamodules.tracks import SPLITS, Track


def shuffle_labels(tracks: Sequence[Track], seed: int) -> list[Track]:
    """The tracks, in their order, with the targets of others of their split.

    Args:
        tracks: of all splits.
        seed: of the order; the same for the same tracks, whatever their order.
    """
    dealt: dict[tuple[str, str], Track] = {}
    for number, split in enumerate(SPLITS):
        scored = {track.scored_as: track for track in tracks if track.split == split}
        names = sorted(scored)
        order = np.random.default_rng((seed, number)).permutation(len(names))
        for name, other in zip(names, order.tolist(), strict=True):
            dealt[split, name] = scored[names[other]]
    return [replace(track, target=dealt[track.split, track.scored_as].target) for track in tracks]
