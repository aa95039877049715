"""The fate of a batch: written, counted, and the end of the process after a signal.

Conventions: a signal (Ctrl-C, SIGTERM, SIGUSR1) is looked at between two batches: the open shard is
closed and the process ends with 128 + its number.
"""

import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import BasePredictionWriter

from datamodules.audio.clips import Clip
from datamodules.features.shards import ShardWriter
from datamodules.tracks import UnusableFile
from mirprobe.progress import ProgressReport


class StoreWriter(BasePredictionWriter):
    """Hands every batch to the shard writer, reports progress, and ends the process after a signal.

    Args:
        writer: of shards.
        progress: counts tracks of all ranks, as if each were as far as this one.
        sample_rate: of the clips, in Hz.
    """

    def __init__(self, writer: ShardWriter, progress: ProgressReport, sample_rate: int) -> None:
        super().__init__("batch")
        self.writer = writer
        self.progress = progress
        self.sample_rate = sample_rate
        self.unusable: list[UnusableFile] = []
        self._signal = 0
        self._before: dict[int, Any] = {}

    def on_predict_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Takes over the signals.

        Lightning's own SIGTERM handler hangs when only one rank gets it (facts/infra).
        """
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
            self._before[number] = signal.signal(number, self._remember)

    def _remember(self, number: int, _frame: FrameType | None) -> None:
        self._signal = number
        signal.signal(number, signal.SIG_DFL)  # a second one ends the process at once

    def write_on_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        prediction: Any,
        batch_indices: Sequence[int] | None,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        """Stores a batch."""
        unusable = [item for item in batch if isinstance(item, UnusableFile)]
        clips = [item for item in batch if isinstance(item, Clip)]
        self.unusable += unusable
        self.writer.add(prediction)

        n_tracks = len(unusable) + len({clip.place.track_id for clip in clips})
        audio_s = sum(len(clip.audio) for clip in clips) / self.sample_rate
        self.progress.advance(n_tracks * trainer.world_size, audio_s * trainer.world_size)
        if self._signal:
            self._stop(trainer)

    def on_predict_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Closes the last shard. No barrier here: a rank without tracks never runs this hook."""
        self._release()
        if self._signal:
            self._stop(trainer)
        self.writer.close()

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        """Keeps what is complete; after a signal the exception is only its consequence."""
        self._release()
        if self._signal and not isinstance(exception, SystemExit):
            self._stop(trainer)
        self.writer.close()

    def _stop(self, trainer: L.Trainer) -> None:
        self.writer.close()
        name = signal.Signals(self._signal).name
        if trainer.is_global_zero:
            print(
                f"\nstopped by {name}: everything so far is stored; run the same command to go on",
                flush=True,
            )
        if trainer.world_size > 1:
            os._exit(128 + self._signal)  # Lightning's teardown would wait for the other ranks
        sys.exit(128 + self._signal)

    def _release(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
