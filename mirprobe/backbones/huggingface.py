"""Any audio model of Hugging Face, by its id, as a backbone: `model=hf model.id=OWNER/NAME`.

Conventions: blocks, width and hop are found by probe clips (`block_list`, `frame_grid`), the rate
is said by the feature extractor. Layer 0 is the input of the first block; layer L is
`last_hidden_state` where it has the shape of a state, with the final norm of networks with one.
Models of a fixed length are refused, since what a clip does not fill is padding. Source:
../shared/facts/backbones2.md section 4.
"""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from datamodules.errors import UserError
from mirprobe.backbones.backbone import RANDOM, Backbone, Variant
from mirprobe.backbones.block_list import depth_of, find_blocks, states_of
from mirprobe.backbones.checkpoint import is_file
from mirprobe.backbones.frame_grid import SHORT_S, find_hop, find_least
from mirprobe.backbones.hub import one_line
from mirprobe.backbones.pretrained import (
    Loaded,
    check_complete,
    check_unsaved,
    encoder_of,
    lasting,
    refuse_code_from_elsewhere,
)
from mirprobe.backbones.repository import WEIGHTS, fetch_repository, locate_weights
from mirprobe.backbones.signals import noise

# What a network raises of a clip that is too short, or that it cannot take at all.
UNFIT = (RuntimeError, ValueError, TypeError, LookupError, AttributeError, AssertionError)
# What transformers raises of files that are missing, of another kind, or need code.
UNREADABLE = (OSError, ImportError, *UNFIT)


class HuggingFace(Backbone):
    """An encoder that transformers runs, whatever it is called.

    Args:
        weights: `published`, or `random`, which keeps transformers' initialisation under `seed`.
        checkpoint: path of a `model.safetensors` beside its configs, in place of id and revision.
        seed: of the random weights.
        id: owner/name of the repository; `revision` is its commit, 40 hex digits.
        trust_remote_code: whether Python code that the repository ships may be run.

    Raises:
        UserError: files are missing, or the method does not hold for this network.
    """

    one_by_one_on = ("cpu", "cuda", "mps")  # nothing is known of its batches
    variants: ClassVar[Mapping[str, Variant]] = {
        "published": Variant(None),
        "random": Variant(None),
    }

    def __init__(
        self,
        weights: str = "published",
        checkpoint: str | None = None,
        seed: int = 0,
        id: str | None = None,
        revision: str | None = None,
        trust_remote_code: bool = False,
    ) -> None:
        super().__init__(weights, checkpoint, seed)
        settings = {"weights": weights, "checkpoint": checkpoint, "id": id, "revision": revision}
        file = self.weights_file(settings)
        if not is_file(file):
            raise UserError(f"no weights at {file}: set model.checkpoint to a {WEIGHTS[0]}")

        loaded = _load(file.parent, seed if weights == RANDOM else None, trust_remote_code)
        self.extractor, self.model = loaded.extractor, loaded.model.eval()
        self.keys_matched, self.keys_ignored = loaded.n_read, loaded.n_ignored
        configs = [lasting(loaded.config.to_dict()), lasting(loaded.extractor.to_dict())]
        self.__dict__["front_end"] = {"model": configs[0], "extractor": configs[1]}
        self.is_raw = type(self.extractor).__name__ == "Wav2Vec2FeatureExtractor"
        try:
            self._discover(loaded.config)
        except UserError as problem:
            raise UserError(
                f"{id or file.parent} cannot be probed layer by layer: {problem}. Write a file of "
                "its own in mirprobe/backbones, as README says, or take another model"
            ) from problem

    @classmethod
    def weights_file(cls, settings: Mapping[str, object]) -> Path:
        """The weights that the user names, or those in the local cache (drawn ones: the config)."""
        checkpoint = settings.get("checkpoint")
        return locate_weights(settings) if checkpoint is None else Path(str(checkpoint))

    @classmethod
    def fetch(cls, settings: Mapping[str, object]) -> Path | None:
        """Downloads the repository; None where the user names a file."""
        return fetch_repository(settings) if settings.get("checkpoint") is None else None

    @property
    def first_frame_s(self) -> float:
        """Half of the shortest clip that makes a frame."""
        return self.min_samples / 2 / self.sample_rate

    def states(self, audio: Tensor) -> Tensor:
        """States of layers 0..L for checked audio: (B, S) float32 -> (B, L+1, T, D) float32."""
        return states_of(self.blocks, lambda: self._run(audio)).float()

    def _run(self, audio: Tensor) -> object:
        """The network's own output."""
        if not self.is_raw:
            clips = list(audio.cpu().numpy())
            inputs = self.extractor(clips, sampling_rate=self.sample_rate, return_tensors="pt")
            return self.model(**{name: tensor.to(audio.device) for name, tensor in inputs.items()})

        if self.extractor.do_normalize:
            centred = audio - audio.mean(dim=1, keepdim=True)
            variance = centred.square().mean(dim=1, keepdim=True)
            audio = centred / torch.sqrt(variance + 1e-7)
        return self.model(audio)

    def _discover(self, config: Any) -> None:
        """Sets rate, blocks, width, hop and the least length, from what probe clips tell.

        Raises:
            UserError: the method does not hold.
        """
        rate = getattr(self.extractor, "sampling_rate", None)
        if not isinstance(rate, int):
            raise UserError("its feature extractor says no sampling_rate")
        self.sample_rate, self.n_layers = rate, depth_of(config)

        clip = noise(SHORT_S * rate)[None]
        try:
            with torch.no_grad():
                self.blocks = find_blocks(self.model, self.n_layers, lambda: self._run(clip))
                self.dim = self.states(clip).shape[3]
        except UNFIT as error:
            text = f"it does not run on a clip of {SHORT_S} s ({one_line(error)})"
            raise UserError(text) from error

        hop = find_hop(self._n_frames, rate)
        said = getattr(config, "inputs_to_logits_ratio", hop)
        if self.is_raw and said != hop:
            raise UserError(f"frames are {hop} samples apart, and its config says {said}")
        self.hop = hop / rate
        self.min_samples = find_least(self._n_frames, 1, above=0, at_most=SHORT_S * rate)

    def _n_frames(self, n_samples: int) -> int:
        """Frames of a clip of noise; 0 where the network does not take it."""
        try:
            with torch.no_grad(), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of clips that are too short
                states = self.states(noise(n_samples)[None])
        except UNFIT:
            return 0
        return states.shape[2] if bool(states.isfinite().all()) else 0


