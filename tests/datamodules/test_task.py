"""A task: which of its tracks are worked on, and what its loaders hand to Lightning."""

import re
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import pytest
import torch
from feeding import items_of, track_of
from toy_tracks import EVERY_CLIP, PLAN, RATE, RULE, clips_of_split, toy_tracks, write_audio

from datamodules.audio.clips import Clip, ClipRule
from datamodules.errors import UserError
from datamodules.features.memory import FeatureBatch, FeatureSplit, MemoryFeatures
from datamodules.passport import read_passport
from datamodules.task import FrameTask, TaskDataModule
from datamodules.tracks import SPLITS, Split, Track, UnusableFile


class Toy(TaskDataModule):
    """Seven tracks, and a count of how often their labels were read."""

    dataset = "toy"
    classes: ClassVar[tuple[str, ...]] = ("a", "b", "c")
    n_reads = 0

    def read_tracks(self) -> list[Track]:
        self.n_reads += 1
        return toy_tracks(self.root)[::-1]  # in no good order


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_audio(tmp_path)


# -- tracks ----------------------------------------------------------------------------------------


def test_tracks_are_sorted_by_id(root: Path) -> None:
    assert [track.track_id for track in Toy(root, RULE).tracks()] == sorted(PLAN)


def test_labels_are_read_once_whatever_is_asked(root: Path) -> None:
    data = Toy(root, RULE, exclude=["t4"])
    assert len(data.listed()) == 7
    assert len(data.wanted()) == 6
    assert len(data.tracks()) == 6
    assert read_passport(data).listed == 6
    assert data.listed() is data.listed()
    assert data.n_reads == 1


def test_labels_are_read_by_the_first_question(root: Path) -> None:
    data = Toy(root, RULE)
    assert data.n_reads == 0
    data.tracks()
    data.tracks()
    data.listed()
    assert data.n_reads == 1


def test_excluded_tracks_are_left_out(root: Path) -> None:
    (root / "t4.wav").unlink()
    data = Toy(root, RULE, exclude=["t4", "t0"])
    assert [track.track_id for track in data.tracks()] == ["t1", "t2", "t3", "t5", "t6"]
    found = {track_of(item) for item in items_of(data, RATE, min_samples=10)}
    assert found == {"t1", "t2", "t3", "t5", "t6"}


def test_unknown_excluded_tracks_are_counted_and_the_first_is_named(root: Path) -> None:
    pattern = r"data\.exclude names 2 tracks that toy does not have \(first: t77\)"
    with pytest.raises(UserError, match=pattern):
        Toy(root, RULE, exclude=["t8", "t77", "t1"]).tracks()


def test_a_missing_folder_is_named_with_the_key_to_set(tmp_path: Path) -> None:
    pattern = r"no toy data: .*/nowhere is not a folder\. Set data\.root"
    with pytest.raises(UserError, match=pattern):
        Toy(tmp_path / "nowhere", RULE).tracks()


def test_missing_files_are_counted_and_named_and_the_way_out_is_said(root: Path) -> None:
    for name in ("t6", "t1"):
        (root / f"{name}.wav").unlink()
    pattern = (
        r"2 of 7 toy tracks have no audio under .* \(first: .*t1\.wav\)"
        r".* 'data\.exclude=\[toy:t1,toy:t6\]'"
    )
    with pytest.raises(UserError, match=pattern):
        Toy(root, RULE).tracks()


def test_advice_keeps_what_is_excluded_already(root: Path) -> None:
    (root / "t6.wav").unlink()
    exclude = ["t0", "gtzan:jazz.00054"]
    with pytest.raises(UserError) as error:
        Toy(root, RULE, exclude).tracks()
    (advice,) = re.findall(r"'data\.exclude=\[(.*)\]'", str(error.value))
    assert advice.split(",") == ["gtzan:jazz.00054", '"t0"', "toy:t6"]


