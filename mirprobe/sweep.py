"""The main job: which cells are pending, and how each becomes rows.

Conventions: what is done is what is on disk (stores for features, `rows.jsonl` for cells), so the same command goes on where
it was stopped and prints the table when nothing is left. Nothing heavy is imported unless there is work.
"""

import os
import time
from collections.abc import Sequence

from datamodules.errors import UserError
from datamodules.files import write_text
from datamodules.workers import end_with_parent
from mirprobe.assembly import make_demo_data
from mirprobe.cell import Cell, write_cell
from mirprobe.progress import console, quiet_lightning
from mirprobe.results import Row, best_layer, by_metric, head_rows, pending, read_rows


def sweep(cells: Sequence[Cell]) -> None:
    """Brings every cell to rows and to the dashboard."""
    for group in _groups(pending(cells)):
        _run_model(group, probes=True)
    track(cells)


def extract_all(cells: Sequence[Cell]) -> None:
    """Brings the features of every cell into the stores."""
    for group in _groups(cells):
        _run_model(group, probes=False)


def track(cells: Sequence[Cell], *, again: bool = False) -> None:
    """Writes the W&B runs of the cells that have rows but no run; with `again` of all that have rows."""
    from mirprobe.tracking import choose_mode, is_tracked, push  # wandb costs a second to import

    waiting = [cell for cell in cells if (again or not is_tracked(cell)) and not pending([cell])]
    if not waiting:
        return
    mode = choose_mode(waiting[0])
    for cell in waiting:
        mode = push(cell, read_rows(cell.folder), mode)  # once offline, always offline: each try waits for its time-out
    if mode != "disabled":
        console().print(f"W&B: {len(waiting)} runs, {mode}, in {waiting[0].paths.runs}/wandb")


def _groups(cells: Sequence[Cell]) -> list[list[Cell]]:
    """Cells that share a backbone; the baseline comes last, so that missing weights are said before any work."""
    by_model: dict[tuple[bool, str], list[Cell]] = {}
    for cell in cells:
        by_model.setdefault((cell.is_baseline, repr(sorted(cell.model.items(), key=str))), []).append(cell)
    return [by_model[name] for name in sorted(by_model)]


def _run_model(cells: Sequence[Cell], *, probes: bool) -> None:
    """Features and rows of cells that share a backbone, which is built once."""
    from mirprobe.assembly import make_backbone, make_data, n_devices, store_key_of
    from mirprobe.extract import extract_features
    from mirprobe.launchers import run_on_all_devices
    from mirprobe.probing.probe import run_probes

    quiet_lightning()
    n_devices(cells[0])
    for cell in cells:
        if not cell.is_demo:
            make_data(cell).tracks()  # data that is not there is said before any work
    backbone = make_backbone(cells[0])
    make_demo_data(cells)
    for cell in cells:
        start = time.monotonic()
        write_text(cell.folder / "config.yaml", write_cell(cell))
        if n_devices(cell) == 1:
            key = extract_features(cell, backbone)
        else:
            run_on_all_devices(cell.folder / "config.yaml")
            key = store_key_of(cell, backbone)
        if probes:
            _say(cell, run_probes(cell, key), time.monotonic() - start)


def _say(cell: Cell, rows: Sequence[Row], seconds: float) -> None:
    for metric, scores in by_metric(rows).items():
        chosen = best_layer(scores, "val")
        weighted = "".join(f", weighted sum {100 * row.value:.1f}" for row in head_rows(scores, "test", single=False))
        console().print(
            f"{cell.model_name} {cell.task.name}: layer {chosen.layer} chosen on val, test {metric} {100 * chosen.value:.1f} "
            f"[{100 * chosen.ci_low:.1f}, {100 * chosen.ci_high:.1f}], n={chosen.n_tracks}{weighted} ({seconds:.0f} s)",
            soft_wrap=True,
        )


def check_done(cells: Sequence[Cell]) -> None:
    """Raises UserError if a cell that was asked for has no rows."""
    missing = pending(cells)
    if missing:
        raise UserError(
            f"{len(missing)} of {len(cells)} cells have no results (first: {missing[0].folder}): "
            "run `mirprobe sweep` with the same settings"
        )


def probe_all(cells: Sequence[Cell]) -> None:
    """Trains the probes of every cell without rows, on features that are stored."""
    from mirprobe.assembly import make_backbone, store_key_of
    from mirprobe.probing.probe import run_probes

    quiet_lightning()
    for same_model in _groups(pending(cells)):
        backbone = make_backbone(same_model[0])
        for cell in same_model:
            start = time.monotonic()
            _say(cell, run_probes(cell, store_key_of(cell, backbone)), time.monotonic() - start)


def extract_cell(cell: Cell) -> None:
    """Extracts one cell's features in this process, which may be one of several ranks."""
    from mirprobe.assembly import make_backbone
    from mirprobe.extract import extract_features
    from mirprobe.launchers import IS_CHILD

    if IS_CHILD in os.environ:
        end_with_parent(os.getppid())
    quiet_lightning()
    extract_features(cell, make_backbone(cell))
