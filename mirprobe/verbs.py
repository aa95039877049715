"""The verbs of the command line, one short function each.

Conventions: the docstring of a verb is its help. Nothing heavy is imported before it is needed, so
that `--help` and a command that finds everything done answer at once; and nothing of it before the
cells are known, which say where libraries may keep their caches.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from datamodules.errors import UserError, printable

if TYPE_CHECKING:
    from mirprobe.cell import Cell
    from mirprobe.sweep.slurm import Kind

# What `study weights` compares; a baseline of one layer has nothing to weigh.
STUDY = {
    "seed": "0,1,2,3,4,5,6,7,8,9",
    "protocol.layer_weights_init": "zeros,normal",
    "baseline": "null",
}


def sweep(options: argparse.Namespace) -> int:
    """Features, probes, W&B and report of every model, task and seed; goes on where it stopped."""
    cells, absent = _cells_with_data(options)
    if options.dry_run or _is_for_slurm(options, cells):
        return _submit(options, cells, absent, ("extract", "probe", "report"))

    from mirprobe.reporting.report import report as print_report
    from mirprobe.reporting.tracking import check_dashboard
    from mirprobe.sweep.failures import Failures
    from mirprobe.sweep.status import pending

    waiting = pending(cells)
    failures = Failures(waiting)
    if waiting:
        from mirprobe.sweep.run import sweep as run_sweep

        check_dashboard(waiting)
        failures = run_sweep(waiting)
    try:
        _try_to_compare(cells)
        problem = _track(cells)  # said after the table, which needs no dashboard
        print_report(cells)
        _print_absent(absent)
    finally:
        code = failures.print()
    if problem is not None:
        raise problem
    return code


def _track(cells: Sequence["Cell"]) -> UserError | None:
    """Writes what is missing of the dashboard; gives what was wrong with it."""
    from mirprobe.reporting.tracking import track

    try:
        track(cells)
    except UserError as error:
        return error
    return None


def _compare(cells: Sequence["Cell"]) -> None:
    """Computes the rows of similarity that are missing, where frames were counted."""
    from mirprobe.similarity.rows import sources_of

    if not all(source.path.is_file() for source in sources_of(cells)):
        from mirprobe.similarity.compare import compare

        compare(cells)


def _try_to_compare(cells: Sequence["Cell"]) -> None:
    """The same beside other work, which is worth having without Figure 3: says what is wrong."""
    try:
        _compare(cells)
    except UserError as error:
        _print_line(f"no similarity of layers: {error}")


def extract(options: argparse.Namespace) -> int:
    """Features only: every clip through the backbone once, into the feature store."""
    cells, absent = _cells_with_data(options)
    if options.dry_run or _is_for_slurm(options, cells):
        return _submit(options, cells, absent, ("extract",))

    from mirprobe.devices import is_under_srun
    from mirprobe.sweep.local import be_alone, is_rank
    from mirprobe.sweep.run import extract_cells, extract_here

    if is_rank() or is_under_srun(cells[0]):
        extract_here(cells)
        return 0
    be_alone()
    code = extract_cells(cells).print()
    _print_absent(absent)
    return code


def similarity(options: argparse.Namespace) -> int:
    """PWCCA and other measures of every layer against the input, from frames of some tracks; draws
    Figure 3.
    """
    cells, absent = _cells_with_data(options)

    from mirprobe.reporting.figure3 import draw_similarity
    from mirprobe.sweep.run import extract_cells

    models = [cell for cell in cells if not cell.is_baseline] or cells
    code = extract_cells(models).print()
    _compare(models)
    draw_similarity(models)
    _print_absent(absent)
    return code


def probe(options: argparse.Namespace) -> int:
    """Probes on stored features, without W&B and report."""
    cells, absent = _cells_with_data(options)
    if options.dry_run or _is_for_slurm(options, cells):
        return _submit(options, cells, absent, ("probe",))

    from mirprobe.sweep.status import pending

    waiting = pending(cells)
    code = 0
    if waiting:
        from mirprobe.sweep.run import probe_cells

        code = probe_cells(waiting).print()
    _print_absent(absent)
    return code


def _is_for_slurm(options: argparse.Namespace, cells: Sequence["Cell"]) -> bool:
    """Whether the work of a command goes into SLURM's queue; its jobs themselves work here."""
    return options.cell is None and cells[0].launcher.name == "slurm"


def _submit(
    options: argparse.Namespace,
    cells: Sequence["Cell"],
    absent: Sequence["Cell"],
    kinds: Sequence["Kind"],
) -> int:
    """Puts what is missing into the queue, or with --dry-run prints what would be done."""
    from mirprobe.sweep.status import pending

    waiting = pending(cells) if "probe" in kinds else list(cells)
    code = 0
    if not waiting:
        print("everything is done")
    elif _is_for_slurm(options, cells):
        from mirprobe.sweep.submit import submit_cells

        code = submit_cells(waiting, kinds, dry_run=options.dry_run).print()
    else:
        from mirprobe.sweep.forecast import plan_lines
        from mirprobe.sweep.plan import make_plan

        for line in plan_lines(make_plan(waiting)):
            print(line)
    _print_absent(absent)
    return code


