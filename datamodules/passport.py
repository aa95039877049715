"""A dataset's passport: what is under its folder, set against what should be there.

Conventions: audio is judged by its header; no sample is decoded, so a file that breaks off inside
is only found by extraction. Seconds are those of the tracks, which may be parts of files; rates and
channels are counted per file. A group with `|` in its name is several groups, and its tracks belong
to each. Reading and hashing run in threads: most of the time goes to the disk.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import TypeVar

import numpy as np

from datamodules.audio.decode import AudioError, AudioInfo, audio_info
from datamodules.card import Card
from datamodules.duplicates import look_at_each, same_audio
from datamodules.excluding import exclude_remedy
from datamodules.listing import hash_list
from datamodules.task import TaskDataModule
from datamodules.tracks import (
    SPLITS,
    BadFile,
    Kind,
    Segment,
    Split,
    Track,
    UnusableFile,
    count_scored,
)

T = TypeVar("T")
Headers = Mapping[Path, AudioInfo | str]  # what a file's header says, or why it cannot be read
_N_THREADS = 16
_FILES_PER_CALL = 64  # a future for every one of 300 000 files would cost more than the file


@dataclass(frozen=True)
class Values:
    """Mean, population standard deviation and range of one dimension of a regression target."""

    mean: float
    sd: float
    low: float
    high: float


@dataclass(frozen=True)
class SplitFacts:
    """One split.

    Attributes:
        found: its tracks that have audio, readable or not.
        expected: tracks of the complete dataset; None where that is not known, and for a demo.
        seconds: readable audio, in s.
        per_class: tracks of each class, or with each tag; s of each class for `frames`; empty for
            `regression`.
        values: each dimension of the target; empty but for `regression`.
    """

    found: int
    expected: int | None
    seconds: float
    per_class: tuple[float, ...] = ()
    values: tuple[Values, ...] = ()


@dataclass(frozen=True)
class Passport:
    """What there is to say about the data of a task.

    Attributes:
        dataset: its name.
        root: its folder.
        is_demo: whether it is the rendered stand-in.
        card: what is said about the dataset, and how to get it.
        kind: what the targets are.
        classes: names of the classes, tags or dimensions.
        splits: facts of each split.
        durations_s: of the shortest, the median and the longest readable track, in s; None without
            any.
        sample_rates: number of files of each rate, in Hz.
        channels: number of files of each number of channels.
        missing: labelled tracks without audio.
        unreadable: tracks whose file's header cannot be read, or announces no samples.
        odd_lengths: readable tracks that do not last as long as those of the dataset do, and how
            long they last in s.
        left_out: known bad files that are no tracks.
        excluded: ids that `data.exclude` leaves out.
        duplicates: sets of files with the same bytes, as their tracks; those in more than one split
            come first.
        groups: tracks of each group (artist, singer, instrument) in each split; empty where no
            track has a group.
        grouped: tracks that have a group, in each split.
        listed: number of tracks that `list_hash` is of, with audio or without.
        list_hash: see `hash_list`.
        lasts_s: how long the dataset's tracks last, see `TaskDataModule.lasts_s`.
        exclude: entries of `data.exclude`, for advice.
    """

    dataset: str
    root: Path
    is_demo: bool
    card: Card | None
    kind: Kind
    classes: tuple[str, ...]
    splits: Mapping[Split, SplitFacts]
    durations_s: tuple[float, float, float] | None
    sample_rates: Mapping[int, int]
    channels: Mapping[int, int]
    missing: tuple[Track, ...]
    unreadable: tuple[UnusableFile, ...]
    left_out: tuple[BadFile, ...]
    excluded: tuple[str, ...]
    duplicates: tuple[tuple[Track, ...], ...]
    groups: Mapping[str, Mapping[Split, int]]
    grouped: Mapping[Split, int]
    listed: int
    list_hash: str
    odd_lengths: tuple[tuple[str, float], ...] = ()
    lasts_s: tuple[float, float] | None = None
    exclude: tuple[str, ...] = ()

    @property
    def group_leaks(self) -> dict[str, Mapping[Split, int]]:
        """Groups that are in more than one split, those with the most tracks first."""
        leaks = {name: counts for name, counts in self.groups.items() if len(counts) > 1}
        order = sorted(leaks, key=lambda name: (-sum(leaks[name].values()), name))
        return {name: leaks[name] for name in order}

    def classes_without(self, split: Split) -> list[str]:
        """Classes or tags that no track of a split has."""
        # Regression has names of dimensions, and nothing to count for them.
        counted = zip(self.classes, self.splits[split].per_class, strict=False)
        return [name for name, n in counted if n == 0]

    @property
    def classes_train_lacks(self) -> list[str]:
        """Classes or tags of val or test that no probe can learn."""
        elsewhere = set(self.classes_without("val")) & set(self.classes_without("test"))
        return [name for name in self.classes_without("train") if name not in elsewhere]

    @property
    def complaint(self) -> str | None:
        """Error text that names all files that cannot be read; None if there are none."""
        if not self.unreadable:
            return None
        names = [item.track_id for item in self.unreadable]
        return (
            f"{len(names)} of {self.listed} {self.dataset} files cannot be read: "
            f"{', '.join(names)}. Replace them, or leave them out with "
            f"{exclude_remedy(self.dataset, names, self.exclude)} (tables will say so)"
        )


def read_passport(
    data: TaskDataModule, progress: Callable[[int, int], None] = lambda done, total: None
) -> Passport:
    """Looks at every file of a task's tracks.

    Args:
        data: the task.
        progress: is called with the number of files that are done, and of all known so far.

    Raises:
        UserError: the dataset's folder is missing, or its labels are missing or broken. Missing or
            broken audio is no error.
    """
    listed = data.wanted()
    data.check_targets(listed)
    tracks = [track for track in listed if track.path.is_file()]

    # Tracks that are parts of one file share its header.
    files = _Files(progress)
    headers = files.each(_header, list(dict.fromkeys(track.path for track in tracks)))
    infos = [info for info in headers.values() if isinstance(info, AudioInfo)]
    readable = [track for track in tracks if isinstance(headers[track.path], AudioInfo)]
    seconds = {track.track_id: _seconds(track, headers) for track in tracks}

    return Passport(
        dataset=data.dataset,
        root=data.root,
        is_demo=data.is_demo,
        card=data.card,
        kind=data.kind,
        classes=data.classes,
        splits={split: _split_facts(data, split, tracks, seconds) for split in SPLITS},
        durations_s=_durations([seconds[track.track_id] for track in readable]),
        sample_rates=Counter(info.sample_rate for info in infos),
        channels=Counter(info.channels for info in infos),
        missing=tuple(track for track in listed if not track.path.is_file()),
        unreadable=tuple(_unreadable(tracks, headers)),
        left_out=tuple(data.left_out()),
        excluded=tuple(_excluded(data, listed)),
        duplicates=tuple(same_audio(readable, files.each)),
        groups=_tracks_per_group(tracks),
        grouped=Counter(track.split for track in tracks if track.group),
        listed=len(listed),
        list_hash=hash_list(listed),
        odd_lengths=tuple(_odd_lengths(data, readable, seconds)),
        lasts_s=None if data.is_demo else data.lasts_s,
        exclude=tuple(sorted(data.exclude)),
    )


def _excluded(data: TaskDataModule, wanted: Sequence[Track]) -> list[str]:
    """Ids that `data.exclude` leaves out, by themselves or by a word."""
    everything = {track.track_id for track in data.listed()}
    if data.is_demo:  # it holds a part of the list, which nobody has excluded
        return sorted(data.excluded_ids() & everything)
    return sorted(everything - {track.track_id for track in wanted})


def _odd_lengths(
    data: TaskDataModule, tracks: Sequence[Track], seconds: Mapping[str, float]
) -> list[tuple[str, float]]:
    """Tracks, and how long they last, whose length the dataset's tracks do not have."""
    if data.lasts_s is None or data.is_demo:
        return []
    low, high = data.lasts_s
    lengths = [(track.track_id, seconds[track.track_id]) for track in tracks]
    return [(name, length) for name, length in lengths if not low <= length <= high]


