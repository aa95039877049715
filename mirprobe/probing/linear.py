"""The linear twin of the bank: closed-form ridge on every layer.

Conventions: sources are single layers 0..L and, where L > 1, `mean_all`, the plain mean of layers
1..L. A source is standardised as for the bank, then centred; targets are one-hot classes, tags or
values, centred too, so that the intercept is not penalised. A penalty of 1 is the sum of
squares of a feature over train, on average over features: it halves the coefficients of features
that do not correlate. The penalty is chosen on val, of equals the largest. Everything is float64.
S sources, P penalties, B clips or frames of a batch, D features, C outputs.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from datamodules.features.frames import FrameFeatures
from datamodules.features.memory import MemoryFeatures
from datamodules.tracks import Split
from mirprobe.probing.kinds import KINDS
from mirprobe.scoring.metrics import TrackMetric, predictions, score_once

MEAN_ALL = "mean_all"
PENALTIES = tuple(10 ** (step / 2) for step in range(-12, 8))  # 1e-6 to 3e3
_BYTES = 2**30  # of outputs on val for all penalties: as many sources at once as fit


@dataclass(frozen=True)
class Source:
    """What a linear head reads.

    Attributes:
        name: such as `layer_03`, or `mean_all`.
        layer: its layer; None for the mean of layers 1..L.
    """

    name: str
    layer: int | None

    def read(self, states: Tensor) -> Tensor:
        """(L+1, B, D) states -> (B, D)."""
        return states[1:].mean(dim=0) if self.layer is None else states[self.layer]


@dataclass(frozen=True)
class LinearHeads:
    """What the linear heads say, and how they were chosen.

    Attributes:
        sources: S of them.
        outputs: per split (val, test): (S, N, C) float32 mean outputs per track, or for frames
            (S, N, C, C) int64 counts, as of a `TrainedBank`.
        failed: per split: for each head why its outputs must not be scored, or None.
        penalty: (S,) relative penalty of each head.
        weight: (S, D, C) float32, on standardised features.
        bias: (S, C) float32.
    """

    sources: tuple[Source, ...]
    outputs: dict[Split, Tensor]
    failed: dict[Split, list[str | None]]
    penalty: list[float]
    weight: Tensor
    bias: Tensor


class RidgePath:
    """Ridge regressions of one source, for every penalty at once.

    Where second moments are decomposed as V diag(d) V', a penalty only changes d + penalty (Hastie,
    Tibshirani & Friedman 2009, section 3.4.1).

    Args:
        basis: (D, r).
        right: (r, C) what the targets are in that basis.
        values: (r,) eigenvalues d.
        mean: (D,) of the features.
        offset: (C,) mean of the targets.
    """

    def __init__(
        self, basis: Tensor, right: Tensor, values: Tensor, mean: Tensor, offset: Tensor
    ) -> None:
        self.basis, self.right = basis, right
        self.mean, self.offset = mean, offset
        self.values = values.clamp(min=0.0)  # below 0 by rounding

        # Features that are all constant hold nothing: any penalty gives the mean of the targets.
        self.unit = float(self.values.sum()) / len(mean) or 1.0

    def outputs(self, features: Tensor, penalties: Sequence[float]) -> Tensor:
        """(B, D) features -> (P, B, C)."""
        projected = (features - self.mean) @ self.basis
        each = [projected @ self._scaled(penalty) for penalty in penalties]
        return torch.stack(each) + self.offset

    def weight(self, penalty: float) -> Tensor:
        """(D, C) coefficients."""
        return self.basis @ self._scaled(penalty)

    def bias(self, penalty: float) -> Tensor:
        """(C,) intercepts."""
        return self.offset - self.mean @ self.weight(penalty)

    def _scaled(self, penalty: float) -> Tensor:
        return self.right / (self.values + penalty * self.unit)[:, None]


class RidgeSums:
    """What a regression has to know of training data that comes in parts, of one source.

    Rows are kept until there are more of them than features: from then on only their second moments
    are, which are the smaller.

    Args:
        dim: D.
        n_outputs: C.
    """

    def __init__(self, dim: int, n_outputs: int) -> None:
        self.n = 0
        self.sums = torch.zeros(dim, dtype=torch.float64)
        self.target_sums = torch.zeros(n_outputs, dtype=torch.float64)
        self.cross = torch.zeros(dim, n_outputs, dtype=torch.float64)
        self.inner: Tensor | None = None
        self.rows: list[Tensor] = []
        self.targets: list[Tensor] = []

    def add(self, features: Tensor, targets: Tensor) -> None:
        """Takes (B, D) features and (B, C) targets, float64."""
        self.n += len(features)
        self.sums += features.sum(dim=0)
        self.target_sums += targets.sum(dim=0)

        self.rows.append(features)
        self.targets.append(targets)
        if sum(len(rows) for rows in self.rows) > len(self.sums):
            self._fold()

    def _fold(self) -> None:
        rows, targets = torch.cat(self.rows), torch.cat(self.targets)
        inner = rows.T @ rows
        self.inner = inner if self.inner is None else self.inner + inner
        self.cross += rows.T @ targets
        self.rows, self.targets = [], []

    def solve(self) -> RidgePath:
        """Decomposes what was seen, once for all penalties."""
        mean, offset = self.sums / self.n, self.target_sums / self.n
        if self.inner is None:
            rows, targets = torch.cat(self.rows) - mean, torch.cat(self.targets) - offset
            values, vectors = torch.linalg.eigh(rows @ rows.T)
            return RidgePath(rows.T @ vectors, vectors.T @ targets, values, mean, offset)

        if self.rows:
            self._fold()
        inner = self.inner - self.n * torch.outer(mean, mean)
        cross = self.cross - self.n * torch.outer(mean, offset)
        values, vectors = torch.linalg.eigh(inner)
        return RidgePath(vectors, vectors.T @ cross, values, mean, offset)


@dataclass(frozen=True)
class _Chosen:
    """A fitted head with its penalty.

    Attributes:
        penalty: the best on val.
        failed: why its outputs on val must not be scored, or None.
        val: (N, ...) its outputs on val, as in `LinearHeads`.
        weight: (D, C).
        bias: (C,).
    """

    penalty: float
    failed: str | None
    val: Tensor
    weight: Tensor
    bias: Tensor


def all_sources(n_layers: int) -> tuple[Source, ...]:
    """Layers 0..L, and where L > 1 the mean over 1..L.

    >>> [source.name for source in all_sources(2)]
    ['layer_00', 'layer_01', 'layer_02', 'mean_all']
    """
    single = [Source(f"layer_{layer:02d}", layer) for layer in range(n_layers + 1)]
    return (*single, Source(MEAN_ALL, None)) if n_layers > 1 else tuple(single)


def fit_linear(
    features: MemoryFeatures | FrameFeatures,
    metric: TrackMetric,
    n_outputs: int,
    standardize: Callable[[Tensor], Tensor],
) -> LinearHeads:
    """Fits a ridge regression on every source, its penalty chosen on val.

    Args:
        features: of a task.
        metric: that chooses penalties.
        n_outputs: C.
        standardize: (L+1, B, D) features -> float64 states as the bank reads them.
    """
    sources = all_sources(features.shape[0] - 1)
    is_kept = KINDS[metric.kind].by_frames  # counts of frames are small
    n_values = len(features.splits["val"].track_ids) * n_outputs * len(PENALTIES)
    at_once = len(sources) if is_kept else max(1, _BYTES // (8 * n_values))

    chosen: list[_Chosen] = []
    for start in range(0, len(sources), at_once):
        block = sources[start : start + at_once]
        paths = _fit_paths(features, block, n_outputs, standardize)
        chosen += _choose(features, block, paths, metric, standardize)

    weight = torch.stack([one.weight for one in chosen])
    bias = torch.stack([one.bias for one in chosen])
    test, is_finite = _outputs_on_test(features, sources, weight, bias, metric, standardize)
    failed_on_test = [
        one.failed or (None if finite else "outputs on test are not finite")
        for one, finite in zip(chosen, is_finite, strict=True)
    ]
    return LinearHeads(
        sources,
        outputs={"val": torch.stack([one.val for one in chosen]), "test": test},
        failed={"val": [one.failed for one in chosen], "test": failed_on_test},
        penalty=[one.penalty for one in chosen],
        weight=weight.float(),
        bias=bias.float(),
    )


def _fit_paths(
    features: MemoryFeatures | FrameFeatures,
    sources: Sequence[Source],
    n_outputs: int,
    standardize: Callable[[Tensor], Tensor],
) -> list[RidgePath]:
    """The regressions of some sources, from one pass over train."""
    sums = [RidgeSums(features.shape[1], n_outputs) for _ in sources]
    for batch in features.batches("train"):
        states = standardize(batch["features"])
        targets = as_columns(batch["target"], n_outputs)
        for source, of_source in zip(sources, sums, strict=True):
            of_source.add(source.read(states), targets)
    return [of_source.solve() for of_source in sums]


def as_columns(target: Tensor, n_outputs: int) -> Tensor:
    """(B,) classes -> (B, C) one-hot float64; (B, C) tags and values as they are.

    >>> as_columns(torch.tensor([2, 0]), 3).tolist()
    [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]
    """
    if target.dim() == 1:
        target = torch.nn.functional.one_hot(target, n_outputs)
    return target.double()


def _choose(
    features: MemoryFeatures | FrameFeatures,
    sources: Sequence[Source],
    paths: Sequence[RidgePath],
    metric: TrackMetric,
    standardize: Callable[[Tensor], Tensor],
) -> list[_Chosen]:
    """The penalty of each source that scores best on val."""
    target = features.splits["val"].track_target
    n_outputs = len(paths[0].offset)
    collect = KINDS[metric.kind].collect
    collectors = [collect(len(PENALTIES), len(target), n_outputs, False) for _ in sources]

    for batch in features.batches("val"):
        states = standardize(batch["features"])
        for source, path, collector in zip(sources, paths, collectors, strict=True):
            outputs = path.outputs(source.read(states), PENALTIES)
            collector.update(outputs, batch["track"], batch["target"])

    chosen = []
    for path, collector in zip(paths, collectors, strict=True):
        outputs = collector.compute()
        scores = score_once(metric, predictions(metric.kind, outputs), target)
        best, failed = _best_penalty(scores, outputs)
        penalty = PENALTIES[best]
        weight, bias = path.weight(penalty), path.bias(penalty)
        chosen.append(_Chosen(penalty, failed, outputs[best], weight, bias))
    return chosen


def _best_penalty(scores: Tensor, outputs: Tensor) -> tuple[int, str | None]:
    """Position of the best of (P,) scores, of equals the last; why there is none, or None."""
    is_finite = torch.isfinite(outputs).flatten(start_dim=1).all(dim=1)
    if not is_finite.any():
        return len(scores) - 1, "outputs on val are not finite for any penalty"

    scores = torch.where(is_finite & torch.isfinite(scores), scores, -torch.inf)
    if not torch.isfinite(scores).any():
        return len(scores) - 1, "val score is not a number for any penalty"
    return int((scores == scores.max()).nonzero()[-1]), None


def _outputs_on_test(
    features: MemoryFeatures | FrameFeatures,
    sources: Sequence[Source],
    weight: Tensor,
    bias: Tensor,
    metric: TrackMetric,
    standardize: Callable[[Tensor], Tensor],
) -> tuple[Tensor, list[bool]]:
    """(S, N, ...) outputs of the chosen heads on test, and whether those of each are all finite."""
    n_tracks = len(features.splits["test"].track_ids)
    collector = KINDS[metric.kind].collect(len(sources), n_tracks, weight.shape[2], False)
    is_finite = torch.ones(len(sources), dtype=torch.bool)
    for batch in features.batches("test"):
        states = standardize(batch["features"])
        inputs = torch.stack([source.read(states) for source in sources])
        outputs = torch.baddbmm(bias[:, None], inputs, weight)
        is_finite &= torch.isfinite(outputs).flatten(start_dim=1).all(dim=1)
        collector.update(outputs, batch["track"], batch["target"])
    return collector.compute(), is_finite.tolist()
