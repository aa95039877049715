"""The network of OMAR-RQ: a causal Conformer with DeepNorm on patches of audio.

Conventions: layer 0 is the linear embedding of the patches, layers 1..24 the block outputs.
Attention sees no later frame, the convolution of a block 15 of them. Written from the paper (arXiv
2507.03482) and ../shared/facts/backbones2.md section 3, without the published package.
"""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, cast

import torch
from torch import Tensor, nn

from mirprobe.backbones.checkpoint import CheckpointSpec
from mirprobe.backbones.hub import download
from mirprobe.backbones.layers import (
    EPS,
    Convolution,
    FeedForward,
    Linear,
    Rotation,
    SelfAttention,
    inverse_frequencies,
    rotation_of,
)
from mirprobe.backbones.omar_rq_state import COUNTERS, OmarSize, fold, published_shapes
from mirprobe.backbones.omar_rq_state import EPS as COARSE_EPS
from mirprobe.backbones.published import PublishedBackbone

ALPHA = 2.6321480259049848  # weight of a block's input against its attention
CONFIG = "config.gin"  # beside the weights


class Block(nn.Module):
    """Feed-forward, attention, convolution, feed-forward, each added to its input; a LayerNorm."""

    def __init__(self, size: OmarSize) -> None:
        super().__init__()
        dim = size.dim
        self.ffn1 = FeedForward(dim, size.ffn_dim, activation="gelu", eps=COARSE_EPS)
        self.attention = SelfAttention(dim, size.n_heads, bias=False, is_causal=True)
        self.attention_norm = nn.LayerNorm(dim, EPS)
        self.convolution = Convolution(
            *(dim, dim, size.kernel), bias=True, activation="gelu", eps=COARSE_EPS
        )
        self.ffn2 = FeedForward(dim, size.ffn_dim, activation="gelu", eps=COARSE_EPS)
        self.norm = nn.LayerNorm(dim, EPS)

    def forward(self, x: Tensor, rotation: Rotation) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        x = self.ffn1(x).add_(x)
        x = self.attention_norm(self.attention(x, rotation).add_(x, alpha=ALPHA))
        x = self.convolution(x).add_(x)
        return cast(Tensor, self.norm(self.ffn2(x).add_(x)))


class OmarRQ(PublishedBackbone):
    """The network behind either kind of patches.

    Args:
        weights: the published ones by name, or `random`, which draws all of them by the recipe of
            the golden numbers: the control that tells what training adds to the architecture.
        checkpoint: path of a file to read in place of the one in the local cache.
        seed: of the random weights; without effect on the others.
        revision: commit, 40 hex digits; None takes the newest that was fetched.
        sha256: checksum of the file, 64 hex digits; None checks none.

    Raises:
        UserError: unknown names, a missing file (the text says how to fetch it), or a file that
            does not fit.
    """

    one_by_one_on = ("cpu",)

    patch: ClassVar[int]  # numbers that make a frame
    size: ClassVar[OmarSize] = OmarSize()
    inv_freq: Tensor

    def __init__(
        self,
        weights: str,
        checkpoint: str | None = None,
        seed: int = 0,
        revision: str | None = None,
        sha256: str | None = None,
    ) -> None:
        super().__init__(weights, checkpoint, seed)
        size = self.size
        self.n_layers, self.dim = size.n_layers, size.dim
        frequencies = inverse_frequencies(size.dim // size.n_heads)
        self.register_buffer("inv_freq", frequencies, persistent=False)

        shapes = published_shapes(size, self.patch)
        rotary = [f"net.layers.{n}.attention.rotary_emb.freqs" for n in range(size.n_layers)]
        spec = CheckpointSpec(
            owner=type(self).__name__,
            needed=shapes,
            ignored=(COUNTERS,),
            equal=dict.fromkeys(rotary, frequencies),
            prefix="",
            is_bare=True,
        )
        pins = {"weights": weights, "revision": revision, "sha256": sha256}
        state = self.read_or_draw(
            *(spec, self.published_file(pins)),
            drawn=shapes,
            weights=weights,
            checkpoint=checkpoint,
            seed=seed,
        )
        with torch.device("meta"):  # no memory and no drawing for weights that are assigned below
            self.embedding = Linear(self.patch, size.dim)
            self.layers = nn.ModuleList(Block(size) for _ in range(size.n_layers))
        self.load_state_dict(fold(state, size), assign=True)

    @classmethod
    def fetch(cls, settings: Mapping[str, object]) -> Path | None:
        """Downloads the weights, and the config of the same commit beside them."""
        path, file = super().fetch(settings), cls.published_file(settings)
        if path is not None and file is not None:
            download(replace(file, name=CONFIG, revision=path.parent.name))
        return path

    @abstractmethod
    def patches(self, audio: Tensor) -> Tensor:
        """What the frames are made of: (B, S) -> (B, T, patch)."""

    def states(self, audio: Tensor) -> Tensor:
        """States of layers 0..L for checked audio: (B, S) float32 -> (B, L+1, T, D) float32."""
        x: Tensor = self.embedding(self.patches(audio))
        rotation = rotation_of(x, self.inv_freq)

        states = x.new_empty(len(x), self.n_layers + 1, *x.shape[1:])
        states[:, 0] = x
        for layer, block in enumerate(self.layers, start=1):
            x = block(x, rotation)
            states[:, layer] = x
        return states
