"""The fate of a batch: written, counted, and the end of the process after a signal.

Conventions: a signal that asks for the end (Ctrl-C, SIGHUP, SIGTERM, SIGUSR1) is looked at between
two batches: the open shard is closed and the process ends with 128 + its number.
"""

import os
import signal
import sys
import time
from collections.abc import Sequence
from types import FrameType
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import BasePredictionWriter

from datamodules.audio.loader import ReadFile
from datamodules.digests import KnownDigests
from datamodules.features.shards import ShardWriter
from datamodules.tracks import UnusableFile
from datamodules.workers import STOP_SIGNALS
from mirprobe.progress import ProgressReport

_SAVE_EVERY_S = 60.0


class StoreWriter(BasePredictionWriter):
    """Hands every batch to the shard writer, reports progress, and ends the process after a signal.

    Args:
        writer: of shards.
        digests: learn what was read, so that the next run need not read it again.
        progress: counts tracks of all ranks, as if each were as far as this one.
        sample_rate: of the clips, in Hz.
    """

    def __init__(
        self,
        writer: ShardWriter,
        digests: KnownDigests,
        progress: ProgressReport,
        sample_rate: int,
    ) -> None:
        super().__init__("batch")
        self.writer = writer
        self.digests = digests
        self.progress = progress
        self.sample_rate = sample_rate
        self.unusable: list[UnusableFile] = []
        self._saved_at = time.monotonic()
        self._signal = 0
        self._is_forgetful = False
        self._before: dict[int, Any] = {}

    def on_predict_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Takes over the signals.

        Lightning's own SIGTERM handler hangs when only one rank gets it (facts/infra).
        """
        for number in STOP_SIGNALS:
            if signal.getsignal(number) != signal.SIG_IGN:  # as `nohup` asks for
                self._before[number] = signal.signal(number, self._remember)

    def _remember(self, number: int, _frame: FrameType | None) -> None:
        self._signal = self._signal or number
        # A second Ctrl-C ends the process at once. Of the others a second one says nothing new:
        # SLURM sends them to us and to the process that hands them on.
        signal.signal(number, signal.SIG_DFL if number == signal.SIGINT else signal.SIG_IGN)

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
        files: Sequence[ReadFile] = batch
        self.unusable += [item for file in files for item in file.unusable]
        self.digests.learn(file.digest for file in files if file.digest is not None)
        self.writer.add(prediction)
        self._save_digests_now_and_then()

        n_tracks = sum(file.n_tracks for file in files)
        n_samples = sum(len(clip.audio) for file in files for clip in file.clips)
        audio_s = n_samples / self.sample_rate
        self.progress.advance(n_tracks * trainer.world_size, audio_s * trainer.world_size)
        if self._signal:
            self._stop(trainer)

    def _save_digests_now_and_then(self) -> None:
        if time.monotonic() - self._saved_at > _SAVE_EVERY_S:
            self._saved_at = time.monotonic()
            self._save_digests()

    def _save_digests(self) -> None:
        problem = self.digests.save()
        if problem is not None and not self._is_forgetful:
            self._is_forgetful = True
            print(f"{problem}: the next run reads all audio again", flush=True)

    def _close(self) -> None:
        self.writer.close()
        self._save_digests()

    def on_predict_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Closes the last shard. No barrier here: a rank without tracks never runs this hook."""
        self._release()
        if self._signal:
            self._stop(trainer)
        self._close()

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        """Keeps what is complete; after a signal the exception is only its consequence."""
        self._release()
        if self._signal and not isinstance(exception, SystemExit):
            self._stop(trainer)
        self._close()

    def _stop(self, trainer: L.Trainer) -> None:
        self._close()
        name = signal.Signals(self._signal).name
        if trainer.world_size == 1:  # of several, the process that started them says it
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
