"""Where frames lie: what clicks say, and that a click lands on the label grid where it was."""

from collections.abc import Callable

import pytest
import torch
from golden_recipe import SmallMuQ, SmallMusicFM
from torch import Tensor

from mirprobe.backbones.backbone import Backbone
from mirprobe.backbones.clicks import measure_first_frame, response
from mirprobe.backbones.fbank_chroma import FbankChroma
from mirprobe.backbones.fcpe import FCPE
from mirprobe.backbones.musicfm import MusicFM
from mirprobe.backbones.signals import noise
from mirprobe.extraction.pooling import pool_to_grid

SECONDS = 2.0
N_CLICKS = 25  # over one frame of the grid of 8 Hz, 5 ms apart
CLICKS_S = 0.95 + (torch.arange(N_CLICKS) + 0.5) * 0.125 / N_CLICKS
NEAR_S = 0.005


class Energy(Backbone):
    """Two layers of the energy of frames of 80 samples that start `start` samples after a hop."""

    sample_rate, hop, n_layers, dim, min_samples = 8000, 0.01, 1, 1, 80

    def __init__(self, start: int = 0) -> None:
        super().__init__()
        self.start = start

    def states(self, audio: Tensor) -> Tensor:
        energy = audio[:, self.start :].unfold(1, 80, 80).square().sum(dim=2)
        return torch.stack([energy, energy], dim=1)[..., None]


class Nowhere(Energy):
    """Every frame holds the energy of the clip."""

    def states(self, audio: Tensor) -> Tensor:
        states = super().states(audio)
        return states.sum(dim=2, keepdim=True).expand_as(states)


def on_frames(backbone: Backbone) -> Tensor:
    """(L+1, clicks, T): how much each frame is moved by each click, in every layer."""
    n_samples = round(SECONDS * backbone.sample_rate)
    clips = (0.01 * noise(n_samples)).repeat(N_CLICKS + 1, 1)
    clips[range(N_CLICKS), (CLICKS_S * backbone.sample_rate).long()] += 0.5

    states = torch.cat([backbone(clip) for clip in torch.split(clips, 1)]).transpose(0, 1)
    return torch.stack([response(layer[:-1], layer[-1]) for layer in states])


def landing(backbone: Backbone, moved: Tensor, frame_rate: float) -> Tensor:
    """(L+1,) how much later than the clicks their places on the grid are, in s."""
    on_grid = pool_to_grid(
        moved[..., None],
        hop=backbone.hop,
        first_frame_s=backbone.first_frame_s,
        seconds=SECONDS,
        frame_rate=frame_rate,
    )[..., 0]
    centre_s = (torch.arange(on_grid.shape[2]) + 0.5) / frame_rate
    found_s = (on_grid @ centre_s) / on_grid.sum(dim=2)
    return (found_s - CLICKS_S).mean(dim=1)


@pytest.mark.parametrize(("start", "centre_s"), [(0, 0.005), (20, 0.0075), (40, 0.01)])
def test_clicks_say_where_the_first_frame_is_centred(start: int, centre_s: float) -> None:
    measured_s = measure_first_frame(Energy(start))
    assert measured_s == pytest.approx(centre_s, abs=2e-4)


class MostlyNowhere(Energy):
    """Every frame holds the energy of the clip, and a little more of it 5 frames after a sound."""

    def states(self, audio: Tensor) -> Tensor:
        states = super().states(audio)
        everywhere = states.sum(dim=2, keepdim=True).expand_as(states)
        return everywhere + 10 * states.roll(5, dims=2)


@pytest.mark.parametrize("kind", [Nowhere, MostlyNowhere])
def test_clicks_say_nothing_where_they_move_all_frames(kind: type[Energy]) -> None:
    assert measure_first_frame(kind()) is None


@pytest.mark.parametrize(
    ("make", "said_s"),
    [(FCPE, 0.005), (FbankChroma, 0.005), (lambda: FbankChroma(frame_shift_ms=15), 0.0075)],
)
def test_a_click_lands_where_it_was(make: Callable[[], Backbone], said_s: float) -> None:
    backbone = make().freeze()
    assert backbone.first_frame_s == pytest.approx(said_s)

    moved = on_frames(backbone)
    for frame_rate in (100.0, 8.0):
        # Of a trained network layer 0: deeper ones look where they learned to.
        assert landing(backbone, moved[:1], frame_rate).abs().item() <= NEAR_S


def test_a_click_lands_where_it_was_in_every_layer_of_fcpe_untrained() -> None:
    backbone = FCPE("random").freeze()
    moved = on_frames(backbone)
    for frame_rate in (100.0, 8.0):
        assert landing(backbone, moved, frame_rate).abs().max() <= NEAR_S


@pytest.mark.parametrize("small", [SmallMusicFM, SmallMuQ])
def test_a_click_lands_where_it_was_in_every_layer_of_a_conformer(
    small: type[SmallMusicFM] | type[SmallMuQ],
) -> None:
    """It landed 20 ms late, as if frames began where they are centred.

    The few channels of the reduced networks lean to one side by 5 ms or so, as they were drawn:
    taken is the mean of eight.
    """
    landings = []
    for seed in range(8):
        backbone = small("random", seed=seed).freeze()
        moved = on_frames(backbone)
        landings.append([landing(backbone, moved, rate) for rate in (100.0, 8.0)])

    mean = torch.stack([torch.stack(rates) for rates in landings]).mean(dim=0)
    assert mean.abs().max() <= NEAR_S


@pytest.mark.trial
def test_a_click_lands_where_it_was_in_musicfm() -> None:
    backbone = MusicFM("random").freeze()
    moved = on_frames(backbone)
    for frame_rate in (100.0, 8.0):
        assert landing(backbone, moved[:1], frame_rate).abs().item() <= NEAR_S
