"""The main job: what is missing of some cells, computed here.

Conventions: the same command goes on where it was stopped. What cannot be done for one cell stops
no other; only what is wrong with the data of some is said before any work. Importing this costs
seconds (torch, Lightning): `verbs` does it when there is work.
"""

import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from datamodules.excluding import ignored_entries, ignored_line
from datamodules.features.store import READERS, FeatureStore
from datamodules.files import remove_orphans, share, write_text
from datamodules.listing import hash_text, list_text
from datamodules.workers import follow_parent
from mirprobe.assembly import Job, check_weights, extracting_backbone, inputs_of, make_demo_data
from mirprobe.backbones.backbone import Backbone
from mirprobe.cell import SETTINGS, Cell, write_cell
from mirprobe.devices import is_under_srun, n_devices
from mirprobe.extraction.extract import (
    collector_of,
    extract,
    finish,
    join_shards,
    name_audio,
    wait_for_all_ranks,
)
from mirprobe.probing.probe import open_store, probe
from mirprobe.progress import console, quiet_lightning
from mirprobe.provenance import (
    MadeOf,
    Stamps,
    latest_result,
    note_result,
    note_stamp,
    result_of,
    what_changed,
)
from mirprobe.reporting.text import counts_text, interval_text, layer_text, problems, score_text
from mirprobe.results import Row, read_rows
from mirprobe.scoring.selection import best_layer, by_metric, head_rows
from mirprobe.sweep.efficiency import count_work
from mirprobe.sweep.failures import Failures, forget_failure
from mirprobe.sweep.forecast import check_room
from mirprobe.sweep.local import (
    IS_CHILD,
    check_shared,
    check_step,
    check_world_size,
    run_on_all_devices,
)
from mirprobe.sweep.plan import Plan, make_plan


def sweep(cells: Sequence[Cell]) -> Failures:
    """Computes features and rows of these cells; gives those that could not be computed."""
    stamps, failures = Stamps(), Failures(cells)
    plan = checked_plan(with_weights(cells, failures), stamps)
    check_room(plan)
    for job, store in _extracted(plan, stamps, failures):
        for cell in job.cells:
            with failures.of([cell]):
                _probe(cell, job, store, stamps)
    return failures


def extract_cells(cells: Sequence[Cell]) -> Failures:
    """Brings the features of these cells into their stores; gives the cells that have none."""
    stamps, failures = Stamps(), Failures(cells)
    plan = checked_plan(with_weights(cells, failures), stamps)
    check_room(plan)
    for _ in _extracted(plan, stamps, failures):
        pass
    return failures


def with_weights(cells: Sequence[Cell], failures: Failures) -> list[Cell]:
    """The cells whose weights are there: what the last model lacks is said before any work."""
    of_model: dict[str, list[Cell]] = {}
    for cell in cells:
        of_model.setdefault(repr(cell.model), []).append(cell)
    for group in of_model.values():
        with failures.of(group):
            check_weights(group[0])
    return failures.without(cells)


def probe_cells(cells: Sequence[Cell]) -> Failures:
    """Trains the probes of these cells on features that are stored; builds no backbone."""
    stamps, failures = Stamps(), Failures(cells)
    ready = []
    for cell in cells:
        with failures.of([cell]):
            open_store(cell)  # what was never extracted is said before its labels are read
            ready.append(cell)
    plan = checked_plan(ready, stamps)
    for job in plan.jobs:
        _stamp(job, stamps)
        with failures.of(job.cells):
            name_audio(job)

        store: FeatureStore | None = None
        for cell in failures.without(job.cells):
            with failures.of([cell]):
                store = open_store(cell, store)
                _probe(cell, job, store, stamps)
    return failures


def extract_here(cells: Sequence[Cell]) -> None:
    """Extracts the features of cells in this process, which is one of several ranks.

    Raises:
        UserError: there are more or fewer ranks than were asked for, or this node does not see the
            folder of the stores.
    """
    if is_under_srun(cells[0]):
        check_step(cells[0].launcher)
        check_shared(Path(cells[0].paths.features))
    else:
        follow_parent(int(os.environ[IS_CHILD]))
        check_world_size(n_devices(cells[0]))

    quiet_lightning()
    for jobs in make_plan(cells).by_model():
        backbone = extracting_backbone(jobs[0].cells[0])
        with count_work(backbone):
            for job in jobs:
                _sweep_up(job)
                store = extract(job, backbone)
                wait_for_all_ranks()  # they have read the shards that may now go
                if is_under_srun(cells[0]) and os.environ.get("SLURM_PROCID", "0") == "0":
                    join_shards(job, store)  # elsewhere the process that started the ranks does it


