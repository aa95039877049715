"""Rows of every layer: what is computed, what is refused, what is warned of."""

import math
from dataclasses import replace

import pytest
import torch
from similar_views import moments_of
from torch import Tensor

from datamodules.errors import UserError
from mirprobe.sections import SimilarityConfig
from mirprobe.similarity import cca
from mirprobe.similarity.compare import Found, compare_layers
from mirprobe.similarity.from_data import canonical_pairs_of, svcca_of
from mirprobe.similarity.moments import Moments
from mirprobe.similarity.rows import LAYER_MEASURES, PAIR_MEASURES

PAIRS = (("mel", "h00"), ("mel", "h01"), ("mel", "h02"), ("h00", "h01"), ("h00", "h02"))
SETTINGS = SimilarityConfig(["mel", "h0"], False, "input", 10, 0.2, 5, 0)


def layers(n: int = 3000) -> dict[str, Tensor]:
    """A mel, and layers of which each is further from it."""
    generator = torch.Generator().manual_seed(0)

    def noise(dim: int) -> Tensor:
        return torch.randn(n, dim, generator=generator, dtype=torch.float64)

    mel = noise(4)
    states = [torch.cat([mel, noise(2)], dim=1)]
    for _ in range(2):
        states.append(states[-1] + 0.7 * noise(6))
    return {"mel": mel} | {f"h{number:02d}": state for number, state in enumerate(states)}


def found_in(moments: Moments, settings: SimilarityConfig = SETTINGS) -> dict[object, Found]:
    found = compare_layers(moments, 3, settings)
    keys = [(one.measure, one.layer, one.input) for one in found]
    assert len(keys) == len(set(keys))
    return dict(zip(keys, found, strict=True))


def test_every_measure_of_every_layer_is_there_and_right() -> None:
    views = layers()
    found = found_in(moments_of(views, PAIRS, n_clips=30))
    assert len(found) == 3 * len(LAYER_MEASURES) + 5 * len(PAIR_MEASURES) + 1

    for layer in (0, 1, 2):
        pairs = canonical_pairs_of(views["mel"], views[f"h{layer:02d}"])
        wanted = {
            "pwcca": cca.pwcca(pairs),
            "mean_cca": cca.mean_cca(pairs),
            "r2": cca.explained(pairs, "x"),
            "svcca": svcca_of(views["mel"], views[f"h{layer:02d}"])[0],
        }
        for measure, value in wanted.items():
            one = found[measure, layer, "mel"]
            assert one.value == pytest.approx(value, abs=1e-10), measure
            assert one.ranks == (4, 6)

    curve = [found["pwcca", layer, "mel"].value or 0.0 for layer in range(3)]
    assert curve[0] == pytest.approx(1.0)
    assert curve[0] > curve[1] > curve[2] > 0.5
    assert found["pwcca", 0, "h0"].value == 1.0
    assert found["pwcca", 0, "h0"].warning == "the input itself: 1 by definition"
    for layer in (1, 2):
        held, null = (found[name, layer, "mel"].value or 0.0 for name in ("held_out", "null"))
        assert held == pytest.approx(curve[layer], abs=0.02)
        assert null < 0.1
    assert found["curvature", 1, None].value == pytest.approx(120, abs=3), "independent frames"


def test_the_weighted_view_is_a_setting() -> None:
    views = layers()
    pairs = canonical_pairs_of(views["mel"], views["h02"])
    for weights, side in (("input", "x"), ("layer", "y"), ("mean", "mean")):
        settings = SimilarityConfig(["mel"], False, weights, 10, 0.2, 5, 0)
        found = found_in(moments_of(views, PAIRS), settings)
        wanted = cca.pwcca(pairs, side)  # type: ignore[arg-type]
        assert found["pwcca", 2, "mel"].value == pytest.approx(wanted, abs=1e-10)


def test_too_few_frames_are_refused_in_the_row_with_the_numbers() -> None:
    found = found_in(moments_of(layers(n=10), PAIRS, n_clips=2))
    one = found["pwcca", 1, "mel"]
    assert one.value is None
    assert "10 frames are too few for views of rank 4 and 6" in str(one.failed)
    assert ("null", 1, "mel") not in found
    assert math.isfinite(found["effective_rank", 1, None].value or math.nan)


def test_frames_that_are_alike_count_less_and_are_warned_of() -> None:
    views = layers()
    enough = found_in(moments_of(views, PAIRS, n_clips=30))["pwcca", 2, "mel"]
    assert enough.warning is None
    assert enough.n_effective == pytest.approx(3000, rel=0.5)

    held = {name: view[:60].repeat_interleave(50, 0) for name, view in views.items()}
    few = found_in(moments_of(held, PAIRS, n_clips=30))["pwcca", 2, "mel"]
    assert few.n_effective is not None
    assert few.n_effective < 120
    assert "3000 frames say as much as" in str(few.warning)
    assert "200 are wanted for ranks 4 and 6" in str(few.warning)


def test_a_single_fold_has_nothing_to_hold_out() -> None:
    moments = moments_of(layers(), PAIRS, n_clips=10, clips_per_track=10)
    with pytest.raises(UserError, match="pairs each track with another one, found 1"):
        compare_layers(moments, 3, SETTINGS)

    moments = moments_of(layers(), PAIRS, n_clips=10)
    for key, one in moments.clips.items():
        moments.clips[key] = replace(one, fold=0)
    found = found_in(moments)
    assert ("held_out", 1, "mel") not in found
    assert found["pwcca", 1, "mel"].value is not None


def test_a_dead_layer_has_no_similarity_and_stops_nobody() -> None:
    views = layers()
    views["h02"] = torch.zeros_like(views["h02"])
    found = found_in(moments_of(views, PAIRS, n_clips=10))
    one = found["pwcca", 2, "mel"]
    assert (one.value, one.failed) == (None, "all frames are the same")
    assert found["entropy", 2, None].failed == "all frames are the same"
    assert found["pwcca", 1, "mel"].value is not None
