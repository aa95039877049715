"""A plan into SLURM's queue: what is missing and not queued already.

Conventions: for each store one job that extracts and, after it, one array over its cells, so that a
store that fails stops its own cells alone; at the end a job that reports. Before anything is
submitted all that can be wrong with data and weights is said, and the files that the jobs read are
written: a cell's `config.yaml`, which stays as it is while a job of it is queued.
"""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from datamodules.errors import UserError
from datamodules.files import make_folder, write_text
from mirprobe.assembly import Job, make_demo_data, weights_file
from mirprobe.cell import SETTINGS, STORE, Cell, write_cell
from mirprobe.probing.probe import open_store
from mirprobe.progress import console
from mirprobe.provenance import Stamps
from mirprobe.sweep.failures import Failures
from mirprobe.sweep.forecast import check_room
from mirprobe.sweep.local import SHARED
from mirprobe.sweep.queue import (
    FOLDER,
    Entry,
    has_slurm,
    most_array_tasks,
    read_queue,
    submit,
    test_submission,
)
from mirprobe.sweep.run import checked_plan, with_weights
from mirprobe.sweep.slurm import Kind, Place, Script, plain, script_text, split_array

_MOST_TASKS = 1000  # of an array, where no SLURM is there to be asked


def submit_cells(cells: Sequence[Cell], kinds: Sequence[Kind], *, dry_run: bool) -> Failures:
    """Submits the jobs that compute these cells, and returns at once.

    Args:
        cells: whose features or rows are wanted.
        kinds: of jobs: all for a sweep, one of them for a part of it.
        dry_run: print the scripts and ask SLURM, where it is there, what it would do with them.

    Returns:
        The cells for which nothing could be submitted.

    Raises:
        UserError: data are missing or the disk cannot hold the features, SLURM refuses a job or
            does not answer.
    """
    folder = slurm_folder(cells[0])
    asks = has_slurm() or not dry_run
    queue: list[Entry] = []
    most_tasks = _MOST_TASKS
    try:
        if asks:
            queue, most_tasks = read_queue(folder), most_array_tasks()
    except UserError as problem:
        if not dry_run:
            raise
        _say(f"the scripts are shown without asking SLURM: {problem}")
        asks = False

    failures = Failures(cells)
    waiting = without_queued(cells, queue, kinds)
    plan = checked_plan(with_weights(waiting, failures), Stamps())
    make_demo_data([cell for job in plan.jobs for cell in job.cells])
    if "extract" in kinds:
        check_room(plan)

    desk = _Desk(folder, dry_run=dry_run, asks=asks)
    for job in plan.jobs:
        if not dry_run:
            _write_settings(job)
        for script in job_scripts(job, queue, kinds, most_tasks, desk):
            desk.send(script)
    if "report" in kinds and desk.sent:
        files = tuple(cell_file(cell) for cell in cells)
        after = ("afterany:" + ":".join(desk.jobs),)
        desk.send(Script("report", "all", (files,), cells[0].launcher, after))

    n_queued = len(cells) - len(waiting)
    _say_what_was_done(desk, n_queued, cells)
    return failures


class _Desk:
    """Where scripts are handed in: SLURM, or a terminal that shows them.

    Args:
        folder: of scripts and records.
        dry_run: show instead of submitting.
        asks: whether SLURM answers here, and says what it would do with a script that is shown.
    """

    def __init__(self, folder: Path, *, dry_run: bool, asks: bool) -> None:
        self.folder = folder.absolute()
        self.dry_run, self.asks = dry_run, asks
        self.place = Place(sys.executable, str(Path.cwd()))
        self.sent: list[Script] = []
        self.jobs: list[str] = []

    def send(self, script: Script) -> str:
        """Submits a script, or shows it; gives the number of its job, or what stands for it."""
        text = script_text(script, self.place)
        self.sent.append(script)
        job = self._show(script, text) if self.dry_run else submit(self.folder, script, text)
        self.jobs.append(job)
        if not self.dry_run:
            _say(f"job {job}: {script.name}")
        return job

    def _show(self, script: Script, text: str) -> str:
        _say(f"{text}")
        if self.asks:
            # It knows no job that is not submitted, so that it is asked without waiting for one.
            alone = script_text(replace(script, after=()), self.place)
            _say(test_submission(self.folder, script, alone))
        return f"JOB{len(self.sent)}"


