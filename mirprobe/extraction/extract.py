"""Extraction: every clip through the backbone once, all layers, pooled over time, into the store.

Conventions: one process per device, each with its own share of the tracks and its own shards; no
process waits for another before the end. Decoding runs in worker processes and writing in a thread,
both beside the forward pass.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import lightning as L
import torch.distributed
from lightning.pytorch.strategies import DDPStrategy

from datamodules.audio.loader import ClipLoader
from datamodules.digests import KnownDigests
from datamodules.errors import UserError
from datamodules.excluding import exclude_remedy
from datamodules.features.merging import merge_shards
from datamodules.features.store import (
    LOCK,
    READERS,
    FeatureStore,
    StoredAudio,
    missing_of,
    store_id_text,
)
from datamodules.files import check_free_space, lock, make_folder, write_text
from datamodules.task import TaskDataModule
from datamodules.tracks import Track, UnusableFile
from datamodules.workers import cores_of_rank
from mirprobe.assembly import Job
from mirprobe.backbones.backbone import Backbone
from mirprobe.cell import STORE
from mirprobe.devices import environment, n_devices, n_nodes
from mirprobe.extraction.error import note_error
from mirprobe.extraction.module import AUTO_BATCH_SECONDS, ExtractModule
from mirprobe.extraction.sizes import audio_size, features_bytes
from mirprobe.extraction.writer import StoreWriter
from mirprobe.progress import ProgressReport
from mirprobe.sections import ExtractConfig
from mirprobe.similarity.collecting import FrameCollector, make_collector
from mirprobe.similarity.rows import MomentsNote, write_note

_RANKS_WAIT = timedelta(days=7)  # for the slowest, at the end
_MOST_WORKERS = 8  # decoders of one GPU
_MOST_SHOWN = 10


def extract(job: Job, backbone: Backbone) -> FeatureStore:
    """Makes sure that a job's store holds the features of every track of its cells.

    Runs in each of the processes that share the work. Afterwards the job's tracks know the content
    of their audio, and the folder of each cell has the id of the store, so that probing builds no
    backbone to learn where its features are.

    Raises:
        UserError: as `fill_store`.
    """
    cell, store = job.cells[0], job.store(backbone)
    nodes, devices = n_nodes(cell), n_devices(cell)
    collector = collector_of(job, store, backbone)
    fill_store(
        store,
        job.data,
        job.tracks(),
        job.digests,
        backbone,
        cell.extract,
        collector=collector,
        row_rate=cell.row_rate,
        accelerator=cell.launcher.accelerator,
        devices=devices,
        num_nodes=nodes,
        plugins=[environment(cell)],
        strategy=DDPStrategy(timeout=_RANKS_WAIT) if nodes * devices > 1 else "auto",
    )
    finish(job, store, collector)
    return store


def collector_of(job: Job, store: FeatureStore, backbone: Backbone) -> FrameCollector | None:
    """What counts the frames of a job's tracks, where that is asked for."""
    settings = job.cells[0].similarity
    dataset = store.id.dataset
    return make_collector(settings, backbone, store.folder, job.tracks(), job.digests, dataset)


def finish(job: Job, store: FeatureStore, collector: FrameCollector | None) -> None:
    """Names the audio of a job's tracks, and its complete store in the folder of each cell."""
    name_audio(job)
    left = store.missing(job.tracks())
    assert not left, f"{len(left)} tracks were not stored (first: {left[0].track_id})"
    for cell in job.cells:
        write_text(cell.folder / STORE, store_id_text(store.id))
        if collector is not None:
            id, name = store.id, collector.folder.name
            note = MomentsNote(id.dataset, id.folder, id.hash, id.fingerprint, name)
            write_note(cell, note)


def wait_for_all_ranks() -> None:
    """Returns when every rank that has extracted is here; at once where there is only one."""
    if not torch.distributed.is_initialized():
        return
    try:
        torch.distributed.barrier()
    except RuntimeError:
        sys.exit(1)  # another rank is gone, which the process that started it says


def join_shards(job: Job, store: FeatureStore) -> None:
    """Joins small shards of a complete store into bigger ones, if nobody writes or reads there.

    For one process of a run, when no other one of it writes any more.

    Raises:
        UserError: a shard is broken or missing.
    """
    if store.is_read_only:
        return
    with ExitStack() as held:
        try:
            held.enter_context(lock(store.folder / LOCK, wait=False))
            held.enter_context(lock(store.folder / READERS, wait=False))
        except UserError:
            return  # whoever writes there will do it, or the next run after those that read
        problem = merge_shards(store, job.tracks())
    if problem is not None:
        print(problem, flush=True)


