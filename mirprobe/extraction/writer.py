"""What becomes of each batch: written, counted, and the end of the process after a signal."""

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
    """Hands every batch to the shard writer, reports progress, and ends the process between batches
    after a signal.
    """

    def __init__(self, writer: ShardWriter, progress: ProgressReport, sample_rate: int) -> None:
        super().__init__("batch")
        self.writer, self.progress, self.sample_rate = writer, progress, sample_rate
        self.unusable: list[UnusableFile] = []
        self._signal = 0
        self._before: dict[int, Any] = {}

    def on_predict_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Takes over the signals: Lightning's own SIGTERM handler hangs when only one rank gets it
        (facts/infra).
        """
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
            self._before[number] = signal.signal(number, self._remember)

    def _remember(self, number: int, _frame: FrameType | None) -> None:
        self._signal = number
        signal.signal(number, signal.SIG_DFL)  # a second one ends the process at once

    def write_on_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, prediction: Any, batch_indices: Sequence[int] | None,
        batch: Any, batch_idx: int, dataloader_idx: int,
    ) -> None:  # fmt: skip
        """Stores a batch."""
        self.unusable += [item for item in batch if isinstance(item, UnusableFile)]
        self.writer.add(prediction)
        audio_s = (
            sum(len(item.audio) for item in batch if isinstance(item, Clip)) / self.sample_rate
        )
        self.progress.advance(
            len({item.track_id for item in batch}) * trainer.world_size,
            audio_s * trainer.world_size,
        )
        if self._signal:
            self._stop(trainer)

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

    def on_predict_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Closes the last shard. No barrier here: a rank without tracks never runs this hook."""
        self._release()
        if self._signal:
            self._stop(trainer)
        self.writer.close()

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        """Keeps what is complete; after a signal the exception is only its consequence (killed
        workers, say).
        """
        self._release()
        if self._signal and not isinstance(exception, SystemExit):
            self._stop(trainer)
        self.writer.close()

    def _release(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
