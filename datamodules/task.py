"""A task: a dataset's labelled tracks, and the loaders that Lightning asks for.

Conventions: the predict loader yields lists of files that were read, with their clips, for
extraction, once `audio` says which; the train, val and test loaders yield batches of features for
probes, once `features` holds them. One LightningDataModule class per MARBLE task.
"""

from abc import abstractmethod
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import lightning as L
import numpy as np
from torch.utils.data import DataLoader

from datamodules.audio.clips import ClipRule
from datamodules.audio.loader import ClipLoader, ReadFile
from datamodules.card import Card
from datamodules.digests import KnownDigests
from datamodules.duplicates import copies, same_audio
from datamodules.errors import UserError
from datamodules.excluding import DUPLICATES, MISSING, WORDS, exclude_remedy
from datamodules.features.frames import FrameFeatures
from datamodules.features.memory import FeatureBatch, MemoryFeatures
from datamodules.shuffling import shuffle_labels
from datamodules.tracks import (
    MARKER,
    SPLITS,
    BadFile,
    Kind,
    Segment,
    Split,
    Track,
    count_scored,
)


class TaskDataModule(L.LightningDataModule):
    """Base of every task: subclasses name a dataset, its classes, and how to read its tracks.

    Attributes:
        dataset: name of the audio collection; tasks with the same name share features.
        kind: of the targets, see `Track.target`.
        classes: names of the classes, tags or dimensions, in the order of the targets.
        frame_rate: of the label grid in Hz, for the kind `frames`; None where a track has one
            target.
        expected: number of tracks per split in the complete dataset; where none is published, those
            that are listed, before any is excluded.
        lasts_s: the shortest and the longest that a track of the dataset lasts, in s; None where
            that is not known. The passport names those that do not.
        card: about the dataset, and how to get it.
        known_bad: files of the dataset that `read_tracks` leaves out.
        audio: clips that the predict loader yields.
        features: batches that the train, val and test loaders yield.
        shuffle_seed: of labels that are dealt out anew, see `datamodules.shuffling`; None for the
            labels as they are. Set before `tracks` is asked for.

    Args:
        root: folder of the dataset.
        clip: how its tracks are cut.
        exclude: what to leave out, see `datamodules.excluding`: ids of tracks, such as
            `jazz.00054`, or `gtzan:jazz.00054` for one dataset only; or words.
    """

    dataset: str
    kind: Kind = "classification"
    classes: tuple[str, ...]
    frame_rate: float | None = None
    expected: Mapping[Split, int] = MappingProxyType({})
    lasts_s: tuple[float, float] | None = None
    card: Card | None = None
    known_bad: tuple[BadFile, ...] = ()
    audio: ClipLoader
    features: MemoryFeatures | FrameFeatures

    def __init__(self, root: Path, clip: ClipRule, exclude: Collection[str] = ()) -> None:
        super().__init__()
        self.root = Path(root)
        self.clip = clip
        self.exclude = frozenset(exclude)
        # A rank has nothing to do where fewer tracks are left than ranks.
        self.allow_zero_length_dataloader_with_multiple_devices = True
        self.shuffle_seed: int | None = None
        self._labelled: list[Track] | None = None
        self._tracks: list[Track] | None = None
        self._copies: set[str] | None = None

    @property
    def is_demo(self) -> bool:
        """Whether `root` holds the rendered stand-in instead of the real dataset."""
        return (self.root / MARKER).exists()

    # -- tracks --------------------------------------------------------------------------------

    @abstractmethod
    def read_tracks(self) -> list[Track]:
        """All labelled tracks under `root`, whether or not their audio exists."""

    def left_out(self) -> list[BadFile]:
        """Those of `known_bad` that `read_tracks` leaves out: all, unless a dataset looks first."""
        return list(self.known_bad)

    def listed(self) -> list[Track]:
        """All labelled tracks of a folder that exists; the labels are read once.

        Raises:
            UserError: the data folder is missing or incomplete.
        """
        if self._labelled is None:
            if not self.root.is_dir():
                raise UserError(
                    f"no {self.dataset} data: {self.root} is not a folder. Set data.root to the "
                    "folder that holds it"
                )
            self._labelled = self.read_tracks()
            if not self.expected:
                self.expected = count_scored(self._labelled)
        return self._labelled

    def wanted(self) -> list[Track]:
        """The listed tracks that are not excluded, by id, whether or not their audio exists.

        A demo corpus holds a part of the real list: of it, those that are there.
        """
        excluded = self.excluded_ids()
        only_there = self.is_demo or MISSING in excluded
        wanted = [
            track
            for track in self.listed()
            if track.track_id not in excluded and (not only_there or track.path.is_file())
        ]
        if DUPLICATES in excluded:
            found = self._copies_of(wanted)
            wanted = [track for track in wanted if track.track_id not in found]
        return sorted(wanted, key=lambda track: track.track_id)

    def _copies_of(self, tracks: Sequence[Track]) -> set[str]:
        """Ids of the tracks whose audio is in another split too, of which that one is kept."""
        if self._copies is None:
            there = [track for track in tracks if track.path.is_file()]
            alike = same_audio(there)
            self._copies = {track.track_id for same in alike for track in copies(same)}
        return self._copies

    def tracks(self) -> list[Track]:
        """The tracks to work on: those that are wanted, whose audio is there.

        Raises:
            UserError: the data folder is missing or incomplete, labels or audio are missing, or
                `exclude` names unknown tracks.
        """
        if self._tracks is None:
            self._check_excluded()
            tracks = self.wanted()
            self._check_audio(tracks)
            self.check_targets(tracks)
            self._check_splits(tracks)
            if self.shuffle_seed is not None:
                tracks = shuffle_labels(tracks, self.shuffle_seed)
            self._tracks = tracks
        return self._tracks

    def identify(self, digests: KnownDigests) -> None:
        """Gives the tracks the ids of their audio, as far as their files are known.

        Raises:
            UserError: as `tracks`.
        """
        self._tracks = digests.identify(self.tracks())

    def inputs(self) -> tuple[list[Path], list[Path]]:
        """Folders of which every file may matter to labels and audio, and further single files."""
        return [self.root], []

    def excluded_ids(self) -> set[str]:
        """Ids and words in `exclude` that are for this dataset or for all."""
        ours = [entry for entry in self.exclude if self.is_ours(entry)]
        return {entry.removeprefix(f"{self.dataset}:") for entry in ours}

    def is_ours(self, entry: str) -> bool:
        """Whether an entry of `exclude` may be meant for this dataset.

        What stands before a colon may be the name of another dataset, or the start of an id.
        """
        if ":" not in entry or entry.startswith(f"{self.dataset}:"):
            return True
        return any(track.track_id == entry for track in self.listed())

    def check_targets(self, tracks: Sequence[Track]) -> None:
        """Raises UserError if a target is not what `kind` and `classes` say."""
        wrong = [track for track in tracks if not self._fits(track.target)]
        if wrong:
            raise UserError(
                f"{len(wrong)} {self.dataset} tracks have a target that is not one of "
                f"{len(self.classes)} classes (first: {wrong[0].track_id} has {wrong[0].target}): "
                "their labels are not those of the dataset as distributed"
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
        if self.kind == "multilabel":
            return set(target) <= {0.0, 1.0}
        return bool(np.isfinite(target).all())

    def _check_excluded(self) -> None:
        known = {track.track_id for track in self.listed()}
        known |= {item.name for item in self.left_out()}
        unknown = sorted(self.excluded_ids() - known - WORDS)
        if unknown:
            raise UserError(
                f"data.exclude names {len(unknown)} tracks that {self.dataset} does not have "
                f"(first: {unknown[0]}): correct them, or write DATASET:ID where they are those of "
                "another one"
            )

    def _check_audio(self, tracks: Sequence[Track]) -> None:
        missing = [track for track in tracks if not track.path.is_file()]
        if not missing:
            return

        # A few tracks are left out by their ids, many by one word.
        ids = [track.track_id for track in missing] if len(missing) <= 3 else [MISSING]
        raise UserError(
            f"{len(missing)} of {len(tracks)} {self.dataset} tracks have no audio under "
            f"{self.root} (first: {missing[0].path}). Put the files there, or leave the tracks out "
            f"with {exclude_remedy(self.dataset, ids, self.exclude)}"
        )

    def _check_splits(self, tracks: Sequence[Track]) -> None:
        there = {track.split for track in tracks}
        empty = [split for split in SPLITS if split not in there]
        if empty:
            raise UserError(
                f"{self.dataset} under {self.root} has no tracks for {', '.join(empty)}: complete "
                "the dataset"
            )

    # -- loaders -------------------------------------------------------------------------------

    def predict_dataloader(self) -> DataLoader[list[ReadFile]]:
        """Batches of files that were read, with their clips: the share of this rank."""
        if self.trainer is None:
            return self.audio.batches()
        return self.audio.batches(self.trainer.global_rank, self.trainer.world_size)

    def train_dataloader(self) -> DataLoader[FeatureBatch]:
        """Training features in a new, seeded order each epoch."""
        return self.features.train_batches()

    def val_dataloader(self) -> DataLoader[FeatureBatch]:
        """Validation features, in order."""
        return self.features.batches("val")

    def test_dataloader(self) -> DataLoader[FeatureBatch]:
        """Test features, in order."""
        return self.features.batches("test")


class FrameTask(TaskDataModule):
    """Base of the tasks that have a label for every frame: targets of tracks are segments.

    Args:
        root: folder of the dataset.
        clip: how its tracks are cut; clips start on the grid.
        exclude: ids of tracks to leave out.
        frame_rate: of the label grid, in Hz.

    Raises:
        UserError: a frame rate that is not above 0, or clips that do not hold a whole number of
            frames.
    """

    kind = "frames"
    frame_rate: float

    def __init__(
        self,
        root: Path,
        clip: ClipRule,
        exclude: Collection[str] = (),
        *,
        frame_rate: float = 8.0,
    ) -> None:
        super().__init__(root, clip, exclude)
        check_grid(clip, frame_rate)
        self.frame_rate = frame_rate


def check_grid(clip: ClipRule, frame_rate: float) -> None:
    """Refuses a label grid of which clips do not hold a whole number of frames.

    Args:
        clip: how tracks are cut.
        frame_rate: of the grid, in Hz.

    Raises:
        UserError: the rate is not above 0, or does not go with the length of the clips.
    """
    if not 0 < frame_rate < float("inf"):
        raise UserError(f"task.options.frame_rate must be above 0 Hz, found {frame_rate:g}")

    frames = 0.0 if clip.seconds is None else clip.seconds * frame_rate
    if abs(frames - round(frames)) > 1e-6:
        raise UserError(
            f"a clip of {clip.seconds:g} s holds {frames:g} frames at {frame_rate:g} Hz: "
            "choose task.clip.seconds and task.options.frame_rate so that their product is a "
            "whole number"
        )