def print_scores(cell: Cell, rows: Sequence[Row], seconds: float) -> None:
    """Prints one line for each metric of a cell that is done, and one for what is missing."""
    name = f"{cell.model_name} {cell.task.name}"
    for metric, scores in by_metric(rows).items():
        chosen = best_layer(scores, "val")
        result = f"no layer has a score on val by {metric}"
        if chosen is not None:
            score = f"{score_text(chosen)} {interval_text(chosen)}".rstrip()
            result = f"layer {chosen.layer} chosen on val, test {metric} {score}"

        weighted = "".join(
            f", weighted sum {score_text(row, layer_text(row))}"
            for row in head_rows(scores, "test", single=False)
        )
        linear = best_layer(scores, "val", "linear")
        twin = "" if linear is None else f", linear {score_text(linear, layer_text(linear))}"
        _say(f"{name}: {result}, n={counts_text(scores[0])}{weighted}{twin} ({seconds:.0f} s)")
        for problem in problems(scores):
            _say(f"{name}: by {metric}, {problem}")


def checked_plan(cells: Sequence[Cell], stamps: Stamps) -> Plan:
    """The plan, when all that can be wrong with its data was said before any work.

    Raises:
        UserError: data are missing or cannot be used.
    """
    quiet_lightning()
    plan = make_plan(cells)
    for job in plan.jobs:
        if not job.cells[0].is_demo:
            _stamp(job, stamps)
            job.tracks()

    tasks = [data for job in plan.jobs for data in job.tasks]
    ignored = ignored_entries({name for data in tasks for name in data.exclude}, tasks)
    if ignored:
        line = ignored_line(ignored, [data.dataset for data in tasks])
        console().print(line, soft_wrap=True, markup=False)
    return plan


def _stamp(job: Job, stamps: Stamps) -> None:
    """Takes the stamps of a job's files before they are read: what changes later is noticed."""
    for cell, data in zip(job.cells, job.tasks, strict=True):
        stamps.take(inputs_of(cell, data))


def _extracted(
    plan: Plan, stamps: Stamps, failures: Failures
) -> Iterator[tuple[Job, FeatureStore]]:
    """The jobs, one after the other, when their features are stored."""
    for jobs in plan.by_model():
        backbone: Backbone | None = None
        with failures.of([cell for job in jobs for cell in job.cells]):
            devices = n_devices(jobs[0].cells[0])
            backbone = extracting_backbone(jobs[0].cells[0])
        if backbone is None:
            continue

        for job in jobs:
            store: FeatureStore | None = None
            with failures.of(job.cells):
                store = _extract(job, backbone, devices, stamps)
            if store is not None:
                yield job, store


def _extract(job: Job, backbone: Backbone, devices: int, stamps: Stamps) -> FeatureStore:
    """Features of a job, in this process or in one for every device."""
    make_demo_data(job.cells)
    _stamp(job, stamps)
    _sweep_up(job)
    for cell in job.cells:
        write_text(cell.folder / SETTINGS, write_cell(cell))

    store = job.store(backbone)
    if store.is_read_only:
        name_audio(job)  # perhaps it lacks nothing
    if devices == 1:
        store = extract(job, backbone)
    else:
        job.identify()
        collector = collector_of(job, store, backbone)
        if store.missing(job.tracks()) or (collector is not None and collector.missing()):
            run_on_all_devices([cell.folder / SETTINGS for cell in job.cells], devices)
            job.digests.load()
        finish(job, store, collector)
    join_shards(job, store)
    return store


def _sweep_up(job: Job) -> None:
    """Removes what killed writers have left in the cells' folders."""
    for cell in job.cells:
        remove_orphans(cell.folder)


def _probe(cell: Cell, job: Job, store: FeatureStore, stamps: Stamps) -> None:
    """Rows of a cell, unless this content has them already, and a line that says what came out."""
    data = job.tasks[job.cells.index(cell)]
    listed = list_text(data.tracks(), audio=True)
    made_of = MadeOf(store.id.fingerprint, hash_text(listed), store.id.hash)
    result = result_of(cell, made_of)

    before = latest_result(cell)
    if before is not None and before.made_of != made_of:
        why = what_changed(cell, before.made_of, made_of, listed)
        _say(f"{cell.model_name} {cell.task.name}: not what it was made of before ({why})")

    remove_orphans(result.folder)
    note_result(cell, result, listed)
    if read_rows(result.folder, cell.hash, cell.metrics):
        _say(f"{cell.model_name} {cell.task.name}: results of this very content are there")
    else:
        start_s = time.monotonic()
        with share(store.folder / READERS):  # its shards stay until all is read
            rows = probe(cell, data, store, result)
        print_scores(cell, rows, time.monotonic() - start_s)
    inputs = inputs_of(cell, data)
    note_stamp(cell, result, inputs, stamps.take(inputs))
    forget_failure(cell)


def _say(text: str) -> None:
    console().print(text, soft_wrap=True, markup=False)