def name_audio(job: Job) -> None:
    """Gives the tracks of a job the ids of their audio; files that are not known are read.

    Raises:
        UserError: a file cannot be read.
    """
    job.identify()
    unknown = sorted({track.path for track in job.tracks() if not track.audio_id})
    if not unknown:
        return

    what = f"reading audio of {job.data.dataset}"
    with ProgressReport(what, len(unknown), "files", passing=True) as progress:
        for path in unknown:
            try:
                job.digests.get(path)
            except OSError as error:
                raise UserError(
                    f"cannot read {path} ({error.strerror}): check its permissions and its disk"
                ) from error
            progress.advance(1)

    job.digests.save()
    job.identify()


def fill_store(
    store: FeatureStore,
    data: TaskDataModule,
    tracks: Sequence[Track],
    digests: KnownDigests,
    backbone: Backbone,
    settings: ExtractConfig,
    *,
    collector: FrameCollector | None = None,
    row_rate: float | None = None,
    **trainer: Any,
) -> None:
    """Extracts the features of the tracks that the store lacks.

    Args:
        store: to fill.
        data: gets the tracks as its `audio`; gives the cutting rule and the label grid.
        tracks: that are wanted; audio that is stored already is not computed again.
        digests: of files that were read before; learn those that are read here.
        backbone: frozen.
        settings: conf/config.yaml, `extract`.
        collector: of frames; tracks that it lacks pass the backbone though they are stored.
        row_rate: rows a second that are kept of a clip, in Hz; None for one row.
        **trainer: arguments of lightning.Trainer: `accelerator`, `devices`, `num_nodes`,
            `plugins` (who has started the ranks), `strategy`.

    Raises:
        UserError: files that cannot be used (all of them are named), a broken shard, no space left,
            another process that writes the same store.
    """
    tracks = digests.identify(tracks)
    to_count = collector.missing() if collector is not None else []
    if not store.missing(tracks) and not to_count:
        return

    runner = _make_trainer(trainer)
    first = runner.is_global_zero
    with _only_writer(store.folder) if first else nullcontext():
        if first:
            store.prepare()
        work = _agree_on(runner, lambda: _work(store, tracks, collector))
        to_read = [track for track in tracks if track.track_id in work.names]
        if first:
            # Audio that is stored and not claimed may be that of files which nobody has read.
            n_unclaimed = len(work.stored.keys() - {track.audio_id for track in tracks})
            waiting = missing_of(work.stored, tracks)
            _check_space(store.folder, waiting[n_unclaimed:], data, backbone, row_rate)
        data.audio = _loader(runner, backbone, data, to_read, work.done, settings)
        if first:
            note_error(store, backbone.to(runner.strategy.root_device), data.audio)

        what = f"{store.id.backbone} over {store.id.dataset}"
        with ProgressReport(what, len(to_read), "tracks", quiet=not first) as progress:
            shards = store.writer(
                shard_clips=settings.shard_clips, shard_seconds=settings.shard_seconds
            )
            writer = StoreWriter(shards, digests, progress, backbone.sample_rate)
            module = ExtractModule(
                backbone,
                data.audio.batch_seconds,
                data.frame_rate,
                row_rate,
                collector,
                work.stored,
            )
            if collector is not None:
                runner.callbacks.append(collector)  # type: ignore[attr-defined]
            unusable = _predict(runner, module, data, writer)

    if unusable and not first:
        sys.exit(2)  # the first rank says what is wrong, once
    if unusable:
        raise UserError(_complain(unusable, len(tracks), data))
    digests.load()  # what other ranks have read


def _make_trainer(asked: Mapping[str, Any]) -> L.Trainer:
    """What runs the forward passes, with as many ranks as were asked for.

    Raises:
        UserError: Lightning finds another number of ranks.
    """
    runner = L.Trainer(
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,  # the data module gives every rank its share
        **asked,
    )
    _check_world(runner, asked)
    return runner


def _check_world(runner: L.Trainer, asked: Mapping[str, Any]) -> None:
    """Refuses another number of ranks than was asked for: Lightning may fall back to one silently.

    Raises:
        UserError: the number is another.
    """
    n_ranks = asked.get("devices", 1) * asked.get("num_nodes", 1)
    if runner.world_size != n_ranks:
        raise UserError(
            f"{n_ranks} processes were asked for (launcher.devices, launcher.nodes), but Lightning "
            f"found {runner.world_size}: start them with `mirprobe sweep`"
        )


