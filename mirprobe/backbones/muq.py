"""MuQ (Zhu et al. 2025, arXiv 2501.01108): MusicFM's network, trained on a quantiser of the mel.

Conventions: those of conformer.py. The window and the mel filter bank are computed; the checkpoint
has none.
"""

from collections.abc import Mapping
from typing import ClassVar

from mirprobe.backbones.conformer import Conformer, ConformerVariant
from mirprobe.backbones.conformer_state import WEIGHT_NORM
from mirprobe.backbones.hub import PublishedFile

MSD_ITER = PublishedFile(
    model="muq",
    repo="OpenMuQ/MuQ-large-msd-iter",
    revision="0562a57814f6f8bbd9fdea0a25921a2fce1a841a",
    name="model.safetensors",
    n_bytes=1_333_825_096,
    sha256="273febab2be02872c37d2c37e48a9d6c52c1c9392f3eeeabd498efa281ccb7a6",
)
# melspec_2048_mean and melspec_2048_std, in dB, of `stat` in config.json
STATISTICS = (6.768444971712967, 18.417922652295623)


class MuQ(Conformer):
    """MuQ with the weights `msd_iter` or `random`; masks are not supported.

    The published `attention_mask` leaves the convolutions open to the padding, so that the real
    frames move all the same, and MARBLE does not pass it.

    Args:
        weights: `msd_iter` are the published ones; `random` draws all of them by the recipe of the
            golden numbers (`draw_state`): the control that tells what training adds to the
            architecture.
        checkpoint: path of a file to read in place of the one in the local cache.
        seed: of the random weights; without effect on the others.

    Raises:
        UserError: unknown names, a missing file (the text says how to fetch it), or a file that
            does not fit.
    """

    tag = "muq"
    variants: ClassVar[Mapping[str, ConformerVariant]] = {
        "msd_iter": ConformerVariant(MSD_ITER, *STATISTICS),
        "random": ConformerVariant(None, *STATISTICS),
    }
    ignored = (
        rf"rvq\.quantizers\.\d+\.(in|out)_proj\.(bias|{WEIGHT_NORM})",
        r"rvq\.quantizers\.\d+\.codebook\.weight",
        r"rvq\.quantizers\.\d+\.stale_counter",
    )

    def __init__(
        self, weights: str = "msd_iter", checkpoint: str | None = None, seed: int = 0
    ) -> None:
        super().__init__(weights, checkpoint, seed)
