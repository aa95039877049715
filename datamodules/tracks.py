"""Records that everything speaks of: tracks, labels, places of clips, files that cannot be used.

Conventions: a track is the labelled item, the unit of split, of score and of bootstrap. A clip is
the piece of a track that one forward pass sees. Times are in s from the start of the track.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")
Kind = Literal["classification", "multilabel", "regression", "frames"]  # of a task's targets
MARKER = "demo.json"  # a dataset's folder that holds this file is the rendered stand-in


class Segment(NamedTuple):
    """A stretch of a track with one label.

    Attributes:
        start_s: where it starts, in s; included.
        end_s: where it ends, in s; excluded, inf stands for the end of the audio.
        label: its class.
    """

    start_s: float
    end_s: float
    label: int


@dataclass(frozen=True)
class Track:
    """One labelled item of a dataset.

    Attributes:
        track_id: unique in its dataset, stable across machines; also what `data.exclude` takes.
        path: audio file.
        split: `train`, `val` or `test`.
        target: classification: class index, in the order of the task's `classes`; multilabel: 0.0
            or 1.0 for each of them; regression: a value for each of them; frames: labelled segments
            in order of time, without overlap (what lies between them is ignored).
        group: what must not be in two splits at once (an artist, a singer, an instrument), several
            of them separated by `|`; None where it is not known.
        start_s: where in the file the track starts, in s.
        end_s: where in the file it ends, in s; None: at the end of the file.
        audio_id: of the content of its audio, see `audio_id`; empty until the file was read.
        song: of several tracks that are pieces of one song, in files of their own, its name: they
            are scored as one, by the mean of their outputs. None for a track that is a whole.
    """

    track_id: str
    path: Path
    split: Split
    target: int | tuple[float, ...] | tuple[Segment, ...]
    group: str | None = None
    start_s: float = 0.0
    end_s: float | None = None
    audio_id: str = ""
    song: str | None = None

    @property
    def scored_as(self) -> str:
        """Name of what it is scored as: its song, or itself."""
        return self.track_id if self.song is None else self.song


def audio_id(sha256: str, start_s: float = 0.0, end_s: float | None = None) -> str:
    """Name of audio by its content: the digest of its file, and which part of it is meant.

    Tracks with equal audio have equal ids, whatever their files are called.

    >>> audio_id("a" * 64)
    'aaaaaaaaaaaaaaaaaaaaaaaa'
    >>> audio_id("a" * 64, 1.5, 3.0)
    'aaaaaaaaaaaaaaaaaaaaaaaa@1.5-3.0'
    """
    content = sha256[:24]
    if start_s == 0 and end_s is None:
        return content
    return f"{content}@{start_s!r}-{'' if end_s is None else repr(end_s)}"


def count_scored(tracks: Iterable[Track]) -> Counter[Split]:
    """How many scores each split is the mean of: pieces of one song give one.

    >>> pieces = [Track(name, Path(name), "test", 0, song="s") for name in "ab"]
    >>> count_scored([*pieces, Track("c", Path("c"), "test", 0)])
    Counter({'test': 2})
    """
    scored = {(track.split, track.scored_as) for track in tracks}
    return Counter(split for split, _ in scored)


def cluster_scored(tracks: Iterable[Track]) -> dict[str, int]:
    """Which of the tracks that are scored belong together: their clusters, counted from 0.

    Tracks belong together that share a group (one of several is enough), a song or a file, and so
    does what is joined by a track between them.

    >>> pairs = {"a": "Abba", "b": "Cher", "c": "Abba|Cher", "d": None}
    >>> cluster_scored(Track(name, Path(name), "test", 0, who) for name, who in pairs.items())
    {'a': 0, 'b': 0, 'c': 0, 'd': 1}
    """
    leader: dict[str, str] = {}

    def find(name: str) -> str:
        while leader.setdefault(name, name) != name:
            leader[name] = leader[leader[name]]
            name = leader[name]
        return name

    scored: dict[str, None] = {}
    for track in tracks:
        name = f"track:{track.scored_as}"
        scored[track.scored_as] = None
        links = [f"file:{track.path}"]
        if track.group is not None:
            links += [f"group:{part}" for part in track.group.split("|")]
        for link in links:
            leader[find(link)] = find(name)

    clusters: dict[str, int] = {}
    return {name: clusters.setdefault(find(f"track:{name}"), len(clusters)) for name in scored}


@dataclass(frozen=True)
class ClipPlace:
    """Which piece of which audio a clip is.

    Attributes:
        audio_id: of the track it was cut from, see `audio_id`.
        index: 0 .. n_clips - 1, its place in the track.
        n_clips: how many clips the track gives.
        start_s: where it starts in the track, in s.
    """

    audio_id: str
    index: int
    n_clips: int
    start_s: float


@dataclass(frozen=True)
class UnusableFile:
    """A track whose audio cannot be used, and why."""

    track_id: str
    path: Path
    reason: str


@dataclass(frozen=True)
class BadFile:
    """A file of a dataset as it is distributed that is known to be bad, and is therefore no track.

    Attributes:
        name: the id that its track would have.
        reason: what is wrong with it.
        listed: since when it is on the list, an ISO date or year.
    """

    name: str
    reason: str
    listed: str
