"""Weights & Biases: the one home of wandb.

Conventions: a run is one cell, (model, task, protocol, seed); `layer` is the step metric, so the
dashboard draws every series over the layers with no hand work. Runs are written from rows, which
stay the truth, and can be written again. Nothing waits for a network for longer than
`logger.timeout_s`: a run that cannot go online is kept offline, for `wandb sync`. A run is written
in a hidden folder and moved beside the others when it is whole, so that of what is killed nothing
is synced.
"""

import json
import netrc
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from datamodules.errors import UserError
from datamodules.files import lock, make_folder, write_text
from mirprobe.cell import Cell
from mirprobe.progress import console
from mirprobe.provenance import Result, Stamps, current_result, latest_result
from mirprobe.reporting.text import problems
from mirprobe.results import Row, read_rows
from mirprobe.scoring.selection import best_layer, by_metric, head_rows
from mirprobe.similarity.rows import SimilarityRow, read_similarity, sources_of

FILE = "wandb.json"
Mode = Literal["online", "offline", "disabled"]
MODES: tuple[Mode, ...] = ("online", "offline", "disabled")


def is_tracked(cell: Cell, result: Result) -> bool:
    """Whether the run of a cell's result was written, or none is wanted."""
    return cell.logger.mode == "disabled" or (result.folder / FILE).exists()


def track(cells: Sequence[Cell], *, again: bool = False) -> None:
    """Writes the W&B runs of the cells that have rows but no run.

    Args:
        cells: with rows or without.
        again: also write the runs that are there already.
    """
    stamps = Stamps()
    waiting: list[tuple[Cell, Result]] = []
    for cell in cells:
        result = current_result(cell, stamps) or latest_result(cell)
        if result is not None and (again or not is_tracked(cell, result)):
            waiting.append((cell, result))
    if not waiting:
        return

    mode = choose_mode(waiting[0][0])
    if mode == "disabled":
        return
    folder = _runs_folder(waiting[0][0])
    try:
        make_folder(folder)
        with lock(folder / ".lock", wait=True):
            _remove_parts(folder)
            similar = _similarity_of(cells)
            for cell, result in waiting:
                if not again:
                    _remove_unrecorded(folder, run_id(cell, result))
                # Once offline, always offline: each new try would wait for its time-out.
                mode = push(cell, result, mode, similar.get(cell.key, ()))
    except OSError as error:
        raise UserError(
            f"cannot write W&B runs, {error.filename or folder}: {error.strerror or error}. Put "
            "that right and run the same command again, or set logger=none"
        ) from error
    if mode != "disabled":
        text = f"W&B: {len(waiting)} runs, {mode}, in {waiting[0][0].paths.runs}/wandb"
        console().print(text, markup=False)


def _similarity_of(cells: Sequence[Cell]) -> dict[tuple[str, ...], list[SimilarityRow]]:
    """The rows of similarity of each cell's model, by the key of the cell."""
    return {
        cell.key: read_similarity(source.path)
        for source in sources_of(cells)
        for cell in source.cells
    }


def check_dashboard(cells: Sequence[Cell]) -> None:
    """Looks at the settings of W&B before any work, since runs are written after all of it.

    Raises:
        UserError: a mode, a project or a variable of the environment that W&B refuses.
    """
    wanted = [cell for cell in cells if cell.logger.mode != "disabled"]
    if not wanted or choose_mode(wanted[0]) == "disabled":
        return

    settings = import_wandb().Settings
    given = {name: {name: value} for name, value in os.environ.items() if _is_setting(name)}
    given |= {f"logger.project={one}": {"WANDB_PROJECT": one} for one in _projects(wanted)}
    for name, variables in given.items():
        try:
            settings().update_from_env_vars(variables)
        except (ValueError, _wandb_error()) as error:
            value = next(iter(variables.values()))
            raise UserError(
                f"W&B does not take {name.partition('=')[0]}={value} ({_reason(error)}): set it "
                "right or drop it, or do without W&B by logger=none"
            ) from error


def _is_setting(name: str) -> bool:
    """Whether a variable is one of W&B's own settings; `choose_mode` looks at the mode."""
    return name.startswith("WANDB_") and name != "WANDB_MODE"


def _projects(cells: Sequence[Cell]) -> list[str]:
    return list(dict.fromkeys(cell.logger.project for cell in cells))


def _wandb_error() -> type[Exception]:
    """The base of wandb's own errors."""
    error: type[Exception] = import_wandb().Error
    return error


def _reason(error: Exception) -> str:
    """The line of an error that says what is wrong; pydantic names the field in two others first.

    >>> _reason(ValueError("1 error for Settings\\nsilent\\n  It is no boolean [type=x]\\n  More"))
    'It is no boolean'
    """
    lines = str(error).splitlines() or [type(error).__name__]
    line = lines[2] if len(lines) > 2 else lines[0]
    return line.partition(" [type=")[0].strip()


