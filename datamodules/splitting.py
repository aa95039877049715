"""Split rules that datasets share."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping

from datamodules.tracks import SPLITS, Split

_SHARES: Mapping[Split, int] = {"train": 3, "val": 1, "test": 1}


def split_groups(groups: Iterable[str], seed: int) -> dict[str, Split]:
    """Split of every group, 3:1:1 counted in tracks, whatever the order of the tracks.

    Groups are taken in the order of their SHA-256 with the seed; each goes where it leads to the
    smallest excess. So five groups of one track fill all three splits, and 4000 tracks without
    groups are split into 2400, 800 and 800.

    Args:
        groups: the group of each track.
        seed: another seed is another split.

    >>> sorted(split_groups(["a", "b", "c", "d", "e"], seed=0).values())
    ['test', 'train', 'train', 'train', 'val']
    """
    sizes = Counter(groups)

    def place(group: str) -> bytes:
        return hashlib.sha256(f"{seed}:{group}".encode()).digest()

    filled = dict.fromkeys(SPLITS, 0)
    chosen: dict[str, Split] = {}
    for group in sorted(sizes, key=place):
        # How many fifths a split would hold: ties go to train, then val.
        after = {split: (filled[split] + sizes[group]) / _SHARES[split] for split in SPLITS}
        chosen[group] = min(SPLITS, key=after.__getitem__)
        filled[chosen[group]] += sizes[group]
    return chosen
