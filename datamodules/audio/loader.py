"""Files into clips: read, hashed, decoded and cut by worker processes beside the forward pass.

Conventions: an item is one file, or some neighbouring parts of a long one. Its content is hashed
while it is read for decoding anyway, and what is stored already is not decoded: audio is known by
its content, not by its name. Items are dealt to ranks, so that every clip is seen by one process.
"""

import heapq
import os
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from datamodules.audio.clips import Clip, ClipRule, cut_clips
from datamodules.audio.decode import AudioError, duration_s, load_audio
from datamodules.digests import FileDigest, read_digest
from datamodules.tracks import Track, UnusableFile, audio_id
from datamodules.workers import end_with_parent

_N_SAMPLED = 32  # tracks whose length is looked up: reading 300 000 headers takes minutes


@dataclass
class ReadFile:
    """Clips of one file, or of some parts of it.

    Attributes:
        n_tracks: that were looked at.
        digest: of its content; None where it could not be read.
        clips: that the store lacks.
        unusable: tracks that no clip can be made of, and why.
    """

    n_tracks: int
    digest: FileDigest | None = None
    clips: list[Clip] = field(default_factory=list)
    unusable: list[UnusableFile] = field(default_factory=list)


class ReadBatch(list[ReadFile]):
    """Files that were read; all audio of a batch goes from a worker to this process as one tensor.

    That is shared memory, where arrays would be copied three times. (A tensor for each file would
    take a file descriptor each, of which short files need more than a process may have.)
    """

    def __reduce__(self) -> tuple[Any, ...]:
        clips = [clip for file in self for clip in file.clips]
        audio = np.concatenate([_NOTHING, *(clip.audio for clip in clips)])
        lengths = [len(clip.audio) for clip in clips]
        bare = [
            replace(file, clips=[replace(clip, audio=_NOTHING) for clip in file.clips])
            for file in self
        ]
        return _unpack, (bare, lengths, torch.from_numpy(audio))


_NOTHING: NDArray[np.float32] = np.empty(0, np.float32)


def _unpack(files: Sequence[ReadFile], lengths: list[int], audio: Tensor) -> ReadBatch:
    """The files with their clips' audio, as views of it all."""
    pieces = iter(torch.split(audio, lengths))
    for file in files:
        file.clips = [replace(clip, audio=next(pieces).numpy()) for clip in file.clips]
    return ReadBatch(files)