def choose_mode(cell: Cell) -> Mode:
    """Chooses WANDB_MODE, else what the cell's settings name.

    `auto` is online where a key is known, but not in a SLURM job: its node may have no network.

    Raises:
        UserError: the mode is unknown.
    """
    mode = os.environ.get("WANDB_MODE", cell.logger.mode)
    if mode == "auto":
        return "online" if _has_key() and "SLURM_JOB_ID" not in os.environ else "offline"
    for known in MODES:
        if mode == known:
            return known

    name = "WANDB_MODE" if "WANDB_MODE" in os.environ else "logger.mode"
    raise UserError(f"unknown {name} {mode!r}. Known: auto, {', '.join(MODES)}")


def push(
    cell: Cell,
    result: Result,
    mode: Mode | None = None,
    similar: Sequence[SimilarityRow] = (),
) -> Mode:
    """Writes the run of a cell.

    Args:
        cell: that the run is of.
        result: of the cell, with rows.
        mode: to write in; without, as `choose_mode` chooses.
        similar: what is known of the layers of its model, drawn beside their scores.

    Returns:
        The mode it was written in: `offline` where `online` failed.
    """
    mode = mode or choose_mode(cell)
    if mode == "disabled":
        return mode

    # All that wandb writes stays with the results: home folders on clusters are small.
    folder = _runs_folder(cell)
    for kind in ("DATA", "CACHE", "CONFIG"):
        os.environ.setdefault(f"WANDB_{kind}_DIR", str(folder / kind.lower()))

    rows = read_rows(result.folder, cell.hash, cell.metrics)
    points = layer_points(rows, similar)
    run = run_id(cell, result)
    refusals = (_wandb_error(), ValueError)
    try:
        if mode == "online":
            try:
                _write_run(cell, rows, points, run, folder, mode)
            except refusals as error:
                print(
                    f"W&B cannot be reached ({_reason(error)}): runs are kept offline, for "
                    "`wandb sync`"
                )
                import_wandb().teardown()  # the process that could not connect keeps the run's id
                mode = "offline"
        if mode == "offline":
            _write_run(cell, rows, points, run, folder, mode)
    except refusals as error:
        raise UserError(
            f"W&B could not write the run of {cell.model_name} for {cell.task.name} "
            f"({_reason(error)}): the rows are on disk, put W&B right and run `mirprobe push`, or "
            "set logger=none"
        ) from error

    write_text(result.folder / FILE, json.dumps({"run": run, "mode": mode}) + "\n")
    return mode


def _runs_folder(cell: Cell) -> Path:
    return Path(cell.paths.runs).resolve() / "wandb"


def _remove_parts(folder: Path) -> None:
    """Deletes what killed writers left; only for who holds the lock."""
    for part in folder.glob(".part-*"):
        shutil.rmtree(part, ignore_errors=True)


def _remove_unrecorded(folder: Path, run_name: str) -> None:
    """Deletes an offline run that was whole when its writer was killed, before it was noted."""
    for run in folder.glob(f"offline-run-*-{run_name}"):
        shutil.rmtree(run, ignore_errors=True)


def run_id(cell: Cell, result: Result) -> str:
    """The id of a run: always the same for one cell on one content."""
    return f"{cell.hash}{result.made_of.hash}"


def import_wandb() -> ModuleType:
    """Imports the package wandb, which takes a second and is only needed where runs are written."""
    # Read at import: wandb's own telemetry would wait for a network.
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    if os.environ.get("WANDB_MODE") == "auto":
        del os.environ["WANDB_MODE"]  # a word of ours, which wandb does not know
    import wandb

    return wandb


def _write_run(
    cell: Cell,
    rows: Sequence[Row],
    points: Sequence[Mapping[str, float]],
    run_name: str,
    folder: Path,
    mode: Mode,
) -> None:
    """Writes a run into a folder of its own, and moves it beside the others when it is whole."""
    part = folder / f".part-{os.getpid()}-{run_name}"
    make_folder(part)
    try:
        _log_run(cell, rows, points, run_name, part, mode)
        for run in (part / "wandb").glob("*run-*-*"):
            target = folder / run.name
            shutil.rmtree(target, ignore_errors=True)  # the same run, of the same second
            run.replace(target)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _log_run(
    cell: Cell,
    rows: Sequence[Row],
    points: Sequence[Mapping[str, float]],
    run_name: str,
    folder: Path,
    mode: Mode,
) -> None:
    wandb = import_wandb()
    settings = wandb.Settings(
        init_timeout=cell.logger.timeout_s,
        finish_timeout=cell.logger.timeout_s,
        console="off",
        x_disable_stats=True,
        silent=True,
        disable_git=True,
        disable_code=True,
    )
    names = [cell.model_name, cell.task.name, cell.protocol.name]
    tags = [*names, "demo"] if rows[0].demo else names

    run = wandb.init(
        project=cell.logger.project,
        entity=cell.logger.entity,
        dir=str(folder),
        mode=mode,
        id=run_name,  # the same run again when it is pushed again
        resume="allow",
        name=f"{cell.model_name}.{cell.task.name}.s{cell.seed}",
        group="/".join(names),
        job_type="probe",
        tags=tags,
        config=run_config(cell, rows),
        settings=settings,
        reinit="finish_previous",
    )
    run.define_metric("layer")
    for series in (f"{cell.task.name}/*", "similarity/*"):
        run.define_metric(series, step_metric="layer")
    for point in points:
        run.log(dict(point))
    run.summary.update(run_summary(rows))
    run.finish()


