"""Input views: what a backbone hears, on its own frames.

Conventions: B clips of S samples, T frames of the backbone. Frame t of a view stands for the time
from t to t + 1 hops of the backbone: so many fine frames as fit into a hop begin there. Where a
backbone's frame is centred on the start of its hop, as MusicFM's and MuQ's is, the mean of four
lies 15 ms after it: harmless, and the four frames that the models' own targets are made of
(facts/pwcca section 6). Fine frames that fill no hop are left out.
"""

from typing import Literal, get_args

import torch
from torch import Tensor
from torchaudio import transforms
from torchaudio.compliance import kaldi

from mirprobe.backbones.backbone import Backbone

Pooling = Literal["mean", "stack", "center"]
POOLINGS: tuple[Pooling, ...] = get_args(Pooling)
N_MELS = 128
N_FBANK = 80
_FINE_S = 0.010  # of a fine frame, or near it where a hop is no multiple of it
_WINDOW_S = 2048 / 24_000  # the models' own
# Of log-mels in dB over MSD, as in MusicFM and MuQ. PWCCA does not depend on either.
_MEAN_DB, _STD_DB = 6.768444971712967, 18.417922652295623


def log_mel(audio: Tensor, backbone: Backbone, pooling: Pooling = "mean") -> Tensor:
    """Normalised log-mel spectrogram of 128 bands (HTK, no area norm), 10 log10(power).

    At 24 kHz and 25 frames a second it is the input of MusicFM and MuQ: 2048 samples under a
    Hann window, fine frames every 240.

    Args:
        audio: (B, S) float32 in [-1, 1], at the backbone's rate.
        backbone: gives the rate and the hop.
        pooling: of the fine frames of a hop: their `mean`, all of them as a `stack` of 128 n
            values, or the one nearest to the backbone's frame (`center`).

    Returns:
        (B, T, D) float32, where the fine frames of the last hop may be missing: T or T - 1 frames.
    """
    hop = round(backbone.hop * backbone.sample_rate)
    n_fine = fine_frames(hop, backbone.sample_rate)
    window = window_samples(backbone.sample_rate)
    spectrogram = transforms.Spectrogram(
        n_fft=window,
        hop_length=hop // n_fine,
        power=None,
        # What is no longer than half a window cannot be reflected by as much.
        pad_mode="reflect" if audio.shape[1] > window // 2 else "constant",
    ).to(audio.device)
    spectrum = spectrogram(audio)[..., : audio.shape[1] // (hop // n_fine)]
    # Without the root of a magnitude, which takes twice as long as the transform.
    power = spectrum.real.square() + spectrum.imag.square()

    mel_scale = transforms.MelScale(N_MELS, backbone.sample_rate, n_stft=window // 2 + 1)
    bands = mel_scale.to(audio.device)(power)
    decibels = 10 * bands.clamp(min=1e-10).log10()
    fine = ((decibels - _MEAN_DB) / _STD_DB).transpose(1, 2)
    return pool_fine(fine, n_fine, pooling, backbone.first_frame_s / backbone.hop)


def fbank(audio: Tensor, backbone: Backbone, pooling: Pooling = "mean") -> Tensor:
    """Kaldi's log filter-bank energies of 80 bands under 25 ms, as in the paper's baseline.

    Args:
        audio: (B, S) float32 in [-1, 1], at the backbone's rate.
        backbone: gives the rate and the hop.
        pooling: of the fine frames of a hop, see `log_mel`.

    Returns:
        (B, T, D) float32.
    """
    hop = round(backbone.hop * backbone.sample_rate)
    n_fine = fine_frames(hop, backbone.sample_rate)
    of_clips = [
        kaldi.fbank(
            clip[None],
            sample_frequency=backbone.sample_rate,
            num_mel_bins=N_FBANK,
            frame_length=25,
            frame_shift=1000 * hop / n_fine / backbone.sample_rate,
            dither=0,
            snip_edges=False,
        )
        for clip in audio
    ]
    fine = torch.stack(of_clips)
    return pool_fine(fine, n_fine, pooling, backbone.first_frame_s / backbone.hop)


def pool_fine(fine: Tensor, n_fine: int, pooling: Pooling, centre: float) -> Tensor:
    """Fine frames on the backbone's grid: (B, M, D) -> (B, M // n, D or n D).

    Args:
        fine: n_fine frames for each of the backbone's.
        n_fine: n.
        pooling: how n become one.
        centre: where in its hop the backbone's frame is centred, from 0 to 1.

    >>> fine = torch.tensor([[[1.0], [3.0], [5.0], [7.0], [9.0]]])
    >>> [pool_fine(fine, 2, pooling, 0.0).tolist() for pooling in ("mean", "stack", "center")]
    [[[[2.0], [6.0]]], [[[1.0, 3.0], [5.0, 7.0]]], [[[1.0], [5.0]]]]
    """
    n_frames = fine.shape[1] // n_fine
    grouped: Tensor = fine[:, : n_frames * n_fine].reshape(len(fine), n_frames, n_fine, -1)
    if pooling == "mean":
        return grouped.mean(dim=2)
    if pooling == "stack":
        return grouped.flatten(2)
    return grouped[:, :, min(n_fine - 1, round(centre * n_fine))]


def fine_frames(hop: int, sample_rate: int) -> int:
    """How many fine frames of about 10 ms a hop of so many samples holds, without rest.

    >>> fine_frames(960, 24_000), fine_frames(160, 16_000), fine_frames(320, 24_000)
    (4, 1, 1)
    """
    wanted = hop / (_FINE_S * sample_rate)
    divisors = [n for n in range(1, max(2, round(2 * wanted))) if hop % n == 0]
    return min(divisors, key=lambda n: abs(n - wanted))


def window_samples(sample_rate: int) -> int:
    """Samples under the window: the power of two nearest to 85 ms.

    >>> window_samples(24_000), window_samples(16_000)
    (2048, 1024)
    """
    wanted = _WINDOW_S * sample_rate
    powers: list[int] = [2**power for power in range(6, 16)]
    return min(powers, key=lambda n: abs(n - wanted))
