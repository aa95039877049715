"""The log-mel spectrogram that MusicFM, MuQ and MERT2 hear.

Conventions: 24 kHz, M mel frames of 10 ms; frame k is centred on sample 240 k. HTK bands up to
12 kHz without area norm, in dB without `top_db`. Source: ../shared/facts/backbones.md section 1.
"""

from collections.abc import Mapping

from torch import Tensor, nn
from torchaudio import transforms

SAMPLE_RATE = 24_000
N_FFT = 2048
HOP_SAMPLES = 240
FRONT_END: Mapping[str, object] = {
    "n_fft": N_FFT,
    "hop": HOP_SAMPLES,
    "window": "periodic Hann",
    "padding": "centred, reflect",
    "f_max": 12000,
    "mel": "HTK, no area norm",
    "level": "10 log10(max(power, 1e-10)), no top_db",
}


class LogMel(nn.Module):
    """Normalised log-mel spectrogram, in float32 whatever the precision after it.

    Window and filter bank are part of the state dict only where the checkpoint brings them; the
    computed ones follow from the constants.

    Args:
        n_mels: number of bands.
        statistics: mean and std in dB, (2,) of all bands or (2, n_mels, 1) of each.
        window: the checkpoint's own, (2048,); None computes it.
        filters: the checkpoint's own, (1025, n_mels); None computes them.
    """

    statistics: Tensor

    def __init__(
        self,
        n_mels: int,
        statistics: Tensor,
        *,
        window: Tensor | None = None,
        filters: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.spectrogram = transforms.Spectrogram(n_fft=N_FFT, hop_length=HOP_SAMPLES, power=2.0)
        self.mel_scale = transforms.MelScale(n_mels, SAMPLE_RATE, n_stft=N_FFT // 2 + 1)
        # Without top_db: quiet frames keep their level, and no clip depends on its loudest frame.
        self.decibel = transforms.AmplitudeToDB("power", top_db=None)

        _choose_buffer(self.spectrogram, "window", window)
        _choose_buffer(self.mel_scale, "fb", filters)
        self.register_buffer("statistics", statistics)

    def forward(self, audio: Tensor) -> Tensor:
        """(B, S) -> (B, n_mels, M) with M = floor(S / 240): the last centred frame is dropped."""
        power = self.spectrogram(audio)[..., :-1]
        decibels: Tensor = self.decibel(self.mel_scale(power))
        mean, std = self.statistics
        return decibels.sub_(mean).div_(std)


def _choose_buffer(module: nn.Module, name: str, stored: Tensor | None) -> None:
    """Puts a stored tensor in place of a computed one; only a stored one is part of the state."""
    tensor = module.get_buffer(name) if stored is None else stored
    module.register_buffer(name, tensor, persistent=stored is not None)
