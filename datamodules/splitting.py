"""Split rules that datasets share."""

import hashlib
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping

from datamodules.tracks import SPLITS, Split

_SHARES: Mapping[Split, int] = {"train": 3, "val": 1, "test": 1}


def split_groups(
    groups: Iterable[str], seed: int, classes: Iterable[Hashable] | None = None
) -> dict[str, Split]:
    """Split of every group, 3:1:1 counted in tracks, whatever the order of the tracks.

    Groups are taken in the order of their SHA-256 with the seed; each goes where it leads to the
    smallest excess, counted within its classes. So five groups of one track fill all three splits,
    and 4000 tracks without groups are split into 2400, 800 and 800.

    Args:
        groups: the group of each track.
        seed: another seed is another split.
        classes: the class of each track, where each of them is to be split 3:1:1 as well.

    >>> sorted(split_groups(["a", "b", "c", "d", "e"], seed=0).values())
    ['test', 'train', 'train', 'train', 'val']
    """
    names = list(groups)
    n_of_class: dict[str, Counter[Hashable]] = {name: Counter() for name in names}
    labels = [None] * len(names) if classes is None else classes
    for name, label in zip(names, labels, strict=True):
        n_of_class[name][label] += 1

    def place(group: str) -> bytes:
        return hashlib.sha256(f"{seed}:{group}".encode()).digest()

    filled: dict[Split, Counter[Hashable]] = {split: Counter() for split in SPLITS}
    chosen: dict[str, Split] = {}
    for group in sorted(n_of_class, key=place):
        excess = {split: _excess(filled[split], n_of_class[group], split) for split in SPLITS}
        chosen[group] = min(SPLITS, key=excess.__getitem__)  # ties go to train, then val
        filled[chosen[group]] += n_of_class[group]
    return chosen


def _excess(
    filled: Counter[Hashable], group: Counter[Hashable], split: Split
) -> tuple[float, float]:
    """How many fifths a split would hold with a group: of the group's classes, and of all."""
    share = _SHARES[split]
    of_classes = sum(n * (filled[label] + n) for label, n in group.items()) / group.total()
    return of_classes / share, (filled.total() + group.total()) / share