class _Files:
    """Runs functions over files, in threads, and counts for `progress`."""

    def __init__(self, progress: Callable[[int, int], None]) -> None:
        self._progress = progress
        self._done = 0
        self._total = 0

    def each(self, look: Callable[[Path], T], paths: Sequence[Path]) -> dict[Path, T]:
        """What `look` returns for each path.

        Raises:
            UserError: the disk cannot read one of them.
        """
        self._total += len(paths)
        starts = range(0, len(paths), _FILES_PER_CALL)
        parts = [paths[start : start + _FILES_PER_CALL] for start in starts]

        found: dict[Path, T] = {}
        with ThreadPoolExecutor(_N_THREADS) as pool:
            for looked_at in pool.map(partial(look_at_each, look), parts):
                found.update(looked_at)
                self._done += len(looked_at)
                self._progress(self._done, self._total)
        return found


def _header(path: Path) -> AudioInfo | str:
    try:
        info = audio_info(path)
    except AudioError as problem:
        return str(problem)
    return info if info.duration_s > 0 else "holds no samples"


def _seconds(track: Track, headers: Headers) -> float:
    """Length of a track in s, 0 where it is not readable."""
    info = headers[track.path]
    if not isinstance(info, AudioInfo):
        return 0.0
    end = info.duration_s if track.end_s is None else min(track.end_s, info.duration_s)
    return max(0.0, end - track.start_s)


