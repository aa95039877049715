"""A W&B workspace that compares models: a section a task, a chart a metric, a line a model.

Conventions: a workspace is a saved view of a project's runs, whose series `tracking` names; it
holds no number itself. Without a key it is a JSON file beside the runs, for another machine. W&B
cannot hold Table 1 across runs (wandb issues 1657 and 966), which the page of a report does.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from datamodules.errors import UserError
from datamodules.files import write_text
from mirprobe.cell import Cell
from mirprobe.progress import console
from mirprobe.reporting.tracking import choose_mode, import_wandb

NAME = "mirprobe: layers"
_LEVELS = ("acoustic", "comprehensive", "semantic")  # the order of the paper, section 3.4
_SIMILARITY = ("mel_pwcca", "mel_held_out", "mel_null", "h0_pwcca", "h0_held_out", "h0_null")


def save_dashboard(cells: Sequence[Cell]) -> None:
    """Saves the workspace of these cells in W&B, or as a file where there is no key.

    Raises:
        UserError: the package that writes workspaces is not installed, or W&B refuses it.
    """
    cell = cells[0]
    made = make_workspace(cells)
    path = Path(cell.paths.runs) / "wandb" / f"workspace-{cell.logger.project}.json"
    write_text(path, workspace_text(made))
    if choose_mode(cell) != "online":
        text = f"W&B: no workspace saved (offline); what it would be: {path}"
        console().print(text, soft_wrap=True, markup=False)
        return

    try:
        made.save()
    except Exception as error:  # of a client whose errors are of many libraries
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"W&B did not save the workspace of {cell.logger.project} ({reason}): look at "
            f"logger.project and logger.entity, and run `mirprobe push` first; it lies in {path}"
        ) from error
    console().print(f"W&B: workspace {made.url}", soft_wrap=True, markup=False)


def make_workspace(cells: Sequence[Cell]) -> Any:
    """The workspace, not saved: a `wandb_workspaces.workspaces.Workspace`.

    Raises:
        UserError: `wandb-workspaces` is not installed.
    """
    workspaces, panels = _library()
    cell = cells[0]
    tasks = {one.task.name: one for one in cells if not one.is_baseline}
    ordered = sorted(tasks.values(), key=lambda one: _LEVELS.index(one.task.level))

    sections = [_task_section(workspaces, panels, one, is_open=True) for one in ordered]
    lines = _lines(panels, "PWCCA with the input", [f"similarity/{name}" for name in _SIMILARITY])
    sections.append(workspaces.Section(name="Similarity", panels=[lines], is_open=True))
    return workspaces.Workspace(
        entity=cell.logger.entity or _default_entity(cell),
        project=cell.logger.project,
        name=NAME,
        sections=sections,
        auto_generate_panels=False,
    )


def workspace_text(workspace: Any) -> str:
    """A workspace as JSON, in the form in which W&B keeps it."""
    model = workspace._to_model()  # the package has no public way to its JSON
    text = model.model_dump_json(by_alias=True, exclude_none=True)

    # Ids of charts are drawn by lot: numbers in their place keep the file the same.
    for number, drawn in enumerate(re.findall(r'"__id__":"(\w+)"', text)):
        text = text.replace(f'"{drawn}"', f'"chart-{number}"')
    return json.dumps(json.loads(text), indent=1, sort_keys=True) + "\n"


def _library() -> tuple[ModuleType, ModuleType]:
    """The modules of workspaces and of their panels."""
    import_wandb()  # first, for its settings
    try:
        import wandb_workspaces.reports.v2 as panels
        from wandb_workspaces import workspaces
    except ModuleNotFoundError as error:
        raise UserError(
            "a dashboard needs wandb-workspaces, which is not installed: "
            "pip install 'mirprobe[dashboard]'"
        ) from error
    return workspaces, panels


def _default_entity(cell: Cell) -> str:
    """That of the key; none is asked for where nothing is saved."""
    if choose_mode(cell) != "online":
        return ""
    api = import_wandb().Api(timeout=cell.logger.timeout_s)
    return str(api.default_entity)


def _task_section(workspaces: ModuleType, panels: ModuleType, cell: Cell, *, is_open: bool) -> Any:
    """The charts of a task: its metrics by both probes, and the learned weights."""
    task = cell.task.name
    charts = []
    for metric in cell.metrics:
        series = [f"{task}/test_{metric}"]
        if cell.protocol.linear:
            series.append(f"{task}/linear_test_{metric}")
        charts.append(_lines(panels, f"{metric} on test", series))
    charts.append(_lines(panels, "learned layer weights", [f"{task}/weight_end"]))
    return workspaces.Section(name=f"{cell.task.label} ({task})", panels=charts, is_open=is_open)


def _lines(panels: ModuleType, title: str, series: Sequence[str]) -> Any:
    """A chart of series over the layers, in which runs of one model are one line."""
    return panels.LinePlot(
        title=title,
        x="layer",
        y=list(series),
        title_x="layer",
        groupby=panels.Config("model"),
        groupby_aggfunc="mean",
        groupby_rangefunc="minmax",
        smoothing_factor=0,
    )
