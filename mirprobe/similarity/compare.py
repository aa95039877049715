"""Moments into rows: every layer held against the inputs, and looked at alone.

Conventions: layers are taken one after the other, so that the matrices of one layer are in memory
beside those of the inputs. X is the input and Y the layer.
"""

import importlib.metadata
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from datamodules.errors import UserError
from mirprobe.cell import Cell
from mirprobe.progress import console
from mirprobe.sections import SimilarityConfig
from mirprobe.similarity import cca, measures
from mirprobe.similarity.collecting import input_view, layer_view, read_all
from mirprobe.similarity.held_out import FoldView, fold_view, held_out
from mirprobe.similarity.moments import Moments, Pair, merged
from mirprobe.similarity.rows import (
    KIND,
    LAYER_MEASURES,
    SimilarityRow,
    Source,
    sources_of,
    write_similarity,
)
from mirprobe.similarity.two_views import TwoViews, about_means, mean_of, unrelated, within_tracks

_PACKAGES = ("mirprobe", "torch", "numpy")
_ENOUGH = 20  # frames for each direction of both views, from which chance is small
_CONSTANT = "all frames are the same"
_SIDES: Mapping[str, cca.Side] = {"input": "x", "layer": "y", "mean": "mean"}


@dataclass(frozen=True)
class View:
    """One view, factorised once for all that it is held against.

    Attributes:
        name: of the view.
        mean: (D,) over all frames.
        scatter: (D, D) about it.
        whole: whitened.
        folds: of each fold that has frames.
        within: whitened about the means of the tracks.
        shares: (D,) of the variance, along the principal components.
        leading: (D, r) components that hold 99 % of it.
    """

    name: str
    mean: Tensor
    scatter: Tensor
    whole: cca.Whitened
    folds: Sequence[FoldView]
    within: cca.Whitened
    shares: Tensor
    leading: Tensor


@dataclass(frozen=True)
class Found:
    """A number, or why there is none, and what belongs to it."""

    measure: str
    layer: int
    input: str | None = None
    value: float | None = None
    failed: str | None = None
    n_effective: float | None = None
    ranks: tuple[int | None, int | None] = (None, None)
    warning: str | None = None


def compare(cells: Sequence[Cell]) -> None:
    """Computes the rows of each model whose frames were counted, unless they are there.

    Raises:
        UserError: moments are missing or cannot be read.
    """
    for source in sources_of(cells):
        if source.path.is_file():
            continue
        start_s = time.monotonic()
        cell = source.cells[0]
        moments = merged(read_all(folder) for folder in source.folders)
        rows = make_rows(source, moments)
        write_similarity(source.path, rows)

        n_tracks = len({clip.track for clip in moments.clips.values()})
        text = (
            f"{cell.model_name}: similarity of layers on {moments.n_frames} frames of {n_tracks} "
            f"tracks ({time.monotonic() - start_s:.0f} s)"
        )
        console().print(text, soft_wrap=True, markup=False)


def make_rows(source: Source, moments: Moments) -> list[SimilarityRow]:
    """All rows of a model."""
    cell = source.cells[0]
    n_layers = sum(view.startswith("h") and view[1:].isdigit() for view in moments.layout.dims)
    found = compare_layers(moments, n_layers, cell.similarity)
    as_row = partial(
        SimilarityRow,
        kind=KIND,
        model=cell.model_name,
        datasets="+".join(note.dataset for note in source.notes),
        n_tracks=len({clip.track for clip in moments.clips.values()}),
        n_frames=moments.n_frames,
        weights_of=cell.similarity.weights,
        demo=any(one.is_demo for one in source.cells),
        weights=source.notes[0].weights,
        made_of=source.hash,
        versions={name: importlib.metadata.version(name) for name in _PACKAGES},
    )
    return [
        as_row(
            measure=one.measure,
            input=one.input,
            layer=one.layer,
            value=one.value,
            failed=one.failed,
            n_effective=one.n_effective,
            rank_input=one.ranks[0],
            rank_layer=one.ranks[1],
            warning=one.warning,
        )
        for one in found
    ]


def compare_layers(moments: Moments, n_layers: int, settings: SimilarityConfig) -> list[Found]:
    """Every measure of every layer.

    Args:
        moments: of the inputs and the layers.
        n_layers: L + 1.
        settings: inputs, and the view that weighs.
    """
    folds = sorted({clip.fold for clip in moments.clips.values()})
    inputs = {name: make_view(moments, input_view(name), folds) for name in settings.inputs}

    found: list[Found] = []
    for layer in range(n_layers):
        view = make_view(moments, layer_view(layer), folds)
        found += measure_layer(moments, view, layer)
        for name, given in inputs.items():
            if given.name == view.name:
                itself = "the input itself: 1 by definition"
                found.append(Found("pwcca", layer, name, 1.0, warning=itself))
            else:
                side = _SIDES[settings.weights]
                found += measure_pair(moments, (name, layer), (given, view), folds, side)
    return found + _between_layers(moments)


def make_view(moments: Moments, name: str, folds: Sequence[int]) -> View:
    """Factorises a view: over all frames, in each fold, and within tracks."""
    pair, n = (name, name), moments.n_frames
    whole = about_means(moments, pair)
    whitened = cca.whiten(whole.xx, whole.mean_x, n)
    within = within_tracks(moments, pair)
    values, vectors = measures.components(whole.xx)
    of_folds = []
    for fold in folds if len(folds) > 1 else []:
        mean = mean_of(moments, name, [fold])
        raw = moments.about(pair, {name: mean}, [fold])
        of_folds.append(fold_view(whitened, raw.xy, mean - whole.mean_x, raw.n, n))
    return View(
        name,
        whole.mean_x,
        whole.xx,
        whitened,
        of_folds,
        cca.whiten(within.xx, whole.mean_x, within.n),
        values / values.sum(),
        measures.leading(values, vectors),
    )


