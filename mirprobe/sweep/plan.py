"""The plan of a sweep, as a value: jobs, in the order in which they run."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from datamodules.digests import KnownDigests
from datamodules.task import TaskDataModule
from mirprobe.assembly import Job, make_data, pooling_name
from mirprobe.cell import Cell


@dataclass(frozen=True)
class Plan:
    """Jobs; those of one backbone follow each other, the baseline's come last."""

    jobs: tuple[Job, ...]

    def by_model(self) -> Iterator[list[Job]]:
        """The jobs of each backbone in each precision, which is built once for all of them."""
        of_model: dict[tuple[str, str], list[Job]] = {}
        for job in self.jobs:
            cell = job.cells[0]
            of_model.setdefault((_model_key(cell), cell.extract.precision), []).append(job)
        yield from of_model.values()


def make_plan(cells: Sequence[Cell]) -> Plan:
    """Gathers cells into jobs: those that share a backbone and its precision, audio, cutting rule
    and pooling.

    The baseline comes last, so that missing weights are said before any work.

    Raises:
        UserError: the settings of a task do not fit its class.
    """
    tasks: dict[str, TaskDataModule] = {}  # one object for all cells that read the same labels
    groups: dict[tuple[str, ...], list[Cell]] = {}
    for cell in sorted(cells, key=lambda cell: (cell.is_baseline, _model_key(cell))):
        task = _task_key(cell)
        if task not in tasks:
            tasks[task] = make_data(cell)
        kept = (cell.paths.features, cell.extract.precision, pooling_name(cell, tasks[task]))
        store = (_model_key(cell), *kept, *_audio_key(tasks[task]))
        groups.setdefault(store, []).append(cell)

    digests: dict[Path, KnownDigests] = {}
    jobs = []
    for group in groups.values():
        of_cell = tuple(tasks[_task_key(cell)] for cell in group)
        file = Path(group[0].paths.features) / "known" / f"{of_cell[0].dataset}.jsonl"
        if file not in digests:
            digests[file] = KnownDigests(file)
        jobs.append(Job(tuple(group), of_cell, digests[file]))
    return Plan(tuple(jobs))


def _model_key(cell: Cell) -> str:
    return json.dumps(cell.model, sort_keys=True)


def _task_key(cell: Cell) -> str:
    """All that a task's labels and audio follow from, whatever the model and protocol; and
    whatever the seed, unless labels are shuffled under it.
    """
    identity = cell.identity()
    seed = cell.seed if cell.data.labels == "shuffled" else None
    settings = [cell.task._target_, identity["task"], identity["data"], cell.data_places, seed]
    return json.dumps(settings, sort_keys=True)


def _audio_key(data: TaskDataModule) -> tuple[str, ...]:
    """All that the features of a task follow from, beside the backbone."""
    return (data.dataset, str(data.root), data.clip.describe(), str(data.frame_rate))
