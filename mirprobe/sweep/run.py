"""The main job: which cells are pending, and how each becomes rows.

Conventions: what is done is what is on disk (stores for features, `rows.jsonl` for cells), so the
same command goes on where it was stopped and prints the table when nothing is left. Nothing heavy
is imported unless there is work.
"""

import os
import time
from collections.abc import Sequence

from datamodules.files import write_text
from datamodules.workers import end_with_parent
from mirprobe.cell import Cell, write_cell
from mirprobe.progress import console, quiet_lightning
from mirprobe.reporting.tracking import track
from mirprobe.results import Row
from mirprobe.scoring.selection import best_layer, by_metric, head_rows
from mirprobe.sweep.plan import cells_by_model, pending


def sweep(cells: Sequence[Cell]) -> None:
    """Brings every cell to rows and to the dashboard."""
    for group in cells_by_model(pending(cells)):
        _run_model(group, probes=True)
    track(cells)


def extract_all(cells: Sequence[Cell]) -> None:
    """Brings the features of every cell into the stores."""
    for group in cells_by_model(cells):
        _run_model(group, probes=False)


def _run_model(cells: Sequence[Cell], *, probes: bool) -> None:
    """Features and rows of cells that share a backbone, which is built once."""
    from mirprobe.assembly import make_backbone, make_data, make_demo_data, n_devices, store_key_of
    from mirprobe.extraction.extract import extract_features
    from mirprobe.probing.probe import run_probes
    from mirprobe.sweep.local import run_on_all_devices

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
            print_scores(cell, run_probes(cell, key), time.monotonic() - start)


def print_scores(cell: Cell, rows: Sequence[Row], seconds: float) -> None:
    """One line for each metric of a cell that is done."""
    for metric, scores in by_metric(rows).items():
        chosen = best_layer(scores, "val")
        weighted = "".join(
            f", weighted sum {100 * row.value:.1f}"
            for row in head_rows(scores, "test", single=False)
        )
        console().print(
            f"{cell.model_name} {cell.task.name}: layer {chosen.layer} chosen on val, test "
            f"{metric} {100 * chosen.value:.1f} "
            f"[{100 * chosen.ci_low:.1f}, {100 * chosen.ci_high:.1f}], "
            f"n={chosen.n_tracks}{weighted} ({seconds:.0f} s)",
            soft_wrap=True,
        )


def probe_all(cells: Sequence[Cell]) -> None:
    """Trains the probes of every cell without rows, on features that are stored."""
    from mirprobe.assembly import make_backbone, store_key_of
    from mirprobe.probing.probe import run_probes

    quiet_lightning()
    for same_model in cells_by_model(pending(cells)):
        backbone = make_backbone(same_model[0])
        for cell in same_model:
            start = time.monotonic()
            print_scores(
                cell, run_probes(cell, store_key_of(cell, backbone)), time.monotonic() - start
            )


def extract_cell(cell: Cell) -> None:
    """Extracts one cell's features in this process, which may be one of several ranks."""
    from mirprobe.assembly import make_backbone
    from mirprobe.extraction.extract import extract_features
    from mirprobe.sweep.local import IS_CHILD

    if IS_CHILD in os.environ:
        end_with_parent(os.getppid())
    quiet_lightning()
    extract_features(cell, make_backbone(cell))
