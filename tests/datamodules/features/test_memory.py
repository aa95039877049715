"""Features in memory: exactly those of the store, once, and the batches of each split."""

import tracemalloc
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from toy_store import ID, flip, shard_paths
from toy_tracks import (
    EVERY_CLIP,
    N_CLIPS,
    TARGETS,
    audio_of,
    clips_of_split,
    toy_tracks,
    with_audio,
)

from datamodules.errors import UserError
from datamodules.features.memory import FeatureBatch, MemoryFeatures, load_features
from datamodules.features.shards import ClipFeatures, write_shard
from datamodules.features.store import FeatureStore
from datamodules.tracks import SPLITS, ClipPlace, Split, Track

N_LAYERS, DIM = 2, 3
TRACKS = with_audio(toy_tracks(Path("none")))


def clip_values(name: str, clip: int) -> np.ndarray:
    """(L+1, D): numbers that say layer, track and clip."""
    return np.array([[layer, int(name[1:]), clip] for layer in range(N_LAYERS)], np.float16)


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    """All clips, in no good order, in three shards."""
    clips = []
    for name, clip in sorted(EVERY_CLIP):
        place = ClipPlace(audio_of(name), clip, N_CLIPS[name], 0.1 * clip)
        clips.append(ClipFeatures(place, clip_values(name, clip)[:, None]))

    order = np.random.default_rng(0).permutation(len(clips))
    for part in np.array_split(order, 3):
        write_shard(tmp_path / ID.folder, asdict(ID), [clips[index] for index in part])
    return FeatureStore(tmp_path, ID)


def loaded(store: FeatureStore, batch_size: int = 2, seed: int = 0) -> MemoryFeatures:
    return load_features(store, TRACKS, batch_size=batch_size, seed=seed)


def batches_of(features: MemoryFeatures, split: Split) -> list[FeatureBatch]:
    loader = features.train_batches() if split == "train" else features.batches(split)
    return list(loader)


def clips_of(batches: list[FeatureBatch]) -> list[tuple[str, int]]:
    return [
        (f"t{int(name)}", int(clip))
        for batch in batches
        for _, name, clip in batch["features"][0].tolist()
    ]


# -- what is in memory -----------------------------------------------------------------------------


@pytest.mark.parametrize("reverse", [False, True])
def test_splits_hold_exactly_the_values_of_the_store_in_the_order_of_tracks(
    store: FeatureStore, reverse: bool
) -> None:
    tracks = TRACKS[::-1] if reverse else TRACKS
    features = load_features(store, tracks, batch_size=2, seed=0)
    assert features.shape == (N_LAYERS, DIM)
    for split in SPLITS:
        members = [track for track in tracks if track.split == split]
        names = [track.track_id for track in members]
        clips = [(name, clip) for name in names for clip in range(N_CLIPS[name])]
        expected = np.stack([clip_values(*clip) for clip in clips], axis=1)

        found = features.splits[split]
        assert found.features.dtype == torch.float16
        np.testing.assert_array_equal(found.features.numpy(), expected)
        np.testing.assert_array_equal(found.features.numpy(), store.read(members).read_all())
        assert found.track_ids == tuple(names)
        assert found.track.tolist() == [names.index(name) for name, _ in clips]
        assert found.target.tolist() == [TARGETS[name] for name, _ in clips]


def test_splits_share_no_track_and_leave_none_out(store: FeatureStore) -> None:
    splits = loaded(store).splits
    assert {split: splits[split].track_ids for split in SPLITS} == {
        "train": ("t0", "t2", "t4"),
        "val": ("t3", "t6"),
        "test": ("t1", "t5"),
    }
    targets = splits["train"].track_target
    assert targets.dtype == torch.int64
    assert targets.tolist() == [TARGETS[name] for name in ("t0", "t2", "t4")]


def test_targets_of_several_values_are_given_per_clip(store: FeatureStore) -> None:
    """Tags and regression: a row of float32 for each clip."""
    tracks = [replace(track, target=(0.25, float(track.track_id[1:]))) for track in TRACKS]
    found = load_features(store, tracks, batch_size=2, seed=0).splits["val"]
    assert found.track_target.dtype == torch.float32
    assert found.track_target.tolist() == [[0.25, 3.0], [0.25, 6.0]]
    assert found.target.tolist() == [[0.25, 3.0]] * 3 + [[0.25, 6.0]]


def test_pieces_of_one_song_are_one_track(store: FeatureStore) -> None:
    """They lie in files of their own, and are scored together, by the mean of their outputs."""
    tracks = [
        replace(track, song="song", target=2) if track.track_id in ("t0", "t4") else track
        for track in TRACKS
    ]
    train = load_features(store, tracks, batch_size=2, seed=0).splits["train"]
    assert train.track_ids == ("song", "t2")
    assert train.track_target.tolist() == [2, TARGETS["t2"]]
    n_clips = Counter(train.track.tolist())
    assert n_clips == {0: N_CLIPS["t0"] + N_CLIPS["t4"], 1: N_CLIPS["t2"]}
    assert train.target.tolist() == [train.track_target[track] for track in train.track]
    names = train.features[0, :, 1].tolist()
    assert {
        (int(name), track) for name, track in zip(names, train.track.tolist(), strict=True)
    } == {
        (0, 0),
        (4, 0),
        (2, 1),
    }


