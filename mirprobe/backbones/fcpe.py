"""FCPE: a small network with trained weights that install with a wheel, so that the main job runs
offline.

Conventions: 16 kHz in, 100 frames a second, six residual blocks of width 512 (Conformers without
attention). Layer 0 is the output of the convolutional stem, layers 1..6 the block outputs. It was
trained, with labels, to track the pitch of singing: a stand-in that exercises everything, not a
self-supervised music model. Source: the MIT package torchfcpe 0.0.4 (CNChTu/FCPE,
`mel_extractor.py`, `models.py`, `model_conformer_naive.py`); only its weight file is used.
"""

import hashlib
import importlib.util
import io
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from librosa.filters import mel as mel_filters
from torch import Tensor, nn

from datamodules.errors import UserError
from mirprobe.backbones.backbone import Backbone

SHA256 = "b9aeaeb673436eeda50ceafd632aa681aa63417e52eae4207503d180c9b10015"
N_BYTES = 43363260
_BLOCK_KEYS = {"0": "norm", "2": "expand", "4.conv": "depthwise", "6": "project"}


class FCPE(Backbone):
    """FCPE's six blocks.

    Args:
        weights: `trained` reads the wheel's weights, `random` keeps torch's initialisation under
            `seed` (a control).
        checkpoint: another copy of `fcpe_c_v001.pt`; None takes the one of the installed package.
        seed: of the random weights.

    Raises:
        UserError: the package is not installed, or the file is not the published one.
    """

    sample_rate, hop, n_layers, dim, min_samples = 16000, 0.01, 6, 512, 1024
    front_end: ClassVar[Mapping[str, object]] = {
        "n_fft": 1024, "hop": 160, "n_mels": 128, "f_min": 0, "f_max": 8000, "mel": "slaney", "log": "ln(max(|X|, 1e-5))",
    }  # fmt: skip

    def __init__(
        self,
        weights: Literal["trained", "random"] = "trained",
        checkpoint: str | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.stem = nn.Sequential(
                nn.Conv1d(128, self.dim, 3, padding=1),
                nn.GroupNorm(4, self.dim),
                nn.LeakyReLU(),
                nn.Conv1d(self.dim, self.dim, 3, padding=1),
            )
            self.blocks = nn.ModuleList(_Block(self.dim) for _ in range(self.n_layers))
        mel = mel_filters(sr=self.sample_rate, n_fft=1024, n_mels=128, fmin=0, fmax=8000)
        self.register_buffer("mel", torch.from_numpy(mel).float(), persistent=False)
        self.register_buffer("window", torch.hann_window(1024), persistent=False)
        if weights == "trained":
            published = _read_weights(Path(checkpoint) if checkpoint else find_weights())
            self.load_state_dict(_rename(published))
            self.keys_matched, self.keys_ignored = (
                len(self.state_dict()),
                len(published) - len(self.state_dict()),
            )
        self.freeze()

    def states(self, audio: Tensor) -> Tensor:
        """States of the stem and the six blocks: (B, S) -> (B, 7, S // 160, 512)."""
        x: Tensor = self.stem(self.log_mel(audio)).transpose(1, 2)
        states = x.new_empty(x.shape[0], self.n_layers + 1, *x.shape[1:])
        states[:, 0] = x
        for layer, block in enumerate(self.blocks, start=1):
            states[:, layer] = x = block(x)
        return states

    def log_mel(self, audio: Tensor) -> Tensor:
        """Natural log of the mel magnitudes: (B, S) -> (B, 128, S // 160)."""
        padding = 1024 - 160
        padded = F.pad(audio[:, None], (padding // 2, (padding + 1) // 2), mode="reflect")[:, 0]
        window = self.get_buffer("window")
        spectrum = torch.stft(padded, 1024, 160, 1024, window, center=False, return_complex=True)
        magnitude = torch.sqrt(spectrum.real.square() + spectrum.imag.square() + 1e-9)
        log_mel: Tensor = torch.log((self.get_buffer("mel") @ magnitude).clamp(min=1e-5))
        return log_mel


class _Block(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.expand = nn.Conv1d(dim, 4 * dim, 1)
        self.depthwise = nn.Conv1d(2 * dim, 2 * dim, 31, padding=15, groups=2 * dim)
        self.project = nn.Conv1d(2 * dim, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        gated = F.glu(self.expand(self.norm(x).transpose(1, 2)), dim=1)
        update: Tensor = self.project(F.silu(self.depthwise(gated))).transpose(1, 2)
        return x + update


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
    if not path.is_file():
        raise UserError(
            f"no weights for model fcpe: {path} does not exist. Reinstall them: pip install "
            "--force-reinstall torchfcpe==0.0.4"
        )
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != SHA256:
        raise UserError(
            f"{path} is not FCPE's published weight file: it has {len(content)} bytes (expected "
            f"{N_BYTES}) or other content. "
            "Reinstall it: pip install --force-reinstall torchfcpe==0.0.4"
        )
    weights: dict[str, Tensor] = torch.load(
        io.BytesIO(content), map_location="cpu", weights_only=True
    )["model"]
    return weights


def _rename(published: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The published state dict under our names; the pitch head and the unused norms are left out."""
    renamed = {
        key.replace("input_stack.", "stem."): value
        for key, value in published.items()
        if key.startswith("input_stack.")
    }
    for block in range(FCPE.n_layers):
        for theirs, ours in _BLOCK_KEYS.items():
            for kind in ("weight", "bias"):
                renamed[f"blocks.{block}.{ours}.{kind}"] = published[
                    f"net.encoder_layers.{block}.conformer.net.{theirs}.{kind}"
                ]
    return renamed
