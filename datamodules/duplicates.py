"""Tracks with the same audio: equal bytes, whatever the files are called.

Conventions: only files of one size can be the same, and of those only the ones with the same bytes
in the middle are read as a whole. Parts of one file are not the same audio, equal parts of two
equal files are.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

from datamodules.errors import UserError
from datamodules.files import sha256_of
from datamodules.tracks import Split, Track

T = TypeVar("T")
_SAMPLE_BYTES = 4096
_TRUSTED: tuple[Split, ...] = ("test", "val", "train")  # whose copy is kept


class LookAtEach(Protocol):
    """Runs a function over files; by threads, or one after the other."""

    def __call__(self, look: Callable[[Path], T], paths: Sequence[Path], /) -> Mapping[Path, T]:
        """What `look` returns for each path."""


def look_at_each(look: Callable[[Path], T], paths: Sequence[Path]) -> dict[Path, T]:
    """What `look` returns for each path.

    Raises:
        UserError: the disk cannot read one of them.
    """
    found = {}
    for path in paths:
        try:
            found[path] = look(path)
        except OSError as error:
            raise UserError(
                f"cannot read {path} ({error.strerror}): "
                "repair it or leave its track out with data.exclude"
            ) from error
    return found


def same_audio(tracks: Sequence[Track], each: LookAtEach = look_at_each) -> list[tuple[Track, ...]]:
    """Sets of tracks with the same audio, those in more than one split first.

    Raises:
        UserError: the disk cannot read a file.
    """
    paths = list(dict.fromkeys(track.path for track in tracks))
    sizes = {path: path.stat().st_size for path in paths}
    samples = each(_sample, _that_share(sizes))
    candidates = _that_share({path: (sizes[path], sample) for path, sample in samples.items()})
    hashes = each(sha256_of, candidates)

    alike: defaultdict[Hashable, list[Track]] = defaultdict(list)
    for track in tracks:
        if track.path in hashes:
            alike[hashes[track.path], track.start_s, track.end_s].append(track)

    sets = [same for same in alike.values() if len(same) > 1]
    found = [tuple(sorted(same, key=lambda track: track.track_id)) for same in sets]
    return sorted(found, key=lambda same: (not crosses_splits(same), same[0].track_id))


def crosses_splits(tracks: Sequence[Track]) -> bool:
    """Whether tracks are of more than one split."""
    return len({track.split for track in tracks}) > 1


def copies(same: Sequence[Track]) -> list[Track]:
    """Of tracks with the same audio, those to leave out so that they are in one split.

    The copy in test stays, or else that in val: no number is then made of fewer tracks.

    >>> one = Track("a", Path("a.wav"), "train", 0)
    >>> other = Track("b", Path("b.wav"), "val", 0)
    >>> [track.track_id for track in copies([one, other])]
    ['a']
    """
    there = {track.split for track in same}
    kept = next(split for split in _TRUSTED if split in there)
    return [track for track in same if track.split != kept]


def _that_share(keys: Mapping[Path, Hashable]) -> list[Path]:
    """Paths that share their key with another one."""
    n = Counter(keys.values())
    return [path for path, key in keys.items() if n[key] > 1]


def _sample(path: Path) -> bytes:
    """Hash of some bytes in the middle of a file.

    It tells most files of one size apart (all 305 979 of NSynth have the same) at the price of one
    read; at the start, headers look alike.
    """
    with path.open("rb") as file:
        file.seek(path.stat().st_size // 2)
        return hashlib.sha256(file.read(_SAMPLE_BYTES)).digest()
