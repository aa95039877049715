"""Signals made from fixed seeds: noise, a chirp, music."""

import torch
from torch import Tensor


def noise(n_samples: int, seed: int = 0) -> Tensor:
    """(S,) white noise of rms 0.1."""
    generator = torch.Generator().manual_seed(seed)
    return 0.1 * torch.randn(n_samples, generator=generator).clamp(-5, 5)


def chirp(n_samples: int) -> Tensor:
    """(S,) sine of amplitude 0.5 that rises from 0 to 0.45 times the sample rate."""
    squares = torch.arange(n_samples, dtype=torch.float64).square()
    return (0.5 * torch.sin(torch.pi * 0.45 * squares / n_samples)).float()


def music(n_samples: int, sample_rate: float, seed: int = 0) -> Tensor:
    """(S,) four decaying chords a second, partials from 110 to 3520 Hz, in [-1, 1], at any rate."""
    generator = torch.Generator().manual_seed(seed)
    time_s = torch.arange(n_samples, dtype=torch.float64) / sample_rate

    # Three voices within two octaves from A2; after 64 chords, 16 s, they start again.
    semitones = torch.randint(0, 25, (3, 64), generator=generator)
    chord = (4 * time_s).long() % 64
    frequency = (110.0 * 2.0 ** (semitones.double() / 12))[:, chord]

    tones = torch.zeros_like(time_s)
    for k in (1, 2, 4, 8):
        tones = tones + torch.sin(2 * torch.pi * k * frequency * time_s).sum(0) / k
    decay = torch.exp(-6 * (time_s % 0.25))
    return (0.15 * decay * tones).float()