def measure_layer(moments: Moments, view: View, layer: int) -> list[Found]:
    """Measures of one layer, which need no input and no label."""
    if view.whole.rank == 0:
        return [Found(name, layer, failed=_CONSTANT) for name in LAYER_MEASURES]
    shares = view.shares
    clips = moments.sorted_clips()
    n_angles = sum(clip.n_angles[view.name] for clip in clips)
    angle = math.nan
    if n_angles:
        angle = math.degrees(sum(clip.angles[view.name] for clip in clips) / n_angles)
    directions = moments.directions[view.name].cpu()
    values = {
        "effective_rank": measures.effective_rank(shares),
        "entropy": measures.entropy(shares),
        "isotropy": measures.isotropy(shares),
        "curvature": angle,
        "participation_ratio": measures.participation_ratio(shares),
        "top_share": measures.top_share(shares),
        "mean_cosine": measures.mean_cosine(directions, moments.n_frames),
    }
    return [_found(name, layer, None, value) for name, value in values.items()]


def measure_pair(
    moments: Moments,
    place: tuple[str, int],
    views: tuple[View, View],
    folds: Sequence[int],
    side: cca.Side,
) -> list[Found]:
    """Measures of an input and a layer.

    Args:
        moments: of both.
        place: name of the input, and the layer.
        views: both, factorised.
        folds: that have frames.
        side: the view that weighs PWCCA.
    """
    (name, layer), (x, y) = place, views
    pair, n = (x.name, y.name), moments.n_frames
    centre = {x.name: x.mean, y.name: y.mean}
    two = TwoViews(n, x.mean, y.mean, x.scatter, moments.about(pair, centre).xy, y.scatter)
    pairs = cca.canonical_pairs(n, x.whole, y.whole, two.xy)
    ranks = (pairs.rank_x, pairs.rank_y)
    if min(ranks) == 0:
        return [Found("pwcca", layer, name, failed=_CONSTANT, ranks=ranks)]
    try:
        cca.check_frames(pairs)
    except UserError as error:
        return [Found("pwcca", layer, name, failed=str(error), ranks=ranks)]

    null_xy = unrelated(moments, pair).xy
    null = cca.canonical_pairs(n, x.whole, y.whole, null_xy)
    within_two = within_tracks(moments, pair)
    within = cca.canonical_pairs(within_two.n, x.within, y.within, within_two.xy)
    n_effective = cca.effective_frames(null, max(ranks))
    sums = [moments.with_squares(one) for one in (pair, (x.name,) * 2, (y.name,) * 2)]
    values = {
        "pwcca": cca.pwcca(pairs, side),
        "null": cca.pwcca(null, side),
        "within": cca.pwcca(within, side),
        "pwcca_squared": cca.pwcca(pairs, side, power="squared"),
        "mean_cca": cca.mean_cca(pairs),
        "svcca": measures.mean_correlation(x.leading, y.leading, two.xy),
        "cka": measures.linear_cka(two),
        "debiased_cka": measures.debiased_cka(n, *sums),
        "procrustes": measures.procrustes(two),
        "r2": cca.explained(pairs, "x"),
    }
    if len(folds) > 1:
        held = _held_out(moments, pair, (x, y), folds, two.xy)
        values |= {"held_out": held[0], "held_out_mean_cca": held[1]}

    warning = _warn(n, n_effective, ranks)
    return [
        _found(measure, layer, name, value, n_effective, ranks, warning)
        for measure, value in values.items()
    ]


def _held_out(
    moments: Moments, pair: Pair, views: tuple[View, View], folds: Sequence[int], total: Tensor
) -> tuple[float, float]:
    """PWCCA and mean CCA on the folds that the directions were not fitted to."""
    x, y = views
    products = []
    for fold in folds:
        centre = {name: mean_of(moments, name, [fold]) for name in pair}
        held = moments.about(pair, centre, [fold]).xy
        products.append(x.whole.basis.T @ held @ y.whole.basis)
    whole = x.whole.basis.T @ total @ y.whole.basis
    found = held_out(x.folds, y.folds, products, whole)
    return found.pwcca, found.mean_cca


def _warn(n: int, n_effective: float, ranks: tuple[int, int]) -> str | None:
    """What to beware of where chance is not small."""
    needed = _ENOUGH * sum(ranks)
    if n_effective >= needed:
        return None
    return (
        f"{n} frames say as much as {n_effective:.0f} independent ones, {needed} are wanted for "
        f"ranks {ranks[0]} and {ranks[1]}: read the value above its null, or take more tracks "
        "(similarity.n_tracks)"
    )


def _between_layers(moments: Moments) -> list[Found]:
    """Linear CKA of each layer with each later one, where these pairs were accumulated."""
    found = []
    for x, y in (*moments.layout.plain_pairs, *moments.layout.pairs):
        if not (moments.layout.plain_pairs and x.startswith("h")):
            continue
        two = about_means(moments, (x, y))
        found.append(_found("cka", int(y[1:]), x, measures.linear_cka(two)))
    return found


def _found(
    measure: str,
    layer: int,
    name: str | None,
    value: float,
    n_effective: float | None = None,
    ranks: tuple[int | None, int | None] = (None, None),
    warning: str | None = None,
) -> Found:
    """A number, or that it is none."""
    if math.isfinite(value):
        return Found(measure, layer, name, value, None, n_effective, ranks, warning)
    return Found(measure, layer, name, None, "not defined here", n_effective, ranks, warning)
