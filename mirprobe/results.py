"""Result rows: the one format that everything printed is made of.

Conventions: a row is one number: the score of one head of one cell on one split, with its interval,
its n and how it was chosen. A cell's rows are written at once, as JSON lines, when everything else
of the cell is on disk: `rows.jsonl` is the sign that a cell is done. Values are fractions; layers
count as in design: 0 is the input of the first block.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from datamodules.errors import UserError
from datamodules.files import write_text
from datamodules.tracks import Split

FILE = "rows.jsonl"


@dataclass(frozen=True)
class Row:
    """One number and what it takes to read it.

    Attributes:
        model: backbone, such as `fcpe`.
        task: task, such as `nsynth_pitch`.
        metric: name of the metric.
        head: `layer_03` or `weighted`.
        layer: the head's layer; None for the weighted sum.
        split: `val` or `test`.
        seed: of the cell.
        protocol: of the cell.
        value: the score, as a fraction.
        ci_low: lower end of the 95 % interval over tracks.
        ci_high: upper end.
        n_tracks: tracks scored.
        n_expected: tracks that the complete split has; equal to `n_tracks` where unknown (demo).
        majority: share of the split's most frequent class; None for tags and values.
        epoch: the epoch the head kept.
        selected_by: what chose the epoch.
        weights_start: softmax layer weights over layers 1..L before training (weighted heads).
        weights_end: the same at the chosen epoch.
        demo: whether the data is the rendered stand-in.
        config_hash: of the cell.
        store_hash: of the feature store.
        weights: fingerprint of the backbone.
        tracks_hash: of the labelled list: ids, splits, targets and the content of the audio.
        versions: software.
    """

    model: str
    task: str
    metric: str
    head: str
    layer: int | None
    split: Split
    seed: int
    protocol: str
    value: float
    ci_low: float
    ci_high: float
    n_tracks: int
    n_expected: int
    majority: float | None
    epoch: int
    selected_by: str
    weights_start: list[float] | None
    weights_end: list[float] | None
    demo: bool
    config_hash: str
    store_hash: str
    weights: str
    tracks_hash: str
    versions: dict[str, str]


def write_rows(folder: Path, rows: Iterable[Row]) -> None:
    """Writes all rows of a cell, atomically."""
    write_text(folder / FILE, "".join(json.dumps(asdict(row)) + "\n" for row in rows))


def is_done(folder: Path) -> bool:
    """Whether a cell's folder has rows, which are written last."""
    return (folder / FILE).exists()


def read_rows(folder: Path) -> list[Row]:
    """Reads the rows of a cell; none if it is not done.

    Raises:
        UserError: the file is broken or of another version.
    """
    if not is_done(folder):
        return []

    path = folder / FILE
    try:
        rows = [Row(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]
        if not rows:
            raise ValueError("it is empty")
        return rows
    except (ValueError, TypeError) as error:
        raise UserError(
            f"{path} is not a list of result rows ({error}): "
            "delete it and run the same command again"
        ) from error
