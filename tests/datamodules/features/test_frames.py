"""Tasks by frames: the grid, labels, features on the grid, and what the loaders read back from real
shards.
"""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

import datamodules.features.frames
from datamodules.audio.clips import Clip, ClipRule
from datamodules.errors import UserError
from datamodules.features.grid import frame_labels, grid_weights, n_grid_frames
from datamodules.features.memory import FeatureBatch
from datamodules.features.shards import ClipFeatures, write_shard
from datamodules.features.store import FrameClips, StoreKey, read_inventory
from datamodules.task import FrameTask
from datamodules.tracks import Segment, Split, Track

INF = float("inf")
KEY = StoreKey("fcpe", "0a1b2c", "toy", "2s-tail1s-joined", "4Hz", "soxr-HQ", "float32")
N_LAYERS, DIM, RATE = 3, 4, 4.0

# -- the grid --------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [2.0, 1 / 0.192, 8.0, 25.0, 100.0])
def test_clips_of_a_track_cover_its_grid_once(rate: float) -> None:
    """24 s clips and a rest: the grids of the clips are the grid of the track."""
    for seconds in (5.3, 24.0, 100.07, 216.31, 47.999):
        starts = np.arange(0, max(1, seconds // 24)) * 24.0
        lengths = [24.0] * (len(starts) - 1) + [seconds - starts[-1]]
        counts = [n_grid_frames(length, rate) for length in lengths]
        assert sum(counts) == n_grid_frames(seconds, rate)
        np.testing.assert_allclose(np.cumsum([0, *counts[:-1]]) / rate, starts, atol=1e-9)


@pytest.mark.parametrize("seconds", [24.0, 5.317, 0.9])
@pytest.mark.parametrize("hop", [0.01, 0.04])
@pytest.mark.parametrize("rate", [2.0, 8.0, 25.0, 100.0])
def test_features_on_the_grid_stand_for_their_time(seconds: float, hop: float, rate: float) -> None:
    """A feature that is the time itself comes out as the centres of the frames of the grid."""
    n_frames, n_grid = math.ceil(round(seconds / hop, 6)), n_grid_frames(seconds, rate)
    weights = grid_weights(n_frames, hop, n_grid, rate)
    assert weights.shape == (n_grid, n_frames) and bool((weights >= 0).all())
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(n_grid))
    time = (torch.arange(n_frames) + 0.5) * hop
    centre = (torch.arange(n_grid) + 0.5) / rate
    inside = slice(0, -1)  # the last frame of the grid may reach beyond the audio
    tolerance = hop / 2 + 1e-6  # of a frame in part of its cell, the whole counts
    torch.testing.assert_close((weights @ time)[inside], centre[inside], atol=tolerance, rtol=0)


def test_whole_numbers_of_frames_are_plain_means() -> None:
    frames = torch.randn(100, 5, generator=torch.Generator().manual_seed(0))
    expected = torch.nn.functional.adaptive_avg_pool1d(frames.T, 20).T  # what MusicFM's authors do
    torch.testing.assert_close(grid_weights(100, 0.04, 20, 5.0) @ frames, expected)


def test_a_backbone_that_gives_too_few_frames_repeats_the_last() -> None:
    weights = grid_weights(3, 0.5, 4, 1.0)
    assert weights[2:].tolist() == [[0, 0, 1], [0, 0, 1]]


# -- labels ----------------------------------------------------------------------------------------


def test_labels_hold_at_the_centre_of_a_frame() -> None:
    segments = (Segment(0.5, 1.0, 2), Segment(1.0, 1.6, 0), Segment(2.0, INF, 1))
    # 0.125 0.375 | 0.625 0.875 | 1.125 1.375 | 1.625 1.875 | 2.125 2.375
    assert frame_labels(segments, 0.0, 10, 4.0).tolist() == [-1, -1, 2, 2, 0, 0, -1, -1, 1, 1]
    assert frame_labels(segments, 1.0, 6, 4.0).tolist() == [0, 0, -1, -1, 1, 1]


def test_a_centre_on_a_boundary_belongs_to_what_begins_there() -> None:
    assert frame_labels((Segment(0.0, 0.5, 0), Segment(0.5, 2.0, 1)), 0.0, 2, 1.0).tolist() == [
        1,
        1,
    ]


def test_a_track_without_segments_is_ignored() -> None:
    assert frame_labels((), 0.0, 3, 8.0).tolist() == [-1, -1, -1]


# -- the task --------------------------------------------------------------------------------------

LENGTHS = {"a": 7.0, "b": 4.5, "c": 9.0, "d": 3.0, "e": 2.25}  # s
SPLIT: dict[str, Split] = {"a": "train", "b": "val", "c": "train", "d": "test", "e": "train"}


class Toy(FrameTask):
    """Five tracks whose first second is not labelled."""

    dataset, classes = "toy", ("x", "y", "z")

    def read_tracks(self) -> list[Track]:
        segments = (Segment(1.0, 2.0, 0), Segment(2.0, 3.0, 2), Segment(3.0, INF, 1))
        return [Track(name, Path("none"), SPLIT[name], segments) for name in LENGTHS]

    def tracks(self) -> list[Track]:
        return self.read_tracks()


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
        frames = range(round(start * RATE), round(start * RATE) + n_grid_frames(stop - start, RATE))
        values = [
            [[value(track, layer, k, d) for d in range(DIM)] for k in frames]
            for layer in range(N_LAYERS)
        ]
        clip = Clip(track, index, len(starts), float(start), np.zeros(1, np.float32), 1)
        made.append(ClipFeatures(clip, 77, np.array(values, np.float16)))
    return made


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """All clips, in no good order, in three shards."""
    clips = [clip for track in LENGTHS for clip in clips_of(track)]
    order = np.random.default_rng(0).permutation(len(clips))
    for part in np.array_split(order, 3):
        write_shard(tmp_path, KEY, [clips[index] for index in part])
    return tmp_path


def loaded(store: Path, batch_size: int = 5, seed: int = 0) -> Toy:
    data = Toy(Path(), ClipRule(2.0, 1.0, join_rest=True), frame_rate=RATE)
    data.load_features(store, KEY, batch_size=batch_size, seed=seed)
    return data


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
    assert found == expected_frames(split) and len(target) == len(found)
    for layer in range(N_LAYERS):
        for feature in range(DIM):
            torch.testing.assert_close(
                features[layer, :, feature], features[0, :, 0] + 16 * layer + 0.125 * feature
            )


@pytest.mark.parametrize("clips_at_once", [1, 2, 100])
@pytest.mark.parametrize("batch_size", [1, 5, 1000])
def test_every_labelled_frame_comes_once_with_its_label(
    store: Path, monkeypatch: pytest.MonkeyPatch, clips_at_once: int, batch_size: int
) -> None:
    monkeypatch.setattr(
        datamodules.features.frames, "_MIX_BYTES", clips_at_once * 2 * N_LAYERS * DIM * 12
    )
    data = loaded(store, batch_size)
    train = list(data.train_dataloader())
    check(train, "train")
    check(list(data.val_dataloader()), "val")
    check(list(data.test_dataloader()), "test")
    assert {len(batch["target"]) for batch in train[:-1]} <= {batch_size} and len(
        train
    ) == math.ceil(len(expected_frames("train")) / batch_size)
    moments = torch.cat(list(data.train_features()), dim=1)
    assert moments.shape == (N_LAYERS, len(expected_frames("train")), DIM)


def test_the_order_follows_the_seed_changes_every_epoch_and_mixes_tracks(store: Path) -> None:
    first, again, other = (loaded(store, 8, seed).train_dataloader() for seed in (0, 0, 1))
    epochs = [
        [batch["features"][0, :, 0].tolist() for batch in loader]
        for loader in (first, again, other, first)
    ]
    assert epochs[0] == epochs[1] and epochs[0] != epochs[2] and epochs[0] != epochs[3]
    assert any(len(set(batch["track"].tolist())) == 3 for batch in first)


def test_targets_are_frames_per_class_and_tracks_keep_their_names(store: Path) -> None:
    data = loaded(store)
    assert data.split("train").track_ids == ("a", "c", "e")
    assert data.split("train").track_target.tolist() == [[4, 16, 4], [4, 24, 4], [4, 0, 1]]
    assert data.feature_shape == (N_LAYERS, DIM)


def test_a_broken_or_incomplete_store_is_said(store: Path) -> None:
    part = sorted(store.glob("part-*.h5"))[0]
    content = part.read_bytes()
    part.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(UserError, match="is broken"):
        loaded(store)
    part.unlink()
    with pytest.raises(UserError, match=r"tracks have no features .*mirprobe extract"):
        loaded(store)


def test_no_label_within_the_audio_is_an_error(store: Path) -> None:
    class Late(Toy):
        def read_tracks(self) -> list[Track]:
            late = (Segment(50.0, 60.0, 0),)
            return [Track(one.track_id, one.path, one.split, late if one.split == "test" else one.target)
                    for one in super().read_tracks()]  # fmt: skip

    data = Late(Path(), ClipRule(2.0), frame_rate=RATE)
    with pytest.raises(UserError, match=r"no frame of test has a label"):
        data.load_features(store, KEY, batch_size=5, seed=0)


def test_a_clip_is_a_whole_number_of_frames() -> None:
    with pytest.raises(UserError, match=r"24 s holds 50\.4 frames at 2\.1 Hz"):
        Toy(Path(), ClipRule(24.0), frame_rate=2.1)
    with pytest.raises(UserError, match="frame_rate must be above 0"):
        Toy(Path(), ClipRule(24.0), frame_rate=0.0)


def test_values_stay_on_disk_until_they_are_read(store: Path) -> None:
    """The arrays of a store are views of its files, not copies."""
    clips = FrameClips(store, KEY, list(LENGTHS))
    assert all(isinstance(layer.base, np.memmap) for shard in clips._layers for layer in shard)
    assert sum(len(stored.clips) for stored in read_inventory(store, KEY).values()) == len(clips)
