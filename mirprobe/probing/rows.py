"""What heads say of val and test, made into scores and rows.

Conventions: heads of the bank and linear heads are alike from here on. A head without a score is a
row that says why. H heads, N tracks, R resamples.
"""

import importlib.metadata
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from datamodules.task import TaskDataModule
from datamodules.tracks import SPLITS, Split, cluster_scored
from mirprobe.cell import Cell
from mirprobe.probing.bank import ProbeBank
from mirprobe.probing.controls import best_constant
from mirprobe.probing.kinds import KINDS
from mirprobe.probing.linear import LinearHeads
from mirprobe.probing.training import TrainedBank
from mirprobe.provenance import MadeOf
from mirprobe.results import Probe, Row
from mirprobe.scoring.intervals import (
    Array,
    Clusters,
    Interval,
    interval_of,
    n_telling,
    resample,
)
from mirprobe.scoring.metrics import metric_named, predictions, score_of_counts, score_once
from mirprobe.scoring.scan import Scan, ScannedHeads, scan_heads

_PACKAGES = ("mirprobe", "torch", "lightning", "torchmetrics", "numpy", "scipy")


@dataclass(frozen=True)
class ProbedHead:
    """How one head came about.

    Attributes:
        name: such as `layer_03`.
        layer: that it reads; None for several.
        epoch: that it kept; None where there are none.
        chosen: what else was chosen on val, by name.
        weights_start: softmax layer weights before training, of a weighted sum.
        weights_end: the same at the kept epoch.
    """

    name: str
    layer: int | None
    epoch: int | None = None
    chosen: dict[str, float] = field(default_factory=dict)
    weights_start: list[float] | None = None
    weights_end: list[float] | None = None


@dataclass(frozen=True)
class ProbedHeads:
    """All heads of one kind of probe, and what they say.

    Attributes:
        probe: the kind.
        heads: H of them.
        outputs: per split (val, test): (H, N, ...), see `TrainedBank`.
        failed: per split: for each head why its outputs must not be scored, or None.
    """

    probe: Probe
    heads: tuple[ProbedHead, ...]
    outputs: Mapping[Split, Tensor]
    failed: Mapping[Split, Sequence[str | None]]


def heads_of_bank(bank: ProbeBank, trained: TrainedBank) -> ProbedHeads:
    """The heads of a trained bank."""
    heads = []
    for h, head in enumerate(bank.heads):
        epoch = int(trained.epoch[h])
        start: list[float] | None = None
        end: list[float] | None = None
        if h in bank.weighted and epoch > 0:  # of a head that was never trained nothing is said
            row = bank.weighted.index(h)
            start, end = trained.weights_start[row].tolist(), trained.weights_end[row].tolist()
        heads.append(ProbedHead(head.name, head.layer, epoch, {}, start, end))
    return ProbedHeads("mlp", tuple(heads), trained.outputs, trained.failed)


def heads_of_linear(found: LinearHeads) -> ProbedHeads:
    """The linear heads."""
    heads = [
        ProbedHead(source.name, source.layer, chosen={"penalty": penalty})
        for source, penalty in zip(found.sources, found.penalty, strict=True)
    ]
    return ProbedHeads("linear", tuple(heads), found.outputs, found.failed)


@dataclass(frozen=True)
class HeadScores:
    """Scores of heads on a split by one metric.

    Attributes:
        metric: its name.
        split: `val` or `test`.
        values: (H,) NaN for a head that has none.
        failed: for each head why it has no score, or None.
        intervals: of each head.
        resamples: (H, R) scores on resamples of the tracks, see `intervals.resample`.
        right: (H, N) which tracks are right, for a share of independent tracks; else None.
        clusters: of the tracks.
        constant: score of the best constant answer; None where it has none.
    """

    metric: str
    split: Split
    values: Array
    failed: list[str | None]
    intervals: list[Interval]
    resamples: Array
    right: NDArray[np.bool_] | None
    clusters: Clusters
    constant: float | None