@dataclass(frozen=True)
class ClipLoader:
    """Clips that a feature store lacks, of some tracks.

    Attributes:
        tracks: that are not known to be stored.
        rule: how tracks are cut.
        stored: audio id -> places of the clips that the store holds; None for all of them.
        sample_rate: of the backbone, in Hz.
        min_samples: of the backbone; tracks with shorter clips are reported as unusable.
        batch_seconds: audio per batch, in s; at least one file.
        n_workers: processes that decode.
    """

    tracks: Sequence[Track]
    rule: ClipRule
    stored: Mapping[str, Collection[int] | None]
    sample_rate: int
    min_samples: int
    batch_seconds: float
    n_workers: int

    def batches(self, rank: int = 0, n_ranks: int = 1) -> DataLoader[list[ReadFile]]:
        """Files that were read: the share of one rank."""
        share = deal(self._items(), n_ranks)[rank]
        return DataLoader[list[ReadFile]](
            _Items(self, share),
            batch_size=items_per_batch(share, self.batch_seconds),
            num_workers=self.n_workers if share else 0,
            collate_fn=ReadBatch,
            worker_init_fn=partial(_start_worker, os.getpid()),
        )

    def _items(self) -> list[list[Track]]:
        """Tracks of one file together, but of a long one no more than a batch holds."""
        items: dict[tuple[Path, int], list[Track]] = {}
        for track in self.tracks:
            block = int(track.start_s // self.batch_seconds)
            items.setdefault((track.path, block), []).append(track)
        return list(items.values())

    def read(self, tracks: Sequence[Track]) -> ReadFile:
        """Reads the file of some tracks, which are parts of it or all of it."""
        found = ReadFile(len(tracks))
        try:
            status = tracks[0].path.stat()
            found.digest = _digest_once(tracks[0].path, status.st_size, status.st_mtime_ns)
        except OSError as error:
            reason = _why_unreadable(error)
            found.unusable = [UnusableFile(t.track_id, t.path, reason) for t in tracks]
            return found

        for track in tracks:
            try:
                found.clips += self._clips(track, found.digest)
            except AudioError as problem:
                found.unusable.append(UnusableFile(track.track_id, track.path, str(problem)))
        return found

    def _clips(self, track: Track, digest: FileDigest) -> list[Clip]:
        """The clips of one track that are not stored.

        Raises:
            AudioError: the file cannot be used.
        """
        name = audio_id(digest.sha256, track.start_s, track.end_s)
        done = self.stored.get(name, ())
        if done is None:
            return []

        audio = load_audio(track.path, self.sample_rate, start_s=track.start_s, end_s=track.end_s)
        if not digest.is_of(track.path):  # what was heard may not be what was hashed
            raise AudioError("changed while it was read")
        clips = cut_clips(
            audio, self.sample_rate, self.rule, audio_id=name, track_id=track.track_id
        )
        shortest = min(len(clip.audio) for clip in clips)
        if shortest < self.min_samples:
            raise AudioError(
                f"is too short ({shortest} samples at {self.sample_rate} Hz, the backbone needs "
                f"{self.min_samples})"
            )
        return [clip for clip in clips if clip.place.index not in done]


class _Items(Dataset[Any]):
    """An item is the tracks of one file, read."""

    def __init__(self, loader: ClipLoader, items: Sequence[Sequence[Track]]) -> None:
        self.loader, self.items = loader, items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> ReadFile:
        return self.loader.read(self.items[index])


@lru_cache(maxsize=4)  # a long file gives many items, one after the other
def _digest_once(path: Path, _size: int, _changed_ns: int) -> FileDigest:
    return read_digest(path)


def items_per_batch(items: Sequence[Sequence[Track]], batch_seconds: float) -> int:
    """Items whose tracks are about `batch_seconds` long, judged by the longest of some thirty."""
    some = items[:: max(1, len(items) // _N_SAMPLED)]
    longest = max([0.1, *(sum(lengths_s(tracks)) for tracks in some)])
    return max(1, int(batch_seconds / longest))


def deal(items: Sequence[list[Track]], n_ranks: int) -> list[list[list[Track]]]:
    """Items for each rank, so that all end together; in the order in which they came.

    The longest first, each to the rank that has the least to do so far (Graham 1969).
    """
    if n_ranks == 1:
        return [list(items)]

    expected_s = _expected_s(items)
    longest_first = sorted(range(len(items)), key=lambda item: -expected_s[item])
    ranks = [(0.0, rank) for rank in range(n_ranks)]
    of_rank: list[list[int]] = [[] for _ in range(n_ranks)]
    for item in longest_first:
        total_s, rank = heapq.heappop(ranks)
        of_rank[rank].append(item)
        heapq.heappush(ranks, (total_s + expected_s[item], rank))
    return [[items[item] for item in sorted(share)] for share in of_rank]


def _expected_s(items: Sequence[Sequence[Track]]) -> list[float]:
    """Length of each item in s: of parts what their labels say, of whole files what their size
    says, since opening every file to ask would take minutes.
    """
    whole = [track for tracks in items for track in tracks if track.end_s is None]
    sizes = {track.path: _size(track.path) for track in whole}
    kinds: dict[str, list[Track]] = {}
    for track in whole:
        kinds.setdefault(track.path.suffix.lower(), []).append(track)
    seconds_a_byte = {
        kind: sum(lengths_s(some)) / max(1, sum(sizes[track.path] for track in some))
        for kind, tracks in kinds.items()
        for some in [tracks[:: max(1, len(tracks) // _N_SAMPLED)]]
    }

    def seconds(track: Track) -> float:
        if track.end_s is not None:
            return track.end_s - track.start_s
        all_s = sizes[track.path] * seconds_a_byte[track.path.suffix.lower()]
        return max(0.0, all_s - track.start_s)

    return [sum(seconds(track) for track in tracks) for tracks in items]


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # said when it is read
        return 0


def lengths_s(tracks: Sequence[Track]) -> list[float]:
    """Length of each track in s, by the header of its file; unreadable files are left out."""
    lengths = []
    for track in tracks:
        with suppress(AudioError):  # said when the track is decoded
            end_s = track.end_s if track.end_s is not None else duration_s(track.path)
            lengths.append(max(0.0, end_s - track.start_s))
    return lengths


def _why_unreadable(error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return "does not exist"
    return f"cannot be read ({error.strerror})"


def _start_worker(parent: int, _index: int) -> None:
    end_with_parent(parent)
