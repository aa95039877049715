"""The forward passes of extraction, as a LightningModule."""

from collections.abc import Iterator, Sequence
from typing import Any

import lightning as L
import numpy as np
import torch
from torch import Tensor

from datamodules.audio.clips import Clip
from datamodules.errors import UserError
from datamodules.features.grid import grid_weights, n_grid_frames
from datamodules.features.shards import FLOAT16_MAX, ClipFeatures
from datamodules.tracks import UnusableFile
from mirprobe.backbones.backbone import Backbone

AUTO_BATCH_SECONDS = {
    "cpu": 32.0,
    "cuda": 240.0,
}  # s; eight 30 s clips take 6 GB and more in MusicFM (facts/backbones section 4)


class ExtractModule(L.LightningModule):
    """Runs a frozen backbone over clips and pools its states over time: over a whole clip, or to a
    label grid.

    Args:
        backbone: frozen.
        batch_seconds: audio per forward pass, in s; halved where the memory does not hold it.
        frame_rate: of the label grid, in Hz; None pools over the whole clip.
    """

    def __init__(
        self, backbone: Backbone, batch_seconds: float, frame_rate: float | None = None
    ) -> None:
        super().__init__()
        self.backbone, self.batch_seconds, self.frame_rate = backbone, batch_seconds, frame_rate

    def transfer_batch_to_device(
        self, batch: Any, device: torch.device, dataloader_idx: int
    ) -> Any:
        """Leaves clips where they are: `predict_step` stacks them first."""
        return batch

    def predict_step(self, batch: list[Clip | UnusableFile], _index: int) -> list[ClipFeatures]:
        """Pooled states of the batch's clips; clips of unequal length never share a forward pass.

        Raises:
            UserError: a state is not finite or does not fit into float16; names the track.
        """
        clips = sorted(
            (item for item in batch if isinstance(item, Clip)), key=lambda clip: len(clip.audio)
        )
        return [item for group in self._groups(clips) for item in self._pool(group)]

    def _groups(self, clips: Sequence[Clip]) -> Iterator[list[Clip]]:
        group: list[Clip] = []
        for clip in clips:
            full = len(group) * len(clip.audio) >= self.batch_seconds * self.backbone.sample_rate
            if group and (full or len(group[0].audio) != len(clip.audio)):
                yield group
                group = []
            group.append(clip)
        if group:
            yield group

    def _pool(self, clips: Sequence[Clip]) -> list[ClipFeatures]:
        audio = torch.from_numpy(np.stack([clip.audio for clip in clips])).to(self.device)
        frames = self._frames(audio)
        if frames is not None:
            return self._to_store(clips, frames)
        seconds = audio.shape[1] / self.backbone.sample_rate
        if len(clips) == 1:
            raise UserError(
                f"out of memory on a single clip of {seconds:g} s: use another device, or shorter "
                "clips (task.clip.seconds)"
            )
        half = len(clips) // 2
        self.batch_seconds = half * seconds
        print(
            f"out of memory at {len(clips)} clips a batch: going on with {self.batch_seconds:g} s "
            "of audio a batch",
            flush=True,
        )
        return [*self._pool(clips[:half]), *self._pool(clips[half:])]

    def _frames(self, audio: Tensor) -> Tensor | None:
        """(B, L+1, T, D) states, or None where the memory does not hold them; other consumers of
        frames belong here.
        """
        try:
            frames: Tensor = self.backbone(audio)
            return frames
        except RuntimeError as error:
            if not (
                isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
            ):
                raise
        torch.cuda.empty_cache()  # here, where the failed pass's tensors are gone
        return None

    def _pool_time(self, frames: Tensor, seconds: float) -> Tensor:
        """(B, L+1, T, D) -> (B, L+1, rows, D): one row for a clip, or one for every frame of the
        grid.
        """
        if self.frame_rate is None:
            return frames.mean(dim=2, keepdim=True)
        n_grid = n_grid_frames(seconds, self.frame_rate)
        return (
            grid_weights(frames.shape[2], self.backbone.hop, n_grid, self.frame_rate).to(frames)
            @ frames
        )

    def _to_store(self, clips: Sequence[Clip], frames: Tensor) -> list[ClipFeatures]:
        pooled = self._pool_time(frames, len(clips[0].audio) / self.backbone.sample_rate)
        fits = (pooled.abs() <= FLOAT16_MAX).flatten(1).all(dim=1).cpu()  # False for NaN too
        if not bool(fits.all()):
            track = clips[int((~fits).nonzero()[0])].track_id
            raise UserError(
                f"the backbone gives values that are not finite, or beyond {FLOAT16_MAX:g}, for "
                f"track {track}: listen to its "
                "file; if the audio is sound, the weights are not. To go on without it: "
                "data.exclude=[...]"
            )
        values = pooled.half().cpu().numpy()
        return [
            ClipFeatures(clip, frames.shape[2], value)
            for clip, value in zip(clips, values, strict=True)
        ]