@dataclass(frozen=True)
class Work:
    """What a run has to do, on which all its ranks agree.

    Attributes:
        stored: what the store holds, by audio id.
        names: ids of the tracks that are read.
        done: what of them need not be read: stored clips that nothing else is waiting for.
    """

    stored: Mapping[str, StoredAudio]
    names: frozenset[str]
    done: Mapping[str, StoredAudio]


def _work(store: FeatureStore, tracks: Sequence[Track], collector: FrameCollector | None) -> Work:
    stored = store.inventory()
    wanted = missing_of(stored, tracks)
    if collector is None:
        return Work(stored, frozenset(track.track_id for track in wanted), stored)

    wanted += collector.missing()
    names = frozenset(track.track_id for track in wanted)
    return Work(stored, names, collector.to_read(stored))


def _agree_on(runner: L.Trainer, look: Callable[[], Work]) -> Work:
    """What is to be done, as the first rank has found it: one that starts late may find more, and
    all have to deal out the same list.
    """
    if runner.world_size == 1:
        return look()
    runner.strategy.setup_environment()  # as `predict` does; there it finds it done
    found = look() if runner.is_global_zero else None
    agreed: Work = runner.strategy.broadcast(found)  # type: ignore[assignment]
    return agreed


def _only_writer(folder: Path) -> AbstractContextManager[None]:
    """Keeps a second extraction out of the same store; the lock goes with the process."""
    make_folder(folder)
    return lock(folder / LOCK, wait=False)


def _loader(
    runner: L.Trainer,
    backbone: Backbone,
    data: TaskDataModule,
    waiting: Sequence[Track],
    stored: Mapping[str, StoredAudio],
    settings: ExtractConfig,
) -> ClipLoader:
    """What the predict loader yields; decides how much of it at once and by how many decoders."""
    on_gpu = runner.strategy.root_device.type == "cuda"
    batch_seconds = settings.batch_seconds or AUTO_BATCH_SECONDS["cuda" if on_gpu else "cpu"]

    n_workers = settings.n_workers
    if n_workers is None:
        spare = cores_of_rank(runner.num_devices) - 1
        n_workers = min(_MOST_WORKERS, max(1, spare)) if on_gpu else 1

    return ClipLoader(
        tracks=waiting,
        rule=data.clip,
        stored={name: None if audio.complete else audio.clips for name, audio in stored.items()},
        sample_rate=backbone.sample_rate,
        min_samples=backbone.min_samples,
        batch_seconds=batch_seconds,
        n_workers=n_workers,
    )


def _predict(
    runner: L.Trainer, module: ExtractModule, data: TaskDataModule, writer: StoreWriter
) -> list[UnusableFile]:
    """Runs the forward passes; returns the unusable files of all ranks, on every rank."""
    runner.callbacks.append(writer)  # type: ignore[attr-defined]
    try:
        runner.predict(module, datamodule=data, return_predictions=False)
    except RuntimeError as error:
        if not str(error).startswith("DataLoader worker"):
            raise
        raise UserError(
            "a process that decodes was killed, perhaps for want of memory or of room in /dev/shm: "
            "everything so far is stored. Run the same command to go on, with a smaller "
            "extract.batch_seconds or extract.n_workers"
        ) from error
    if not torch.distributed.is_initialized():
        return writer.unusable

    # Also the barrier: afterwards every rank's shards are closed.
    gathered: list[list[UnusableFile]] = [[] for _ in range(runner.world_size)]
    try:
        torch.distributed.all_gather_object(gathered, writer.unusable)
    except RuntimeError:
        sys.exit(1)  # another rank is gone, which the process that started it says
    return [item for rank in gathered for item in rank]


def _check_space(
    folder: Path,
    waiting: Sequence[Track],
    data: TaskDataModule,
    backbone: Backbone,
    row_rate: float | None,
) -> None:
    size = audio_size(waiting, data, backbone.sample_rate, row_rate=row_rate)
    needed_bytes = features_bytes(size, backbone.n_layers, backbone.dim)
    remedy = "point paths.features to a larger disk"
    check_free_space(folder, needed_bytes, "the features", remedy=remedy)


def _complain(unusable: Sequence[UnusableFile], n_tracks: int, data: TaskDataModule) -> str:
    shown = "; ".join(f"{item.path} {item.reason}" for item in unusable[:_MOST_SHOWN])
    n_more = len(unusable) - _MOST_SHOWN
    more = f"; and {n_more} more" if n_more > 0 else ""
    ids = [item.track_id for item in unusable]
    remedy = exclude_remedy(data.dataset, ids, data.exclude)
    return (
        f"{len(unusable)} of {n_tracks} audio files cannot be used: {shown}{more}. Replace them, "
        f"or leave them out with {remedy} (tables will say so). The other tracks are stored"
    )
