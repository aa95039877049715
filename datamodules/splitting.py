"""Split rules that datasets share."""

import hashlib
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping
from typing import TypeVar

from datamodules.tracks import Split

Part = TypeVar("Part", bound=Hashable)
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
    return _deal(groups, seed, classes, _SHARES)  # ties go to train, then val


def fold_groups(
    groups: Iterable[str], n_folds: int, seed: int, classes: Iterable[Hashable] | None = None
) -> dict[str, int]:
    """Fold of every group, 0..n_folds - 1, all of one size in tracks as far as groups allow.

    Args:
        groups: the group of each track.
        n_folds: how many there are.
        seed: another seed gives other folds.
        classes: the class of each track, where each of them is to be dealt out evenly as well.

    >>> sorted(fold_groups(["a", "b", "c", "d"], 2, seed=0).values())
    [0, 0, 1, 1]
    """
    return _deal(groups, seed, classes, dict.fromkeys(range(n_folds), 1))


def _deal(
    groups: Iterable[str],
    seed: int,
    classes: Iterable[Hashable] | None,
    shares: Mapping[Part, int],
) -> dict[str, Part]:
    """The part of every group; parts have these shares of the tracks, ties go to the first."""
    names = list(groups)
    n_of_class: dict[str, Counter[Hashable]] = {name: Counter() for name in names}
    labels = [None] * len(names) if classes is None else classes
    for name, label in zip(names, labels, strict=True):
        n_of_class[name][label] += 1

    def place(group: str) -> bytes:
        return hashlib.sha256(f"{seed}:{group}".encode()).digest()

    filled: dict[Part, Counter[Hashable]] = {part: Counter() for part in shares}
    chosen: dict[str, Part] = {}
    for group in sorted(n_of_class, key=place):
        excess = {
            part: _excess(filled[part], n_of_class[group], share) for part, share in shares.items()
        }
        chosen[group] = min(shares, key=excess.__getitem__)
        filled[chosen[group]] += n_of_class[group]
    return chosen


def _excess(filled: Counter[Hashable], group: Counter[Hashable], share: int) -> tuple[float, float]:
    """How many shares a part would hold with a group: of the group's classes, and of all."""
    of_classes = sum(n * (filled[label] + n) for label, n in group.items()) / group.total()
    return of_classes / share, (filled.total() + group.total()) / share