def _load(folder: Path, seed: int | None, trusts: bool) -> Loaded:
    """Network and feature extractor of a folder; the weights are drawn where there is a seed.

    Raises:
        UserError: transformers is not installed, the folder cannot be used, or weights are missing.
    """
    try:
        import transformers
    except ImportError as error:
        raise UserError(
            "model=hf needs transformers, which is not installed: pip install 'mirprobe[hf]'"
        ) from error

    refuse_code_from_elsewhere(folder)
    transformers.utils.logging.disable_progress_bar()
    given: dict[str, Any] = {"local_files_only": True, "trust_remote_code": trusts}
    try:
        extractor = transformers.AutoFeatureExtractor.from_pretrained(folder, **given)
        config = transformers.AutoConfig.from_pretrained(folder, **given)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed or 0)
            fresh = transformers.AutoModel.from_config(config, trust_remote_code=trusts).float()
        if seed is not None:
            return Loaded(encoder_of(fresh, config), extractor, config)

        given |= {"use_safetensors": True, "output_loading_info": True, "dtype": torch.float32}
        model, info = transformers.AutoModel.from_pretrained(folder, config=config, **given)
    except UNREADABLE as error:
        raise UserError(
            f"transformers cannot load {folder}: {one_line(error)}. Where the repository ships "
            "Python code of its own, read it at this revision: model.trust_remote_code=true then "
            "runs it with your rights"
        ) from error

    check_complete(model, info)
    check_unsaved(model, fresh)
    n_read = len(model.state_dict()) - len(info["missing_keys"])
    return Loaded(
        encoder_of(model, config), extractor, config, n_read, len(info["unexpected_keys"])
    )
