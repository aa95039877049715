"""OMAR-RQ (Alonso-Jimenez et al. 2025, arXiv 2507.03482), on samples at 25 Hz or on a log-mel.

Conventions: a frame is a patch of 960 samples (24 kHz, 25 Hz) or of four frames of a log-mel
(16 kHz, 15.6 Hz); the remainder of a clip is dropped. Revisions and checksums of the published
files are not known to us: `mirprobe fetch` says what the hub has, and `model.revision` and
`model.sha256` pin it. Source: ../shared/facts/backbones2.md section 3.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor
from torchaudio import transforms

from datamodules.errors import UserError
from mirprobe.backbones.backbone import RANDOM, Variant
from mirprobe.backbones.checkpoint import is_file
from mirprobe.backbones.hub import PublishedFile
from mirprobe.backbones.layers import ROTARY_BASE
from mirprobe.backbones.omar_rq_network import CONFIG, OmarRQ

PATCH_SAMPLES = 960
N_FFT, HOP_SAMPLES, N_MELS, PATCH_FRAMES = 512, 256, 96, 4
MEL_MEAN, MEL_STD = 2.06755686098554, 1.268292820667291
NORM_STD = re.compile(r"^\s*(?:[\w./]*\.)?Waveform\.norm_std\s*=\s*(\S+)", re.MULTILINE)
# How a setting or a config may say that samples are taken as they are.
AS_THEY_ARE = ("none", "None")


def _published(model: str, repo: str) -> Variant:
    """Weights of which neither the revision nor the checksum is known to us."""
    return Variant(PublishedFile(model, f"mtg-upf/{repo}", None, "model.ckpt", None, None))


class OmarRQ25Hz(OmarRQ):
    """OMAR-RQ multifeature-25hz, with or without finite scalar quantisation in its training.

    Args:
        weights: `25hz`, `25hz_fsq` or `random`; the other arguments are those of `OmarRQ`.
        norm_std: what samples are divided by: `auto` reads it in the published config, beside the
            weights (`none` with random ones); `none` or a number says it.

    Raises:
        UserError: as `OmarRQ`, or the config does not say it.
    """

    sample_rate = 24_000
    hop = PATCH_SAMPLES / 24_000
    min_samples = PATCH_SAMPLES
    patch = PATCH_SAMPLES
    tag = "omar25"
    front_end: ClassVar[Mapping[str, object]] = {
        "patch": "960 samples",
        "rotary_base": ROTARY_BASE,
    }
    variants: ClassVar[Mapping[str, Variant]] = {
        "25hz": _published("omar_rq", "omar-rq-multifeature-25hz"),
        "25hz_fsq": _published("omar_rq_fsq", "omar-rq-multifeature-25hz-fsq"),
        "random": Variant(None),
    }
    norm_std: Tensor

    def __init__(
        self,
        weights: str = "25hz",
        checkpoint: str | None = None,
        seed: int = 0,
        revision: str | None = None,
        sha256: str | None = None,
        norm_std: str | float = "auto",
    ) -> None:
        super().__init__(weights, checkpoint, seed, revision, sha256)
        if norm_std == "auto":
            settings = {"weights": weights, "checkpoint": checkpoint, "revision": revision}
            file = None if weights == RANDOM else self.weights_file(settings)
            norm_std = "none" if file is None else read_norm_std(file.with_name(CONFIG))
        # A part of the state, since the same weights hear something else behind another one.
        self.register_buffer("norm_std", torch.tensor(_as_number(norm_std)))

    def patches(self, audio: Tensor) -> Tensor:
        """(B, S) -> (B, floor(S / 960), 960)."""
        n_frames = audio.shape[1] // PATCH_SAMPLES
        whole = audio[:, : n_frames * PATCH_SAMPLES]
        return whole.reshape(-1, n_frames, PATCH_SAMPLES) / self.norm_std


def read_norm_std(config: Path) -> str:
    """What a published config says that samples are divided by: a number or `None`.

    Raises:
        UserError: there is no such config, or it does not say it.
    """
    remedy = "fetch the weights again, or set model.norm_std=none or to the number"
    if not is_file(config):
        raise UserError(f"no {config}, which says how the weights want their input: {remedy}")
    found = NORM_STD.search(config.read_text(encoding="utf-8", errors="replace"))
    if found is None:
        raise UserError(f"{config} does not say Waveform.norm_std: {remedy}")
    return found[1]


def _as_number(norm_std: object) -> float:
    """A divisor of the samples; 1 for none."""
    if norm_std in AS_THEY_ARE:
        return 1.0
    try:
        number = float(str(norm_std))
    except ValueError:
        number = 0.0
    if not (isinstance(norm_std, str | float | int) and 0 < number < float("inf")):
        raise UserError(
            f"model.norm_std must be auto, none or a number above 0, found {norm_std!r}"
        )
    return number


class OmarRQMel(OmarRQ):
    """OMAR-RQ base and multicodebook, which differ in a head that features do not need.

    Args:
        weights: `base`, `multicodebook` or `random`; the other arguments are those of `OmarRQ`.
    """

    sample_rate = 16_000
    hop = PATCH_FRAMES * HOP_SAMPLES / 16_000
    first_frame_s = (PATCH_FRAMES - 1) / 2 * HOP_SAMPLES / 16_000
    min_samples = (PATCH_FRAMES - 1) * HOP_SAMPLES
    patch = N_MELS * PATCH_FRAMES
    tag = "omarbase"
    front_end: ClassVar[Mapping[str, object]] = {
        "n_fft": N_FFT,
        "hop": HOP_SAMPLES,
        "mel": "96 slaney bands to 8 kHz, slaney area norm",
        "level": "log10(1 + 10000 power)",
        "statistics": [MEL_MEAN, MEL_STD],
        "patch": "4 frames, band-major",
        "rotary_base": ROTARY_BASE,
    }
    variants: ClassVar[Mapping[str, Variant]] = {
        "base": _published("omar_rq_base", "omar-rq-base"),
        "multicodebook": _published("omar_rq_multicodebook", "omar-rq-multicodebook"),
        "random": Variant(None),
    }

    def __init__(
        self,
        weights: str = "base",
        checkpoint: str | None = None,
        seed: int = 0,
        revision: str | None = None,
        sha256: str | None = None,
    ) -> None:
        super().__init__(weights, checkpoint, seed, revision, sha256)
        self.spectrogram = transforms.Spectrogram(n_fft=N_FFT, hop_length=HOP_SAMPLES, power=2.0)
        self.mel_scale = transforms.MelScale(
            *(N_MELS, self.sample_rate),
            f_max=8000.0,
            n_stft=N_FFT // 2 + 1,
            norm="slaney",
            mel_scale="slaney",
        )
        for module, name in ((self.spectrogram, "window"), (self.mel_scale, "fb")):
            # They follow from the constants above.
            module.register_buffer(name, module.get_buffer(name), persistent=False)

    def log_mel(self, audio: Tensor) -> Tensor:
        """Normalised log-mel: (B, S) -> (B, 96, 1 + floor(S / 256))."""
        level: Tensor = torch.log10(1 + 10_000 * self.mel_scale(self.spectrogram(audio)))
        return (level - MEL_MEAN) / MEL_STD

    def patches(self, audio: Tensor) -> Tensor:
        """(B, S) -> (B, T, 384), the four frames of a band side by side."""
        mel = self.log_mel(audio)
        n_frames = mel.shape[2] // PATCH_FRAMES
        whole = mel[..., : n_frames * PATCH_FRAMES]
        of_bands = whole.reshape(-1, N_MELS, n_frames, PATCH_FRAMES)
        return of_bands.transpose(1, 2).flatten(2)
