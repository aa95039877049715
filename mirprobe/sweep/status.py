"""What is done and what is not.

Conventions: a cell is *done* when it has rows that were made of what is there now: the same labels,
audio and weights. Else it is *running* or *queued* if SLURM's queue holds a job of it, *failed* if
a job or a sweep has begun it and left no rows, and *missing* if none has begun it.
"""

import json
import shlex
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, get_args

from rich.table import Table
from rich.text import Text

from datamodules.errors import UserError
from mirprobe.cell import SETTINGS, STORE, Cell
from mirprobe.progress import console
from mirprobe.provenance import Stamps, current_result, latest_result
from mirprobe.results import read_rows
from mirprobe.sweep.failures import read_failure
from mirprobe.sweep.queue import (
    FOLDER,
    Entry,
    Record,
    has_slurm,
    logs_of,
    read_queue,
    read_records,
    state_of,
)
from mirprobe.sweep.slurm import Kind


def pending(cells: Sequence[Cell]) -> list[Cell]:
    """The cells that have no rows, or none that are known to be current."""
    stamps = Stamps()
    waiting = []
    for cell in cells:
        result = current_result(cell, stamps)
        if result is None or not read_rows(result.folder, cell.hash, cell.metrics):
            waiting.append(cell)
    return waiting


def check_done(cells: Sequence[Cell]) -> None:
    """Raises UserError if a cell that was asked for has no rows, current or not."""
    missing = [cell for cell in cells if latest_result(cell) is None]
    if missing:
        raise UserError(
            f"{len(missing)} of {len(cells)} cells have no results (first: {missing[0].folder}): "
            "run `mirprobe sweep` with the same settings"
        )


def part_by_data(cells: Sequence[Cell]) -> tuple[list[Cell], list[Cell]]:
    """The cells whose dataset has a folder here, and those whose has none.

    Raises:
        UserError: none has.
    """
    there = [cell for cell in cells if _has_folder(cell)]
    absent = [cell for cell in cells if not _has_folder(cell)]
    if not there:
        folders = ", ".join(sorted({cell.task.folder for cell in absent}))
        raise UserError(
            f"no dataset under {absent[0].data.root}: looked for the folders {folders}. Set "
            "data.root to the folder that holds them"
        )
    return there, absent


def _has_folder(cell: Cell) -> bool:
    return cell.is_demo or (Path(cell.data.root or ".") / cell.task.folder).is_dir()


def how_to_get(cells: Sequence[Cell]) -> list[str]:
    """A line for each task of some cells that says how to get its data."""
    lines = []
    for cell in {cell.task.name: cell for cell in cells}.values():
        root = "" if cell.data.root is None else " " + shlex.quote(f"data.root={cell.data.root}")
        lines.append(
            f"{cell.task.name}: left out, no data here. How to get it: "
            f"mirprobe data task={cell.task.name}{root}"
        )
    return lines


# -- where each cell stands ------------------------------------------------------------------------


