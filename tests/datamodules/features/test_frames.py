"""Features by frames: what the batches give of real shards, and in which order."""

import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from toy_store import flip, shard_paths
from toy_tracks import audio_of, with_audio

import datamodules.features.frames
from datamodules.errors import UserError
from datamodules.features.frames import FrameFeatures, open_features
from datamodules.features.grid import n_grid_frames
from datamodules.features.memory import FeatureBatch
from datamodules.features.shards import ClipFeatures, write_shard
from datamodules.features.store import FeatureStore, StoreId
from datamodules.tracks import ClipPlace, Segment, Split, Track

INF = float("inf")
ID = StoreId("fcpe", "0a1b2c", "toy", "2s-tail1s-joined", "4Hz", "soxr-HQ", "float32")
N_LAYERS, DIM, RATE = 3, 4, 4.0
LENGTHS = {"a": 7.0, "b": 4.5, "c": 9.0, "d": 3.0, "e": 2.25}  # s
SPLIT: dict[str, Split] = {"a": "train", "b": "val", "c": "train", "d": "test", "e": "train"}
N_CLASSES = 3
SEGMENTS = (Segment(1.0, 2.0, 0), Segment(2.0, 3.0, 2), Segment(3.0, INF, 1))
TRACKS = with_audio(Track(name, Path("none"), SPLIT[name], SEGMENTS) for name in LENGTHS)


def value(track: str, layer: int, frame: int, feature: int) -> float:
    """What no other place in the store holds (and float16 does exactly)."""
    return 16 * layer + 40 * "abcde".index(track) + frame + feature * 0.125