def study(options: argparse.Namespace) -> int:
    """Layer weights from equal and from random starts over ten seeds: is the layer with the largest
    weight the best one, and does it come from the data or from the start?
    """
    if options.cell is None:
        options.settings = _with_study_defaults(options.settings)
    cells, absent = _cells_with_data(options)
    if options.dry_run or _is_for_slurm(options, cells):
        return _submit(options, cells, absent, ("extract", "probe"))

    from mirprobe.probing.marble_start import paper_lines
    from mirprobe.reporting.weights_study import report_weights
    from mirprobe.sweep.failures import Failures
    from mirprobe.sweep.status import pending

    waiting = pending(cells)
    failures = Failures(waiting)
    if waiting:
        from mirprobe.sweep.run import sweep as run_sweep

        failures = run_sweep(waiting)
    report_weights(cells, paper_lines())
    _print_absent(absent)
    return failures.print()


def _with_study_defaults(settings: Sequence[str]) -> list[str]:
    """The settings, and what the study compares where they do not say."""
    named = {setting.partition("=")[0] for setting in settings}
    return [*settings, *(f"{key}={value}" for key, value in STUDY.items() if key not in named)]


def plan(options: argparse.Namespace) -> None:
    """Prints what a sweep would do, and what it would cost: jobs, clips, disk, downloads, hours,
    by a dry run on a few clips.
    """
    cells, absent = _cells_with_data(options)

    from mirprobe.sweep.forecast import print_forecast
    from mirprobe.sweep.status import pending

    print_forecast(cells, pending(cells))
    _print_absent(absent)


def status(options: argparse.Namespace) -> None:
    """Prints which cells are done, queued, running, failed or missing, why, and where their logs
    are.
    """
    cells, absent = _cells_with_data(options)

    from mirprobe.sweep.status import print_states, states, states_json

    found = states(cells)
    if options.json:
        print(states_json(found))
        return
    print_states(found)
    _print_absent(absent)


def report(options: argparse.Namespace) -> None:
    """Prints Table 1 and writes it as Markdown, CSV and LaTeX beside the figures, from the rows of
    the cells asked for.
    """
    cells, absent = _cells_with_data(options)

    from mirprobe.reporting.report import report as print_report
    from mirprobe.sweep.status import check_done

    _try_to_compare(cells)
    print_report(cells)
    _print_absent(absent)
    check_done(cells)


def data(options: argparse.Namespace) -> None:
    """Prints a passport of each task's data: counts, audio, broken files, leaks, licence; or how to
    get the data.
    """
    cells = _cells(options)

    from mirprobe.data import show_data

    show_data(cells)


def fetch(options: argparse.Namespace) -> None:
    """Downloads, resumed and checked: weights of model=NAME into Hugging Face's cache, data of
    task=NAME below data.root=DIR.
    """
    cells, models = _cells(options), _models(options)

    from mirprobe.data import fetch_datasets, fetch_weights

    wants_data = any(setting.startswith("task=") for setting in options.settings)
    wants_weights = any(setting.startswith(("model=", "model.")) for setting in options.settings)

    if wants_weights or not wants_data:
        for cell in models:
            print(f"{cell.model_name}: {fetch_weights(cell) or 'nothing to download'}")
            if "card" in cell.model:
                print(f"{cell.model_name}: licence {cell.model['card']['licence']}")
    if wants_data:
        fetch_datasets(cells)


def features(options: argparse.Namespace) -> int:
    """Prints what feature stores there are, of which model, how big and used by which cells; or
    deletes one.
    """
    paths = _cells(options)[0].paths

    from mirprobe.stores import (
        choose_store,
        confirm,
        delete_store,
        list_lines,
        loss_lines,
        remove_leftovers,
    )

    folder, runs = Path(paths.features), Path(paths.runs)
    remove_leftovers(folder, _print_line)
    if options.delete is None:
        for line in list_lines(folder, runs):
            _print_line(line)
        return 0

    store = choose_store(options.delete, folder, runs)
    for line in loss_lines(store):
        _print_line(line)
    if not options.yes and not sys.stdin.isatty():
        raise UserError("nothing was deleted, as nobody can be asked here: add --yes")
    if not options.yes and not confirm(f"Delete {store.folder.name}?"):
        print("nothing was deleted")
        return 1
    delete_store(store, _print_line)
    return 0