def job_scripts(
    job: Job, queue: Sequence[Entry], kinds: Sequence[Kind], most_tasks: int, desk: _Desk
) -> Iterator[Script]:
    """The scripts of one store, each made when the one before it has its number."""
    files = tuple(cell_file(cell) for cell in job.cells)
    title = f"{job.cells[0].model_name}-{job.data.dataset}"
    launcher = job.cells[0].launcher

    extracting = [one for one in queue if one.record.kind == "extract"]
    after = [f"afterok:{one.job}" for one in extracting if set(files) <= set(one.cells)][-1:]
    if "extract" in kinds and not after and not is_extracted(job):
        # Of the same store two are never at work: the second would find the first one's lock.
        others = [one.job for one in extracting if f"-{plain(title)}-" in one.record.name]
        before = ("afterany:" + ":".join(others),) if others else ()
        yield Script("extract", title, (files,), launcher, before)
        after = [f"afterok:{desk.jobs[-1]}"]

    if "probe" in kinds:
        everything = Script("probe", title, (files,), launcher, tuple(after))
        yield from split_array(
            everything, cells_per_task=launcher.cells_per_task, most_tasks=most_tasks
        )


def without_queued(
    cells: Sequence[Cell], queue: Sequence[Entry], kinds: Sequence[Kind]
) -> list[Cell]:
    """The cells of which no job is queued that would do the last of the work asked for."""
    last: Kind = "probe" if "probe" in kinds else "extract"
    queued = {file for one in queue if one.record.kind == last for file in one.cells}
    return [cell for cell in cells if cell_file(cell) not in queued]


def is_extracted(job: Job) -> bool:
    """Whether the features of a job are stored, as far as can be told without its backbone."""
    notes = [cell.folder / STORE for cell in job.cells]
    if not all(note.is_file() for note in notes):
        return False

    # Weights that are newer than that may be others: extraction looks at them.
    oldest = min(note.stat().st_mtime for note in notes)
    weights = weights_file(job.cells[0])
    if weights is not None and weights.is_file() and weights.stat().st_mtime > oldest:
        return False

    job.identify()
    stores = {store.id: store for store in (open_store(cell) for cell in job.cells)}
    return len(stores) == 1 and not next(iter(stores.values())).missing(job.tracks())


def cell_file(cell: Cell) -> str:
    """Absolute path of the file that holds a cell's settings."""
    return str((cell.folder / SETTINGS).absolute())


def slurm_folder(cell: Cell) -> Path:
    """Folder of the scripts, records and logs of a command's jobs."""
    return Path(cell.paths.runs) / FOLDER


def _write_settings(job: Job) -> None:
    """Writes what the jobs of a store read, and a mark by which nodes know the folder of stores."""
    for cell in job.cells:
        write_text(cell.folder / SETTINGS, write_cell(cell))
    features = Path(job.cells[0].paths.features)
    make_folder(features)
    (features / SHARED).touch()


def _say_what_was_done(desk: _Desk, n_queued: int, cells: Sequence[Cell]) -> None:
    if n_queued:
        _say(f"{n_queued} of {len(cells)} cells are queued already")
    if not desk.sent:
        _say("nothing to submit")
    elif desk.dry_run:
        _say(f"{len(desk.sent)} jobs would be submitted")
    else:
        _say(f"scripts and logs: {desk.folder}. How far they are: mirprobe status, same settings")


def _say(text: str) -> None:
    console().print(text, soft_wrap=True, markup=False)