def clips_of(track: str) -> list[ClipFeatures]:
    """2 s clips at 4 Hz, a rest below 1 s joined."""
    starts = np.arange(0, max(1, LENGTHS[track] // 2)) * 2.0
    if LENGTHS[track] - starts[-1] >= 3:
        starts = np.append(starts, starts[-1] + 2)

    made = []
    for index, start in enumerate(starts):
        stop = LENGTHS[track] if index == len(starts) - 1 else start + 2
        first = round(start * RATE)
        frames = range(first, first + n_grid_frames(stop - start, RATE))
        values = [
            [[value(track, layer, frame, d) for d in range(DIM)] for frame in frames]
            for layer in range(N_LAYERS)
        ]
        place = ClipPlace(audio_of(track), index, len(starts), float(start))
        made.append(ClipFeatures(place, np.array(values, np.float16)))
    return made


@pytest.fixture
def parent(tmp_path: Path) -> Path:
    """All clips, in no good order, in three shards."""
    clips = [clip for track in LENGTHS for clip in clips_of(track)]
    order = np.random.default_rng(0).permutation(len(clips))
    for part in np.array_split(order, 3):
        write_shard(tmp_path / ID.folder, asdict(ID), [clips[index] for index in part])
    return tmp_path


def opened(
    parent: Path, *, batch_size: int = 5, seed: int = 0, tracks: Sequence[Track] = TRACKS
) -> FrameFeatures:
    return open_features(
        FeatureStore(parent, ID),
        tracks,
        n_classes=N_CLASSES,
        frame_rate=RATE,
        batch_size=batch_size,
        seed=seed,
    )


def expected_frames(split: Split) -> dict[float, tuple[int, int]]:
    """Value of layer 0, feature 0 -> label and position of the track, of every labelled frame of a
    split.
    """
    names = [name for name in LENGTHS if SPLIT[name] == split]
    return {
        value(name, 0, frame, 0): (0 if frame < 8 else 2 if frame < 12 else 1, names.index(name))
        for name in names
        for frame in range(4, n_grid_frames(LENGTHS[name], RATE))
    }


def check(batches: list[FeatureBatch], split: Split) -> None:
    """Every labelled frame once, with its own label, track and layers."""
    features = torch.cat([batch["features"] for batch in batches], dim=1).float()
    target = torch.cat([batch["target"] for batch in batches]).tolist()
    track = torch.cat([batch["track"] for batch in batches]).tolist()

    found = dict(zip(features[0, :, 0].tolist(), zip(target, track, strict=True), strict=True))
    assert found == expected_frames(split)
    assert len(target) == len(found)
    for layer in range(N_LAYERS):
        for feature in range(DIM):
            expected = features[0, :, 0] + 16 * layer + 0.125 * feature
            torch.testing.assert_close(features[layer, :, feature], expected)


@pytest.mark.parametrize("clips_at_once", [1, 2, 100])
@pytest.mark.parametrize("batch_size", [1, 5, 1000])
def test_every_labelled_frame_comes_once_with_its_label(
    parent: Path, monkeypatch: pytest.MonkeyPatch, clips_at_once: int, batch_size: int
) -> None:
    longest_bytes = 2 * N_LAYERS * DIM * 12
    monkeypatch.setattr(datamodules.features.frames, "_MIX_BYTES", clips_at_once * longest_bytes)
    features = opened(parent, batch_size=batch_size)
    train = list(features.train_batches())
    check(train, "train")
    check(list(features.batches("val")), "val")
    check(list(features.batches("test")), "test")

    n_frames = len(expected_frames("train"))
    assert {len(batch["target"]) for batch in train[:-1]} <= {batch_size}
    assert len(train) == math.ceil(n_frames / batch_size)
    assert torch.cat(list(features.train_parts()), dim=1).shape == (N_LAYERS, n_frames, DIM)


def test_batches_have_the_types_of_a_feature_batch(parent: Path) -> None:
    for batch in opened(parent).train_batches():
        assert batch["features"].dtype == torch.float16
        assert batch["target"].dtype == torch.int64
        assert batch["track"].dtype == torch.int64


def test_val_and_test_come_in_order(parent: Path) -> None:
    features = opened(parent, batch_size=1)
    for split in ("val", "test"):
        values = torch.cat([batch["features"][0, :, 0] for batch in features.batches(split)])
        assert values.tolist() == list(expected_frames(split))


def test_the_order_follows_the_seed_changes_every_epoch_and_mixes_tracks(parent: Path) -> None:
    first, again, other = (
        opened(parent, batch_size=8, seed=seed).train_batches() for seed in (0, 0, 1)
    )
    epochs = [
        [batch["features"][0, :, 0].tolist() for batch in loader]
        for loader in (first, again, other, first)
    ]
    assert epochs[0] == epochs[1]
    assert epochs[0] != epochs[2]
    assert epochs[0] != epochs[3]
    assert any(len(set(batch["track"].tolist())) == 3 for batch in first)


def test_the_order_does_not_depend_on_the_global_random_state(parent: Path) -> None:
    orders = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        batches = opened(parent, seed=3).train_batches()
        orders.append([batch["features"][0, :, 0].tolist() for batch in batches])
    assert orders[0] == orders[1]


def test_targets_are_frames_per_class_and_tracks_keep_their_names(parent: Path) -> None:
    features = opened(parent)
    train = features.splits["train"]
    assert train.track_ids == ("a", "c", "e")
    assert train.track_target.tolist() == [[4, 16, 4], [4, 24, 4], [4, 0, 1]]
    assert features.splits["val"].track_ids == ("b",)
    assert features.splits["test"].track_ids == ("d",)
    assert features.shape == (N_LAYERS, DIM)


def test_a_broken_or_incomplete_store_is_said(parent: Path) -> None:
    part = shard_paths(parent / ID.folder)[0]
    flip(part, -1)
    with pytest.raises(UserError, match="is broken"):
        opened(parent)
    part.unlink()
    with pytest.raises(UserError, match=r"tracks have no features .*mirprobe extract"):
        opened(parent)


def test_what_is_missing_of_all_splits_is_said_at_once(parent: Path) -> None:
    absent = with_audio(
        replace(TRACKS[0], track_id=f"a{split}", split=split) for split in ("train", "val", "test")
    )
    with pytest.raises(UserError, match=r"3 of 8 tracks have no features .*first: atrain"):
        opened(parent, tracks=[*TRACKS, *absent])


def test_no_label_within_the_audio_is_an_error(parent: Path) -> None:
    late = (Segment(50.0, 60.0, 0),)
    tracks = [replace(track, target=late) if track.split == "test" else track for track in TRACKS]
    pattern = r"no frame of test has a label: the segments of toy lie outside its audio"
    with pytest.raises(UserError, match=pattern):
        opened(parent, tracks=tracks)


def test_opening_features_reads_no_values(parent: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_arguments: object) -> None:
        raise AssertionError("values were read")

    monkeypatch.setattr("datamodules.features.shards.Shard.layers", refuse)
    assert opened(parent).shape == (N_LAYERS, DIM)
