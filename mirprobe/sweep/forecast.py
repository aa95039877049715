"""What a sweep would do and what it would cost, before anything is paid.

Conventions: counts come from headers, the cutting rule and a backbone's five facts, speeds from a
dry run. What cannot be known here is named as such. Sizes are in GB of 10^9 bytes.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from datamodules.download import is_fetched
from datamodules.errors import UserError
from datamodules.features.store import DESCRIPTION, parse_store_id
from datamodules.files import check_free_space, free_bytes, make_folder
from datamodules.workers import n_cores
from mirprobe.assembly import (
    Job,
    backbone_class,
    card_of,
    check_weights,
    extracting_backbone,
    make_backbone,
    pooling_name,
)
from mirprobe.assembly import place as place_backbone
from mirprobe.backbones.backbone import RANDOM, Backbone
from mirprobe.cell import STORE, Cell
from mirprobe.devices import n_devices
from mirprobe.extraction.module import AUTO_BATCH_SECONDS
from mirprobe.extraction.sizes import AudioSize, audio_size, features_bytes
from mirprobe.progress import ProgressReport, console
from mirprobe.sections import tasks_per_node
from mirprobe.sweep.plan import Plan, make_plan
from mirprobe.sweep.speed import Speed, dry_run


@dataclass(frozen=True)
class JobForecast:
    """What one store takes.

    Attributes:
        job: of the plan.
        size: of the audio of its tracks.
        n_bytes: of its features.
        n_passes: forward passes.
    """

    job: Job
    size: AudioSize
    n_bytes: int
    n_passes: int


# -- disk ------------------------------------------------------------------------------------------


def check_room(plan: Plan) -> None:
    """Refuses a sweep that the disk cannot hold, before its first clip.

    What a store of the same audio and backbone holds already is not needed again. Stores that were
    complete once are not counted, nor what the demo has yet to render.

    Raises:
        UserError: the features of all stores together need more than is free.
    """
    needed: dict[str, int] = {}
    for jobs in plan.by_model():
        new = [job for job in jobs if not _was_extracted(job) and job.data.root.is_dir()]
        if not new:
            continue
        facts = facts_of(new[0].cells[0])
        for job in new:
            folder = job.cells[0].paths.features
            lacking = forecast_job(job, facts).n_bytes - stored_bytes(job)
            needed[folder] = needed.get(folder, 0) + max(0, lacking)

    for folder, n_bytes in needed.items():
        make_folder(Path(folder))
        check_free_space(
            Path(folder),
            n_bytes,
            "the features of this sweep",
            remedy="point paths.features to a larger disk",
        )


def stored_bytes(job: Job) -> int:
    """Bytes of the stores that may be this job's: its backbone, by name, over its audio."""
    data, n_bytes = job.data, 0
    pooling = pooling_name(job.cells[0], data)
    for description in Path(job.cells[0].paths.features).glob(f"*/{DESCRIPTION}"):
        try:
            id = parse_store_id(description.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue  # said by who reads that store
        found = (id.backbone, id.dataset.removesuffix("-demo"), id.clip_rule, id.pooling)
        if found == (job.cells[0].model_name, data.dataset, data.clip.describe(), pooling):
            n_bytes += sum(shard.stat().st_size for shard in description.parent.glob("*.h5"))
    return n_bytes


def _was_extracted(job: Job) -> bool:
    return all((cell.folder / STORE).is_file() for cell in job.cells)


def _existing(folder: Path) -> Path:
    """The folder, or the nearest around it that exists: the disk is the same."""
    folder = folder.absolute()
    return next(one for one in (folder, *folder.parents) if one.is_dir())


@dataclass(frozen=True)
class Facts:
    """What is known of a backbone without its weights: L, D, rate in Hz."""

    n_layers: int
    dim: int
    sample_rate: int


def facts_of(cell: Cell) -> Facts:
    """The facts of a cell's backbone, which is built only where its class does not say them."""
    source: Backbone | type[Backbone] = backbone_class(cell)
    if not all(isinstance(getattr(source, name, None), int) for name in ("n_layers", "dim")):
        source = make_backbone(_without_weights(cell))
    return Facts(source.n_layers, source.dim, source.sample_rate)


def _without_weights(cell: Cell) -> Cell:
    """The same network with weights drawn at random, which has the same size and speed."""
    if RANDOM not in backbone_class(cell).variants:
        return cell
    return replace(cell, model={**cell.model, "weights": RANDOM, "checkpoint": None})


def forecast_job(job: Job, facts: Facts) -> JobForecast:
    """What a store takes.

    Raises:
        UserError: data are missing or cannot be used.
    """
    row_rate = job.cells[0].row_rate
    size = audio_size(job.tracks(), job.data, facts.sample_rate, row_rate=row_rate)
    batch_s = job.cells[0].extract.batch_seconds or AUTO_BATCH_SECONDS[_device(job.cells[0])]
    clip_s = size.audio_s / max(1, size.n_clips)
    per_pass = max(1, math.ceil(batch_s / clip_s)) if clip_s else 1
    n_bytes = features_bytes(size, facts.n_layers, facts.dim)
    return JobForecast(job, size, n_bytes, math.ceil(size.n_clips / per_pass))


def _device(cell: Cell) -> str:
    """Where forward passes will run: SLURM's nodes are known by what is asked of them."""
    if cell.launcher.name == "slurm":
        on_gpu = cell.launcher.gpus_per_node is not None and cell.launcher.accelerator != "cpu"
    else:
        on_gpu = torch.cuda.is_available() and cell.launcher.accelerator != "cpu"
    return "cuda" if on_gpu else "cpu"


# -- words -----------------------------------------------------------------------------------------


def plan_lines(plan: Plan) -> Iterator[str]:
    """The jobs of a plan in their order, one line each."""
    n_cells = sum(len(job.cells) for job in plan.jobs)
    yield f"to compute: {n_cells} cells on {len(plan.jobs)} stores"
    for job in plan.jobs:
        tasks = ", ".join(dict.fromkeys(cell.task.name for cell in job.cells))
        yield (
            f"  {job.cells[0].model_name} over {job.data.dataset} ({job.data.clip.describe()}): "
            f"{tasks} ({len(job.cells)})"
        )


def print_forecast(cells: Sequence[Cell], waiting: Sequence[Cell]) -> None:
    """Prints the plan of the cells that are not done, and what it costs.

    Raises:
        UserError: the settings do not fit.
    """
    plan = make_plan(waiting)
    _say(f"{len(cells)} cells, {len(cells) - len(waiting)} of them done")
    for line in plan_lines(plan):
        _say(line)
    for line in download_lines(waiting):
        _say(line)

    forecasts: list[JobForecast] = []
    for jobs in plan.by_model():
        facts = facts_of(jobs[0].cells[0])
        new = []
        for job in jobs:
            try:
                new.append(forecast_job(job, facts))
            except UserError as problem:
                _say(f"  {job.cells[0].model_name} over {job.data.dataset}: not known, {problem}")
        for forecast in new:
            _say(size_line(forecast))
        forecasts += new
        if new:
            _print_speed(new)
    if forecasts:
        _say(total_line(forecasts))
    if waiting and waiting[0].launcher.name == "slurm":
        for line in array_lines(plan):
            _say(line)


def size_line(forecast: JobForecast) -> str:
    """Clips, hours, passes and disk of a store."""
    job, size = forecast.job, forecast.size
    return (
        f"  {job.cells[0].model_name} over {job.data.dataset}: {len(job.tracks())} tracks, "
        f"{size.n_clips} clips, {size.audio_s / 3600:.2f} h of audio, {forecast.n_passes} forward "
        f"passes, {forecast.n_bytes / 1e9:.3f} GB of features"
    )


def total_line(forecasts: Sequence[JobForecast]) -> str:
    """Disk of all stores together, against what is free."""
    n_bytes = sum(forecast.n_bytes for forecast in forecasts)
    folder = _existing(Path(forecasts[0].job.cells[0].paths.features))
    free = free_bytes(folder)
    verdict = "" if n_bytes <= free else ": not enough, the sweep would refuse to start"
    return (
        f"features of all stores: {n_bytes / 1e9:.3f} GB; free under {folder}: "
        f"{free / 1e9:.1f} GB{verdict}"
    )


def download_lines(cells: Sequence[Cell]) -> Iterator[str]:
    """What has to be downloaded first: weights that are not here, public archives of datasets."""
    for cell in {cell.model_name: cell for cell in cells}.values():
        variant = backbone_class(cell).variant_named(cell.model.get("weights"))
        file = None if variant is None else variant.file
        try:
            check_weights(cell)
        except UserError as problem:
            size = "" if file is None or not file.n_bytes else f" ({file.n_bytes / 1e9:.2f} GB)"
            yield f"  to download: weights of {cell.model_name}{size}. {problem}"

    for cell in {cell.task.folder: cell for cell in cells if not cell.is_demo}.values():
        root = Path(cell.data.root or ".") / cell.task.folder
        archives = card_of(cell).archives
        if not root.is_dir() and archives and not is_fetched(archives, root):
            known = sum(archive.n_bytes or 0 for archive in archives)
            yield f"  to download: {cell.task.folder}, {known / 1e9:.2f} GB (mirprobe fetch)"


def _print_speed(forecasts: Sequence[JobForecast]) -> None:
    """Measures a backbone on the first of its stores, and prints the hours of all of them."""
    job = forecasts[0].job
    cell = job.cells[0]
    try:
        with ProgressReport(f"dry run of {cell.model_name}", 1, "runs", passing=True):
            backbone = place_backbone(extracting_backbone(_measurable(cell)), cell)
            speed = dry_run(job, backbone)
    except UserError as problem:
        _say(f"  speed of {cell.model_name}: not measured, {problem}")
        return
    for line in speed_lines(cell, speed, sum(one.size.audio_s for one in forecasts)):
        _say(line)


def _measurable(cell: Cell) -> Cell:
    """The cell, or where its weights are not here the same network without them."""
    try:
        check_weights(cell)
    except UserError:
        return _without_weights(cell)
    return cell


def speed_lines(cell: Cell, speed: Speed, audio_s: float) -> Iterator[str]:
    """What was measured, what it means in hours, and what would bind."""
    n_cpus, n_ranks = _cpus_of_process(cell), _n_processes(cell)
    what = "GPU" if speed.device == "cuda" else "CPU process"
    yield (
        f"  {cell.model_name}, dry run on {speed.n_clips} clips: decoding {speed.decoding:.0f} x "
        f"real time a core, forward passes {speed.forward:.1f} x real time on one {what}"
    )
    if speed.device != _device(cell):
        yield (
            "  hours a GPU: not measured, no GPU here. On a node: srun --gpus=1 mirprobe plan, "
            "same settings without launcher=slurm"
        )
        return

    hours = speed.hours(audio_s, n_cpus)
    binds = "the network" if n_cpus > speed.n_decoders else "decoding"
    yield (
        f"  {hours:.2f} h of one {what}, {hours / n_ranks:.2f} h on {n_ranks}; {binds} binds with "
        f"{n_cpus} cores a process; launcher.cpus_per_task={speed.cpus_per_task} keeps decoding "
        "out of the way"
    )


def _cpus_of_process(cell: Cell) -> int:
    if cell.launcher.name == "slurm":
        return cell.launcher.cpus_per_task or 1
    return max(1, n_cores() // n_devices(cell))


def _n_processes(cell: Cell) -> int:
    if cell.launcher.name == "slurm":
        return cell.launcher.nodes * tasks_per_node(cell.launcher)
    return n_devices(cell)


def array_lines(plan: Plan) -> Iterator[str]:
    """What would go into SLURM's queue."""
    if not plan.jobs:
        return
    launcher = plan.jobs[0].cells[0].launcher
    n_tasks = [math.ceil(len(job.cells) / launcher.cells_per_task) for job in plan.jobs]
    yield (
        f"SLURM: extraction jobs: {len(plan.jobs)}, each of {launcher.nodes} x "
        f"{tasks_per_node(launcher)} processes; arrays: {len(n_tasks)}, with {sum(n_tasks)} tasks "
        f"of up to {launcher.cells_per_task} cells, {launcher.array_parallelism} at once; 1 report"
    )


def _say(text: str) -> None:
    console().print(text, soft_wrap=True, markup=False)
