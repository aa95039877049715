"""A whole repository of Hugging Face at one commit: where it is, how to get it.

Conventions: settings are those of `model=hf`: `id`, `revision`, `weights`, `trust_remote_code`.
`locate_weights` looks into the local cache only; `fetch_repository` downloads. Weights are
safetensors, since any other format can hold code.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from huggingface_hub import snapshot_download, try_to_load_from_cache

from datamodules.errors import UserError
from mirprobe.backbones.backbone import RANDOM
from mirprobe.backbones.hub import ERRORS, one_line
from mirprobe.backbones.published import check_pin

CONFIG = "config.json"
WEIGHTS = ("model.safetensors", "model.safetensors.index.json")


def locate_weights(settings: Mapping[str, object]) -> Path:
    """The weights in the local cache, or the config where weights are drawn.

    Raises:
        UserError: no repository or no commit is named, or it is not on this machine.
    """
    repo, revision = named_repository(settings)
    names = (CONFIG,) if settings.get("weights") == RANDOM else WEIGHTS
    for name in names:
        found = try_to_load_from_cache(repo, name, revision=revision)
        if isinstance(found, str):
            return Path(found)
    raise UserError(
        f"{names[0]} of {repo} at {revision[:12]} is not on this machine. Run: "
        f"mirprobe fetch model=hf model.id={repo} model.revision={revision} (a repository without "
        "safetensors cannot be used)"
    )


def fetch_repository(settings: Mapping[str, object]) -> Path:
    """The weights after downloading configs and safetensors, and code only where it is trusted.

    Raises:
        UserError: it cannot be downloaded, or has no safetensors.
    """
    repo, revision = named_repository(settings)
    patterns = ["*.json"]
    if settings.get("weights") != RANDOM:
        patterns.append("*.safetensors")
    if settings.get("trust_remote_code") is True:
        patterns.append("*.py")

    try:
        snapshot_download(repo, revision=revision, allow_patterns=patterns)
    except ERRORS as error:
        raise UserError(
            f"cannot download {repo} at {revision[:12]}: {one_line(error)}. Check model.id, "
            "model.revision, the network and HF_TOKEN"
        ) from error
    return locate_weights(settings)


def named_repository(settings: Mapping[str, object]) -> tuple[str, str]:
    """Id and commit that settings name.

    Raises:
        UserError: one of them is missing or is none.
    """
    repo, revision = settings.get("id"), settings.get("revision")
    if not isinstance(repo, str) or not re.fullmatch(r"[\w.-]+/[\w.-]+", repo):
        raise UserError(f"model=hf needs model.id=OWNER/NAME, found {repo!r}")
    check_pin("revision", revision, n_digits=40)
    if not isinstance(revision, str):
        raise UserError(
            f"model.id={repo} needs model.revision=COMMIT too, 40 hex digits of the history of "
            f"huggingface.co/{repo}: its files may change under its name"
        )
    return repo, revision
