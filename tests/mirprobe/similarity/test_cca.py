"""What canonical correlations and PWCCA depend on, what they do not, and when they are refused."""

import pytest
import torch
from similar_views import PAIR, golden_views, moments_of
from torch import Tensor

from datamodules.errors import UserError
from mirprobe.similarity import cca, from_data
from mirprobe.similarity.two_views import about_means


def pairs_of(x: Tensor, y: Tensor) -> cca.CanonicalPairs:
    views = about_means(moments_of({"x": x, "y": y}), PAIR)
    of_x = cca.whiten(views.xx, views.mean_x, views.n)
    return cca.canonical_pairs(views.n, of_x, cca.whiten(views.yy, views.mean_y, views.n), views.xy)


def random_map(dim: int, seed: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(dim, dim, generator=generator, dtype=torch.float64)


def test_translation_and_scale_change_nothing() -> None:
    x, y = golden_views("eq_dims")
    one, other = pairs_of(x, y), pairs_of(5.0 * x + 100.0, 0.1 * y - 7.0)
    torch.testing.assert_close(one.rho, other.rho, rtol=0, atol=1e-12)
    for side in ("x", "y", "mean"):
        assert cca.pwcca(one, side) == pytest.approx(cca.pwcca(other, side), abs=1e-12)  # type: ignore[arg-type]


def test_any_invertible_map_of_the_view_that_is_not_weighted_changes_nothing() -> None:
    x, y = golden_views("correlated_neurons")
    one, other = pairs_of(x, y), pairs_of(x, y @ random_map(12))
    torch.testing.assert_close(one.rho, other.rho, rtol=0, atol=1e-10)
    assert cca.pwcca(one) == pytest.approx(cca.pwcca(other), abs=1e-10)
    assert cca.pwcca(one, "y") != pytest.approx(cca.pwcca(other, "y"), abs=1e-3)


def test_squared_weights_see_no_rotation_of_the_weighted_view() -> None:
    x, y = golden_views("correlated_neurons")
    rotation, _ = torch.linalg.qr(random_map(12))
    one, other = pairs_of(x, y), pairs_of(x @ rotation, y)
    squared = (cca.pwcca(pairs, power="squared") for pairs in (one, other))
    assert next(squared) == pytest.approx(next(squared), abs=1e-12)
    assert cca.pwcca(one) != pytest.approx(cca.pwcca(other), abs=1e-4), "PWCCA itself does"


def test_weights_of_standardized_neurons_see_no_scale_of_a_neuron() -> None:
    x, y = golden_views("eq_dims")
    scales = 10.0 ** torch.linspace(-3, 3, 10, dtype=torch.float64)
    values = [
        cca.pwcca(pairs_of(view, y), standardized=True) for view in (x, x * scales, x / x.std(0))
    ]
    assert values[1] == pytest.approx(values[0], abs=1e-10)
    assert cca.pwcca(pairs_of(x / x.std(0), y)) == pytest.approx(values[0], abs=1e-10)
    assert cca.pwcca(pairs_of(x * scales, y)) != pytest.approx(values[0], abs=1e-3)


def test_a_constant_with_rounding_is_a_dead_neuron() -> None:
    x, y = golden_views("eq_dims")
    wanted = pairs_of(x[:, :9], y)
    found = pairs_of(torch.cat([x[:, :9], torch.full((500, 1), 0.1).double() * 1e6], dim=1), y)
    assert found.rank_x == 9
    assert cca.pwcca(found) == pytest.approx(cca.pwcca(wanted), abs=1e-12)
    assert cca.pwcca(found, standardized=True) == pytest.approx(
        cca.pwcca(wanted, standardized=True), abs=1e-12
    )


def test_the_larger_view_may_come_first() -> None:
    x, y = golden_views("d1_lt_d2")
    one, other = pairs_of(x, y), pairs_of(y, x)
    torch.testing.assert_close(one.rho, other.rho, rtol=0, atol=1e-12)
    assert cca.pwcca(one, "x") == pytest.approx(cca.pwcca(other, "y"), abs=1e-11)


def test_views_that_share_nothing_at_all_have_correlations_of_zero() -> None:
    wave = torch.linalg.qr(random_map(64)).Q
    wave = torch.linalg.qr(torch.cat([torch.ones(64, 1).double(), wave[:, :8]], dim=1)).Q
    pairs = pairs_of(wave[:, 1:5], wave[:, 5:9])
    assert pairs.rho.tolist() == pytest.approx([0.0] * 4, abs=1e-12)
    assert cca.pwcca(pairs, "y") == pytest.approx(0, abs=1e-12), "finite, though no direction is"


def test_too_few_frames_are_refused_with_the_numbers() -> None:
    pairs = pairs_of(*golden_views("n_lt_d1_plus_d2"))
    text = "12 frames are too few for views of rank 8 and 8: 5 correlations would be 1 .* 17 frames"
    with pytest.raises(UserError, match=text):
        cca.check_frames(pairs)
    enough = pairs_of(*golden_views("eq_dims"))
    assert cca.check_frames(enough) is enough


def test_float16_makes_a_direction_of_rounding_that_hardly_counts() -> None:
    """After a LayerNorm one direction is missing; rounding fills it, one in 16 here."""
    x, y = golden_views("layernorm")
    exact, rounded = pairs_of(x, y), pairs_of(x.half(), y.half())
    assert (exact.rank_x, rounded.rank_x) == (15, 16)
    assert cca.pwcca(rounded) == pytest.approx(cca.pwcca(exact), abs=1e-2)
    assert cca.mean_cca(rounded) < cca.mean_cca(exact) - 0.02, "where it counts in full"


def test_independent_frames_count_as_many_as_they_are() -> None:
    generator = torch.Generator().manual_seed(4)
    x, y = (torch.randn(4000, 20, generator=generator).double() for _ in range(2))
    assert cca.effective_frames(pairs_of(x, y), 20) == pytest.approx(4000, rel=0.15)

    doubled = pairs_of(x.repeat_interleave(2, 0), y.repeat_interleave(2, 0))
    assert cca.effective_frames(doubled, 20) == pytest.approx(4000, rel=0.15)


def test_another_implementation_agrees() -> None:
    """`repsim` symmetrises by the mean of both sides."""
    repsim = pytest.importorskip("repsim")
    for case in ("eq_dims", "d1_lt_d2", "layernorm"):
        x, y = golden_views(case)
        wanted = float(repsim.pwcca([x.numpy(), y.numpy()])[0, 1])
        assert cca.pwcca(from_data.canonical_pairs_of(x, y), "mean") == pytest.approx(
            wanted, abs=1e-9
        )