def test_all_training_features_are_given_for_their_moments(store: FeatureStore) -> None:
    features = loaded(store)
    parts = torch.cat(list(features.train_parts()), dim=1)
    assert torch.equal(parts, features.splits["train"].features)


def test_what_is_missing_of_all_splits_is_said_at_once(store: FeatureStore) -> None:
    absent = with_audio(replace(TRACKS[0], track_id=f"x-{split}", split=split) for split in SPLITS)
    pattern = r"3 of 10 tracks have no features .*first: x-train.*mirprobe extract"
    with pytest.raises(UserError, match=pattern):
        load_features(store, [*TRACKS, *absent], batch_size=2, seed=0)


def test_a_broken_or_incomplete_store_is_said(store: FeatureStore) -> None:
    part = shard_paths(store.folder)[0]
    flip(part, -1)
    with pytest.raises(UserError, match="is broken"):
        loaded(store)
    part.unlink()
    with pytest.raises(UserError, match=r"tracks have no features .*mirprobe extract"):
        loaded(store)


def test_memory_holds_the_features_about_once(tmp_path: Path) -> None:
    """Whole layers of big datasets barely fit: no second copy for the splits, or for the check."""
    n_layers, n_clips, dim, n_shards = 4, 8192, 1024, 4  # 64 MB
    size = 2 * n_layers * n_clips * dim
    names = [f"t{number:04d}" for number in range(n_clips)]
    values = np.ones((n_layers, 1, dim), np.float16)
    for part in np.array_split(names, n_shards):
        places = [ClipPlace(audio_of(str(name)), 0, 1, 0.0) for name in part]
        clips = [ClipFeatures(place, values) for place in places]
        write_shard(tmp_path / ID.folder, asdict(ID), clips)
    tracks = with_audio(
        Track(name, Path("none"), SPLITS[number % 3], 0) for number, name in enumerate(names)
    )

    tracemalloc.start()
    features = load_features(FeatureStore(tmp_path, ID), tracks, batch_size=64, seed=0)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    held = sum(split.features.numpy().nbytes for split in features.splits.values())
    assert held == size
    assert size < peak < 1.2 * size


# -- batches ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("batch_size", [1, 2, 100])
def test_each_split_gives_each_of_its_clips_once_and_no_others(
    store: FeatureStore, split: Split, batch_size: int
) -> None:
    clips = clips_of(batches_of(loaded(store, batch_size), split))
    assert Counter(clips) == Counter(clips_of_split(split))


@pytest.mark.parametrize("split", SPLITS)
def test_features_targets_and_track_positions_belong_together(
    store: FeatureStore, split: Split
) -> None:
    features = loaded(store)
    track_ids = features.splits[split].track_ids
    for batch in batches_of(features, split):
        n_clips = len(batch["target"])
        assert batch["features"].dtype == torch.float16
        assert batch["features"].shape == (N_LAYERS, n_clips, DIM)
        assert batch["features"][:, :, 0].tolist() == [[0.0] * n_clips, [1.0] * n_clips]
        for row, (name, _) in enumerate(clips_of([batch])):
            assert batch["target"][row] == TARGETS[name]
            assert track_ids[int(batch["track"][row])] == name


def test_training_order_follows_the_seed_and_changes_every_epoch(store: FeatureStore) -> None:
    def epochs(seed: int) -> list[list[tuple[str, int]]]:
        loader = loaded(store, seed=seed).train_batches()
        return [clips_of(list(loader)) for _ in range(6)]

    first = epochs(seed=7)
    assert first == epochs(seed=7)
    assert first != epochs(seed=8)
    assert len({tuple(order) for order in first}) > 3
    assert all(set(order) == clips_of_split("train") for order in first)


def test_training_order_does_not_depend_on_the_global_random_state(store: FeatureStore) -> None:
    orders = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        orders.append(clips_of(batches_of(loaded(store, seed=3), "train")))
    assert orders[0] == orders[1]


def test_val_and_test_come_in_order(store: FeatureStore) -> None:
    features = loaded(store)
    val, test = (clips_of(batches_of(features, split)) for split in ("val", "test"))
    assert val == [("t3", 0), ("t3", 1), ("t3", 2), ("t6", 0)]
    assert test == [("t1", 0), ("t1", 1), ("t5", 0)]


def test_the_last_short_training_batch_is_kept(store: FeatureStore) -> None:
    batches = batches_of(loaded(store, batch_size=4), "train")
    assert [len(batch["target"]) for batch in batches] == [4, 2]