def run_config(cell: Cell, rows: Sequence[Row]) -> dict[str, Any]:
    """Names, hashes and places that the dashboard filters and groups by, and all settings."""
    first = rows[0]
    return {
        "model": first.model,
        "task": first.task,
        "protocol": first.protocol,
        "seed": first.seed,
        "metric": first.metric,
        "config_hash": first.config_hash,
        "store_hash": first.store_hash,
        "weights": first.weights,
        "tracks_hash": first.tracks_hash,
        "demo": first.demo,
        "data_root": cell.data.root,
        "checkpoint": cell.model.get("checkpoint"),
        "versions": first.versions,
        "settings": cell.identity(),
    }


def layer_points(
    rows: Sequence[Row], similar: Sequence[SimilarityRow] = ()
) -> list[dict[str, float]]:
    """One point per layer: scores with intervals, the learned weight at start and end, and how the
    layer relates to the input.

    Series are named by task, so that a dashboard has a section for each, where models lie in one
    chart: `nsynth_pitch/test_accuracy`, `.../linear_test_accuracy`, `.../weight_end`. What is
    missing (a score that failed, an interval) is in no point.
    """
    points: dict[int, dict[str, float]] = {}
    for row in rows:
        if row.layer is not None:
            probe = "" if row.probe == "mlp" else f"{row.probe}_"
            name = f"{row.task}/{probe}{row.split}_{row.metric}"
            point = points.setdefault(row.layer, {"layer": row.layer})
            numbers = {name: row.value, f"{name}_low": row.ci_low, f"{name}_high": row.ci_high}
            point |= {key: value for key, value in numbers.items() if value is not None}

    # Weights are of layers 1..L; rows of val hold the same.
    for row in head_rows(rows, "test", single=False):
        weights = zip(row.weights_start or (), row.weights_end or (), strict=True)
        for layer, (start, end) in enumerate(weights, start=1):
            point = points.setdefault(layer, {"layer": layer})
            point |= {f"{row.task}/weight_start": start, f"{row.task}/weight_end": end}

    for one in similar:
        if one.value is not None:
            name = one.measure if one.input is None else f"{one.input}_{one.measure}"
            points.setdefault(one.layer, {"layer": one.layer})[f"similarity/{name}"] = one.value
    return [points[layer] for layer in sorted(points)]


def run_summary(rows: Sequence[Row]) -> Mapping[str, float | str]:
    """The numbers of the runs table: the layer chosen on val, the test oracle, the weighted sum,
    and the linear twin's layer chosen on val.

    Heads without a score or an interval are named under `problems`. Where a task has several
    metrics, the names of all but the first start with the metric.
    """
    summary: dict[str, float | str] = {}
    for number, (metric, scores) in enumerate(by_metric(rows).items()):
        prefix = "" if number == 0 else f"{metric}/"
        for name, value in _metric_summary(scores).items():
            summary[f"{prefix}{name}"] = value
    return summary


def _metric_summary(rows: Sequence[Row]) -> dict[str, float | str]:
    summary: dict[str, float | str] = {}
    best = {
        "best": best_layer(rows, "val"),
        "oracle": best_layer(rows, "test"),
        "linear": best_layer(rows, "val", "linear"),
    }
    for name, row in best.items():
        if row is not None:
            summary[f"{name}/layer"] = row.layer or 0
            summary |= _score_summary(name, row)
    for row in head_rows(rows, "test", single=False):
        summary |= _score_summary(row.head, row)

    on_test = head_rows(rows, "test", single=True)[0]
    for split, n_tracks in on_test.n_tracks.items():
        summary[f"n_{split}"] = n_tracks
    if on_test.constant is not None:
        summary["constant"] = on_test.constant
    missing = problems(rows)
    if missing:
        summary["problems"] = "; ".join(missing)
    return summary


def _score_summary(name: str, row: Row) -> dict[str, float | str]:
    """The score of a row on test, if it has one."""
    return {} if row.value is None else {f"{name}/test": row.value}


def _has_key() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        return netrc.netrc().authenticators("api.wandb.ai") is not None
    except (OSError, UnicodeDecodeError, netrc.NetrcParseError):
        return False
