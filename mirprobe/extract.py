"""Extraction: every clip through the backbone once, all layers, pooled over time, into the feature store.

Conventions: one process per device, each with its own share of the tracks and its own shards; no process waits for another
before the end. A signal (Ctrl-C, SIGTERM, SIGUSR1) is looked at between two batches: the open shard is closed and the
process ends. Decoding runs in worker processes and writing in a thread, both beside the forward pass.
"""

import fcntl
import os
import shutil
import signal
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch.callbacks import BasePredictionWriter
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor

from datamodules.base import TaskDataModule, UnusableFile
from datamodules.clips import Clip
from datamodules.errors import UserError
from datamodules.files import make_folder
from datamodules.frames import grid_weights, n_grid_frames
from datamodules.store import FLOAT16_MAX, ClipFeatures, ShardWriter, StoredTrack, StoreKey, prepare_store, read_inventory
from mirprobe.assembly import make_data, n_devices, store_key
from mirprobe.backbones.backbone import Backbone
from mirprobe.cell import Cell, ExtractConfig
from mirprobe.progress import ProgressReport

AUTO_BATCH_SECONDS = {"cpu": 32.0, "cuda": 240.0}  # s; eight 30 s clips take 6 GB and more in MusicFM (facts/backbones section 4)


class ExtractModule(L.LightningModule):
    """Runs a frozen backbone over clips and pools its states over time: over a whole clip, or to a label grid.

    Args:
        backbone: frozen.
        batch_seconds: audio per forward pass, in s; halved where the memory does not hold it.
        frame_rate: of the label grid, in Hz; None pools over the whole clip.
    """

    def __init__(self, backbone: Backbone, batch_seconds: float, frame_rate: float | None = None) -> None:
        super().__init__()
        self.backbone, self.batch_seconds, self.frame_rate = backbone, batch_seconds, frame_rate

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Leaves clips where they are: `predict_step` stacks them first."""
        return batch

    def predict_step(self, batch: list[Clip | UnusableFile], _index: int) -> list[ClipFeatures]:
        """Pooled states of the batch's clips; clips of unequal length never share a forward pass.

        Raises:
            UserError: a state is not finite or does not fit into float16; names the track.
        """
        clips = sorted((item for item in batch if isinstance(item, Clip)), key=lambda clip: len(clip.audio))
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
                f"out of memory on a single clip of {seconds:g} s: use another device, or shorter clips (task.clip.seconds)"
            )
        half = len(clips) // 2
        self.batch_seconds = half * seconds
        print(f"out of memory at {len(clips)} clips a batch: going on with {self.batch_seconds:g} s of audio a batch", flush=True)
        return [*self._pool(clips[:half]), *self._pool(clips[half:])]

    def _frames(self, audio: Tensor) -> Tensor | None:
        """(B, L+1, T, D) states, or None where the memory does not hold them; other consumers of frames belong here."""
        try:
            frames: Tensor = self.backbone(audio)
            return frames
        except RuntimeError as error:
            if not (isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)):
                raise
        torch.cuda.empty_cache()  # here, where the failed pass's tensors are gone
        return None

    def _pool_time(self, frames: Tensor, seconds: float) -> Tensor:
        """(B, L+1, T, D) -> (B, L+1, rows, D): one row for a clip, or one for every frame of the grid."""
        if self.frame_rate is None:
            return frames.mean(dim=2, keepdim=True)
        n_grid = n_grid_frames(seconds, self.frame_rate)
        return grid_weights(frames.shape[2], self.backbone.hop, n_grid, self.frame_rate).to(frames) @ frames

    def _to_store(self, clips: Sequence[Clip], frames: Tensor) -> list[ClipFeatures]:
        pooled = self._pool_time(frames, len(clips[0].audio) / self.backbone.sample_rate)
        fits = (pooled.abs() <= FLOAT16_MAX).flatten(1).all(dim=1).cpu()  # False for NaN too
        if not bool(fits.all()):
            track = clips[int((~fits).nonzero()[0])].track_id
            raise UserError(
                f"the backbone gives values that are not finite, or beyond {FLOAT16_MAX:g}, for track {track}: listen to its "
                "file; if the audio is sound, the weights are not. To go on without it: data.exclude=[...]"
            )
        values = pooled.half().cpu().numpy()
        return [ClipFeatures(clip, frames.shape[2], value) for clip, value in zip(clips, values, strict=True)]


class StoreWriter(BasePredictionWriter):
    """Hands every batch to the shard writer, reports progress, and ends the process between batches after a signal."""

    def __init__(self, writer: ShardWriter, progress: ProgressReport, sample_rate: int) -> None:
        super().__init__("batch")
        self.writer, self.progress, self.sample_rate = writer, progress, sample_rate
        self.unusable: list[UnusableFile] = []
        self._signal = 0
        self._before: dict[int, Any] = {}

    def on_predict_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Takes over the signals: Lightning's own SIGTERM handler hangs when only one rank gets it (facts/infra)."""
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
        audio_s = sum(len(item.audio) for item in batch if isinstance(item, Clip)) / self.sample_rate
        self.progress.advance(len({item.track_id for item in batch}) * trainer.world_size, audio_s * trainer.world_size)
        if self._signal:
            self._stop(trainer)

    def _stop(self, trainer: L.Trainer) -> None:
        self.writer.close()
        name = signal.Signals(self._signal).name
        if trainer.is_global_zero:
            print(f"\nstopped by {name}: everything so far is stored; run the same command to go on", flush=True)
        if trainer.world_size > 1:
            os._exit(128 + self._signal)  # Lightning's teardown would wait for the other ranks
        sys.exit(128 + self._signal)

    def on_predict_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Closes the last shard. No barrier here: a rank without tracks never runs this hook."""
        self._release()
        if self._signal:
            self._stop(trainer)
        self.writer.close()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Keeps what is complete; after a signal the exception is only its consequence (killed workers, say)."""
        self._release()
        if self._signal and not isinstance(exception, SystemExit):
            self._stop(trainer)
        self.writer.close()

    def _release(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


def extract(
    backbone: Backbone, key: StoreKey, data: TaskDataModule, folder: Path, settings: ExtractConfig, **trainer: Any
) -> None:
    """Makes sure that the store in `folder` holds the features of every track of `data`.

    Args:
        backbone: frozen.
        key: `store_key` of the backbone and the data.
        data: whose tracks are wanted; what is stored already is not computed again.
        folder: of the store.
        settings: conf/config.yaml, `extract`.
        **trainer: arguments of lightning.Trainer: `accelerator`, `devices`, `strategy`.

    Raises:
        UserError: files that cannot be used (all of them are named), changed audio, a broken shard, no space left.
    """
    runner = L.Trainer(
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,  # the data module gives every rank its share
        plugins=[LightningEnvironment()],  # not SLURM's, which counts tasks: `launcher.devices` says how many processes
        **trainer,
    )
    first = runner.is_global_zero
    with _lock(folder) if first else nullcontext():
        if first:
            prepare_store(folder, key)
        stored = read_inventory(folder, key)
        _check_unchanged(data, stored)
        module = ExtractModule(backbone, _feed(runner, backbone, data, stored, settings), data.frame_rate)
        if data.n_waiting == 0:
            return
        _check_space(folder, data.waiting_rows(), backbone)
        what = f"{key.backbone} over {key.dataset}"
        with ProgressReport(what, data.n_waiting, "tracks", quiet=not first) as progress:
            shards = ShardWriter(folder, key, shard_clips=settings.shard_clips, shard_seconds=settings.shard_seconds)
            unusable = _predict(runner, module, data, StoreWriter(shards, progress, backbone.sample_rate))
    if first:  # the others' files are in `unusable` too
        _check_complete(data, unusable, read_inventory(folder, key))


def _feed(
    runner: L.Trainer, backbone: Backbone, data: TaskDataModule, stored: dict[str, StoredTrack], settings: ExtractConfig
) -> float:
    """Tells the data module what is missing; returns s of audio per forward pass."""
    on_gpu = runner.strategy.root_device.type == "cuda"
    batch_seconds = settings.batch_seconds or AUTO_BATCH_SECONDS["cuda" if on_gpu else "cpu"]
    spare = (os.cpu_count() or 1) // runner.world_size - 1
    n_workers = settings.n_workers if settings.n_workers is not None else min(8, max(1, spare)) if on_gpu else 1
    data.feed_audio(
        backbone.sample_rate, min_samples=backbone.min_samples, stored=stored, batch_seconds=batch_seconds, n_workers=n_workers
    )  # fmt: skip
    return batch_seconds


def _check_complete(data: TaskDataModule, unusable: Sequence[UnusableFile], stored: dict[str, StoredTrack]) -> None:
    if unusable:
        raise UserError(_complain(unusable, len(data.tracks())))
    left = [track.track_id for track in data.tracks() if not (track.track_id in stored and stored[track.track_id].complete)]
    assert not left, f"{len(left)} tracks were not stored (first: {left[0]})"


def _predict(runner: L.Trainer, module: ExtractModule, data: TaskDataModule, writer: StoreWriter) -> list[UnusableFile]:
    """Runs the forward passes; returns the unusable files of all ranks, on every rank."""
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    runner.callbacks.append(writer)  # type: ignore[attr-defined]
    runner.predict(module, datamodule=data, return_predictions=False)
    if not torch.distributed.is_initialized():
        return writer.unusable
    gathered: list[list[UnusableFile]] = [[] for _ in range(runner.world_size)]
    torch.distributed.all_gather_object(gathered, writer.unusable)  # also the barrier: every rank's shards are closed
    return [item for rank in gathered for item in rank]


def _check_unchanged(data: TaskDataModule, stored: dict[str, StoredTrack]) -> None:
    changed = [
        track for track in data.tracks()
        if track.track_id in stored and track.path.stat().st_size != stored[track.track_id].file_bytes
    ]  # fmt: skip
    if changed:
        raise UserError(
            f"{len(changed)} {data.dataset} files are not those that the stored features were made of (first: "
            f"{changed[0].path}): put the old files back, or delete the feature store and extract again"
        )


def _check_space(folder: Path, n_rows: int, backbone: Backbone) -> None:
    needed = n_rows * (backbone.n_layers + 1) * backbone.dim * 2
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(
            f"no space for the features: {needed / 1e9:.2f} GB needed at least, {free / 1e9:.2f} GB free under {folder}. "
            "Free some, or point paths.features to a larger disk"
        )


def _complain(unusable: Sequence[UnusableFile], n_tracks: int) -> str:
    shown = "; ".join(f"{item.path} {item.reason}" for item in unusable[:10])
    more = f"; and {len(unusable) - 10} more" if len(unusable) > 10 else ""
    names = ",".join(sorted(item.track_id for item in unusable))
    return (
        f"{len(unusable)} of {n_tracks} audio files cannot be used: {shown}{more}. Replace them, or leave them out with "
        f"data.exclude=[{names}] (tables will say so). The other tracks are stored"
    )


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """Keeps a second extraction out of the same store; the lock goes with the process."""
    make_folder(folder)
    with (folder / ".lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise UserError(f"{folder} is being written by {file.read().strip()}: wait for it, or stop it") from error
        except OSError:
            pass  # a file system without locks: two writers only waste work, shards are immutable
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        yield


def extract_features(cell: Cell, backbone: Backbone) -> StoreKey:
    """Makes sure that the cell's features are stored; returns their key."""
    data = make_data(cell)
    key = store_key(backbone, cell.model_name, data)
    devices = n_devices(cell)
    strategy = DDPStrategy(timeout=timedelta(days=7)) if devices > 1 else "auto"  # ranks wait for the slowest at the end
    extract(
        backbone, key, data, Path(cell.paths.features) / key.folder, cell.extract,
        accelerator=cell.launcher.accelerator, devices=devices, strategy=strategy,
    )  # fmt: skip
    return key
