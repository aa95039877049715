"""The forward passes of extraction, as a LightningModule.

Conventions: a batch is a list of clips; those of one length pass the backbone together, and clips
of unequal length never do, so that nothing is padded. What is pooled is stored as float16.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import lightning as L
import numpy as np
import torch
from torch import Tensor

from datamodules.audio.clips import Clip
from datamodules.audio.loader import ReadFile
from datamodules.errors import UserError
from datamodules.features.grid import last_share
from datamodules.features.shards import FLOAT16_MAX, ClipFeatures
from datamodules.features.store import StoredAudio
from datamodules.tracks import ClipPlace
from mirprobe.backbones.backbone import Backbone
from mirprobe.extraction.pooling import pool_clip, pool_parts, pool_to_grid
from mirprobe.similarity.collecting import FrameCollector

# s of audio per forward pass; eight 30 s clips take 6 GB in MusicFM (facts/backbones section 4).
AUTO_BATCH_SECONDS = {"cpu": 32.0, "cuda": 240.0}
# Forward passes until a halved size is doubled, since another process may have had the memory for a
# while; twice as many after each doubling.
PASSES_UNTIL_MORE = 300
# What tells a full memory in the words of torch, cuBLAS, cuFFT, cuDNN and the CPU's allocator: only
# torch's allocator of a GPU has a class for it.
OUT_OF_MEMORY = ("out of memory", "ALLOC_FAILED", "ALLOCATION_FAILED", "DefaultCPUAllocator")


class ExtractModule(L.LightningModule):
    """Runs a frozen backbone over clips and pools its states: over a clip, or to a label grid.

    Args:
        backbone: frozen.
        batch_seconds: audio per forward pass, in s; halved where the memory does not hold it, and
            doubled again after a while.
        frame_rate: of the label grid, in Hz; None for tasks that are scored by clips.
        row_rate: rows a second that are kept of a clip of these, in Hz; None keeps its mean.
        collector: takes frames of some clips before they are pooled; None where nothing does.
        stored: what the store holds, by audio id; clips that pass again for their frames are not
            stored twice.
    """

    def __init__(
        self,
        backbone: Backbone,
        batch_seconds: float,
        frame_rate: float | None = None,
        row_rate: float | None = None,
        collector: FrameCollector | None = None,
        stored: Mapping[str, StoredAudio] = MappingProxyType({}),
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.batch_seconds = batch_seconds
        self.frame_rate = frame_rate
        self.row_rate = row_rate
        self.collector = collector
        self.stored = stored
        self._seen: set[tuple[str, int]] = set()
        self._asked_seconds = batch_seconds
        self._n_passes = 0  # since the size was changed
        self._passes_until_more = PASSES_UNTIL_MORE

    def transfer_batch_to_device(
        self, batch: Any, device: torch.device, dataloader_idx: int
    ) -> Any:
        """Leaves clips where they are: `predict_step` stacks them first."""
        return batch

    def predict_step(self, batch: list[ReadFile], _index: int) -> list[ClipFeatures]:
        """Pooled states of the batch's clips.

        Raises:
            UserError: a state is not finite or does not fit into float16; names the track.
        """
        clips = self._new([clip for file in batch for clip in file.clips])

        features: list[ClipFeatures] = []
        for group in self._equal_groups(sorted(clips, key=lambda clip: len(clip.audio))):
            features += self._extract(group)
        if self.collector is not None:
            self.collector.count(clips)
        return [one for one in features if not self._is_stored(one.place)]

    def _is_stored(self, place: ClipPlace) -> bool:
        audio = self.stored.get(place.audio_id)
        return audio is not None and place.index in audio.clips

    def _new(self, clips: Sequence[Clip]) -> list[Clip]:
        """Clips whose audio has not been seen before: files may be copies of each other."""
        new = []
        for clip in clips:
            place = (clip.place.audio_id, clip.place.index)
            is_wanted = self.collector is not None and self.collector.wants(clip)
            if place not in self._seen or is_wanted:
                self._seen.add(place)
                new.append(clip)
        return new

    def _equal_groups(self, clips: Sequence[Clip]) -> Iterator[list[Clip]]:
        """Clips of one length that one forward pass takes, from clips in order of length."""
        group: list[Clip] = []
        for clip in clips:
            n_samples = len(clip.audio)
            # Read for each clip: `_extract` may have halved it since the last one.
            most_samples = self.batch_seconds * self.backbone.sample_rate
            is_full = len(group) * n_samples >= most_samples
            if group and (is_full or len(group[0].audio) != n_samples):
                yield group
                group = []
            group.append(clip)
        if group:
            yield group

    def _extract(self, clips: Sequence[Clip]) -> list[ClipFeatures]:
        """One forward pass, or where the memory does not hold it two of half the size."""
        features = self._pass(clips)
        if features is not None:
            self._try_more()
            return features

        seconds = len(clips[0].audio) / self.backbone.sample_rate
        if len(clips) == 1:
            raise UserError(
                f"out of memory on a single clip of {seconds:g} s: use another device, or shorter "
                "clips (task.clip.seconds)"
            )
        half = len(clips) // 2
        self._change_size(half * seconds, f"out of memory at {len(clips)} clips a batch")
        return [*self._extract(clips[:half]), *self._extract(clips[half:])]

    def _stack(self, clips: Sequence[Clip]) -> Tensor:
        """(B, S) audio of clips of one length, on the device; no GPU waits for its arrival."""
        size = (len(clips), len(clips[0].audio))
        audio = torch.empty(size, pin_memory=self.device.type == "cuda")
        np.stack([clip.audio for clip in clips], out=audio.numpy())
        return audio.to(self.device, non_blocking=True)

    def _pass(self, clips: Sequence[Clip]) -> list[ClipFeatures] | None:
        """Features of clips of one length, or None where the memory does not hold the way there."""
        try:
            audio = self._stack(clips)
            seconds = audio.shape[1] / self.backbone.sample_rate
            # All of it in here: a GPU says what failed only when its results are waited for.
            frames = self.backbone(audio)
            if self.collector is not None:
                self.collector.hold(clips, frames, audio)
            return _to_store(clips, self._pool(frames, seconds), self._last_row(seconds))
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        torch.cuda.empty_cache()  # here, where the failed pass's tensors are gone
        return None

    def _try_more(self) -> None:
        """Doubles a halved size after many passes; the memory may be there again."""
        self._n_passes += 1
        if self.batch_seconds >= self._asked_seconds:
            return
        if self._n_passes >= self._passes_until_more:
            self._passes_until_more *= 2
            more = min(2 * self.batch_seconds, self._asked_seconds)
            self._change_size(more, f"{self._n_passes} batches fitted into the memory")

    def _change_size(self, batch_seconds: float, reason: str) -> None:
        self.batch_seconds, self._n_passes = batch_seconds, 0
        print(f"{reason}: going on with {batch_seconds:g} s of audio a batch", flush=True)

    def _last_row(self, seconds: float) -> float:
        """What the last row of a clip covers of the time of the others."""
        if self.frame_rate is not None or self.row_rate is None:
            return 1.0
        return last_share(seconds, self.row_rate)

    def _pool(self, frames: Tensor, seconds: float) -> Tensor:
        """States of frames into the rows that are stored."""
        if self.frame_rate is None:
            if self.row_rate is None:
                return pool_clip(frames)
            return pool_parts(frames, seconds=seconds, rate=self.row_rate)
        return pool_to_grid(
            frames,
            hop=self.backbone.hop,
            first_frame_s=self.backbone.first_frame_s,
            seconds=seconds,
            frame_rate=self.frame_rate,
        )


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that the memory did not hold what was asked for."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return any(text in str(error) for text in OUT_OF_MEMORY)


def _to_store(clips: Sequence[Clip], pooled: Tensor, last_row: float) -> list[ClipFeatures]:
    """(B, L+1, rows, D) -> the features of each clip, whose last rows cover less than the others.

    Raises:
        UserError: a value is not finite or does not fit into float16.
    """
    # What does not fit is marked on the device: one copy says and brings all.
    fits = pooled.abs() <= FLOAT16_MAX  # False for NaN too
    values = pooled.half().masked_fill(~fits, math.nan).cpu().numpy()

    wrong = np.flatnonzero(np.isnan(values).any(axis=(1, 2, 3)))
    if len(wrong):
        track_id = clips[wrong[0]].track_id
        raise UserError(
            f"the backbone gives values that are not finite, or beyond {FLOAT16_MAX:g}, for track "
            f"{track_id}: listen to its file; if the audio is sound, the weights are not. To go on "
            "without it: data.exclude=[...]"
        )

    return [
        ClipFeatures(clip.place, value, last_row) for clip, value in zip(clips, values, strict=True)
    ]
