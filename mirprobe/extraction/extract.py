"""Extraction: every clip through the backbone once, all layers, pooled over time, into the feature
store.

Conventions: one process per device, each with its own share of the tracks and its own shards; no
process waits for another before the end. A signal (Ctrl-C, SIGTERM, SIGUSR1) is looked at between
two batches: the open shard is closed and the process ends. Decoding runs in worker processes and
writing in a thread, both beside the forward pass.
"""

import fcntl
import os
import shutil
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch.strategies import DDPStrategy

from datamodules.errors import UserError
from datamodules.features.shards import ShardWriter
from datamodules.features.store import StoredTrack, StoreKey, prepare_store, read_inventory
from datamodules.files import make_folder
from datamodules.task import TaskDataModule
from datamodules.tracks import UnusableFile
from mirprobe.assembly import make_data, n_devices, store_key
from mirprobe.backbones.backbone import Backbone
from mirprobe.cell import Cell, ExtractConfig
from mirprobe.extraction.module import AUTO_BATCH_SECONDS, ExtractModule
from mirprobe.extraction.writer import StoreWriter
from mirprobe.progress import ProgressReport


def extract(
    backbone: Backbone,
    key: StoreKey,
    data: TaskDataModule,
    folder: Path,
    settings: ExtractConfig,
    **trainer: Any,
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
        UserError: files that cannot be used (all of them are named), changed audio, a broken shard,
            no space left.
    """
    runner = L.Trainer(
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,  # the data module gives every rank its share
        plugins=[
            LightningEnvironment()
        ],  # not SLURM's, which counts tasks: `launcher.devices` says how many processes
        **trainer,
    )
    first = runner.is_global_zero
    with _lock(folder) if first else nullcontext():
        if first:
            prepare_store(folder, key)
        stored = read_inventory(folder, key)
        _check_unchanged(data, stored)
        module = ExtractModule(
            backbone, _feed(runner, backbone, data, stored, settings), data.frame_rate
        )
        if data.n_waiting == 0:
            return
        _check_space(folder, data.waiting_rows(), backbone)
        what = f"{key.backbone} over {key.dataset}"
        with ProgressReport(what, data.n_waiting, "tracks", quiet=not first) as progress:
            shards = ShardWriter(
                folder, key, shard_clips=settings.shard_clips, shard_seconds=settings.shard_seconds
            )
            unusable = _predict(
                runner, module, data, StoreWriter(shards, progress, backbone.sample_rate)
            )
    if first:  # the others' files are in `unusable` too
        _check_complete(data, unusable, read_inventory(folder, key))


def _feed(
    runner: L.Trainer,
    backbone: Backbone,
    data: TaskDataModule,
    stored: dict[str, StoredTrack],
    settings: ExtractConfig,
) -> float:
    """Tells the data module what is missing; returns s of audio per forward pass."""
    on_gpu = runner.strategy.root_device.type == "cuda"
    batch_seconds = settings.batch_seconds or AUTO_BATCH_SECONDS["cuda" if on_gpu else "cpu"]
    spare = (os.cpu_count() or 1) // runner.world_size - 1
    n_workers = (
        settings.n_workers
        if settings.n_workers is not None
        else min(8, max(1, spare))
        if on_gpu
        else 1
    )
    data.feed_audio(
        backbone.sample_rate, min_samples=backbone.min_samples, stored=stored, batch_seconds=batch_seconds, n_workers=n_workers
    )  # fmt: skip
    return batch_seconds


def _check_complete(
    data: TaskDataModule, unusable: Sequence[UnusableFile], stored: dict[str, StoredTrack]
) -> None:
    if unusable:
        raise UserError(_complain(unusable, len(data.tracks())))
    left = [
        track.track_id
        for track in data.tracks()
        if not (track.track_id in stored and stored[track.track_id].complete)
    ]
    assert not left, f"{len(left)} tracks were not stored (first: {left[0]})"


def _predict(
    runner: L.Trainer, module: ExtractModule, data: TaskDataModule, writer: StoreWriter
) -> list[UnusableFile]:
    """Runs the forward passes; returns the unusable files of all ranks, on every rank."""
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    runner.callbacks.append(writer)  # type: ignore[attr-defined]
    runner.predict(module, datamodule=data, return_predictions=False)
    if not torch.distributed.is_initialized():
        return writer.unusable
    gathered: list[list[UnusableFile]] = [[] for _ in range(runner.world_size)]
    torch.distributed.all_gather_object(
        gathered, writer.unusable
    )  # also the barrier: every rank's shards are closed
    return [item for rank in gathered for item in rank]


def _check_unchanged(data: TaskDataModule, stored: dict[str, StoredTrack]) -> None:
    changed = [
        track for track in data.tracks()
        if track.track_id in stored and track.path.stat().st_size != stored[track.track_id].file_bytes
    ]  # fmt: skip
    if changed:
        raise UserError(
            f"{len(changed)} {data.dataset} files are not those that the stored features were made "
            "of (first: "
            f"{changed[0].path}): put the old files back, or delete the feature store and extract "
            "again"
        )


def _check_space(folder: Path, n_rows: int, backbone: Backbone) -> None:
    needed = n_rows * (backbone.n_layers + 1) * backbone.dim * 2
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(
            f"no space for the features: {needed / 1e9:.2f} GB needed at least, {free / 1e9:.2f} "
            f"GB free under {folder}. "
            "Free some, or point paths.features to a larger disk"
        )


def _complain(unusable: Sequence[UnusableFile], n_tracks: int) -> str:
    shown = "; ".join(f"{item.path} {item.reason}" for item in unusable[:10])
    more = f"; and {len(unusable) - 10} more" if len(unusable) > 10 else ""
    names = ",".join(sorted(item.track_id for item in unusable))
    return (
        f"{len(unusable)} of {n_tracks} audio files cannot be used: {shown}{more}. Replace them, "
        "or leave them out with "
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
            raise UserError(
                f"{folder} is being written by {file.read().strip()}: wait for it, or stop it"
            ) from error
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
    strategy = (
        DDPStrategy(timeout=timedelta(days=7)) if devices > 1 else "auto"
    )  # ranks wait for the slowest at the end
    extract(
        backbone, key, data, Path(cell.paths.features) / key.folder, cell.extract,
        accelerator=cell.launcher.accelerator, devices=devices, strategy=strategy,
    )  # fmt: skip
    return key
