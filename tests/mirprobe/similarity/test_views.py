"""Input views lie on the backbone's frames, and are what the networks hear."""

import math

import pytest
import torch
from torch import Tensor

from mirprobe.backbones.backbone import Backbone
from mirprobe.backbones.conformer import LogMel
from mirprobe.backbones.musicfm import MSD_STATISTICS
from mirprobe.similarity import views
from mirprobe.similarity.views import POOLINGS, Pooling


class Grid(Backbone):
    """A backbone of which only the frame grid counts."""

    n_layers, dim, min_samples = 0, 1, 1

    def __init__(self, sample_rate: int, hop: float, *, is_centred: bool = False) -> None:
        super().__init__()
        self.sample_rate, self.hop = sample_rate, hop
        self.is_centred = is_centred

    @property
    def first_frame_s(self) -> float:
        return self.hop / 2 if self.is_centred else 0.0

    def states(self, audio: Tensor) -> Tensor:
        raise AssertionError


MUSICFM, FCPE = Grid(24_000, 0.04), Grid(16_000, 0.01, is_centred=True)


def noise(seconds: float, rate: int = 24_000) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return 0.1 * torch.randn(2, round(seconds * rate), generator=generator)


@pytest.mark.parametrize(
    ("pooling", "dim"), zip(POOLINGS, (128, 512, 128), strict=True), ids=POOLINGS
)
def test_the_log_mel_is_that_of_musicfm(pooling: Pooling, dim: int) -> None:
    audio = noise(1.01)
    own = LogMel(128, torch.tensor(MSD_STATISTICS))(audio).transpose(1, 2)  # (2, 101, 128)
    grouped = own[:, :100].reshape(2, 25, 4, 128)
    wanted = {"mean": grouped.mean(2), "stack": grouped.flatten(2), "center": grouped[:, :, 0]}
    found = views.log_mel(audio, MUSICFM, pooling)
    assert found.shape == (2, 25, dim)
    torch.testing.assert_close(found, wanted[pooling], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("view", [views.log_mel, views.fbank])
@pytest.mark.parametrize("grid", [MUSICFM, FCPE, Grid(24_000, 1 / 75, is_centred=True)])
def test_a_click_is_in_the_frame_of_its_time(grid: Grid, view: object) -> None:
    frame = 10
    audio = torch.zeros(1, grid.sample_rate)
    audio[0, round((frame + 0.5) * grid.hop * grid.sample_rate)] = 1.0
    energy = view(audio, grid)[0].sum(dim=1)  # type: ignore[operator]
    assert abs(int(energy.argmax()) - frame) <= round(0.045 / grid.hop) - 1
    assert abs(len(energy) - 1 / grid.hop) <= 1


def test_filter_bank_energies_are_eighty() -> None:
    assert views.fbank(noise(1.0), MUSICFM).shape == (2, 25, 80)
    assert views.fbank(noise(1.0), MUSICFM, "stack").shape == (2, 25, 320)


def test_the_centre_is_where_the_backbone_says() -> None:
    fine = torch.arange(8.0)[None, :, None]
    starts = views.pool_fine(fine, 4, "center", 0.0)[0, :, 0].tolist()
    middles = views.pool_fine(fine, 4, "center", 0.5)[0, :, 0].tolist()
    assert (starts, middles) == ([0.0, 4.0], [2.0, 6.0])


def test_a_band_is_where_its_tone_is() -> None:
    times = torch.arange(24_000) / 24_000
    low, high = (torch.sin(2 * math.pi * hz * times)[None] for hz in (220.0, 3520.0))
    bands = [int(views.log_mel(tone, MUSICFM)[0].mean(0).argmax()) for tone in (low, high)]
    assert bands[0] < 20
    assert bands[1] > 70