Word = Literal["done", "queued", "running", "failed", "missing"]
# States of a job that has left the queue, and had begun.
_BROKEN = ("FAILED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "BOOT_FAIL")
COLOURS: Mapping[Word, str] = {
    "done": "green",
    "queued": "cyan",
    "running": "yellow",
    "failed": "bold red",
    "missing": "dim",
}


@dataclass(frozen=True)
class CellState:
    """Where a cell stands.

    Attributes:
        model, task, seed, protocol: of the cell.
        hash: of its settings.
        word: of its rows.
        features: the same of its features; `missing` also where they are stored and nobody knows.
        job: number of its job in SLURM's queue, or of the last one; None without any.
        why: why it waits or has failed.
        log: path of the job's output; None where there is none.
        folder: of its results.
    """

    model: str
    task: str
    seed: int
    protocol: str
    hash: str
    word: Word
    features: Word
    job: str | None
    why: str
    log: str | None
    folder: str


def states(cells: Sequence[Cell]) -> list[CellState]:
    """Where each cell stands, by the files and, where jobs were submitted, by SLURM's queue.

    Raises:
        UserError: rows or records are broken, or the queue does not answer.
    """
    waiting = {cell.key for cell in pending(cells)}
    folder = Path(cells[0].paths.runs) / FOLDER
    records = read_records(folder)
    queue = read_queue(folder) if records and has_slurm() else []
    return [
        _state(cell, cell.key not in waiting, _Jobs(folder, records, queue, cell)) for cell in cells
    ]


class _Jobs:
    """The jobs that were submitted for one cell.

    Args:
        folder: of records and logs.
        records: all that there are.
        queue: all of ours in it.
        cell: whose jobs they are.
    """

    def __init__(
        self, folder: Path, records: Mapping[str, Record], queue: Sequence[Entry], cell: Cell
    ) -> None:
        self.folder = folder
        file = str((cell.folder / SETTINGS).absolute())
        self._entries = [one for one in queue if file in one.cells]
        self._places = [
            (record, index)
            for record in records.values()
            for index, files in enumerate(record.tasks)
            if file in files
        ]

    def queued(self, kind: Kind) -> Entry | None:
        """Its job of a kind in the queue; one that runs rather than one that waits."""
        found = [one for one in self._entries if one.record.kind == kind]
        return max(found, key=lambda one: one.word == "running", default=None)

    def logs(self, kind: Kind) -> list[Path]:
        """Output of its jobs of a kind, the newest last."""
        logs = [
            path
            for record, index in self._places
            if record.kind == kind
            for path in logs_of(self.folder, record, index)
        ]
        return sorted(logs, key=lambda path: path.stat().st_mtime)

    def has_begun(self, kind: Kind) -> bool:
        """Whether a job of a kind has begun: it has left a log, or as SLURM says has not ended
        well.
        """
        last = self.last(kind)
        return bool(self.logs(kind)) or (last is not None and ended_as(last) in _BROKEN)

    def last(self, kind: Kind) -> str | None:
        """Number of the last job of a kind that was submitted."""
        jobs = [
            f"{job}_{index}" if kind == "probe" else job
            for record, index in self._places
            if record.kind == kind
            for job in record.jobs
        ]
        return max(jobs, key=lambda job: int(job.partition("_")[0]), default=None)


def _state(cell: Cell, is_done: bool, jobs: _Jobs) -> CellState:
    features, word = _features_word(cell, jobs), _rows_word(is_done, jobs)
    kind: Kind = "probe"
    # What has become of the features is the news, as long as no probe has begun.
    if word in ("queued", "missing") and features in ("queued", "running", "failed"):
        kind = "extract"
        if features != "queued":
            word = features

    reason = read_failure(cell)
    if word == "missing" and reason is not None:
        word = "failed"
    entry, logs = jobs.queued(kind), jobs.logs(kind)
    return CellState(
        model=cell.model_name,
        task=cell.task.name,
        seed=cell.seed,
        protocol=cell.protocol.name,
        hash=cell.hash,
        word=word,
        features="done" if is_done else features,
        job=entry.job if entry is not None else jobs.last(kind),
        why=_why(word, reason, entry, jobs.last(kind), logs),
        log=str(logs[-1]) if logs else None,
        folder=str(cell.folder),
    )


def _features_word(cell: Cell, jobs: _Jobs) -> Word:
    entry = jobs.queued("extract")
    if entry is not None:
        return entry.word
    if (cell.folder / STORE).is_file():
        return "done"
    return "failed" if jobs.has_begun("extract") else "missing"


def _rows_word(is_done: bool, jobs: _Jobs) -> Word:
    """A job that has left the queue, began its work and made no rows has failed."""
    if is_done:
        return "done"
    entry = jobs.queued("probe")
    if entry is not None:
        return entry.word
    return "failed" if jobs.has_begun("probe") else "missing"


def _why(
    word: Word, reason: str | None, entry: Entry | None, last: str | None, logs: Sequence[Path]
) -> str:
    if word == "queued" and entry is not None:
        return entry.reason
    if word == "failed" and reason is not None:
        return reason
    if word in ("failed", "missing") and last is not None:
        return _how_it_ended(last, logs)
    return ""


def _how_it_ended(job: str, logs: Sequence[Path]) -> str:
    state = ended_as(job)
    ended = f"job {job} has ended without a result{f' ({state})' if state else ''}"
    if logs:
        return ended
    return f"{ended} and has left no log: cancelled, or its node does not see this folder"


def ended_as(job: str) -> str:
    """The last state of a job, such as CANCELLED; empty where SLURM cannot tell."""
    return state_of(job) if has_slurm() else ""


def print_states(found: Sequence[CellState]) -> None:
    """Prints a line for each cell and one that counts them; in colour on a terminal."""
    out = console()
    if sys.stdout.isatty():
        out.print(_states_table(found))
    else:
        for state in found:
            out.print(Text(state_line(state)), soft_wrap=True)
    out.print(counts_line(found), soft_wrap=True)


def _states_table(found: Sequence[CellState]) -> Table:
    table = Table(box=None, pad_edge=False)
    for title in ("", "Model", "Task", "Seed", "Features", "Job", "Why, and log"):
        table.add_column(title, overflow="fold")
    for state in found:
        table.add_row(
            Text(state.word, style=COLOURS[state.word]),
            Text(state.model),
            Text(state.task),
            str(state.seed),
            Text(state.features, style=COLOURS[state.features]),
            state.job or "",
            Text("\n".join(text for text in (state.why, state.log) if text)),
        )
    return table


def state_line(state: CellState) -> str:
    """One line on a cell, for a log."""
    parts = [f"{state.word:<7} {state.model} {state.task} seed {state.seed} {state.hash}"]
    parts.append(f"features {state.features}")
    if state.job is not None:
        parts.append(f"job {state.job}")
    parts += [text for text in (state.why, state.log) if text]
    return "; ".join(parts)


def counts_line(found: Sequence[CellState]) -> str:
    """How many cells stand where, such as `3 cells: 2 done, 1 failed`."""
    counts = Counter(state.word for state in found)
    words = [f"{counts[word]} {word}" for word in get_args(Word) if counts[word]]
    return f"{len(found)} cells: {', '.join(words)}"


def states_json(found: Sequence[CellState]) -> str:
    """The same as one JSON list."""
    return json.dumps([asdict(state) for state in found], indent=1)