def score_heads(heads: ProbedHeads, data: TaskDataModule, name: str, split: Split) -> HeadScores:
    """Scores heads on a split by the metric of that name."""
    metric = metric_named(name)
    target = data.features.splits[split].track_target
    clusters = cluster_split(data, split)

    predicted = predictions(metric.kind, heads.outputs[split])
    values = score_once(metric, predicted, target).double().numpy()
    resamples = resample(score_of_counts(metric, predicted, target), clusters)
    telling = n_telling(target.numpy()) if metric.kind == "multilabel" else len(target)

    failed: list[str | None] = []
    intervals: list[Interval] = []
    for h, value in enumerate(values.tolist()):
        undefined = None if math.isfinite(value) else f"{name} is not defined on {split}"
        reason = heads.failed[split][h] or undefined
        failed.append(reason)

        if reason is None:
            found = interval_of(value, resamples[h], clusters, metric.scale, n_telling=telling)
        else:
            values[h] = math.nan
            found = Interval(None, None, None)
        intervals.append(found)

    is_share = metric.scale == "share" and clusters.are_tracks
    right = (predicted == target).numpy() if is_share else None
    answers = KINDS[data.kind].constants(target, len(data.classes))
    constant = best_constant(metric, answers, target)
    return HeadScores(name, split, values, failed, intervals, resamples, right, clusters, constant)


def cluster_split(data: TaskDataModule, split: Split) -> Clusters:
    """Which of the scored tracks of a split belong together."""
    cluster_of = cluster_scored(track for track in data.tracks() if track.split == split)
    scored = data.features.splits[split].track_ids
    return Clusters(np.array([cluster_of[name] for name in scored]))


def make_rows(
    cell: Cell,
    made_of: MadeOf,
    precision: str,
    data: TaskDataModule,
    heads: ProbedHeads,
    scores: HeadScores,
) -> list[Row]:
    """One row for each head; `precision` is that of the features."""
    n_tracks = {each: len(data.features.splits[each].track_ids) for each in SPLITS}
    known = {} if data.is_demo else data.expected
    n_expected = {each: known.get(each, n_tracks[each]) for each in SPLITS}
    versions = {package: importlib.metadata.version(package) for package in _PACKAGES}

    rows = []
    for h, head in enumerate(heads.heads):
        interval = scores.intervals[h]
        row = Row(
            model=cell.model_name,
            task=cell.task.name,
            metric=scores.metric,
            probe=heads.probe,
            head=head.name,
            layer=head.layer,
            split=scores.split,
            seed=cell.seed,
            protocol=cell.protocol.name,
            value=None if scores.failed[h] else float(scores.values[h]),
            failed=scores.failed[h],
            ci_low=interval.low,
            ci_high=interval.high,
            interval=interval.rule,
            no_interval=interval.problem,
            n_left_out=interval.n_left_out,
            n_tracks=n_tracks,
            n_expected=n_expected,
            constant=scores.constant,
            epoch=head.epoch,
            chosen=head.chosen,
            selected_by=f"val/{cell.task.select_by}",
            weights_start=head.weights_start,
            weights_end=head.weights_end,
            demo=data.is_demo,
            config_hash=cell.hash,
            store_hash=made_of.store,
            precision=precision,
            weights=made_of.weights,
            tracks_hash=made_of.tracks,
            versions=versions,
        )
        rows.append(row)
    return rows


def make_scan(heads: ProbedHeads, val: HeadScores, test: HeadScores) -> Scan:
    """What the heads say together: the layer chosen on val, beside the others on test.

    Args:
        heads: of one probe.
        val: their scores on val.
        test: their scores on test, by the same metric.
    """
    layers = [h for h, head in enumerate(heads.heads) if head.layer is not None]
    scored = [h for h in layers if math.isfinite(val.values[h])]
    chosen = max(scored, key=lambda h: val.values[h], default=None)

    scanned = ScannedHeads(
        names=[head.name for head in heads.heads],
        layers=[head.layer for head in heads.heads],
        values=test.values,
        resamples=test.resamples,
        right=test.right,
        clusters=test.clusters,
    )
    return scan_heads(heads.probe, test.metric, scanned, chosen)