def export(options: argparse.Namespace) -> None:
    """Writes stored features of every task as .npy (or parquet), a file for each layer, with a
    table of ids, splits, labels and times.
    """
    cells, absent = _cells_with_data(options)
    asked = [cell for cell in cells if not cell.is_baseline] or cells

    from mirprobe.export import export as export_features

    export_features(asked, layers=options.layer, form=options.form, say=_print_line)
    _print_absent(absent)


def _print_line(line: str) -> None:
    print(printable(line), flush=True)


def check(options: argparse.Namespace) -> int:
    """Self-test of a backbone: determinism, batches, frame rate, sensitivities, precision, speed;
    exit code 1 if a must fails.
    """
    models = _models(options)

    from mirprobe.assembly import make_backbone, place
    from mirprobe.backbones.check import check as check_backbone

    holds = [
        check_backbone(cell.model_name, place(make_backbone(cell), cell), cell.task.clip.seconds)
        for cell in models
    ]
    return 0 if all(holds) else 1


def push(options: argparse.Namespace) -> None:
    """Writes the W&B runs of finished cells again, from their rows."""
    cells, absent = _cells_with_data(options)

    from mirprobe.reporting.tracking import check_dashboard, track
    from mirprobe.sweep.status import check_done

    check_done(cells)
    check_dashboard(cells)
    track(cells, again=True)
    _print_absent(absent)


def dashboard(options: argparse.Namespace) -> None:
    """Saves a W&B workspace that compares models over layers, a section for each task; as a file
    where there is no key.
    """
    cells, absent = _cells_with_data(options)

    from mirprobe.reporting.dashboard import save_dashboard
    from mirprobe.reporting.tracking import check_dashboard

    check_dashboard(cells)
    save_dashboard(cells)
    _print_absent(absent)


def why(options: argparse.Namespace) -> None:
    """Prints what a number was made of: settings, weights, labels, store, versions, and whether its
    files are still those.
    """
    from mirprobe.reporting.why import why as lines_of
    from mirprobe.settings import compose_cell

    _check_folder()
    for line in lines_of(options.what, Path(compose_cell(options.settings).paths.runs)):
        print(printable(line))


def task(options: argparse.Namespace) -> None:
    """Looks at a table of your own files and labels (`task new my.csv`), says what it found, and
    writes the settings of a task.
    """
    from mirprobe.own_task import new_task

    _check_folder()
    new_task(options.table, options.name, _print_line)


def diff(options: argparse.Namespace) -> None:
    """Prints what differs between two results: settings, weights, labels, store, versions; what is
    the same is said so.
    """
    from mirprobe.reporting.diff import diff as lines_of
    from mirprobe.settings import compose_cell

    _check_folder()
    runs = Path(compose_cell(options.settings).paths.runs)
    for line in lines_of(options.one, options.other, runs):
        print(printable(line))


def list_names(_options: argparse.Namespace) -> None:
    """Names every model, task, protocol, launcher and logger."""
    print(names())


def names() -> str:
    """A line for each group of settings, with what it can be."""
    from mirprobe.cell import GROUPS
    from mirprobe.settings import known

    return "\n".join(f"  {group:<9} {', '.join(known(group))}" for group in GROUPS)


def _cells(options: argparse.Namespace) -> list["Cell"]:
    """The cells that the command line asks for, by settings or by a file."""
    from mirprobe.cell import read_cell
    from mirprobe.settings import compose_cells
    from mirprobe.streams import keep_caches_below

    _check_folder()
    if options.cell is not None and options.settings:
        raise UserError(
            "--cell FILE already holds every setting: give either the file or key=value settings"
        )
    if options.cell is None:
        cells = compose_cells(options.settings)
    else:
        cells = [read_cell(path) for path in options.cell]
    keep_caches_below(Path(cells[0].paths.runs))
    return cells


def _cells_with_data(options: argparse.Namespace) -> tuple[list["Cell"], list["Cell"]]:
    """The cells that the command line asks for, and apart those of `task=all` that have no data.

    Tasks that are named one by one are all wanted.
    """
    cells = _cells(options)
    if "task=all" not in options.settings:
        return cells, []

    from mirprobe.sweep.status import part_by_data

    return part_by_data(cells)


def _print_absent(cells: Sequence["Cell"]) -> None:
    """Says which tasks of `task=all` were left out, and how to get their data."""
    from mirprobe.sweep.status import how_to_get

    for line in how_to_get(cells):
        print(line)


def _check_folder() -> None:
    """Refuses to work in a folder that was deleted, where no path leads anywhere."""
    try:
        Path.cwd()
    except FileNotFoundError as error:
        raise UserError(
            "the folder that mirprobe was started in does not exist any more: change to one that "
            "does (cd)"
        ) from error


def _models(options: argparse.Namespace) -> Sequence["Cell"]:
    """One cell for every model asked for; the baseline only if it is asked for alone."""
    by_model = {cell.model_name: cell for cell in _cells(options)}
    models = [cell for cell in by_model.values() if not cell.is_baseline]
    return models or list(by_model.values())
