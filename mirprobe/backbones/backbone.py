"""The contract of a backbone: a frozen network that turns audio into the states of all its layers.

Conventions: layer 0 is the input of the first encoder block, layers 1..L are the block outputs, all
at one frame rate and one width. Audio is mono float32 at the backbone's own rate; nothing is padded
inside a batch, so a batch of n clips gives what n batches of one give. A backbone is one file in
this folder: five facts and `states`.
"""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from datamodules.errors import UserError


class Backbone(nn.Module, ABC):
    """Frozen network with the states of layers 0..L; always in eval mode, without gradients.

    Attributes:
        sample_rate: rate of the audio it expects, in Hz.
        hop: seconds between two frames.
        n_layers: L, the number of encoder blocks; `forward` returns L + 1 states.
        dim: D, the width of every state.
        min_samples: the shortest clip it accepts, in samples.
        precision: of weights and activations, `float32` unless a backbone offers more; part of a
            store's name.
        keys_matched: tensors taken from a checkpoint; None where none was read.
        keys_ignored: tensors of the checkpoint that are known and not needed.
    """

    sample_rate: int
    hop: float
    n_layers: int
    dim: int
    min_samples: int
    precision: str = "float32"
    keys_matched: int | None = None
    keys_ignored: int | None = None
    front_end: ClassVar[Mapping[str, object]] = {}

    @abstractmethod
    def states(self, audio: Tensor) -> Tensor:
        """States of layers 0..L for checked audio: (B, S) -> (B, L+1, T, D)."""

    def forward(self, audio: Tensor) -> Tensor:
        """States of all layers.

        Args:
            audio: (B, S) float32 in [-1, 1], mono, at `sample_rate` Hz, S >= `min_samples`.

        Returns:
            (B, L+1, T, D) float32, on the device of the backbone.

        Raises:
            UserError: audio is not (B, S) float32, too short, or holds NaN or infinity.
        """
        self._check(audio)
        with torch.no_grad(), torch.autocast(audio.device.type, enabled=False):
            return self.states(audio)

    def _check(self, audio: Tensor) -> None:
        name = type(self).__name__
        if audio.ndim != 2:
            raise UserError(
                f"{name} takes audio of shape (batch, samples), got {tuple(audio.shape)}: mix down "
                "to mono first"
            )
        if audio.dtype != torch.float32:
            raise UserError(
                f"{name} takes float32 audio, got {str(audio.dtype).removeprefix('torch.')}"
            )
        if audio.shape[1] < self.min_samples:
            raise UserError(
                f"{name} needs at least {self.min_samples} samples at {self.sample_rate} Hz, got "
                f"{audio.shape[1]}"
            )
        if not bool(torch.isfinite(audio).all()):
            raise UserError(
                f"{name} got audio with NaN or infinite samples: check the file it was read from"
            )

    def freeze(self) -> Self:
        """Switches off gradients, dropout and running statistics, for good: later calls of `train`
        change nothing.
        """
        self.requires_grad_(False)
        super().train(False)
        return self

    def train(self, mode: bool = True) -> Self:
        """Does nothing: a frozen backbone stays in eval mode, also inside `Trainer.fit`."""
        return self

    def fingerprint(self) -> str:
        """16 hex digits that identify weights and front end: class, its constants, and every tensor
        of the state dict.
        """
        digest = hashlib.sha256(
            json.dumps([type(self).__name__, dict(self.front_end)], sort_keys=True).encode()
        )
        for key, tensor in sorted(self.state_dict().items()):
            digest.update(f"{key}{tuple(tensor.shape)}{tensor.dtype}".encode())
            digest.update(
                tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data
            )
        return digest.hexdigest()[:16]
