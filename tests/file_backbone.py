"""A backbone whose weights are one number in a file, and which counts the clips that pass it."""

from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from mirprobe.backbones.backbone import Backbone


class FileBackbone(Backbone):
    """Log magnitudes of 128 frequencies, scaled: 3 layers that pitch can be read from.

    Args:
        weights: without a meaning, as the class has no variants.
        checkpoint: a text file with the number that scales; without, 1.
        seed: without a meaning.

    Attributes:
        n_clips: that passed any object of this class.
    """

    sample_rate, hop, n_layers, dim, min_samples = 16000, 0.016, 2, 128, 512
    n_clips: ClassVar[int] = 0

    def __init__(
        self, weights: str = "trained", checkpoint: str | None = None, seed: int = 0
    ) -> None:
        super().__init__()
        scale = float(Path(checkpoint).read_text()) if checkpoint else 1.0
        self.register_buffer("scale", torch.tensor(scale))

    def states(self, audio: Tensor) -> Tensor:
        FileBackbone.n_clips += len(audio)
        frames = audio.unfold(1, 512, 256) * torch.hann_window(512)
        magnitude = torch.fft.rfft(frames)[:, :, : self.dim].abs()
        spectrum = self.get_buffer("scale") * torch.log(magnitude + 1e-3)
        return torch.stack([spectrum, spectrum.tanh(), spectrum.square()], dim=1)
