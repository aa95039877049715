"""What the heads of one scan say together: a pure function of their scores on the same tracks.

Conventions: a scan is all heads of one probe on the test split, by one metric. Layers are chosen on
val; on test they are only compared. Differences are chosen minus other. H heads, R resamples.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mirprobe.results import Probe
from mirprobe.scoring.intervals import ROUNDING, Array, Clusters
from mirprobe.scoring.selection import best_set, chance_of_best, optimism
from mirprobe.scoring.significance import (
    Difference,
    Scored,
    compare,
    compare_all,
    detectable_difference,
    standard_error,
)


@dataclass(frozen=True)
class Scan:
    """What a test set can say of the heads of a cell.

    Attributes:
        probe: of the heads.
        metric: that scored them.
        n_clusters: how many independent units the test set has: tracks, or groups of them.
        chosen: head of the layer chosen on val; None where there is none, or where it has no score
            on test.
        oracle: head of the layer that is best on test; None where there is none.
        chosen_resamples: (R,) scores of the chosen head, to 6 digits, None where it is not defined:
            draws are the same for all models on the same tracks, which can so be compared.
        chosen_right: which tracks it is right on, as text of 0 and 1, for a share of independent
            tracks; else None.
        optimism: by how much the oracle's score is too high on average; None without any layer.
        best_set: heads of the layers of which one is the best, with 95 % confidence.
        chance_of_best: share of the resamples on which each layer with a score is the best.
        last_layer: by how much the chosen layer is above the last; None where either has no score.
        others: by how much it is above each other head, p-values corrected for all of them.
        detectable_paired: smallest true difference between two layers that this test set shows in
            four of five cases, at the median over layers; None for a single one.
        detectable_unpaired: the same for a score that was found on other tracks.
    """

    probe: Probe
    metric: str
    n_clusters: int
    chosen: str | None
    oracle: str | None
    chosen_resamples: list[float | None]
    chosen_right: str | None
    optimism: float | None
    best_set: list[str]
    chance_of_best: dict[str, float]
    last_layer: Difference | None
    others: dict[str, Difference]
    detectable_paired: float | None
    detectable_unpaired: float | None

    def chosen_score(self, value: float) -> Scored:
        """What is known of the chosen head, whose score on test is `value`."""
        drawn = [np.nan if score is None else score for score in self.chosen_resamples]
        right = None
        if self.chosen_right is not None:
            right = np.array([sign == "1" for sign in self.chosen_right])
        return Scored(value, np.array(drawn), right)


@dataclass(frozen=True)
class ScannedHeads:
    """Heads of one probe and their scores on test.

    Attributes:
        names: H of them.
        layers: of each head; None for one of several layers.
        values: (H,) NaN for a head without a score.
        resamples: (H, R).
        right: (H, N) which tracks are right, for a share of independent tracks; else None.
        clusters: of the tracks.
    """

    names: Sequence[str]
    layers: Sequence[int | None]
    values: Array
    resamples: Array
    right: NDArray[np.bool_] | None
    clusters: Clusters

    def scored(self, head: int) -> Scored:
        """What is known of one head's score."""
        right = None if self.right is None else self.right[head]
        return Scored(float(self.values[head]), self.resamples[head], right)


def scan_heads(probe: Probe, metric: str, heads: ScannedHeads, chosen: int | None) -> Scan:
    """Says what a test set can of the heads of a scan.

    Args:
        probe: of the heads.
        metric: that scored them.
        heads: on test.
        chosen: position of the head chosen on val; None where there is none.
    """
    has_score = np.isfinite(heads.values).tolist()
    layers = [h for h, layer in enumerate(heads.layers) if layer is not None and has_score[h]]
    names = [heads.names[h] for h in layers]
    if chosen is not None and not has_score[chosen]:
        chosen = None

    values, resamples = heads.values[layers], heads.resamples[layers]
    oracle = names[int(values.argmax())] if layers else None
    chances = chance_of_best(values, resamples).tolist() if layers else []
    return Scan(
        probe,
        metric,
        heads.clusters.n_clusters,
        chosen=None if chosen is None else heads.names[chosen],
        oracle=oracle,
        chosen_resamples=[] if chosen is None else _rounded(heads.resamples[chosen]),
        chosen_right=_right_text(heads, chosen),
        optimism=optimism(values, resamples) if layers else None,
        best_set=[names[place] for place in best_set(values, resamples)] if layers else [],
        chance_of_best=dict(zip(names, chances, strict=True)),
        last_layer=_above_last(heads, chosen, has_score),
        others=_above_others(heads, chosen, has_score),
        detectable_paired=_detectable_paired(resamples),
        detectable_unpaired=_detectable_unpaired(heads, chosen),
    )


def _rounded(resamples: Array) -> list[float | None]:
    return [round(score, 6) if np.isfinite(score) else None for score in resamples.tolist()]


def _right_text(heads: ScannedHeads, chosen: int | None) -> str | None:
    if chosen is None or heads.right is None:
        return None
    return "".join("1" if is_right else "0" for is_right in heads.right[chosen])


def _above_last(
    heads: ScannedHeads, chosen: int | None, has_score: Sequence[bool]
) -> Difference | None:
    """How many points the last layer loses. One comparison, known before: nothing to correct."""
    single = {layer: h for h, layer in enumerate(heads.layers) if layer is not None}
    last = single[max(single)]
    if chosen is None or not has_score[last]:
        return None
    return compare(heads.scored(chosen), heads.scored(last), heads.clusters)


def _above_others(
    heads: ScannedHeads, chosen: int | None, has_score: Sequence[bool]
) -> dict[str, Difference]:
    if chosen is None:
        return {}
    others = [h for h in range(len(heads.names)) if h != chosen and has_score[h]]
    pairs = [(heads.scored(chosen), heads.scored(h)) for h in others]
    found = compare_all(pairs, [heads.clusters] * len(pairs))
    return {heads.names[h]: one for h, one in zip(others, found, strict=True)}


def _detectable_paired(resamples: Array) -> float | None:
    """At the median over all pairs of layers."""
    pairs = [(h, other) for h in range(len(resamples)) for other in range(h)]
    errors = [standard_error(resamples[h] - resamples[other]) for h, other in pairs]
    return _detectable(float(np.median(errors))) if errors else None


def _detectable_unpaired(heads: ScannedHeads, chosen: int | None) -> float | None:
    """Two scores as uncertain as the chosen one's."""
    if chosen is None:
        return None
    return _detectable(2**0.5 * standard_error(heads.resamples[chosen]))


def _detectable(error: float) -> float | None:
    """None where the resamples are all alike, as where everything is right: nothing was learned."""
    return detectable_difference(error) if error > ROUNDING else None


def scans_text(scans: Sequence[Scan]) -> str:
    """Scans as JSON text, from which `parse_scans` makes equal ones."""
    return json.dumps([asdict(scan) for scan in scans], indent=1, allow_nan=False) + "\n"


def parse_scans(text: str) -> list[Scan]:
    """The scans of a JSON text.

    Raises:
        ValueError: it holds something else.
    """
    entries = json.loads(text)
    try:
        return [_parse_scan(entry) for entry in entries]
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"it holds no scans: {error}") from error


def _parse_scan(entry: Mapping[str, Any]) -> Scan:
    last = entry["last_layer"]
    others = {name: Difference(**one) for name, one in entry["others"].items()}
    last_layer = None if last is None else Difference(**last)
    return Scan(**{**entry, "others": others, "last_layer": last_layer})
