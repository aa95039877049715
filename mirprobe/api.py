"""Four functions for Python: `load`, `features`, `probe` and `read_rows`.

Conventions: what they do is what the command line does with `task=manifest`. Files and labels are
written to a table under `paths.runs`, named by its content, and the same functions as behind the
verbs extract and probe. So cache, identities and rows are the same: what was made by either is
found by the other. `settings` are those of the command line, such as `paths.features=DIR` or
`data.exclude=[manifest:b.wav]`. What a user can put right is raised as `UserError`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
import torch
from numpy.typing import NDArray

from datamodules.audio.decode import AudioError, convert_audio
from datamodules.datasets.unlabelled import Unlabelled
from datamodules.errors import UserError
from datamodules.features.store import store_id_text
from datamodules.files import write_text
from datamodules.tracks import Track
from mirprobe.arrays import Features
from mirprobe.assembly import extracting_backbone, place
from mirprobe.backbones.backbone import Backbone
from mirprobe.cell import SETTINGS, STORE, Cell, write_cell
from mirprobe.extraction.extract import name_audio
from mirprobe.extraction.module import is_out_of_memory
from mirprobe.own_tables import (
    PathLike,
    as_written,
    below_one_folder,
    file_names,
    folder_of,
    for_each,
    kind_of,
    write_table,
)
from mirprobe.probing.probe import open_store
from mirprobe.provenance import Stamps, current_result
from mirprobe.reporting.curve import Curve
from mirprobe.results import Row, read_rows_below, rows_table
from mirprobe.results import read_rows as read_rows_of
from mirprobe.settings import compose_cell
from mirprobe.sweep.plan import make_plan
from mirprobe.sweep.run import extract_cells, probe_cells
from mirprobe.sweep.status import pending

Samples = NDArray[Any] | torch.Tensor
_SELECT_BY = {"classification": "accuracy", "multilabel": "roc_auc", "regression": "r2"}


@dataclass(frozen=True)
class LoadedBackbone:
    """A frozen backbone that is called with audio.

    Attributes:
        name: such as `fcpe`, or `fcpe-random`.
        network: the module itself: (B, S) float32 -> (B, L+1, T, D).
    """

    name: str
    network: Backbone = field(repr=False)

    @property
    def sample_rate(self) -> int:
        """Rate of the audio that the network hears, in Hz; other audio is resampled to it."""
        return self.network.sample_rate

    @property
    def hop(self) -> float:
        """Seconds between two frames."""
        return self.network.hop

    @property
    def n_layers(self) -> int:
        """L, the number of blocks."""
        return self.network.n_layers

    @property
    def dim(self) -> int:
        """D, the width of every layer."""
        return self.network.dim

    def __call__(self, samples: Samples, rate: int) -> NDArray[np.float32]:
        """States of all layers of one piece of audio, in one forward pass.

        Audio becomes what it becomes when a file is read: channels are averaged, whole numbers are
        scaled, other rates are resampled by soxr.

        Args:
            samples: array or tensor, (S,), (S, channels) or (channels, S); floats in [-1, 1], or
                int16, int32 or uint8.
            rate: theirs, in Hz.

        Returns:
            (L+1, T, D) float32; layer 0 is the input of the first block.

        Raises:
            UserError: the samples are no audio, too short, or more than the memory holds.
        """
        try:
            audio = convert_audio(_as_array(samples), rate, self.sample_rate)
        except AudioError as error:
            raise UserError(f"the audio {error}") from error

        clip = torch.from_numpy(audio)[None].to(self.network.device)
        try:
            states: NDArray[np.float32] = self.network(clip)[0].cpu().numpy()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise UserError(
                f"out of memory on {len(audio) / self.sample_rate:.0f} s of audio: give less at a "
                "time"
            ) from error
        return states


def load(model: str, *, settings: Sequence[str] = ()) -> LoadedBackbone:
    """A frozen backbone, on the GPU if there is one, in the precision of extraction.

    Args:
        model: its name; `mirprobe list` says which there are.
        settings: such as `model.weights=random` or `launcher.accelerator=cpu`.

    Raises:
        UserError: an unknown name or setting, or weights that are missing.
    """
    cell = compose_cell([f"model={model}", *settings])
    return LoadedBackbone(cell.model_name, place(extracting_backbone(cell), cell))


def features(
    model: str,
    files: Iterable[PathLike],
    *,
    pooling: str = "clip",
    settings: Sequence[str] = (),
) -> Features:
    """Features of some files, from the store, or extracted into it where they are not there.

    Args:
        model: the backbone's name.
        files: list, generator or anything else that gives paths, in the order of the result.
        pooling: `clip` keeps the mean of each clip, `1Hz` (any rate) a row for each second of it.
        settings: such as `task.clip.seconds=10` or `extract.precision=bf16`.

    Raises:
        UserError: no files, some that are named twice, are missing or cannot be used (all of them
            are named, the others are stored), or wrong settings.
    """
    names = file_names(files)
    root, paths = below_one_folder(names)
    given = (f"model={model}", f"extract.pooling={pooling}", *settings)
    cell = compose_cell([*given, "task=manifest"])
    table = write_table(Path(cell.paths.runs), [{"path": path} for path in paths])
    target = f"{Unlabelled.__module__}.{Unlabelled.__qualname__}"
    task = replace(cell.task, _target_=target, options={"file": str(table)})
    cell = replace(cell, task=task, data=replace(cell.data, root=str(root)))

    extract_cells([cell])
    tracks = _identified(cell)
    kept = [(name, tracks[path]) for name, path in zip(names, paths, strict=True) if path in tracks]
    ids, found = zip(*kept, strict=True)
    return Features(ids, found, open_store(cell), given)


def probe(
    features: Features,
    labels: Sequence[Any] | Mapping[Any, Any],
    groups: Sequence[Any] | Mapping[Any, Any] | None = None,
    splits: Sequence[str] | Mapping[Any, str] | None = None,
    protocol: str = "mlp512",
    *,
    settings: Sequence[str] = (),
) -> Curve:
    """Probes of every layer, as the command line trains and chooses them.

    Args:
        features: of N files.
        labels: one for each of `features.ids`, in their order, or a dict from file to label. Text
            and whole numbers are classes, other numbers are regression, a list of texts are tags,
            a list of numbers are dimensions of regression.
        groups: such as artists: no group is in two splits, and clusters of intervals.
        splits: `train`, `val` or `test`; None draws 3:1:1.
        protocol: how probes are trained and chosen.
        settings: such as `seed=1`, `protocol.lr=1e-4` or `task.select_by=average_precision`.

    Raises:
        UserError: a file without a label, labels that do not go together or do not differ, or
            wrong settings.
    """
    columns = {"label": as_written(for_each(labels, features.ids, "labels"))}
    if groups is not None:
        columns["group"] = [str(group) for group in for_each(groups, features.ids, "groups")]
    if splits is not None:
        columns["split"] = for_each(splits, features.ids, "splits")
    rows: list[dict[str, Any]] = [{"path": track.track_id} for track in features.tracks]
    for name, values in columns.items():
        for row, value in zip(rows, values, strict=True):
            row[name] = value

    select_by = f"task.select_by={_SELECT_BY[kind_of(columns['label'])]}"
    given = (*features.settings, f"protocol={protocol}", "task=manifest", select_by, *settings)
    cell = compose_cell(given)
    options = {**cell.task.options, "file": str(write_table(Path(cell.paths.runs), rows))}

    # What was left out has no features here, and is not in this table.
    data = replace(cell.data, root=str(folder_of(features.tracks[0])), exclude=[])
    cell = replace(cell, task=replace(cell.task, options=options), data=data)

    # As extraction leaves a cell whose features are all there.
    write_text(cell.folder / SETTINGS, write_cell(cell))
    write_text(cell.folder / STORE, store_id_text(features.store.id))
    if pending([cell]):
        probe_cells([cell])
    result = current_result(cell, Stamps())
    assert result is not None, f"no rows in {cell.folder}"
    return Curve(tuple(read_rows_of(result.folder, cell.hash, cell.metrics)))


@overload
def read_rows(folder: PathLike = ..., *, table: Literal[False] = ...) -> list[Row]: ...
@overload
def read_rows(folder: PathLike = ..., *, table: Literal[True]) -> Any: ...
def read_rows(folder: PathLike = "runs", *, table: bool = False) -> Any:
    """All result rows below a folder, by whatever they were made.

    Results of earlier labels, audio or weights are among them, and told apart by `config_hash`,
    `tracks_hash` and `weights`.

    Args:
        folder: `paths.runs`, or that of one model, task, cell or result.
        table: whether to give a pandas DataFrame with a column for each field, instead of a list.

    Raises:
        UserError: there is no such folder, rows are broken, or pandas is not installed.
    """
    rows = read_rows_below(Path(folder))
    return rows_table(rows) if table else rows


def _as_array(samples: Samples) -> NDArray[Any]:
    """Samples as numpy knows them, wherever a tensor is."""
    if not isinstance(samples, torch.Tensor):
        return np.asarray(samples)
    there = samples.detach().cpu()
    array: NDArray[Any] = (there.float() if there.is_floating_point() else there).numpy()
    return array


def _identified(cell: Cell) -> dict[str, Track]:
    """The tracks of a cell whose features are stored, by id, with the content of their audio."""
    (job,) = make_plan([cell]).jobs
    name_audio(job)
    return {track.track_id: track for track in job.tracks()}
