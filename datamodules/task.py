"""The two faces of a task: audio clips for extraction, cached features for probes.

Conventions: the predict loader yields lists of clips (and of files that cannot be used), one decode
per track; the train, val and test loaders yield batches of features that are wholly in memory,
every clip once per epoch. Items of the audio face are tracks, split by rank, so that every clip is
seen by exactly one process.
"""

import math
import os
from abc import abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import MappingProxyType

import lightning as L
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, SequentialSampler

from datamodules.audio.clips import Clip, ClipRule
from datamodules.audio.decode import AudioError, duration_s
from datamodules.audio.loader import _flatten, _start_worker, _TrackAudio
from datamodules.card import Card
from datamodules.errors import UserError
from datamodules.features.frames import FrameSplit, _FrameBatches, frame_loader
from datamodules.features.grid import frame_labels
from datamodules.features.memory import (
    FeatureBatch,
    FeatureSplit,
    LabelledTracks,
    _InMemory,
    _loader,
)
from datamodules.features.store import Features, FrameClips, StoredTrack, StoreKey, read_features
from datamodules.tracks import (
    MARKER,
    MISSING,
    SPLITS,
    BadFile,
    Kind,
    Segment,
    Split,
    Track,
    UnusableFile,
)


class TaskDataModule(L.LightningDataModule):
    """Base of every task: subclasses name a dataset, its classes, and how to list its tracks.

    Attributes:
        dataset: name of the audio collection; tasks with the same name share features.
        kind: what the targets are, see `Track.target`.
        classes: names of the classes, tags or dimensions, in the order of the targets.
        frame_rate: of the label grid in Hz, for the kind `frames`; None where a track has one
            target.
        expected: number of tracks per split in the complete dataset (empty if it varies).
        card: what is said about the dataset, and how to get it.
        known_bad: files of the dataset that `read_tracks` leaves out.
    """

    dataset: str
    kind: Kind = "classification"
    classes: tuple[str, ...]
    expected: Mapping[Split, int] = MappingProxyType({})
    card: Card | None = None
    known_bad: tuple[BadFile, ...] = ()
    frame_rate: float | None = None

    def __init__(self, root: Path, clip: ClipRule, exclude: Collection[str] = ()) -> None:
        super().__init__()
        self.root, self.clip, self.exclude = Path(root), clip, frozenset(exclude)
        self.allow_zero_length_dataloader_with_multiple_devices = (
            True  # fewer tracks left than ranks
        )
        self._tracks: list[Track] | None = None
        self._splits: dict[Split, FeatureSplit] = {}

    @abstractmethod
    def read_tracks(self) -> list[Track]:
        """All labelled tracks under `root`, whether or not their audio exists."""

    def left_out(self) -> list[BadFile]:
        """Those of `known_bad` that `read_tracks` leaves out: all, unless a dataset looks first."""
        return list(self.known_bad)

    def labelled_tracks(self) -> list[Track]:
        """`read_tracks`, of a folder that exists.

        Raises:
            UserError: the data folder is missing or incomplete.
        """
        if not self.root.is_dir():
            raise UserError(
                f"no {self.dataset} data: {self.root} is not a folder. Set data.root to the folder "
                "that holds it"
            )
        return self.read_tracks()

    def excluded_ids(self) -> set[str]:
        """The ids that `exclude` has for this dataset: `jazz.00054` is for all datasets,
        `gtzan:jazz.00054` for one.
        """
        ours = (
            name for name in self.exclude if ":" not in name or name.startswith(f"{self.dataset}:")
        )
        return {name.removeprefix(f"{self.dataset}:") for name in ours}

    def wanted(self, everything: Iterable[Track]) -> list[Track]:
        """The tracks that are not excluded, sorted by id; of a demo corpus, which holds a part of
        the real list, those it has.
        """
        excluded = self.excluded_ids()
        only_there = self.is_demo or MISSING in excluded
        kept = (track for track in everything if track.track_id not in excluded)
        return sorted(
            (t for t in kept if not only_there or t.path.is_file()),
            key=lambda track: track.track_id,
        )

    def tracks(self) -> list[Track]:
        """The tracks to work on: every labelled track that is not excluded, sorted by id.

        Raises:
            UserError: the data folder is missing or incomplete, or `exclude` names unknown tracks.
        """
        if self._tracks is None:
            everything = self.labelled_tracks()
            known = (
                {track.track_id for track in everything}
                | {item.name for item in self.left_out()}
                | {MISSING}
            )
            unknown = sorted(self.excluded_ids() - known)
            if unknown:
                raise UserError(
                    f"data.exclude names {len(unknown)} tracks that {self.dataset} does not have "
                    f"(first: {unknown[0]})"
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
                f"{len(missing)} of {len(tracks)} {self.dataset} tracks have no audio under "
                f"{self.root} (first: "
                f"{missing[0].path}). Put the files there, or leave the tracks out with "
                f"data.exclude=[{self._name(missing)}]"
            )
        self.check_targets(tracks)
        empty = [split for split in SPLITS if not any(track.split == split for track in tracks)]
        if empty:
            raise UserError(
                f"{self.dataset} under {self.root} has no tracks for {', '.join(empty)}: complete "
                "the dataset"
            )

    def _name(self, missing: Sequence[Track]) -> str:
        """Tracks as `data.exclude` takes them: a few by their ids, many by one word."""
        return (
            f"{self.dataset}:{MISSING}"
            if len(missing) > 3
            else ",".join(track.track_id for track in missing)
        )

    def check_targets(self, tracks: Sequence[Track]) -> None:
        """Raises UserError if a target is not what `kind` and `classes` say."""
        wrong = [track for track in tracks if not self._fits(track.target)]
        if wrong:
            raise UserError(
                f"{len(wrong)} {self.dataset} tracks have a target that is not one of "
                f"{len(self.classes)} classes (first: "
                f"{wrong[0].track_id} has {wrong[0].target}): their labels are not those of the "
                "dataset as distributed"
            )

    def _fits(self, target: int | tuple[float, ...] | tuple[Segment, ...]) -> bool:
        if self.kind == "frames":
            return isinstance(target, tuple) and all(
                isinstance(segment, Segment) and 0 <= segment.label < len(self.classes)
                for segment in target
            )
        if isinstance(target, int):
            return self.kind == "classification" and 0 <= target < len(self.classes)
        if self.kind == "classification" or len(target) != len(self.classes):
            return False
        return (
            set(target) <= {0.0, 1.0}
            if self.kind == "multilabel"
            else bool(np.isfinite(target).all())
        )

    # -- audio, for extraction ---------------------------------------------------------------------

    def feed_audio(
        self,
        sample_rate: int,
        *,
        min_samples: int,
        stored: Mapping[str, StoredTrack],
        batch_seconds: float,
        n_workers: int,
    ) -> None:
        """Chooses what `predict_dataloader` yields: the clips that are not `stored` yet, at
        `sample_rate` Hz.

        Args:
            sample_rate: of the backbone, in Hz.
            min_samples: shorter clips are reported as unusable.
            stored: what the feature store holds already.
            batch_seconds: audio per batch, in s; at least one track.
            n_workers: processes that decode beside the forward pass.
        """
        todo = [
            track
            for track in self.tracks()
            if track.track_id not in stored or not stored[track.track_id].complete
        ]
        self._audio = _TrackAudio(todo, sample_rate, self.clip, min_samples, stored)
        self._batch_seconds, self._n_workers = batch_seconds, n_workers

    @property
    def n_waiting(self) -> int:
        """Number of tracks that `predict_dataloader` yields over all ranks."""
        return len(self._audio)

    def waiting_rows(self) -> int:
        """Rows of features, at the least, that `predict_dataloader`'s tracks will take in the
        store, over all ranks.
        """
        if self.frame_rate is None:
            return self.n_waiting
        seconds = 0.0
        for track in self._audio.tracks:
            with suppress(AudioError):  # said when the track is decoded
                seconds += duration_s(track.path)
        return math.ceil(seconds * self.frame_rate)

    def predict_dataloader(self) -> DataLoader[list[Clip | UnusableFile]]:
        """Batches of decoded clips: the share of this rank."""
        rank, n_ranks = (
            (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        )
        share = self._audio.share(rank, n_ranks)
        return DataLoader(
            share,
            batch_size=share.tracks_per_batch(self._batch_seconds),
            num_workers=self._n_workers if len(share) else 0,
            collate_fn=_flatten,
            worker_init_fn=partial(_start_worker, os.getpid()),
        )

    # -- features, for probes ----------------------------------------------------------------------

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
        return _loader(
            data, BatchSampler(SequentialSampler(data), 8 * self._batch_size, drop_last=False)
        )

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


class FrameTask(TaskDataModule):
    """Base of the tasks that have a label for every frame: targets of tracks are segments.

    Args:
        root: of the dataset.
        clip: cutting rule; clips start on the grid.
        exclude: ids of tracks to leave out.
        frame_rate: of the label grid, in Hz.

    Raises:
        UserError: a frame rate that is not above 0, or clips that do not hold a whole number of
            frames.
    """

    kind = "frames"
    frame_rate: float

    def __init__(
        self, root: Path, clip: ClipRule, exclude: Collection[str] = (), *, frame_rate: float = 8.0
    ) -> None:
        super().__init__(root, clip, exclude)
        if not 0 < frame_rate < float("inf"):
            raise UserError(f"task.options.frame_rate must be above 0 Hz, found {frame_rate:g}")
        frames = 0.0 if clip.seconds is None else clip.seconds * frame_rate
        if abs(frames - round(frames)) > 1e-6:
            raise UserError(
                f"a clip of {clip.seconds:g} s holds {frames:g} frames at {frame_rate:g} Hz: "
                "choose task.clip.seconds and "
                "task.options.frame_rate so that their product is a whole number"
            )
        self.frame_rate = frame_rate
        self._frames: dict[Split, FrameSplit] = {}

    def load_features(self, folder: Path, key: StoreKey, *, batch_size: int, seed: int) -> None:
        """Chooses what the train, val and test loaders yield: the labelled frames of a store, read
        as they are needed.

        Args:
            folder: of the store.
            key: of the store.
            batch_size: frames per training batch.
            seed: of the order of the training frames.

        Raises:
            UserError: a broken shard, features that are missing, or a split without a labelled
                frame.
        """
        stored = FrameClips(folder, key, [track.track_id for track in self.tracks()])
        self._batch_size, self._seed = batch_size, seed
        self._frames = {split: self._label(stored, split) for split in SPLITS}
        empty = [split for split in SPLITS if not self._frames[split].track_target.any()]
        if empty:
            raise UserError(
                f"no frame of {', '.join(empty)} has a label: the segments of {self.dataset} lie "
                "outside its audio"
            )

    def _label(self, stored: FrameClips, split: Split) -> "FrameSplit":
        tracks = self.tracks()
        members = np.array([index for index, track in enumerate(tracks) if track.split == split])
        clips = np.flatnonzero(np.isin(stored.track, members))
        track = np.searchsorted(members, stored.track[clips])
        labels = tuple(
            frame_labels(
                tracks[stored.track[clip]].target,
                stored.start_s[clip],
                stored.n_rows[clip],
                self.frame_rate,
            )
            for clip in clips
        )
        counts = torch.zeros(len(members), len(self.classes), dtype=torch.int64)
        for place, of_clip in zip(track, labels, strict=True):
            counts[place] += torch.from_numpy(
                np.bincount(of_clip[of_clip >= 0], minlength=len(self.classes))
            )
        ids = tuple(tracks[index].track_id for index in members)
        return FrameSplit(ids, counts, stored, clips, track, labels)

    @property
    def feature_shape(self) -> tuple[int, int]:
        """Number of layers L+1 and of features D, after `load_features`."""
        return self._frames["train"].stored.shape

    def split(self, split: Split) -> LabelledTracks:
        """The tracks of one split, after `load_features`."""
        return self._frames[split]

    def train_features(self) -> Iterator[Tensor]:
        """All labelled training frames in parts of (L+1, n, D) float16."""
        return (
            batch["features"]
            for batch in _FrameBatches(self._frames["train"], batch_size=None, seed=None)
        )

    def train_dataloader(self) -> DataLoader[FeatureBatch]:
        """Training frames in a new, seeded order each epoch."""
        return frame_loader(_FrameBatches(self._frames["train"], self._batch_size, self._seed))

    def val_dataloader(self) -> DataLoader[FeatureBatch]:
        """Validation frames, in order."""
        return frame_loader(_FrameBatches(self._frames["val"], 8 * self._batch_size, seed=None))

    def test_dataloader(self) -> DataLoader[FeatureBatch]:
        """Test frames, in order."""
        return frame_loader(_FrameBatches(self._frames["test"], 8 * self._batch_size, seed=None))
