"""FBANK + chroma: the paper's baseline (section 3.2), as a backbone without blocks.

Conventions: layer 0 is the feature and there is no other layer. 80 log mel energies of Kaldi's
filter bank (25 ms frames), then 12 chroma values of librosa, on one grid. The paper's "overlap of
10 ms" is read as a shift of 10 ms, Kaldi's default (100 Hz); the literal reading, a shift of 15 ms,
is `frame_shift_ms=15`. Audio is scaled to [-1, 1], not to int16 as in Kaldi, which only moves the
log energies by a constant. Kaldi's frames are centred on half a shift, librosa's on the start of
theirs: the chroma values of a frame are half a shift, 5 ms, early.
"""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar, Literal, get_args

import librosa
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchaudio.compliance import kaldi

from mirprobe.backbones.backbone import Backbone, check_choice

FrameShift = Literal[10, 15]  # ms
N_FFT = 2048  # of the chroma


class FbankChroma(Backbone):
    """The baseline feature: (B, S) at 24 kHz -> (B, 1, T, 92).

    Args:
        frame_shift_ms: 10 (100 Hz) or 15 (66.7 Hz).

    Raises:
        UserError: any other `frame_shift_ms`.
    """

    sample_rate = 24000
    n_layers = 0
    dim = 92
    min_samples = N_FFT
    front_end: ClassVar[Mapping[str, object]] = {
        "fbank": "kaldi 80 bands, 25 ms, dither 0, snip_edges false",
        "chroma": "librosa stft 12, n_fft 2048, tuning 0",
    }

    def __init__(self, frame_shift_ms: FrameShift = 10) -> None:
        super().__init__()
        check_choice("frame_shift_ms", frame_shift_ms, get_args(FrameShift))
        self.hop = frame_shift_ms / 1000

        # A buffer, since the fingerprint is taken of the state dict.
        self.register_buffer("frame_shift_ms", torch.tensor(frame_shift_ms))

    def states(self, audio: Tensor) -> Tensor:
        """The feature of every clip, T = floor((S + hop/2) / hop) frames.

        Clips are worked on side by side, in as many threads as torch has: Fourier transforms let
        other threads run. Not so in the product with the chroma filters, whose own threads would
        wait for each other: it is one for the batch.
        """
        with ThreadPoolExecutor(min(len(audio), torch.get_num_threads())) as threads:
            fbank = torch.stack(list(threads.map(self._fbank, audio)))
            power = np.stack(list(threads.map(self._power, audio)))
        chroma = librosa.feature.chroma_stft(
            S=power, sr=self.sample_rate, n_fft=N_FFT, n_chroma=12, tuning=0.0
        )

        # librosa gives a frame more than Kaldi where the last hop is less than half full.
        per_frame = torch.from_numpy(chroma.astype(np.float32)).transpose(1, 2)
        per_frame = per_frame[:, : fbank.shape[1]].to(fbank)
        return torch.cat([fbank, per_frame], dim=2)[:, None]

    def _fbank(self, clip: Tensor) -> Tensor:
        """(S,) -> (T, 80)."""
        # Neither reaches from outside into a thread; and the feature is float32 in any case.
        with torch.no_grad(), torch.autocast(clip.device.type, enabled=False):
            features: Tensor = kaldi.fbank(
                clip[None],
                sample_frequency=self.sample_rate,
                num_mel_bins=80,
                frame_length=25,
                frame_shift=1000 * self.hop,
                dither=0,
                snip_edges=False,
            )
        return features

    def _power(self, clip: Tensor) -> NDArray[np.float32]:
        """(S,) -> (1025, 1 + S // hop), the power spectrogram under librosa's chroma."""
        hop_samples = round(self.hop * self.sample_rate)
        spectrum = librosa.stft(clip.cpu().numpy(), n_fft=N_FFT, hop_length=hop_samples)
        power: NDArray[np.float32] = np.abs(spectrum) ** 2
        return power
