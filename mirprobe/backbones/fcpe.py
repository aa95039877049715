"""FCPE: a small network whose trained weights come with a wheel, so that the demo runs offline.

Conventions: 16 kHz in, 100 frames a second, six residual blocks of width 512 (Conformers without
attention). Layer 0 is the output of the convolutional stem, layers 1..6 the block outputs. It was
trained, with labels, to track the pitch of singing: a stand-in that exercises everything, not a
self-supervised music model. Source: the MIT package torchfcpe 0.0.4 (CNChTu/FCPE,
`mel_extractor.py`, `models.py`, `model_conformer_naive.py`); only its weight file is used.
"""

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import torch
import torch.nn.functional as F
from librosa.filters import mel as mel_filters
from torch import Tensor, nn

from datamodules.errors import UserError
from mirprobe.backbones.backbone import Backbone, Variant
from mirprobe.backbones.checkpoint import is_file, verify
from mirprobe.backbones.layers import Convolution

SHA256 = "b9aeaeb673436eeda50ceafd632aa681aa63417e52eae4207503d180c9b10015"
N_BYTES = 43363260
REINSTALL = "pip install --force-reinstall torchfcpe==0.0.4"

SAMPLE_RATE = 16000
N_FFT = 1024
HOP_SAMPLES = 160
N_MELS = 128
F_MAX = 8000  # Hz
KERNEL = 31
BLOCK_KEYS = {"norm": "0", "expand": "2", "depthwise": "4.conv", "reduce": "6"}  # ours -> theirs


class FCPE(Backbone):
    """FCPE's six blocks.

    Args:
        weights: `trained` reads the wheel's weights, `random` keeps torch's initialisation under
            `seed` (a control).
        checkpoint: another copy of `fcpe_c_v001.pt`; None takes the one of the installed package.
        seed: of the random weights.

    Raises:
        UserError: unknown weights, a checkpoint beside random ones, the package is not installed,
            or the file is not the published one.
    """

    sample_rate = SAMPLE_RATE
    hop = HOP_SAMPLES / SAMPLE_RATE
    n_layers = 6
    dim = 512
    min_samples = 1024
    front_end: ClassVar[Mapping[str, object]] = {
        "n_fft": N_FFT,
        "hop": HOP_SAMPLES,
        "n_mels": N_MELS,
        "f_min": 0,
        "f_max": F_MAX,
        "mel": "slaney",
        "log": "ln(max(|X|, 1e-5))",
    }
    # Features are then the same to the last bit whatever the batch; eight clips of 4 s take 3 %
    # longer on one thread, 7 % on two.
    one_by_one_on = ("cpu",)
    variants: ClassVar[Mapping[str, Variant]] = {"trained": Variant(None), "random": Variant(None)}

    def __init__(
        self, weights: str = "trained", checkpoint: str | None = None, seed: int = 0
    ) -> None:
        super().__init__(weights, checkpoint, seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.stem = nn.Sequential(
                nn.Conv1d(N_MELS, self.dim, 3, padding=1),
                nn.GroupNorm(4, self.dim),
                nn.LeakyReLU(),
                nn.Conv1d(self.dim, self.dim, 3, padding=1),
            )
            self.blocks = nn.ModuleList(
                Convolution(self.dim, 2 * self.dim, KERNEL, bias=True) for _ in range(self.n_layers)
            )

        mel = mel_filters(sr=SAMPLE_RATE, n_fft=N_FFT, n_mels=N_MELS, fmin=0, fmax=F_MAX)
        self.register_buffer("mel", torch.from_numpy(mel).float(), persistent=False)
        self.register_buffer("window", torch.hann_window(N_FFT), persistent=False)

        if weights == "trained":
            published = _read_weights(
                Path(checkpoint) if checkpoint is not None else find_weights()
            )
            own = _own_state(published)
            self.load_state_dict(own)
            self.keys_matched = len(own)
            self.keys_ignored = len(published) - len(own)

    @classmethod
    def weights_file(cls, settings: Mapping[str, object]) -> Path | None:
        """The wheel's file, or the copy that the user names."""
        if settings.get("weights") == "random":
            return None
        checkpoint = settings.get("checkpoint")
        return Path(str(checkpoint)) if checkpoint else find_weights()

    def states(self, audio: Tensor) -> Tensor:
        """States of the stem and the six blocks: (B, S) -> (B, 7, S // 160, 512)."""
        x: Tensor = self.stem(self.log_mel(audio)).transpose(1, 2)

        states = x.new_empty(x.shape[0], self.n_layers + 1, *x.shape[1:])
        states[:, 0] = x
        for layer, block in enumerate(self.blocks, start=1):
            x = block(x).add_(x)
            states[:, layer] = x
        return states

    def log_mel(self, audio: Tensor) -> Tensor:
        """Natural log of the mel magnitudes: (B, S) -> (B, 128, S // 160)."""
        # So much padding, in place of torch's centred frames, gives S // 160 frames.
        padding = N_FFT - HOP_SAMPLES
        sides = (padding // 2, (padding + 1) // 2)
        padded = F.pad(audio[:, None], sides, mode="reflect")[:, 0]

        spectrum = torch.stft(
            padded,
            N_FFT,
            HOP_SAMPLES,
            window=self.get_buffer("window"),
            center=False,
            return_complex=True,
        )
        magnitude = torch.sqrt(spectrum.real.square() + spectrum.imag.square() + 1e-9)
        log_mel: Tensor = torch.log((self.get_buffer("mel") @ magnitude).clamp(min=1e-5))
        return log_mel


def find_weights() -> Path:
    """Path of the weight file inside the installed torchfcpe package, without importing it.

    Raises:
        UserError: the package is not installed.
    """
    spec = importlib.util.find_spec("torchfcpe")
    if spec is None or spec.origin is None:
        raise UserError(
            "model fcpe needs the weights inside the package torchfcpe, which is not installed: "
            "pip install 'mirprobe[demo]'"
        )
    return Path(spec.origin).parent / "assets" / "fcpe_c_v001.pt"


def _read_weights(path: Path) -> dict[str, Tensor]:
    """The published state dict, under the package's names."""
    if not is_file(path):
        raise UserError(
            f"no weights for model fcpe: {path} does not exist. Reinstall them: {REINSTALL}"
        )
    verify(path, n_bytes=N_BYTES, digest=SHA256, remedy=f"Reinstall it: {REINSTALL}")
    weights: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)["model"]
    return weights


def _own_state(published: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The published weights in our layout, without the pitch head and the unused norms."""
    own = {}
    for key, tensor in published.items():
        if key.startswith("input_stack."):
            own[key.replace("input_stack.", "stem.")] = tensor

    for block in range(FCPE.n_layers):
        for ours, theirs in BLOCK_KEYS.items():
            for part in ("weight", "bias"):
                key = f"net.encoder_layers.{block}.conformer.net.{theirs}.{part}"
                own[f"blocks.{block}.{ours}.{part}"] = published[key]

        # The published conv1d weights are (n_out, n_in, frames).
        for pointwise in (f"blocks.{block}.expand.weight", f"blocks.{block}.reduce.weight"):
            own[pointwise] = own[pointwise].squeeze(2)
        depthwise = f"blocks.{block}.depthwise.weight"
        own[depthwise] = own[depthwise].unsqueeze(2)
    return own
