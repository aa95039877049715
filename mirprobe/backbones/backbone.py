"""The contract of a backbone: a frozen network that turns audio into the states of all its layers.

Conventions: layer 0 is the input of the first encoder block, layers 1..L are the block outputs, all
at one frame rate and one width. Audio is mono float32 at the backbone's own rate; nothing is padded
inside a batch, so a batch of n clips gives what n batches of one give.

A backbone is one file in this folder, a subclass of `Backbone`: five facts (`sample_rate`, `hop`,
`n_layers`, `dim`, `min_samples`), `first_frame_s` where its first frame is not centred on half a
hop, its `front_end`, its `variants` where it has a choice of weights, and `states`.
`mirprobe.assembly.make_backbone` builds it and freezes it.
"""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from datamodules.errors import UserError
from mirprobe.backbones.arithmetic import PRECISIONS, arithmetic
from mirprobe.backbones.hub import PublishedFile, fetch, locate

RANDOM = "random"  # the variant that is drawn under `seed` and reads no file, where there is one
MOST_SEED = 2**32 - 1


@dataclass(frozen=True)
class Variant:
    """One set of weights that a backbone can have.

    Attributes:
        file: what `mirprobe fetch` downloads; None where the weights are drawn at random or come
            with an installed package.
    """

    file: PublishedFile | None


class Backbone(nn.Module, ABC):
    """Network that returns the states of layers 0..L; frozen, it stays as it is whatever happens.

    Args:
        weights: one of `variants`; None where the class has none.
        checkpoint: path of a file to read in place of the published one; None reads that.
        seed: of random weights, from 0 to 2**32 - 1.

    Attributes:
        sample_rate: rate of the audio it expects, in Hz.
        hop: seconds between two frames.
        n_layers: L, the number of encoder blocks; `forward` returns L + 1 states.
        dim: D, the width of every state.
        min_samples: the shortest clip it accepts, in samples.
        precision: that it computes in, `float32` until `at` is called; part of a store's name.
        autocasts: whether bfloat16 is reached by autocast; False where `at` casts the weights.
        front_end: constants of what comes before the first weight, part of the fingerprint: JSON
            values that change whenever the same weights would hear something else.
        one_by_one_on: types of devices on which the clips of a batch pass one by one, since there a
            batch is no faster; elsewhere all pass at once, and sum in another order.
        variants: what `weights` may be; empty where there is nothing to choose.
        keys_matched: tensors taken from a checkpoint; None where none was read.
        keys_ignored: tensors of the checkpoint that are known and not needed; None likewise.

    Raises:
        UserError: `weights` is not one of `variants`, `checkpoint` is no path or stands beside
            random weights, or `seed` is no such number.
    """

    sample_rate: int
    hop: float
    n_layers: int
    dim: int
    min_samples: int
    precision: str = "float32"
    autocasts: ClassVar[bool] = True
    front_end: ClassVar[Mapping[str, object]] = {}
    one_by_one_on: ClassVar[tuple[str, ...]] = ()
    variants: ClassVar[Mapping[str, Variant]] = {}
    keys_matched: int | None = None
    keys_ignored: int | None = None

    _is_frozen: bool = False
    _fingerprint: str | None = None

    def __init__(
        self, weights: str | None = None, checkpoint: str | None = None, seed: int = 0
    ) -> None:
        # Here, since no backbone can do without this call: a slip in a setting must not become a
        # network of other weights under the same name.
        self.variant_named(weights)
        _check_checkpoint(weights, checkpoint)
        _check_seed(seed)
        super().__init__()

    @property
    def first_frame_s(self) -> float:
        """Where frame 0 is centred, in s from the start of the clip; frame k is k hops later.

        Half a hop, unless a backbone says otherwise: frame k then stands for k to k + 1 hops.
        """
        return self.hop / 2

    @classmethod
    def variant_named(cls, weights: str | None) -> Variant | None:
        """The variant called `weights`; None where the class has no variants.

        Raises:
            UserError: it has variants, and none of this name.
        """
        if not cls.variants:
            return None
        check_choice("weights", weights, tuple(cls.variants))
        return cls.variants[str(weights)]

    @classmethod
    def published_file(cls, settings: Mapping[str, object]) -> PublishedFile | None:
        """The file that settings of the model ask for; None where their weights have none."""
        weights = settings.get("weights")
        variant = cls.variant_named(None if weights is None else str(weights))
        return None if variant is None else variant.file

    @classmethod
    def weights_file(cls, settings: Mapping[str, object]) -> Path | None:
        """The file that the weights would be read from; None where none is.

        Args:
            settings: of the model, such as `weights` and `checkpoint`.

        Raises:
            UserError: the published file is not on this machine.
        """
        file, checkpoint = cls.published_file(settings), settings.get("checkpoint")
        if checkpoint is not None:
            return Path(str(checkpoint))
        return None if file is None else locate(file)

    @classmethod
    def fetch(cls, settings: Mapping[str, object]) -> Path | None:
        """Downloads what the settings ask for; None where there is nothing to download.

        Raises:
            UserError: it cannot be downloaded, or is not what was published.
        """
        file = cls.published_file(settings)
        return None if file is None else fetch(file)

    @property
    def device(self) -> torch.device:
        """Where its weights are; the CPU if it has none."""
        tensor = next(chain(self.parameters(), self.buffers()), None)
        return torch.device("cpu") if tensor is None else tensor.device

    @abstractmethod
    def states(self, audio: Tensor) -> Tensor:
        """States of layers 0..L for checked audio, all clips at once: (B, S) -> (B, L+1, T, D)."""

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
        where = audio.device.type
        with torch.no_grad(), arithmetic(self.precision, where, autocasts=self.autocasts):
            if len(audio) == 1 or where not in self.one_by_one_on:
                return self.states(audio).float()
            return self._states_one_by_one(audio)

    def _states_one_by_one(self, audio: Tensor) -> Tensor:
        """States of a batch of two or more, written where they stay: they take the most memory."""
        first, *others = torch.split(audio, 1)
        of_first = self.states(first).float()
        states = of_first.new_empty(len(audio), *of_first.shape[1:])
        states[:1] = of_first
        for index, clip in enumerate(others, start=1):
            states[index : index + 1] = self.states(clip)
        return states

    def _check(self, audio: Tensor) -> None:
        name = type(self).__name__
        if audio.ndim != 2:
            raise UserError(
                f"{name} takes audio of shape (batch, samples), got {tuple(audio.shape)}: "
                "mix down to mono first"
            )
        if audio.dtype != torch.float32:
            dtype = str(audio.dtype).removeprefix("torch.")
            raise UserError(f"{name} takes float32 audio, got {dtype}")
        if audio.shape[1] < self.min_samples:
            raise UserError(
                f"{name} needs at least {self.min_samples} samples at {self.sample_rate} Hz, "
                f"got {audio.shape[1]}"
            )
        if not bool(torch.isfinite(audio).all()):
            raise UserError(
                f"{name} got audio with NaN or infinite samples: check the file it was read from"
            )

    def at(self, precision: str) -> Self:
        """Computes in a precision from now on: `float32`, `tf32` (on a GPU) or `bf16`.

        Its fingerprint stays what it is: the precision has a place of its own in a store's id.
        """
        assert precision in PRECISIONS, precision
        if self._is_frozen:
            self.fingerprint()  # taken now, of the weights as they were read, and kept
        self.precision = precision
        return self

    def freeze(self) -> Self:
        """Switches off gradients, dropout and running statistics, for good."""
        self.requires_grad_(False)
        super().train(False)
        self._is_frozen = True
        return self

    def train(self, mode: bool = True) -> Self:
        """Does nothing to a frozen backbone, which stays in eval mode also inside `Trainer.fit`."""
        return self if self._is_frozen else super().train(mode)

    def fingerprint(self) -> str:
        """16 hex digits that identify weights and front end, computed once if frozen.

        They follow from the name of the class, `front_end`, `first_frame_s`, which places features
        on a label grid, and every tensor of the state dict. A frozen backbone does not change, and
        1.3 GB take a second to hash: the answer is kept.
        """
        if self._fingerprint is not None:
            return self._fingerprint

        identity = [type(self).__name__, dict(self.front_end), self.first_frame_s]
        digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode())
        for key, tensor in sorted(self.state_dict().items()):
            digest.update(f"{key}{tuple(tensor.shape)}{tensor.dtype}".encode())
            digest.update(bytes_of(tensor))
        fingerprint = digest.hexdigest()[:16]

        if self._is_frozen:
            self._fingerprint = fingerprint
        return fingerprint


