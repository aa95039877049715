"""Tracks decoded and cut into clips by worker processes."""

import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress

from torch.utils.data import Dataset

from datamodules.audio.clips import Clip, ClipRule, cut_clips
from datamodules.audio.decode import AudioError, duration_s, load_audio
from datamodules.features.store import StoredTrack
from datamodules.tracks import Track, UnusableFile
from datamodules.workers import end_with_parent


class _TrackAudio(Dataset[list[Clip | UnusableFile]]):
    """Decodes tracks; an item is the clips of one track that are still wanted."""

    def __init__(
        self,
        tracks: Sequence[Track],
        sample_rate: int,
        rule: ClipRule,
        min_samples: int,
        stored: Mapping[str, StoredTrack],
    ) -> None:
        self.tracks, self.sample_rate, self.rule, self.min_samples, self.stored = (
            tracks,
            sample_rate,
            rule,
            min_samples,
            stored,
        )

    def __len__(self) -> int:
        return len(self.tracks)

    def __getitem__(self, index: int) -> list[Clip | UnusableFile]:
        track = self.tracks[index]
        try:
            audio = load_audio(
                track.path, self.sample_rate, start_s=track.start_s, end_s=track.end_s
            )
            file_bytes = track.path.stat().st_size
            clips = cut_clips(
                audio, self.sample_rate, self.rule, track_id=track.track_id, file_bytes=file_bytes
            )
            shortest = min(len(clip.audio) for clip in clips)
            if shortest < self.min_samples:
                raise AudioError(
                    f"is too short ({shortest} samples at {self.sample_rate} Hz, the backbone "
                    f"needs {self.min_samples})"
                )
        except AudioError as problem:
            return [UnusableFile(track.track_id, track.path, str(problem))]
        done = (
            self.stored[track.track_id].clips if track.track_id in self.stored else frozenset[int]()
        )
        return [clip for clip in clips if clip.index not in done]

    def share(self, rank: int, n_ranks: int) -> "_TrackAudio":
        return _TrackAudio(
            self.tracks[rank::n_ranks], self.sample_rate, self.rule, self.min_samples, self.stored
        )

    def tracks_per_batch(self, batch_seconds: float) -> int:
        """Tracks whose audio is about `batch_seconds` long, judged by the longest of some thirty."""
        longest = 0.1
        for track in self.tracks[:: max(1, len(self.tracks) // 32)]:
            with suppress(AudioError):  # said when the track is decoded
                longest = max(longest, duration_s(track.path))
        return max(1, int(batch_seconds / longest))


def _start_worker(parent: int, _index: int) -> None:
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # Ctrl-C reaches every process; the parent ends its workers
    end_with_parent(parent)


def _flatten(batch: list[list[Clip | UnusableFile]]) -> list[Clip | UnusableFile]:
    return [item for track in batch for item in track]
