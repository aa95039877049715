"""The two faces of a task: clips shared out over ranks, and features batched for probes."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
import soundfile
import torch

from datamodules.audio.clips import Clip, ClipRule
from datamodules.errors import UserError
from datamodules.features.memory import FeatureBatch
from datamodules.features.store import Features, StoredTrack
from datamodules.task import TaskDataModule
from datamodules.tracks import SPLITS, Split, Track, UnusableFile

RATE = 8000
PLAN: dict[str, tuple[Split, float]] = {  # track -> split, s of audio
    "t0": ("train", 0.35),
    "t1": ("test", 0.20),
    "t2": ("train", 0.10),
    "t3": ("val", 0.30),
    "t4": ("train", 0.25),
    "t5": ("test", 0.10),
    "t6": ("val", 0.15),
}
RULE = ClipRule(seconds=0.1)
N_CLIPS = {"t0": 3, "t1": 2, "t2": 1, "t3": 3, "t4": 2, "t5": 1, "t6": 1}
TARGETS = {name: number % 3 for number, name in enumerate(PLAN)}


class Toy(TaskDataModule):
    """Seven tracks whose samples say which track and where they are."""

    dataset = "toy"
    classes: ClassVar[tuple[str, ...]] = ("a", "b", "c")

    def read_tracks(self) -> list[Track]:
        tracks = [
            Track(name, self.root / f"{name}.wav", split, TARGETS[name])
            for name, (split, _) in PLAN.items()
        ]
        return tracks[::-1]  # in no good order


def samples_of(name: str) -> np.ndarray:
    ramp = np.arange(round(PLAN[name][1] * RATE), dtype=np.float32) / 8192
    return (ramp + int(name[1:])) / 10


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in PLAN:
        soundfile.write(tmp_path / f"{name}.wav", samples_of(name), RATE, subtype="FLOAT")
    return tmp_path


def feed(data: TaskDataModule, **changes: object) -> TaskDataModule:
    options = {"min_samples": 10, "stored": {}, "batch_seconds": 0.4, "n_workers": 0} | changes
    data.feed_audio(RATE, **options)  # type: ignore[arg-type]
    return data


def items_of(data: TaskDataModule, rank: int = 0, n_ranks: int = 1) -> list[Clip | UnusableFile]:
    data.trainer = SimpleNamespace(global_rank=rank, world_size=n_ranks)  # type: ignore[assignment]
    return [item for batch in data.predict_dataloader() for item in batch]


def ids(items: list[Clip | UnusableFile]) -> list[tuple[str, int]]:
    return [(item.track_id, item.index) for item in items if isinstance(item, Clip)]


EVERY_CLIP = {(name, index) for name, n_clips in N_CLIPS.items() for index in range(n_clips)}


# -- tracks ----------------------------------------------------------------------------------------


def test_tracks_are_sorted_by_id(root: Path) -> None:
    assert [track.track_id for track in Toy(root, RULE).tracks()] == sorted(PLAN)


def test_excluded_tracks_are_left_out(root: Path) -> None:
    (root / "t4.wav").unlink()
    data = Toy(root, RULE, exclude=["t4", "t0"])
    assert [track.track_id for track in data.tracks()] == ["t1", "t2", "t3", "t5", "t6"]
    assert {track for track, _ in ids(items_of(feed(data)))} == {"t1", "t2", "t3", "t5", "t6"}


def test_unknown_excluded_tracks_are_counted_and_the_first_is_named(root: Path) -> None:
    with pytest.raises(
        UserError, match=r"data\.exclude names 2 tracks that toy does not have \(first: t77\)"
    ):
        Toy(root, RULE, exclude=["t8", "t77", "t1"]).tracks()


def test_a_missing_folder_is_named_with_the_key_to_set(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"no toy data: .*/nowhere is not a folder\. Set data\.root"
    ):
        Toy(tmp_path / "nowhere", RULE).tracks()


def test_missing_files_are_counted_and_named_and_the_way_out_is_said(root: Path) -> None:
    for name in ("t6", "t1"):
        (root / f"{name}.wav").unlink()
    pattern = (
        r"2 of 7 toy tracks have no audio under .* \(first: .*t1\.wav\).* data\.exclude=\[t1,t6\]"
    )
    with pytest.raises(UserError, match=pattern):
        Toy(root, RULE).tracks()


def test_many_missing_files_are_left_out_by_one_word(root: Path) -> None:
    for name in PLAN:
        (root / f"{name}.wav").unlink()
    with pytest.raises(UserError, match=r"7 of 7 .*data\.exclude=\[toy:missing\]"):
        Toy(root, RULE).tracks()


def test_a_split_without_tracks_is_refused(root: Path) -> None:
    with pytest.raises(
        UserError, match=r"toy under .* has no tracks for val: complete the dataset"
    ):
        Toy(root, RULE, exclude=["t3", "t6"]).tracks()


def test_a_demo_corpus_may_hold_a_part_of_the_list(root: Path) -> None:
    (root / "t4.wav").unlink()
    assert not Toy(root, RULE).is_demo
    (root / "demo.json").write_text("{}")
    data = Toy(root, RULE)
    assert data.is_demo
    assert [track.track_id for track in data.tracks()] == ["t0", "t1", "t2", "t3", "t5", "t6"]


# -- audio -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_ranks", [1, 2, 3, 9])
def test_every_clip_is_seen_exactly_once_by_all_ranks_together(root: Path, n_ranks: int) -> None:
    data = feed(Toy(root, RULE))
    shares = [ids(items_of(data, rank, n_ranks)) for rank in range(n_ranks)]
    seen = Counter(clip for share in shares for clip in share)
    assert set(seen) == EVERY_CLIP
    assert set(seen.values()) == {1}
    assert data.n_waiting == 7  # tracks, over all ranks
    if n_ranks <= 3:
        assert all(shares)


def test_a_rank_without_tracks_gets_an_empty_loader(root: Path) -> None:
    assert items_of(feed(Toy(root, RULE)), rank=8, n_ranks=9) == []


def test_without_a_trainer_there_is_one_rank(root: Path) -> None:
    data = feed(Toy(root, RULE))
    assert {clip for batch in data.predict_dataloader() for clip in ids(batch)} == EVERY_CLIP


def test_worker_processes_give_the_same_clips(root: Path) -> None:
    assert ids(items_of(feed(Toy(root, RULE), n_workers=1))) == ids(items_of(feed(Toy(root, RULE))))


def test_clips_hold_the_samples_of_their_track_and_the_size_of_its_file(root: Path) -> None:
    for clip in items_of(feed(Toy(root, RULE))):
        assert isinstance(clip, Clip)
        expected = samples_of(clip.track_id)[clip.index * 800 : (clip.index + 1) * 800]
        np.testing.assert_array_equal(clip.audio, expected)
        assert clip.n_clips == N_CLIPS[clip.track_id]
        assert clip.file_bytes == (root / f"{clip.track_id}.wav").stat().st_size


def test_audio_comes_at_the_rate_that_was_asked_for(root: Path) -> None:
    data = Toy(root, ClipRule())
    data.feed_audio(16000, min_samples=10, stored={}, batch_seconds=1.0, n_workers=0)
    lengths = {item.track_id: len(item.audio) for item in items_of(data) if isinstance(item, Clip)}
    assert lengths == {name: round(seconds * 16000) for name, (_, seconds) in PLAN.items()}


def test_what_is_stored_is_not_decoded_again_and_a_partial_track_gives_the_rest(root: Path) -> None:
    stored = {
        "t0": StoredTrack(3, 1, frozenset({0, 2})),  # one clip is missing
        "t1": StoredTrack(2, 1, frozenset({0, 1})),  # complete
        "t5": StoredTrack(1, 1, frozenset()),
    }
    data = feed(Toy(root, RULE), stored=stored)
    wanted = EVERY_CLIP - {("t0", 0), ("t0", 2), ("t1", 0), ("t1", 1)}
    assert Counter(ids(items_of(data))) == Counter(wanted)
    assert data.n_waiting == 6


def test_nothing_waits_when_all_is_stored(root: Path) -> None:
    stored = {name: StoredTrack(n, 1, frozenset(range(n))) for name, n in N_CLIPS.items()}
    data = feed(Toy(root, RULE), stored=stored)
    assert (data.n_waiting, items_of(data)) == (0, [])


def test_batches_hold_about_batch_seconds_and_at_least_one_track(root: Path) -> None:
    def tracks_per_batch(batch_seconds: float) -> list[int]:
        data = feed(Toy(root, RULE), batch_seconds=batch_seconds)
        return [len({item.track_id for item in batch}) for batch in data.predict_dataloader()]

    assert tracks_per_batch(0.7) == [2, 2, 2, 1]  # judged by t0's 0.35 s
    assert tracks_per_batch(0.001) == [1] * 7


def _spoil(path: Path, how: str) -> None:
    if how == "empty":
        path.write_bytes(b"")
    elif how == "NaN":
        soundfile.write(path, np.full(2000, np.nan, np.float32), RATE, subtype="FLOAT")
    elif how == "no samples":
        soundfile.write(path, np.zeros(0, np.float32), RATE)
    elif how == "decoded":
        path.write_bytes(b"not audio " * 50)
    else:
        soundfile.write(path, np.zeros(9, np.float32), RATE)


@pytest.mark.parametrize("how", ["empty", "NaN", "no samples", "decoded", "too short"])
def test_an_unusable_file_is_reported_with_its_reason_and_the_others_go_on(
    root: Path, how: str
) -> None:
    _spoil(root / "t3.wav", how)
    items = items_of(feed(Toy(root, RULE)))
    reports = [item for item in items if isinstance(item, UnusableFile)]
    assert [(report.track_id, report.path) for report in reports] == [("t3", root / "t3.wav")]
    assert how in reports[0].reason
    assert set(ids(items)) == {clip for clip in EVERY_CLIP if clip[0] != "t3"}


def test_a_track_that_is_too_short_says_how_long_it_is_and_what_is_needed(root: Path) -> None:
    reports = [
        item
        for item in items_of(feed(Toy(root, ClipRule()), min_samples=1000))
        if isinstance(item, UnusableFile)
    ]
    assert [report.track_id for report in reports] == ["t2", "t5"]
    assert reports[0].reason == "is too short (800 samples at 8000 Hz, the backbone needs 1000)"


def test_an_unreadable_first_file_does_not_stop_the_loader(root: Path) -> None:
    _spoil(root / "t0.wav", "empty")
    assert len(ids(items_of(feed(Toy(root, RULE))))) == len(EVERY_CLIP) - 3


# -- features --------------------------------------------------------------------------------------


def made_features(data: TaskDataModule) -> Features:
    """Two layers of width 3 whose numbers say layer, track and clip."""
    names = [track.track_id for track in data.tracks()]
    places = [
        (position, clip) for position, name in enumerate(names) for clip in range(N_CLIPS[name])
    ]
    values = np.zeros((2, len(places), 3), np.float16)
    for row, (position, clip) in enumerate(places):
        for layer in range(2):
            values[layer, row] = (layer, int(names[position][1:]), clip)
    return Features(values, np.array([position for position, _ in places], dtype=np.int64))


@pytest.fixture
def fed(root: Path) -> Callable[..., Toy]:
    def make(batch_size: int = 2, seed: int = 0) -> Toy:
        data = Toy(root, RULE)
        data.feed_features(made_features(data), batch_size=batch_size, seed=seed)
        return data

    return make


def clips_of(batches: list[FeatureBatch]) -> list[tuple[str, int]]:
    return [
        (f"t{int(name)}", int(clip))
        for batch in batches
        for _, name, clip in batch["features"][0].tolist()
    ]


def of_split(split: str) -> set[tuple[str, int]]:
    return {clip for clip in EVERY_CLIP if PLAN[clip[0]][0] == split}


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("batch_size", [1, 2, 100])
def test_each_split_gives_each_of_its_clips_once_and_no_others(
    fed: Callable[..., Toy], split: str, batch_size: int
) -> None:
    loader = getattr(fed(batch_size), f"{split}_dataloader")()
    clips = clips_of(list(loader))
    assert Counter(clips) == Counter(of_split(split))


@pytest.mark.parametrize("split", SPLITS)
def test_features_targets_and_track_positions_belong_together(
    fed: Callable[..., Toy], split: Split
) -> None:
    data = fed()
    members = data.split(split)
    for batch in getattr(data, f"{split}_dataloader")():
        assert batch["features"].dtype == torch.float16
        assert batch["features"].shape == (2, len(batch["target"]), 3)
        assert batch["features"][:, :, 0].tolist() == [
            [0.0] * len(batch["target"]),
            [1.0] * len(batch["target"]),
        ]
        for row, (name, _) in enumerate(clips_of([batch])):
            assert batch["target"][row] == TARGETS[name]
            assert members.track_ids[int(batch["track"][row])] == name


def test_splits_share_no_track_and_leave_none_out(fed: Callable[..., Toy]) -> None:
    data = fed()
    members = {split: data.split(split).track_ids for split in SPLITS}
    assert members == {"train": ("t0", "t2", "t4"), "val": ("t3", "t6"), "test": ("t1", "t5")}
    assert data.split("train").track_target.tolist() == [
        TARGETS[name] for name in ("t0", "t2", "t4")
    ]


def test_training_order_follows_the_seed_and_changes_every_epoch(fed: Callable[..., Toy]) -> None:
    def epochs(seed: int) -> list[list[tuple[str, int]]]:
        loader = fed(seed=seed).train_dataloader()
        return [clips_of(list(loader)) for _ in range(6)]

    first = epochs(seed=7)
    assert first == epochs(seed=7)
    assert first != epochs(seed=8)
    assert len({tuple(order) for order in first}) > 3
    assert all(set(order) == of_split("train") for order in first)


def test_training_order_does_not_depend_on_the_global_random_state(fed: Callable[..., Toy]) -> None:
    orders = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        orders.append(clips_of(list(fed(seed=3).train_dataloader())))
    assert orders[0] == orders[1]


def test_val_and_test_come_in_order(fed: Callable[..., Toy]) -> None:
    data = fed()
    assert clips_of(list(data.val_dataloader())) == [("t3", 0), ("t3", 1), ("t3", 2), ("t6", 0)]
    assert clips_of(list(data.test_dataloader())) == [("t1", 0), ("t1", 1), ("t5", 0)]


def test_the_last_short_training_batch_is_kept(fed: Callable[..., Toy]) -> None:
    assert [len(batch["target"]) for batch in fed(batch_size=4).train_dataloader()] == [4, 2]