def bytes_of(tensor: Tensor) -> memoryview:
    """The values of a tensor in memory order, as bytes to be hashed."""
    flat = tensor.detach().cpu().contiguous().view(-1)
    return flat.view(torch.uint8).numpy().data


def check_choice(key: str, value: object, known: tuple[object, ...]) -> None:
    """Refuses a setting of the model that is not one of the known ones.

    Raises:
        UserError: names the key, the value and what it may be.
    """
    # True and 10.0 equal 1 and 10, but have fingerprints of their own.
    if not any(value == one and type(value) is type(one) for one in known):
        choices = ", ".join(map(str, known))
        raise UserError(f"unknown model.{key}={value}: set it to one of {choices}")


def _check_checkpoint(weights: str | None, checkpoint: object) -> None:
    if checkpoint is None:
        return
    if not isinstance(checkpoint, str) or not checkpoint:
        raise UserError(
            f"model.checkpoint must be the path of a file, or null, found {checkpoint!r}"
        )
    if weights == RANDOM:
        raise UserError(
            f"model.weights={weights} reads no file, found model.checkpoint={checkpoint}: drop one"
        )


def _check_seed(seed: int) -> None:
    is_whole = isinstance(seed, int) and not isinstance(seed, bool)  # True is an int to Python
    if not (is_whole and 0 <= seed <= MOST_SEED):
        raise UserError(f"model.seed must be a whole number from 0 to {MOST_SEED}, found {seed}")
