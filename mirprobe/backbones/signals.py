"""Signals made from fixed seeds: noise, a chirp, music."""

import torch
from torch import Tensor


def noise(n_samples: int, seed: int = 0) -> Tensor:
    """(S,) white noise of rms 0.1."""
    return 0.1 * torch.randn(n_samples, generator=torch.Generator().manual_seed(seed)).clamp(-5, 5)


def chirp(n_samples: int) -> Tensor:
    """(S,) sine of amplitude 0.5 that rises from 0 to 0.45 times the sample rate."""
    return (
        0.5
        * torch.sin(
            torch.pi * 0.45 * torch.arange(n_samples, dtype=torch.float64).square() / n_samples
        )
    ).float()


def music(n_samples: int, sample_rate: float, seed: int = 0) -> Tensor:
    """(S,) four decaying chords a second, partials from 110 to 3520 Hz, in [-1, 1], at any rate."""
    generator = torch.Generator().manual_seed(seed)
    time_s = torch.arange(n_samples, dtype=torch.float64) / sample_rate
    pitches = torch.randint(0, 25, (3, 64), generator=generator)
    frequency = (110.0 * 2.0 ** (pitches.double() / 12))[:, (4 * time_s).long() % 64]
    tones = sum(torch.sin(2 * torch.pi * k * frequency * time_s).sum(0) / k for k in (1, 2, 4, 8))
    return (0.15 * torch.exp(-6 * (time_s % 0.25)) * tones).float()
