"""Tracks into clips: decoded and cut by worker processes beside the forward pass.

Conventions: an item is one track, decoded once, so that its clips are in one batch. Tracks are
dealt to ranks, so that every clip is seen by exactly one process.
"""

import os
import signal
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from torch.utils.data import DataLoader, Dataset

from datamodules.audio.clips import Clip, ClipRule, cut_clips
from datamodules.audio.decode import AudioError, duration_s, load_audio
from datamodules.tracks import Track, UnusableFile
from datamodules.workers import end_with_parent

_N_SAMPLED = (
    32  # tracks whose length is looked up to size a batch: reading 300 000 headers takes minutes
)


@dataclass(frozen=True)
class ClipLoader:
    """Clips that are still wanted of some tracks.

    Attributes:
        tracks: whose clips are wanted.
        rule: how tracks are cut.
        stored: track id -> places of the clips that the feature store holds already.
        sample_rate: of the backbone, in Hz.
        min_samples: of the backbone; tracks with shorter clips are reported as unusable.
        batch_seconds: audio per batch, in s; at least one track.
        n_workers: processes that decode.
    """

    tracks: Sequence[Track]
    rule: ClipRule
    stored: Mapping[str, Collection[int]]
    sample_rate: int
    min_samples: int
    batch_seconds: float
    n_workers: int

    def batches(self, rank: int = 0, n_ranks: int = 1) -> DataLoader[list[Clip | UnusableFile]]:
        """Decoded clips and the files that cannot be used: the share of one rank."""
        share = self.tracks[rank::n_ranks]
        return DataLoader(
            _DecodedTracks(self, share),
            batch_size=tracks_per_batch(share, self.batch_seconds),
            num_workers=self.n_workers if share else 0,
            collate_fn=_flatten,
            worker_init_fn=partial(_start_worker, os.getpid()),
        )

    def clips(self, track: Track) -> list[Clip]:
        """The wanted clips of one track.

        Raises:
            AudioError: the file cannot be used.
        """
        audio = load_audio(track.path, self.sample_rate, start_s=track.start_s, end_s=track.end_s)
        file_bytes = track.path.stat().st_size
        clips = cut_clips(
            audio, self.sample_rate, self.rule, track_id=track.track_id, file_bytes=file_bytes
        )

        shortest = min(len(clip.audio) for clip in clips)
        if shortest < self.min_samples:
            raise AudioError(
                f"is too short ({shortest} samples at {self.sample_rate} Hz, the backbone needs "
                f"{self.min_samples})"
            )

        done = self.stored.get(track.track_id, ())
        return [clip for clip in clips if clip.place.index not in done]


class _DecodedTracks(Dataset[list[Clip | UnusableFile]]):
    """An item is the wanted clips of one track, or why its file cannot be used."""

    def __init__(self, loader: ClipLoader, tracks: Sequence[Track]) -> None:
        self.loader, self.tracks = loader, tracks

    def __len__(self) -> int:
        return len(self.tracks)

    def __getitem__(self, index: int) -> list[Clip | UnusableFile]:
        track = self.tracks[index]
        try:
            return [*self.loader.clips(track)]
        except AudioError as problem:
            return [UnusableFile(track.track_id, track.path, str(problem))]


def tracks_per_batch(tracks: Sequence[Track], batch_seconds: float) -> int:
    """Tracks whose audio is about `batch_seconds` long, judged by the longest of some thirty."""
    some = tracks[:: max(1, len(tracks) // _N_SAMPLED)]
    longest = max([0.1, *lengths_s(some)])
    return max(1, int(batch_seconds / longest))


def lengths_s(tracks: Sequence[Track]) -> list[float]:
    """Length in s that the header of each track's file announces; unreadable files are left out."""
    lengths = []
    for track in tracks:
        with suppress(AudioError):  # said when the track is decoded
            lengths.append(duration_s(track.path))
    return lengths


def _start_worker(parent: int, _index: int) -> None:
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # Ctrl-C reaches every process; the parent ends its workers
    end_with_parent(parent)


def _flatten(batch: list[list[Clip | UnusableFile]]) -> list[Clip | UnusableFile]:
    return [item for track in batch for item in track]
