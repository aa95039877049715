"""MusicFM (Won et al. 2023, arXiv 2311.03318), trained on MSD or FMA.

Conventions: those of conformer.py: 12 Conformer layers at 25 Hz on 24 kHz audio. The checkpoint's
own window and mel filter bank are used.
"""

from collections.abc import Mapping
from typing import ClassVar

from mirprobe.backbones.conformer import Conformer, ConformerVariant
from mirprobe.backbones.conformer_state import STORED_MEL
from mirprobe.backbones.hub import PublishedFile

REPO = "minzwon/MusicFM"
REVISION = "4513b38bc25ad1d227b1980819b9691ba97f4d87"
MSD = PublishedFile(
    model="musicfm",
    repo=REPO,
    revision=REVISION,
    name="pretrained_msd.pt",
    n_bytes=1_316_802_088,
    sha256="218b483a0256ddef736267425fabb166fd97008983696bb9270def464b47bded",
)
FMA = PublishedFile(
    model="musicfm_fma",
    repo=REPO,
    revision=REVISION,
    name="pretrained_fma.pt",
    n_bytes=1_316_802_154,
    sha256="68392eee13d34c2941b3761934abb6b1e67b2e9df498695bda2ea5c1087d4b96",
)
# melspec_2048_mean and melspec_2048_std, in dB, of msd_stats.json and fma_stats.json
MSD_STATISTICS = (6.768444971712967, 18.417922652295623)
FMA_STATISTICS = (3.0710578151459664, 20.999089814337626)


class MusicFM(Conformer):
    """MusicFM with the weights `msd`, `fma` or `random`; masks are not supported.

    Args:
        weights: `msd` and `fma` are the published ones; `random` draws all of them by the recipe of
            the golden numbers (`draw_state`), with MSD's statistics: the control that tells what
            training adds to the architecture.
        checkpoint: path of a file to read in place of the one in the local cache.
        seed: of the random weights; without effect on the others.

    Raises:
        UserError: unknown names, a missing file (the text says how to fetch it), or a file that
            does not fit.
    """

    tag = "musicfm"
    variants: ClassVar[Mapping[str, ConformerVariant]] = {
        "msd": ConformerVariant(MSD, *MSD_STATISTICS),
        "fma": ConformerVariant(FMA, *FMA_STATISTICS),
        "random": ConformerVariant(None, *MSD_STATISTICS),
    }
    stored: ClassVar[Mapping[str, tuple[int, ...]]] = {
        f"{STORED_MEL}.spectrogram.window": (2048,),
        f"{STORED_MEL}.mel_scale.fb": (1025, 128),
    }
    ignored = (r"quantizer_melspec_2048_0\.(random_projection|codebook)",)

    def __init__(self, weights: str = "msd", checkpoint: str | None = None, seed: int = 0) -> None:
        super().__init__(weights, checkpoint, seed)
