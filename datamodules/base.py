"""The two faces of a task: audio clips for extraction, cached features for probes.

Conventions: the predict loader yields lists of clips (and of files that cannot be used), one decode per track; the train, val
and test loaders yield batches of features that are wholly in memory, every clip once per epoch. Items of the audio face are
tracks, split by rank, so that every clip is seen by exactly one process.
"""

import math
import os
import signal
from abc import abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Literal, TypedDict

import lightning as L
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, Dataset, RandomSampler, SequentialSampler

from datamodules.audio import AudioError, duration_s, load_audio
from datamodules.card import Card
from datamodules.clips import SPLITS, Clip, ClipRule, Segment, Split, Track, cut_clips
from datamodules.demo.corpus import MARKER
from datamodules.errors import UserError
from datamodules.store import Features, StoredTrack, StoreKey, read_features
from datamodules.workers import end_with_parent

MISSING = "missing"  # in `exclude`: every track without audio
Kind = Literal["classification", "multilabel", "regression", "frames"]


@dataclass(frozen=True)
class UnusableFile:
    """A track whose audio cannot be used, and why."""

    track_id: str
    path: Path
    reason: str


@dataclass(frozen=True)
class LeftOut:
    """A known bad file of a dataset that `read_tracks` leaves out.

    Attributes:
        name: the id that its track would have.
        reason: what is wrong with it.
        listed: since when it is on the list, an ISO date or year.
    """

    name: str
    reason: str
    listed: str


class FeatureBatch(TypedDict):
    """What a probe is fed with: B clips of all layers."""

    features: Tensor  # (L+1, B, D) float16
    target: Tensor  # (B,) int64, or (B, C) float32 for multilabel and regression
    track: Tensor  # (B,) int64, position of the clip's track in its split


@dataclass(frozen=True)
class LabelledTracks:
    """The tracks of one split and what is true of them.

    Attributes:
        track_ids: the split's N tracks.
        track_target: (N,) int64 classes; (N, C) float32 for multilabel and regression; (N, C) int64 frames of each class.
    """

    track_ids: tuple[str, ...]
    track_target: Tensor


@dataclass(frozen=True)
class FeatureSplit(LabelledTracks):
    """All clips of one split, in memory.

    Attributes:
        features: (L+1, N, D) float16, N clips.
        target: (N,) int64 or (N, C) float32, per clip.
        track: (N,) int64, position of each clip's track in `track_ids`.
    """

    features: Tensor
    target: Tensor
    track: Tensor