def _durations(seconds: Sequence[float]) -> tuple[float, float, float] | None:
    """The shortest, the median and the longest; None without any."""
    if not seconds:
        return None
    return min(seconds), median(seconds), max(seconds)


def _unreadable(tracks: Sequence[Track], headers: Headers) -> list[UnusableFile]:
    files = []
    for track in tracks:
        reason = headers[track.path]
        if isinstance(reason, str):
            files.append(UnusableFile(track.track_id, track.path, reason))
    return files


def _split_facts(
    data: TaskDataModule, split: Split, tracks: Sequence[Track], seconds: Mapping[str, float]
) -> SplitFacts:
    members = [track for track in tracks if track.split == split]
    per_class: list[float] = []
    values: list[Values] = []
    if data.kind == "regression":
        values = _values(members)
    else:
        per_class = _per_class(len(data.classes), members, seconds)

    return SplitFacts(
        found=count_scored(members)[split],
        expected=None if data.is_demo else data.expected.get(split),
        seconds=sum(seconds[track.track_id] for track in members),
        per_class=tuple(per_class),
        values=tuple(values),
    )


def _per_class(
    n_classes: int, tracks: Sequence[Track], seconds: Mapping[str, float]
) -> list[float]:
    """Tracks of each class or with each tag, or s of each class."""
    totals = [0.0] * n_classes
    for track in tracks:
        if isinstance(track.target, int):
            totals[track.target] += 1
            continue

        parts: tuple[float | Segment, ...] = track.target
        for index, part in enumerate(parts):
            if isinstance(part, Segment):
                # Labels may go on where the audio has ended; the last one may have no end at all.
                end_s = min(part.end_s, seconds[track.track_id])
                totals[part.label] += max(0.0, end_s - part.start_s)
            else:
                totals[index] += part
    return totals


def _values(tracks: Sequence[Track]) -> list[Values]:
    """The dimensions of the tracks' targets."""
    columns = np.array([track.target for track in tracks]).T
    return [
        Values(
            mean=float(column.mean()),
            sd=float(column.std()),
            low=float(column.min()),
            high=float(column.max()),
        )
        for column in columns
    ]


def _tracks_per_group(tracks: Sequence[Track]) -> dict[str, Mapping[Split, int]]:
    groups: defaultdict[str, Counter[Split]] = defaultdict(Counter)
    for track in tracks:
        for name in set((track.group or "").split("|")) - {""}:
            groups[name][track.split] += 1
    return dict(groups)
