"""A backbone whose states can be checked by hand: tests share it."""

import torch
from conftest import RATE
from torch import Tensor

from mirprobe.backbones.backbone import Backbone

N_LAYERS, FRAME = 2, 160  # L, and samples of a frame


class Statistics(Backbone):
    """States that say what was heard: layer l holds mean square and length in s, times l + 1."""

    sample_rate, hop, n_layers, dim, min_samples = RATE, FRAME / RATE, N_LAYERS, 2, FRAME

    def __init__(self, gain: float = 1.0) -> None:
        super().__init__()
        self.register_buffer("gain", torch.tensor(gain))
        self.freeze()

    def states(self, audio: Tensor) -> Tensor:
        frames = audio.unfold(1, FRAME, FRAME)
        power = frames.square().mean(dim=2) * self.get_buffer("gain")
        length_s = torch.full_like(power, audio.shape[1] / RATE)
        state = torch.stack([power, length_s], dim=2)
        return torch.stack([state * (layer + 1) for layer in range(N_LAYERS + 1)], dim=1)


class Rounded(Statistics):
    """States that are rounded to bfloat16 where autocast asks for it."""

    def states(self, audio: Tensor) -> Tensor:
        states = super().states(audio)
        return states.bfloat16() if torch.is_autocast_enabled(audio.device.type) else states