class TaskDataModule(L.LightningDataModule):
    """Base of every task: subclasses name a dataset, its classes, and how to list its tracks.

    Attributes:
        dataset: name of the audio collection; tasks with the same name share features.
        kind: what the targets are, see `Track.target`.
        classes: names of the classes, tags or dimensions, in the order of the targets.
        frame_rate: of the label grid in Hz, for the kind `frames`; None where a track has one target.
        expected: number of tracks per split in the complete dataset (empty if it varies).
        card: what is said about the dataset, and how to get it.
    """

    dataset: str
    kind: Kind = "classification"
    classes: tuple[str, ...]
    expected: Mapping[Split, int] = MappingProxyType({})
    card: Card | None = None
    frame_rate: float | None = None

    def __init__(self, root: Path, clip: ClipRule, exclude: Collection[str] = ()) -> None:
        super().__init__()
        self.root, self.clip, self.exclude = Path(root), clip, frozenset(exclude)
        self.allow_zero_length_dataloader_with_multiple_devices = True  # fewer tracks left than ranks
        self._tracks: list[Track] | None = None
        self._splits: dict[Split, FeatureSplit] = {}

    @abstractmethod
    def read_tracks(self) -> list[Track]:
        """All labelled tracks under `root`, whether or not their audio exists."""

    def left_out(self) -> list[LeftOut]:
        """Known bad files that `read_tracks` leaves out."""
        return []

    def labelled_tracks(self) -> list[Track]:
        """`read_tracks`, of a folder that exists.

        Raises:
            UserError: the data folder is missing or incomplete.
        """
        if not self.root.is_dir():
            raise UserError(f"no {self.dataset} data: {self.root} is not a folder. Set data.root to the folder that holds it")
        return self.read_tracks()

    def excluded_ids(self) -> set[str]:
        """The ids that `exclude` has for this dataset: `jazz.00054` is for all datasets, `gtzan:jazz.00054` for one."""
        ours = (name for name in self.exclude if ":" not in name or name.startswith(f"{self.dataset}:"))
        return {name.removeprefix(f"{self.dataset}:") for name in ours}

    def wanted(self, everything: Iterable[Track]) -> list[Track]:
        """The tracks that are not excluded, sorted by id; of a demo corpus, which holds a part of the real list, those it has."""
        excluded = self.excluded_ids()
        only_there = self.is_demo or MISSING in excluded
        kept = (track for track in everything if track.track_id not in excluded)
        return sorted((t for t in kept if not only_there or t.path.is_file()), key=lambda track: track.track_id)

    def tracks(self) -> list[Track]:
        """The tracks to work on: every labelled track that is not excluded, sorted by id.

        Raises:
            UserError: the data folder is missing or incomplete, or `exclude` names unknown tracks.
        """
        if self._tracks is None:
            everything = self.labelled_tracks()
            known = {track.track_id for track in everything} | {item.name for item in self.left_out()} | {MISSING}
            unknown = sorted(self.excluded_ids() - known)
            if unknown:
                raise UserError(
                    f"data.exclude names {len(unknown)} tracks that {self.dataset} does not have (first: {unknown[0]})"
                )
            self._tracks = self.wanted(everything)
            self._check(self._tracks)
        return self._tracks

    @property
    def is_demo(self) -> bool:
        """Whether `root` holds the rendered stand-in instead of the real dataset."""
        return (self.root / MARKER).exists()

    def _check(self, tracks: Sequence[Track]) -> None:
        missing = [track for track in tracks if not track.path.is_file()]
        if missing:
            raise UserError(
                f"{len(missing)} of {len(tracks)} {self.dataset} tracks have no audio under {self.root} (first: "
                f"{missing[0].path}). Put the files there, or leave the tracks out with data.exclude=[{self._name(missing)}]"
            )
        self.check_targets(tracks)
        empty = [split for split in SPLITS if not any(track.split == split for track in tracks)]
        if empty:
            raise UserError(f"{self.dataset} under {self.root} has no tracks for {', '.join(empty)}: complete the dataset")

    def _name(self, missing: Sequence[Track]) -> str:
        """Tracks as `data.exclude` takes them: a few by their ids, many by one word."""
        return f"{self.dataset}:{MISSING}" if len(missing) > 3 else ",".join(track.track_id for track in missing)

    def check_targets(self, tracks: Sequence[Track]) -> None:
        """Raises UserError if a target is not what `kind` and `classes` say."""
        wrong = [track for track in tracks if not self._fits(track.target)]
        if wrong:
            raise UserError(
                f"{len(wrong)} {self.dataset} tracks have a target that is not one of {len(self.classes)} classes (first: "
                f"{wrong[0].track_id} has {wrong[0].target}): their labels are not those of the dataset as distributed"
            )

    def _fits(self, target: int | tuple[float, ...] | tuple[Segment, ...]) -> bool:
        if self.kind == "frames":
            return isinstance(target, tuple) and all(
                isinstance(segment, Segment) and 0 <= segment.label < len(self.classes) for segment in target
            )
        if isinstance(target, int):
            return self.kind == "classification" and 0 <= target < len(self.classes)
        if self.kind == "classification" or len(target) != len(self.classes):
            return False
        return set(target) <= {0.0, 1.0} if self.kind == "multilabel" else bool(np.isfinite(target).all())

    # -- audio, for extraction -------------------------------------------------------------------------------------

    def feed_audio(
        self,
        sample_rate: int,
        *,
        min_samples: int,
        stored: Mapping[str, StoredTrack],
        batch_seconds: float,
        n_workers: int,
    ) -> None:
        """Chooses what `predict_dataloader` yields: the clips that are not `stored` yet, at `sample_rate` Hz.

        Args:
            sample_rate: of the backbone, in Hz.
            min_samples: shorter clips are reported as unusable.
            stored: what the feature store holds already.
            batch_seconds: audio per batch, in s; at least one track.
            n_workers: processes that decode beside the forward pass.
        """
        todo = [track for track in self.tracks() if track.track_id not in stored or not stored[track.track_id].complete]
        self._audio = _TrackAudio(todo, sample_rate, self.clip, min_samples, stored)
        self._batch_seconds, self._n_workers = batch_seconds, n_workers

    @property
    def n_waiting(self) -> int:
        """Number of tracks that `predict_dataloader` yields over all ranks."""
        return len(self._audio)

    def waiting_rows(self) -> int:
        """Rows of features, at the least, that `predict_dataloader`'s tracks will take in the store, over all ranks."""
        if self.frame_rate is None:
            return self.n_waiting
        seconds = 0.0
        for track in self._audio.tracks:
            with suppress(AudioError):  # said when the track is decoded
                seconds += duration_s(track.path)
        return math.ceil(seconds * self.frame_rate)

    def predict_dataloader(self) -> DataLoader[list[Clip | UnusableFile]]:
        """Batches of decoded clips: the share of this rank."""
        rank, n_ranks = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        share = self._audio.share(rank, n_ranks)
        return DataLoader(
            share,
            batch_size=share.tracks_per_batch(self._batch_seconds),
            num_workers=self._n_workers if len(share) else 0,
            collate_fn=_flatten,
            worker_init_fn=partial(_start_worker, os.getpid()),
        )

    # -- features, for probes --------------------------------------------------------------------------------------

    def load_features(self, folder: Path, key: StoreKey, *, batch_size: int, seed: int) -> None:
        """Reads the features of `tracks()` from a store into memory; see `feed_features`.

        Raises:
            UserError: a broken shard, or features that are missing.
        """
        ids = [track.track_id for track in self.tracks()]
        self.feed_features(read_features(folder, key, ids), batch_size=batch_size, seed=seed)

    def feed_features(self, features: Features, *, batch_size: int, seed: int) -> None:
        """Chooses what the train, val and test loaders yield.

        Args:
            features: of `tracks()`, in that order.
            batch_size: clips per training batch.
            seed: of the order of the training clips.
        """
        self._batch_size, self._seed = batch_size, seed
        self._splits = {split: self._select(features, split) for split in SPLITS}

    @property
    def feature_shape(self) -> tuple[int, int]:
        """Number of layers L+1 and of features D, after `load_features`."""
        n_layers, _, dim = self._splits["train"].features.shape
        return n_layers, dim

    def train_features(self) -> Iterator[Tensor]:
        """All training features in parts of (L+1, n, D) float16, for their mean and deviation."""
        yield self._splits["train"].features

    def split(self, split: Split) -> LabelledTracks:
        """The tracks of one split, after `load_features`."""
        return self._splits[split]

    def train_dataloader(self) -> DataLoader[FeatureBatch]:
        """Training clips in a new, seeded order each epoch."""
        data = _InMemory(self._splits["train"])
        order = RandomSampler(data, generator=torch.Generator().manual_seed(self._seed))
        return _loader(data, BatchSampler(order, self._batch_size, drop_last=False))

    def val_dataloader(self) -> DataLoader[FeatureBatch]:
        """Validation clips, in order."""
        return self._in_order("val")

    def test_dataloader(self) -> DataLoader[FeatureBatch]:
        """Test clips, in order."""
        return self._in_order("test")

    def _in_order(self, split: Split) -> DataLoader[FeatureBatch]:
        data = _InMemory(self._splits[split])
        return _loader(data, BatchSampler(SequentialSampler(data), 8 * self._batch_size, drop_last=False))

    def _select(self, features: Features, split: Split) -> FeatureSplit:
        tracks = self.tracks()
        members = np.array([index for index, track in enumerate(tracks) if track.split == split])
        rows = np.isin(features.track, members)
        track = torch.from_numpy(np.searchsorted(members, features.track[rows]))
        targets = torch.tensor([tracks[index].target for index in members])
        return FeatureSplit(
            features=torch.from_numpy(features.values[:, rows]),
            target=targets[track],
            track=track,
            track_ids=tuple(tracks[index].track_id for index in members),
            track_target=targets,
        )


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
            audio = load_audio(track.path, self.sample_rate, start_s=track.start_s, end_s=track.end_s)
            file_bytes = track.path.stat().st_size
            clips = cut_clips(audio, self.sample_rate, self.rule, track_id=track.track_id, file_bytes=file_bytes)
            shortest = min(len(clip.audio) for clip in clips)
            if shortest < self.min_samples:
                raise AudioError(
                    f"is too short ({shortest} samples at {self.sample_rate} Hz, the backbone needs {self.min_samples})"
                )
        except AudioError as problem:
            return [UnusableFile(track.track_id, track.path, str(problem))]
        done = self.stored[track.track_id].clips if track.track_id in self.stored else frozenset[int]()
        return [clip for clip in clips if clip.index not in done]

    def share(self, rank: int, n_ranks: int) -> "_TrackAudio":
        return _TrackAudio(self.tracks[rank::n_ranks], self.sample_rate, self.rule, self.min_samples, self.stored)

    def tracks_per_batch(self, batch_seconds: float) -> int:
        """Tracks whose audio is about `batch_seconds` long, judged by the longest of some thirty."""
        longest = 0.1
        for track in self.tracks[:: max(1, len(self.tracks) // 32)]:
            with suppress(AudioError):  # said when the track is decoded
                longest = max(longest, duration_s(track.path))
        return max(1, int(batch_seconds / longest))


class _InMemory(Dataset[FeatureBatch]):
    """Indexes whole batches out of tensors in memory (ten times faster than item by item: facts/infra)."""

    def __init__(self, split: FeatureSplit) -> None:
        self.split = split

    def __len__(self) -> int:
        return len(self.split.target)

    def __getitem__(self, rows: list[int]) -> FeatureBatch:
        split, index = self.split, torch.tensor(rows)
        return {"features": split.features[:, index], "target": split.target[index], "track": split.track[index]}


def _loader(data: _InMemory, batches: BatchSampler) -> DataLoader[FeatureBatch]:
    return DataLoader(data, sampler=batches, batch_size=None, num_workers=0)


def _start_worker(parent: int, _index: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process; the parent ends its workers
    end_with_parent(parent)


def _flatten(batch: list[list[Clip | UnusableFile]]) -> list[Clip | UnusableFile]:
    return [item for track in batch for item in track]
