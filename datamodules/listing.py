"""The labelled list: tracks with their splits and targets as text, to hash and to compare.

Conventions: a line is `track_id<tab>split<tab>target`, and with audio a fourth column, the id of
the audio's content. The target of a piece of a song names the song too. Numbers have six decimals,
which hides in which order a machine adds. Lines are sorted, so that two people with the same list
have the same text.
"""

import hashlib
from collections.abc import Mapping, Sequence

from datamodules.tracks import Segment, Track


def hash_list(tracks: Sequence[Track]) -> str:
    """16 hex digits that two people share if they have the same tracks, splits and targets.

    >>> from pathlib import Path
    >>> a, b = Track("a", Path("a.wav"), "train", 0), Track("b", Path("b.wav"), "test", (0.5, 1.0))
    >>> hash_list([a, b]) == hash_list([b, a]), hash_list([a, b])
    (True, '3a9438398b552a9d')
    """
    return hash_text(list_text(tracks, audio=False))


def list_text(tracks: Sequence[Track], *, audio: bool) -> str:
    """The sorted lines of some tracks, with the content of their audio or without."""
    lines = []
    for track in tracks:
        song = "" if track.song is None else f" of {_one_word(track.song)}"
        columns = [_one_word(track.track_id), track.split, _target_text(track) + song]
        if audio:
            columns.append(track.audio_id)
        lines.append("\t".join(columns) + "\n")
    return "".join(sorted(lines))


def hash_text(text: str) -> str:
    """The first 16 hex digits of a text's SHA-256."""
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:16]


def differences(before: str, after: str) -> Mapping[str, int]:
    """Number of tracks that differ between two lists with audio, by what differs of them.

    >>> before = "a\\ttrain\\t0\\tx\\nb\\ttest\\t1\\ty\\n"
    >>> after = "a\\ttrain\\t1\\tx\\nc\\ttest\\t1\\ty\\n"
    >>> differences(before, after)
    {'tracks gone': 1, 'tracks new': 1, 'labels': 1, 'splits': 0, 'audio': 0}
    """
    old, new = _by_id(before), _by_id(after)
    common = [(old[name], new[name]) for name in old.keys() & new.keys()]
    return {
        "tracks gone": len(old.keys() - new.keys()),
        "tracks new": len(new.keys() - old.keys()),
        "labels": sum(was[1] != now[1] for was, now in common),
        "splits": sum(was[0] != now[0] for was, now in common),
        "audio": sum(was[2] != now[2] for was, now in common),
    }


def _by_id(text: str) -> dict[str, tuple[str, str, str]]:
    """Split, target and audio of every track."""
    found = {}
    for line in text.split("\n")[:-1]:
        name, split, target, audio = line.rsplit("\t", 3)
        found[name] = (split, target, audio)
    return found


def _one_word(name: str) -> str:
    """A name as it can stand in a column: tables allow any text, a line is a track."""
    return name.replace("\n", "\\n").replace("\t", "\\t")


def _target_text(track: Track) -> str:
    if isinstance(track.target, int):
        return str(track.target)

    numbers: list[float] = []
    for part in track.target:
        numbers += part if isinstance(part, Segment) else (part,)
    # + 0.0 makes 0.0 of -0.0
    return " ".join(f"{round(number, 6) + 0.0:.6f}" for number in numbers)
