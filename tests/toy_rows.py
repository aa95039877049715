"""Result rows made by hand, for tests of everything that is made of rows."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from datamodules.files import write_text
from mirprobe.cell import Cell
from mirprobe.provenance import (
    Inputs,
    MadeOf,
    Result,
    Stamps,
    note_result,
    note_stamp,
    result_of,
)
from mirprobe.results import SCANS, Probe, Row, write_rows
from mirprobe.scoring.intervals import Array
from mirprobe.scoring.scan import Scan, scans_text
from mirprobe.scoring.significance import Difference

ROW = Row(
    model="fcpe",
    task="nsynth_pitch",
    metric="accuracy",
    probe="mlp",
    head="layer_00",
    layer=0,
    split="test",
    seed=0,
    protocol="mlp512",
    value=0.5,
    failed=None,
    ci_low=0.4,
    ci_high=0.6,
    interval="wilson",
    no_interval=None,
    n_left_out=0,
    n_tracks={"train": 48, "val": 24, "test": 24},
    n_expected={"train": 48, "val": 24, "test": 24},
    constant=0.125,
    epoch=3,
    chosen={},
    selected_by="val/accuracy",
    weights_start=None,
    weights_end=None,
    demo=False,
    config_hash="0123456789ab",
    store_hash="ba9876543210",
    precision="float32",
    weights="0123456789abcdef",
    tracks_hash="fedcba9876543210",
    versions={"torch": "2.11.0"},
)
MADE_OF = MadeOf(ROW.weights, ROW.tracks_hash, ROW.store_hash)
INPUTS = Inputs((), ())  # no file: such a result is always current
WEIGHTED = replace(
    ROW, head="weighted", layer=None, weights_start=[1 / 3] * 3, weights_end=[0.1, 0.2, 0.7]
)


def scored(row: Row, value: float, *, width: float = 0.1) -> Row:
    """The row with another score, whose interval is so wide to each side."""
    return replace(row, value=value, ci_low=value - width, ci_high=value + width)


def failed(row: Row, reason: str = "val score is not a number in any epoch") -> Row:
    """The row of a head that never had a score."""
    nothing = {"value": None, "ci_low": None, "ci_high": None, "n_left_out": 0, "epoch": 0}
    nothing["interval"] = None
    untrained = {"weights_start": None, "weights_end": None}
    return replace(row, failed=reason, **nothing, **untrained)  # type: ignore[arg-type]


def layer_rows(split: str, *values: float, like: Row = ROW) -> list[Row]:
    """A row for each layer, whose interval is 10 points wide to each side."""
    rows = []
    for layer, value in enumerate(values):
        where = replace(like, head=f"layer_{layer:02d}", layer=layer, split=split, epoch=layer + 1)
        rows.append(scored(where, value))
    return rows


def make_rows(
    cell: Cell,
    val: Sequence[float],
    test: Sequence[float],
    *,
    weighted: float | None = None,
    weights: Sequence[float] | None = None,
    **changes: object,
) -> list[Row]:
    """Rows of a cell: its layers, and a weighted sum if `weighted`, its score, is given.

    Args:
        cell: that they are of.
        val: score of every layer on val.
        test: score of every layer on test.
        weighted: score of the weighted sum, whose interval is 5 points wide to each side.
        weights: of layers 1..L at the end of training; without, the last has the largest.
        **changes: fields of `Row` that are the same in all rows.
    """
    names = {"model": cell.model_name, "task": cell.task.name, "metric": cell.metrics[0]}
    source = {"seed": cell.seed, "protocol": cell.protocol.name, "config_hash": cell.hash}
    like = replace(ROW, **{**names, **source, "demo": cell.is_demo, **changes})  # type: ignore[arg-type]

    rows = [*layer_rows("val", *val, like=like), *layer_rows("test", *test, like=like)]
    if weighted is not None:
        n_layers = len(test) - 1
        end = list(weights or range(1, n_layers + 1))
        total = scored(replace(like, head="weighted", layer=None), weighted, width=0.05)
        total = replace(total, weights_start=[1 / n_layers] * n_layers)
        total = replace(total, weights_end=[weight / sum(end) for weight in end])
        rows += [replace(total, split="val"), total]
    return rows


def make_scan(probe: Probe, *, optimism: float = 0.02, right: str | None = None) -> Scan:
    """What three layers say together, of which the first two may be the best.

    Args:
        probe: of the layers.
        optimism: of the best on test.
        right: tracks on which the chosen one is right, as text of 0 and 1.
    """
    difference = Difference(0.123, 0.08, 0.161, 0.001, 0.002, "mcnemar")
    return Scan(
        probe,
        "accuracy",
        n_clusters=24,
        chosen="layer_00",
        oracle="layer_01",
        chosen_resamples=[0.5, 0.6],
        chosen_right=right,
        optimism=optimism,
        best_set=["layer_00", "layer_01"],
        chance_of_best={"layer_00": 0.6, "layer_01": 0.4, "layer_02": 0.0},
        last_layer=difference,
        others={"layer_01": difference},
        detectable_paired=0.05,
        detectable_unpaired=0.112,
    )


def save_study(cells: Sequence[Cell], n_layers: Mapping[str, int]) -> None:
    """Results of every cell as a study has them: both probes, a weighted sum, scans.

    Scores rise to a layer of each task's own and fall after it; the baseline has one layer.

    Args:
        cells: of any models and tasks.
        n_layers: layers of each model, the input of the first block included.
    """
    tasks = list(dict.fromkeys(cell.task.name for cell in cells))
    for cell in cells:
        layers = np.arange(1 if cell.is_baseline else n_layers[cell.model_name])
        peak = (1 + tasks.index(cell.task.name)) / (1 + len(tasks)) * layers[-1]
        made_of = result_of(cell, MADE_OF)
        rows: list[Row] = []
        scans = []
        for place, metric in enumerate(cell.metrics):
            scores = 0.9 - 0.03 * place - 0.4 * ((layers - peak) / max(1, layers[-1])) ** 2
            weighted = None if cell.is_baseline else float(scores.max()) - 0.01
            test = (scores - 0.02).tolist()
            found = make_rows(cell, scores.tolist(), test, weighted=weighted, metric=metric)
            like = replace(found[0], probe="linear")
            rows += found
            for split in ("val", "test"):
                rows += layer_rows(split, *(scores - 0.1).tolist(), like=like)
            scans += [_study_scan(probe, metric, scores) for probe in ("mlp", "linear")]

        write_rows(made_of.folder, rows)
        note_result(cell, made_of, "t0\ttrain\t0\tsound\n")
        note_stamp(cell, made_of, INPUTS, Stamps().take(INPUTS))
        write_text(made_of.folder / SCANS, scans_text(scans))


def _study_scan(probe: str, metric: str, scores: Array) -> Scan:
    """Of layers whose chances fall with the distance from the best."""
    names = [f"layer_{layer:02d}" for layer in range(len(scores))]
    chances = np.exp(-200 * (scores.max() - scores))
    chances /= chances.sum()
    best = names[int(scores.argmax())]
    lost = float(scores.max() - scores[-1])
    last = Difference(lost, lost - 0.03, lost + 0.04, 0.01, 0.02, "bootstrap")
    return replace(
        make_scan("linear" if probe == "linear" else "mlp"),
        metric=metric,
        chosen=best,
        oracle=best,
        best_set=[name for name, chance in zip(names, chances, strict=True) if chance > 0.05],
        chance_of_best=dict(zip(names, chances.tolist(), strict=True)),
        last_layer=last,
        others={},
    )


def save_rows(
    cell: Cell,
    val: Sequence[float],
    test: Sequence[float],
    *,
    weighted: float | None = None,
    current: bool = True,
    made_of: MadeOf = MADE_OF,
    **changes: object,
) -> Result:
    """Writes `make_rows` as a result of the cell, so that it is done.

    Args:
        cell: that the rows are of.
        val: score of every layer on val.
        test: score of every layer on test.
        weighted: as in `make_rows`.
        current: whether the files that it was made of are still the same.
        made_of: what it was made of; two results of one cell differ in it.
        **changes: as in `make_rows`.
    """
    result = result_of(cell, made_of)
    write_rows(result.folder, make_rows(cell, val, test, weighted=weighted, **changes))
    note_result(cell, result, "t0\ttrain\t0\tsound\n")
    note_stamp(cell, result, INPUTS, Stamps().take(INPUTS) if current else "other files")
    return result
