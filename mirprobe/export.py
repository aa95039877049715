"""Stored features as files, for people who go on with something else: the verb `export`.

Conventions: a row is what is stored: the mean of a clip, of a part of it (`extract.pooling=1Hz`),
or of a frame of the label grid. Rows of all layers are the same ones, in the order of `rows.csv`:
by track, and by time within it. Values are float16, as they are stored. `rows.csv` is written last.
"""

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datamodules.errors import UserError
from datamodules.features.grid import frame_labels
from datamodules.features.store import FeatureStore, StoredClips
from datamodules.files import atomic, write_text
from datamodules.task import TaskDataModule
from datamodules.tracks import Track
from mirprobe.arrays import check_layer
from mirprobe.cell import Cell
from mirprobe.extraction.extract import name_audio
from mirprobe.probing.probe import open_store
from mirprobe.sweep.plan import make_plan

FOLDER, TABLE = "export", "rows.csv"
COLUMNS = ("track", "split", "group", "label", "clip", "start_s")


def export(
    cells: Sequence[Cell], *, layers: Sequence[int] | None, form: str, say: Callable[[str], None]
) -> None:
    """Writes the features of cells below `paths.runs`, each store and task once.

    Args:
        cells: whose features are stored.
        layers: that are wanted; None for all of them.
        form: `npy` or `parquet`.
        say: takes a line for each folder that was written.

    Raises:
        UserError: features that are missing, a layer that does not exist, or parquet without what
            it takes.
    """
    if form == "parquet":
        _check_parquet()
    stores = {cell.key: open_store(cell) for cell in cells}  # what is missing is said at once
    done = set()
    for job in make_plan(cells).jobs:
        name_audio(job)
        for cell, data in zip(job.cells, job.tasks, strict=True):
            store = stores[cell.key]
            name = f"{cell.task.name}-{store.id.hash}"
            folder = Path(cell.paths.runs) / FOLDER / cell.model_name / name
            if folder not in done:
                done.add(folder)
                say(_export_task(folder, cell, data, store, layers, form))


def _export_task(
    folder: Path,
    cell: Cell,
    data: TaskDataModule,
    store: FeatureStore,
    layers: Sequence[int] | None,
    form: str,
) -> str:
    """Writes the features of one task, and gives the line that says so."""
    tracks = data.tracks()
    clips = store.read(tracks)
    wanted = range(clips.shape[0]) if layers is None else sorted(set(layers))
    for layer in wanted:
        check_layer(layer, clips.shape[0] - 1, cell.model_name)

    rate = cell.row_rate if data.frame_rate is None else data.frame_rate
    rows = list(_rows(data, tracks, clips, rate))
    for layer in wanted:
        _write_layer(folder / f"layer_{layer:02d}.{form}", clips.read_layer(layer), rows)
    write_text(folder / TABLE, _csv_text(rows))
    return f"{folder}: {len(wanted)} layers of {len(rows)} rows x {clips.shape[1]}"


def _rows(
    data: TaskDataModule, tracks: Sequence[Track], clips: StoredClips, rate: float | None
) -> Iterator[tuple[object, ...]]:
    """What each row is of: values of `COLUMNS`.

    Args:
        data: of the task.
        tracks: of the clips.
        clips: that are stored.
        rate: of the rows of a clip, in Hz; None where it has one.
    """
    number = 0  # of the clip in its track
    before = -1
    for position, start_s, n_rows in zip(clips.track, clips.start_s, clips.n_rows, strict=True):
        track = tracks[position]
        number = number + 1 if position == before else 0
        before = position
        labels = label_texts(data, track, float(start_s), int(n_rows))
        for row, label in enumerate(labels):
            time_s = float(start_s) + (0.0 if rate is None else row / rate)
            yield track.track_id, track.split, track.group or "", label, number, round(time_s, 6)


def label_texts(data: TaskDataModule, track: Track, start_s: float, n_rows: int) -> list[str]:
    """The label of each row of a clip, in words: a class, or tags or values between `|`.

    Args:
        data: of the task.
        track: that the clip is of.
        start_s: where the clip starts in it, in s.
        n_rows: of the clip; frames have labels of their own, and none between segments.
    """
    target, names = track.target, data.classes
    if data.kind == "frames":
        assert data.frame_rate is not None
        segments: Any = target
        classes = frame_labels(segments, start_s, n_rows, data.frame_rate)
        return [names[label] if label >= 0 else "" for label in classes]

    if isinstance(target, int):
        label = names[target]
    elif data.kind == "multilabel":
        label = "|".join(name for name, there in zip(names, target, strict=True) if there)
    else:
        label = "|".join(repr(value) for value in target)
    return [label] * n_rows


def _csv_text(rows: Sequence[tuple[object, ...]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(rows)
    return text.getvalue()


def _write_layer(
    path: Path, values: NDArray[np.float16], rows: Sequence[tuple[object, ...]]
) -> None:
    if path.suffix == ".npy":
        with atomic(path) as temporary, temporary.open("wb") as file:
            np.save(file, values)
        return

    import pandas as pd

    # Parquet's readers know no float16, into which these values fit.
    columns = [f"d{dim:04d}" for dim in range(values.shape[1])]
    table = pd.DataFrame(values.astype(np.float32), columns=columns)
    told = pd.DataFrame(rows, columns=list(COLUMNS))
    with atomic(path) as temporary:
        pd.concat([told, table], axis=1).to_parquet(temporary, engine="pyarrow")


def _check_parquet() -> None:
    """Raises UserError unless what writes parquet is installed."""
    missing = []
    for package in ("pandas", "pyarrow"):
        try:
            __import__(package)
        except ImportError:
            missing.append(package)
    if missing:
        raise UserError(
            f"parquet needs {' and '.join(missing)}, which is not installed: pip install "
            f"{' '.join(missing)}, or take --form npy"
        )
