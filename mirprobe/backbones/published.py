"""A backbone whose weights are one published file, or drawn by the recipe of the golden numbers."""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from torch import Tensor

from datamodules.errors import UserError
from mirprobe.backbones.backbone import Backbone
from mirprobe.backbones.checkpoint import (
    CheckpointSpec,
    is_file,
    read_state,
    readable,
    sha256,
    verify,
)
from mirprobe.backbones.hub import PublishedFile, locate
from mirprobe.backbones.random_weights import draw_state


class PublishedBackbone(Backbone):
    """Backbone that is built from a state in the published layout.

    Attributes:
        tag: name of the backbone in the recipe of the random weights.
    """

    tag: ClassVar[str]

    @classmethod
    def published_file(cls, settings: Mapping[str, object]) -> PublishedFile | None:
        """The file that settings ask for, pinned by `revision` and `sha256` where they say so.

        Raises:
            UserError: a pin is no commit or no checksum.
        """
        file = super().published_file(settings)
        revision, sha256 = settings.get("revision"), settings.get("sha256")
        check_pin("revision", revision, n_digits=40)
        check_pin("sha256", sha256, n_digits=64)
        if file is not None and isinstance(revision, str):
            file = replace(file, revision=revision)
        if file is not None and isinstance(sha256, str):
            file = replace(file, sha256=sha256)
        return file

    def read_or_draw(
        self,
        spec: CheckpointSpec,
        file: PublishedFile | None,
        *,
        drawn: Mapping[str, tuple[int, ...]],
        weights: str,
        checkpoint: str | None,
        seed: int,
    ) -> dict[str, Tensor]:
        """Tensors in the published layout; notes how many keys were read.

        Args:
            spec: what a file has to hold.
            file: the published one; None draws.
            drawn: keys and shapes of random weights.
            weights: name of the variant.
            checkpoint: path of a file to read in place of the published one; None reads that.
            seed: of random weights.

        Raises:
            UserError: the file is missing or does not fit.
        """
        if file is None:
            return draw_state(self.tag, drawn, seed=seed)

        if checkpoint is None:
            path = locate(file)
            verify(path, n_bytes=file.n_bytes, digest=file.sha256, remedy=file.remedy)
        else:
            path = Path(checkpoint)
            self._refuse_other_variant(path, weights)

        state, self.keys_ignored = read_state(path, spec, remedy=file.remedy)
        self.keys_matched = len(state)
        return state

    def _refuse_other_variant(self, path: Path, weights: str) -> None:
        """Refuses the published file of another variant.

        Variants have the same keys: only the checksum tells them apart, where it is known.
        """
        if not is_file(path):
            return
        n_bytes = path.stat().st_size
        for name, variant in self.variants.items():
            file = variant.file
            if file is None or file.sha256 is None or name == weights or n_bytes != file.n_bytes:
                continue
            with readable(path, file.remedy):
                digest = sha256(path)
            if digest == file.sha256:
                raise UserError(
                    f"{path} is the published {file.name}, not {weights}: set model={file.model}"
                )


def check_pin(key: str, pin: object, *, n_digits: int) -> None:
    """Refuses a commit or a checksum that is none; null is none that is asked for.

    Raises:
        UserError: names the setting and what was found.
    """
    if pin is None or (isinstance(pin, str) and re.fullmatch(f"[0-9a-f]{{{n_digits}}}", pin)):
        return
    raise UserError(f"model.{key} must be {n_digits} hex digits, or null, found {pin!r}")
