"""Published weight files: where they are, how to get them.

Conventions: a file is pinned by repository, revision, name, size and SHA-256, as far as these are
known. `locate` looks into the local cache only and never waits for a network; `fetch` downloads,
and where a pin is missing asks the hub for it and says it. Both go through huggingface_hub, so
HF_HOME, HF_TOKEN, HF_ENDPOINT and HF_HUB_OFFLINE mean what they mean everywhere.
"""

import logging
import re
from dataclasses import dataclass, replace
from pathlib import Path

import httpx2
from huggingface_hub import (
    get_hf_file_metadata,
    hf_hub_download,
    hf_hub_url,
    try_to_load_from_cache,
)

from datamodules.errors import UserError
from mirprobe.backbones.checkpoint import sha256, verify

# The hub's own errors, a full disk, xet's, no network.
ERRORS = (OSError, RuntimeError, httpx2.HTTPError)


@dataclass(frozen=True)
class PublishedFile:
    """One file of a model repository at one revision.

    Attributes:
        model: name of the config in conf/model that uses it.
        repo: owner/name on huggingface.co.
        revision: commit, 40 hex digits; None where it is not known: the newest that was fetched.
        name: path of the file in the repository.
        n_bytes: size; None where it is not known.
        sha256: 64 hex digits; None where they are not known.
    """

    model: str
    repo: str
    revision: str | None
    name: str
    n_bytes: int | None
    sha256: str | None

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
    path = download(file, force=False)
    if file.sha256 is None:
        file = _with_pin(file, path)
    try:
        verify(path, n_bytes=file.n_bytes, digest=file.sha256, remedy=file.remedy)
    except UserError:
        path = download(file, force=True)
        by_hand = "Try again, or fetch it by hand and set model.checkpoint"
        verify(path, n_bytes=file.n_bytes, digest=file.sha256, remedy=by_hand)
    return path


def _with_pin(file: PublishedFile, path: Path) -> PublishedFile:
    """The file with what the hub tells of it, which is printed: from then on it can be pinned."""
    # A cached file lies in a folder that is called by its commit.
    parts = len(Path(file.name).parts)
    revision = file.revision or path.parents[parts - 1].name
    try:
        told = get_hf_file_metadata(hf_hub_url(file.repo, file.name, revision=revision))
    except ERRORS as error:
        print(f"{file.name} of {file.repo}: the hub does not tell its checksum ({one_line(error)})")
        return replace(file, sha256=sha256(path))

    digest = told.etag if told.etag and re.fullmatch("[0-9a-f]{64}", told.etag) else sha256(path)
    n_bytes = file.n_bytes or told.size
    print(
        f"{file.name} of {file.repo} is not pinned by mirprobe. The hub says: revision {revision}, "
        f"{n_bytes:,} bytes, SHA-256 {digest}. To pin it: "
        f"model.revision={revision} model.sha256={digest}"
    )
    return replace(file, n_bytes=n_bytes, sha256=digest)


def download(file: PublishedFile, *, force: bool = False) -> Path:
    """Path of a file after downloading it where needed, unchecked.

    Raises:
        UserError: it cannot be downloaded.
    """
    # It tells each retry twice; ours is the last word.
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    try:
        path = hf_hub_download(file.repo, file.name, revision=file.revision, force_download=force)
    except ERRORS as error:
        at = file.revision[:12] if file.revision else "its newest revision"
        raise UserError(
            f"cannot download {file.name} of {file.repo} at {at}: {one_line(error)}. "
            "Check the network, HF_HUB_OFFLINE and HF_ENDPOINT, "
            f"or set model.checkpoint=/path/to/{file.name}"
        ) from error
    return Path(path)


def one_line(error: Exception) -> str:
    """The text of an error from outside, short and without line breaks."""
    return " ".join(str(error).split())[:200]
