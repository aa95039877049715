"""Layer weights on features of which one layer alone shows the class: data or start?"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from datamodules.audio.clips import ClipRule
from datamodules.features.memory import FeatureSplit, MemoryFeatures
from datamodules.task import TaskDataModule
from datamodules.tracks import SPLITS, Track
from mirprobe.probing.bank import WEIGHTED, BankSize, Head, ProbeBank
from mirprobe.probing.training import train_bank
from mirprobe.scoring.layer_weights import WeightsPath, weights_path
from mirprobe.scoring.metrics import METRICS
from mirprobe.settings import compose_cell

N_LAYERS, DIM, CLASSES, PLANTED = 12, 16, 4, 7
N_TRACKS = {"train": 443, "val": 197, "test": 60}  # about GTZAN: 7 steps an epoch


class Planted(TaskDataModule):
    """Tracks of one clip; layer 7 shows the class, all others are noise."""

    dataset, classes = "planted", ("a", "b", "c", "d")

    def read_tracks(self) -> list[Track]:
        return [
            Track(f"{split}{number}", Path("none"), split, number % CLASSES)
            for split, n in N_TRACKS.items()
            for number in range(n)
        ]


def planted_data() -> Planted:
    rng = np.random.default_rng(0)
    splits = {}
    for split in SPLITS:
        n = N_TRACKS[split]
        target = torch.arange(n) % CLASSES
        values = rng.standard_normal((N_LAYERS + 1, n, DIM))
        values[PLANTED, :, :CLASSES] += 4.0 * np.eye(CLASSES)[target]
        splits[split] = FeatureSplit(
            track_ids=tuple(f"{split}{number}" for number in range(n)),
            track_target=target,
            features=torch.from_numpy(values.astype(np.float16)),
            target=target,
            track=torch.arange(n),
        )
    data = Planted(Path(), ClipRule())
    data.features = MemoryFeatures(splits, 64, seed=0)
    return data


def path_of(init: str, layer_weights_lr: float, seed: int) -> WeightsPath:
    protocol = replace(
        compose_cell([]).protocol,
        hidden=32,
        max_epochs=40,
        patience=40,
        layer_weights_lr=layer_weights_lr,
        dropout=0.0,
    )
    size = BankSize(N_LAYERS, DIM, protocol.hidden, CLASSES)
    bank = ProbeBank([Head(WEIGHTED, WEIGHTED, seed)], size, layer_weights_init=init)
    trained = train_bank(bank, planted_data(), METRICS["accuracy"], protocol, accelerator="cpu")
    curve = np.eye(N_LAYERS)[PLANTED - 1]
    return weights_path(trained.weights_start[0].tolist(), trained.weights_end[0].tolist(), curve)


def test_from_zeros_the_largest_weight_is_the_planted_layer() -> None:
    path = path_of("zeros", 1e-2, seed=0)
    assert path.largest_start is None and path.largest_end == PLANTED
    assert path.moved > 0.5


@pytest.mark.trial
def test_at_the_rate_of_marble_zeros_find_it_and_a_normal_start_hardly_moves() -> None:
    # MARBLE v1 trains the layer weights at the rate of everything else.
    zeros, normal = (
        [path_of(init, 1e-3, seed) for seed in range(3)] for init in ("zeros", "normal")
    )
    assert [path.largest_end for path in zeros] == [PLANTED] * 3

    # None was drawn on the planted layer. Where it was drawn a close second it can still win.
    assert all(path.largest_start != PLANTED for path in normal)
    assert sum(path.is_where_it_started for path in normal) >= 2
    assert max(path.moved for path in normal) < 0.1