def test_many_missing_files_are_left_out_by_one_word(root: Path) -> None:
    for name in PLAN:
        (root / f"{name}.wav").unlink()
    with pytest.raises(UserError, match=r"7 of 7 .*data\.exclude=\[toy:missing\]"):
        Toy(root, RULE).tracks()


def test_a_split_without_tracks_is_refused(root: Path) -> None:
    pattern = r"toy under .* has no tracks for val: complete the dataset"
    with pytest.raises(UserError, match=pattern):
        Toy(root, RULE, exclude=["t3", "t6"]).tracks()


def test_a_demo_corpus_may_hold_a_part_of_the_list(root: Path) -> None:
    (root / "t4.wav").unlink()
    assert not Toy(root, RULE).is_demo
    (root / "demo.json").write_text("{}")
    data = Toy(root, RULE)
    assert data.is_demo
    assert [track.track_id for track in data.tracks()] == ["t0", "t1", "t2", "t3", "t5", "t6"]


def test_clips_of_a_task_by_frames_are_a_whole_number_of_frames() -> None:
    class ToyFrames(FrameTask):
        dataset, classes = "toy", ("x", "y", "z")

        def read_tracks(self) -> list[Track]:
            return []

    with pytest.raises(UserError, match=r"24 s holds 50\.4 frames at 2\.1 Hz"):
        ToyFrames(Path(), ClipRule(24.0), frame_rate=2.1)
    with pytest.raises(UserError, match="frame_rate must be above 0"):
        ToyFrames(Path(), ClipRule(24.0), frame_rate=0.0)


# -- loaders ---------------------------------------------------------------------------------------


def places(items: list[Clip | UnusableFile]) -> list[tuple[str, int]]:
    return [(item.track_id, item.place.index) for item in items if isinstance(item, Clip)]


def share_of(data: TaskDataModule, rank: int, n_ranks: int) -> list[tuple[str, int]]:
    data.trainer = SimpleNamespace(global_rank=rank, world_size=n_ranks)  # type: ignore[assignment]
    return places(items_of(data, RATE, min_samples=10))


def test_without_a_trainer_there_is_one_rank(root: Path) -> None:
    assert set(places(items_of(Toy(root, RULE), RATE, min_samples=10))) == EVERY_CLIP


@pytest.mark.parametrize("n_ranks", [1, 2, 3, 9])
def test_the_predict_loader_gives_the_share_of_the_trainers_rank(root: Path, n_ranks: int) -> None:
    data = Toy(root, RULE)
    shares = [share_of(data, rank, n_ranks) for rank in range(n_ranks)]
    assert Counter(clip for share in shares for clip in share) == Counter(EVERY_CLIP)
    if n_ranks <= 3:
        assert all(shares)


def toy_split(split: Split, n_clips: int) -> FeatureSplit:
    """Features that say which split they are of."""
    number = float(SPLITS.index(split))
    return FeatureSplit(
        track_ids=(split,),
        track_target=torch.tensor([0]),
        features=torch.full((2, n_clips, 3), number, dtype=torch.float16),
        target=torch.zeros(n_clips, dtype=torch.int64),
        track=torch.zeros(n_clips, dtype=torch.int64),
    )


@pytest.mark.parametrize("split", SPLITS)
def test_the_loader_of_each_split_gives_its_features(tmp_path: Path, split: Split) -> None:
    data = Toy(tmp_path, RULE)
    n_clips = {split: len(clips_of_split(split)) for split in SPLITS}
    splits = {split: toy_split(split, n_clips[split]) for split in SPLITS}
    data.features = MemoryFeatures(splits, batch_size=2, seed=0)

    batches: list[FeatureBatch] = list(getattr(data, f"{split}_dataloader")())
    values = torch.cat([batch["features"] for batch in batches], dim=1)
    assert values.shape == (2, n_clips[split], 3)
    assert bool((values == SPLITS.index(split)).all())
