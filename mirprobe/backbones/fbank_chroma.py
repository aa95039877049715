"""FBANK + chroma: the paper's baseline (section 3.2), as a backbone without blocks.

Conventions: layer 0 is the feature and there is no other layer. 80 log mel energies of Kaldi's
filter bank (25 ms frames), then 12 chroma values of librosa, on one grid. The paper's "overlap of
10 ms" is read as a shift of 10 ms, Kaldi's default (100 Hz); the literal reading, a shift of 15 ms,
is `frame_shift_ms=15`. Audio is scaled to [-1, 1], not to int16 as in Kaldi, which only moves the
log energies by a constant.
"""

from collections.abc import Mapping
from typing import ClassVar, Literal, get_args

import librosa
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchaudio.compliance import kaldi

from mirprobe.backbones.backbone import Backbone, check_choice

FrameShift = Literal[10, 15]  # ms


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
    min_samples = 2048
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
        """The feature of every clip, T = floor((S + hop/2) / hop) frames."""
        fbank = torch.stack([self._fbank(clip) for clip in audio])

        # librosa gives a frame more than Kaldi where the last hop is less than half full.
        chroma = self._chroma(audio.cpu().numpy())[:, : fbank.shape[1]].to(fbank)
        return torch.cat([fbank, chroma], dim=2)[:, None]

    def _fbank(self, clip: Tensor) -> Tensor:
        """(S,) -> (T, 80)."""
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

    def _chroma(self, audio: NDArray[np.float32]) -> Tensor:
        """(B, S) -> (B, 1 + S // hop, 12)."""
        chroma = librosa.feature.chroma_stft(
            y=audio,
            sr=self.sample_rate,
            n_fft=2048,
            hop_length=round(self.hop * self.sample_rate),
            n_chroma=12,
            tuning=0.0,
        )
        return torch.from_numpy(chroma.astype(np.float32)).transpose(1, 2)
