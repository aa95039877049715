"""Published weight files: where they are, how to get them.

Conventions: a file is pinned by repository, revision, name, size and SHA-256. `locate` looks into
the local cache only and never waits for a network; `fetch` downloads. Both go through
huggingface_hub, so HF_HOME, HF_TOKEN, HF_ENDPOINT and HF_HUB_OFFLINE mean what they mean
everywhere.
"""

import logging
from dataclasses import dataclass
from pathlib import Path

import httpx2
from huggingface_hub import hf_hub_download, try_to_load_from_cache

from datamodules.errors import UserError
from mirprobe.backbones.checkpoint import verify


@dataclass(frozen=True)
class PublishedFile:
    """One file of a model repository at one revision.

    Attributes:
        model: name of the config in conf/model that uses it.
        repo: owner/name on huggingface.co.
        revision: commit, 40 hex digits.
        name: path of the file in the repository.
        n_bytes: size.
        sha256: 64 hex digits.
    """

    model: str
    repo: str
    revision: str
    name: str
    n_bytes: int
    sha256: str

    @property
    def remedy(self) -> str:
        """The advice where the file is missing or wrong: the last sentence of error texts."""
        return (
            f"Run: mirprobe fetch model={self.model}, or set model.checkpoint=/path/to/{self.name}"
        )


def locate(file: PublishedFile) -> Path:
    """Path of a file in the local cache, without a look at the network.

    Raises:
        UserError: the file is not there.
    """
    found = try_to_load_from_cache(file.repo, file.name, revision=file.revision)
    if not isinstance(found, str):
        raise UserError(
            f"the weights {file.name} of {file.repo} are not on this machine. {file.remedy}"
        )
    return Path(found)


def fetch(file: PublishedFile) -> Path:
    """Path of a file after downloading it where needed.

    A cached copy that is not the published file is replaced.

    Raises:
        UserError: it cannot be downloaded, or what came is not the published file.
    """
    path = _download(file, force=False)
    try:
        verify(path, n_bytes=file.n_bytes, digest=file.sha256, remedy=file.remedy)
    except UserError:
        path = _download(file, force=True)
        by_hand = "Try again, or fetch it by hand and set model.checkpoint"
        verify(path, n_bytes=file.n_bytes, digest=file.sha256, remedy=by_hand)
    return path


def _download(file: PublishedFile, *, force: bool) -> Path:
    # It tells each retry twice; ours is the last word.
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    try:
        path = hf_hub_download(file.repo, file.name, revision=file.revision, force_download=force)
    # The hub's own errors, a full disk, xet's, no network.
    except (OSError, RuntimeError, httpx2.HTTPError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"cannot download {file.name} of {file.repo} at {file.revision[:12]}: {reason[:200]}. "
            "Check the network, HF_HUB_OFFLINE and HF_ENDPOINT, "
            f"or set model.checkpoint=/path/to/{file.name}"
        ) from error
    return Path(path)
