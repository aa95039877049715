"""What has to hold of a network that a library built from a repository's files.

Conventions: nothing here knows the library; a network comes with its config and with what loading
it told.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from datamodules.errors import UserError

UNUSED = "masked_spec_embed"  # of training; some files have it and some do not
PASSING = ("transformers_version", "_name_or_path", "architectures", "torch_dtype", "dtype")


@dataclass(frozen=True)
class Loaded:
    """What a folder of a repository holds, and how many keys of its weights were read."""

    model: nn.Module
    extractor: Any
    config: Any
    n_read: int | None = None
    n_ignored: int | None = None


def refuse_code_from_elsewhere(folder: Path) -> None:
    """Refuses a config whose code lies in another repository, which no commit pins.

    Raises:
        UserError: names the class.
    """
    for file in sorted(folder.glob("*config.json")):
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UserError(f"{file} is not JSON: fetch it again") from error
        named = content.get("auto_map", {}) if isinstance(content, dict) else {}
        elsewhere = [str(name) for name in _texts(named) if "--" in name]
        if elsewhere:
            raise UserError(
                f"{file} takes the code of {elsewhere[0]} from another repository, which its "
                "revision does not pin: take that repository, or another model"
            )


def _texts(value: object) -> list[str]:
    if isinstance(value, Mapping):
        return [text for one in value.values() for text in _texts(one)]
    if isinstance(value, list):
        return [text for one in value for text in _texts(one)]
    return [value] if isinstance(value, str) else []


def check_complete(model: nn.Module, info: Mapping[str, Any]) -> None:
    """Refuses weights that were not all read: a wrong prefix reads none, and says so in passing.

    Raises:
        UserError: counts and names the keys.
    """
    wrong = [str(key) for key in info["missing_keys"] if not str(key).endswith(UNUSED)]
    wrong += [str(key) for key in info["mismatched_keys"]]
    if wrong:
        raise UserError(
            f"the file does not hold the weights of {type(model).__name__}: {len(wrong)} keys are "
            f"missing or of another shape (first: {min(wrong)}). Take another repository"
        )


def encoder_of(model: nn.Module, config: Any) -> nn.Module:
    """The part that hears; of a model with a decoder its encoder."""
    if getattr(config, "is_encoder_decoder", False):
        encoder: nn.Module = model.get_encoder()  # type: ignore[operator]
        return encoder
    return model


def check_unsaved(model: nn.Module, fresh: nn.Module) -> None:
    """Refuses tensors that no file holds and that loading left as they were in memory.

    Newer transformers do so with tables that remote code computes when it is built: positions are
    then noise, and other noise each time.

    Raises:
        UserError: names the first.
    """
    saved, computed = model.state_dict().keys(), dict(fresh.named_buffers())
    for name, buffer in model.named_buffers():
        if name not in saved and not torch.equal(buffer.cpu(), computed[name].cpu()):
            raise UserError(
                f"{name} of {type(model).__name__} is not what it is computed to be: this version "
                "of transformers left it uninitialised. Take a backbone of mirprobe's own"
            )


def lasting(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config as JSON values, without what changes no number."""
    lasting = {key: value for key, value in config.items() if key not in PASSING}
    values: dict[str, Any] = json.loads(json.dumps(lasting, default=str, sort_keys=True))
    return values
