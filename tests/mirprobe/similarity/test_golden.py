"""Every measure, by moments and from the frames, against answers in 80 digits."""

from collections.abc import Callable

import pytest
from similar_views import GOLDEN, PAIR, golden_views, moments_of
from torch import Tensor

from mirprobe.similarity import cca, from_data, measures
from mirprobe.similarity.cca import CanonicalPairs
from mirprobe.similarity.held_out import HeldOut, fold_view, held_out
from mirprobe.similarity.moments import Moments
from mirprobe.similarity.two_views import about_means

# Of pwcca and what follows from the same pairs, as the golden numbers' README states them.
TOLERANCE = {"tiny_int": 1e-12, "high_similarity": 1e-12, "layernorm": 1e-8} | dict.fromkeys(
    ("lowrank_x", "scales_wild", "identical", "rotation", "n_lt_d1_plus_d2"), 1e-9
)
NOT_UNIQUE = "n_lt_d1_plus_d2"  # some correlations are 1 whatever the data: only rho is


def by_moments(x: Tensor, y: Tensor) -> CanonicalPairs:
    """Canonical pairs from moments of clips."""
    views = about_means(moments_of({"x": x, "y": y}, n_clips=4), PAIR)
    whitened = [
        cca.whiten(scatter, mean, views.n)
        for scatter, mean in ((views.xx, views.mean_x), (views.yy, views.mean_y))
    ]
    return cca.canonical_pairs(views.n, *whitened, views.xy)


ROUTES = {"moments": by_moments, "frames": from_data.canonical_pairs_of}
Route = Callable[[Tensor, Tensor], CanonicalPairs]


def close(case: str, found: float, name: str) -> None:
    tolerance = TOLERANCE.get(case, 1e-10)
    assert found == pytest.approx(GOLDEN[case]["truth"][name], abs=tolerance, rel=0), name


@pytest.mark.parametrize("route", ROUTES.values(), ids=ROUTES)
@pytest.mark.parametrize("case", GOLDEN)
def test_canonical_pairs(case: str, route: Route) -> None:
    truth, tolerance = GOLDEN[case]["truth"], TOLERANCE.get(case, 1e-10)
    pairs = route(*golden_views(case))
    ranks = (pairs.rank_x, pairs.rank_y, len(pairs.rho))
    assert ranks == (truth["rank_x"], truth["rank_y"], truth["k"])

    rho = pairs.rho.tolist()
    assert rho[:8] == pytest.approx(truth["rho_first"], abs=max(tolerance, 1e-11), rel=0)
    assert rho[-1] == pytest.approx(truth["rho_last"], abs=max(tolerance, 1e-11), rel=0)
    close(case, cca.mean_cca(pairs), "mean_cca")
    close(case, cca.mean_squared_cca(pairs), "mean_sq_cca")
    if case == NOT_UNIQUE:
        return

    close(case, cca.pwcca(pairs, "x"), "pwcca_wx")
    close(case, cca.pwcca(pairs, "y"), "pwcca_wy")
    close(case, cca.pwcca(pairs, "x", power="squared"), "pwcca_var_wx")
    close(case, cca.pwcca(pairs, "y", power="squared"), "pwcca_var_wy")
    close(case, cca.explained(pairs, "x"), "r2_x_from_y")
    close(case, cca.explained(pairs, "y"), "r2_y_from_x")


@pytest.mark.parametrize("route", ROUTES.values(), ids=ROUTES)
@pytest.mark.parametrize("case", sorted(GOLDEN.keys() - {NOT_UNIQUE, "identical", "rotation"}))
def test_weights_of_single_pairs(case: str, route: Route) -> None:
    """Where correlations tie, as in identical views, single weights are anybody's choice."""
    pairs, truth = route(*golden_views(case)), GOLDEN[case]["truth"]
    # A pair is as well determined as its correlation is apart from the next one.
    tolerance = 1e-6 if case == "high_similarity" else 1e-7
    for side in ("x", "y"):
        weights = cca.weights_of(pairs, side).tolist()[:8]  # type: ignore[arg-type]
        assert weights == pytest.approx(truth[f"weights_{side}_first"], abs=tolerance, rel=0)


def test_what_is_left_to_one_is_as_exact_as_what_is_there() -> None:
    pairs = by_moments(*golden_views("high_similarity"))
    wanted = [1 - rho for rho in GOLDEN["high_similarity"]["truth"]["rho_first"]]
    assert (1 - pairs.rho).tolist()[:8] == pytest.approx(wanted, rel=1e-5)


def test_the_mean_of_both_sides_is_what_another_implementation_says() -> None:
    for case, golden in GOLDEN.items():
        if golden["repsim"] and case != NOT_UNIQUE:
            found = cca.pwcca(by_moments(*golden_views(case)), "mean")
            assert found == pytest.approx(golden["repsim"]["xy"], abs=1e-9), case


@pytest.mark.parametrize("case", GOLDEN)
def test_measures_without_canonical_pairs(case: str) -> None:
    x, y = golden_views(case)
    moments = moments_of({"x": x, "y": y}, n_clips=3)
    views, truth = about_means(moments, PAIR), GOLDEN[case]["truth"]

    close(case, measures.linear_cka(views), "linear_cka")
    close(case, measures.procrustes(views), "procrustes_sim")
    sums = [moments.with_squares(pair) for pair in (PAIR, ("x", "x"), ("y", "y"))]
    close(case, measures.debiased_cka(moments.n_frames, *sums), "debiased_cka")
    mean, dims = measures.svcca(views)
    assert list(dims) == truth["svcca99_dims"]
    close(case, mean, "svcca99_mean")

    shares = measures.spectrum(views.xx)
    assert measures.effective_rank(shares) == pytest.approx(truth["effective_rank_x"], rel=1e-9)
    ratio = measures.participation_ratio(shares)
    assert ratio == pytest.approx(truth["participation_ratio_x"], rel=1e-9)


@pytest.mark.parametrize("case", GOLDEN)
def test_measures_from_the_frames_themselves(case: str) -> None:
    x, y = golden_views(case)
    truth = GOLDEN[case]["truth"]
    close(case, from_data.linear_cka_of(x, y), "linear_cka")
    close(case, from_data.procrustes_of(x, y), "procrustes_sim")
    close(case, from_data.debiased_cka_of(x, y), "debiased_cka")
    mean, dims = from_data.svcca_of(x, y)
    assert list(dims) == truth["svcca99_dims"]
    close(case, mean, "svcca99_mean")
    rank = measures.effective_rank(from_data.spectrum_of(x))
    assert rank == pytest.approx(truth["effective_rank_x"], rel=1e-9)


@pytest.mark.parametrize(
    "case", [case for case in GOLDEN if "heldout5_mean" in GOLDEN[case]["truth"]]
)
def test_held_out_folds(case: str) -> None:
    x, y = golden_views(case)
    found = held_out_of(moments_of({"x": x, "y": y}))
    truth = GOLDEN[case]["truth"]
    assert found.pwcca == pytest.approx(truth["heldout5_pwcca_wx"], abs=1e-8)
    assert found.mean_cca == pytest.approx(truth["heldout5_mean"], abs=1e-8)


def held_out_of(moments: Moments) -> HeldOut:
    """Held-out correlations of the pair."""
    views = about_means(moments, PAIR)
    x = cca.whiten(views.xx, views.mean_x, views.n)
    y = cca.whiten(views.yy, views.mean_y, views.n)
    folds = [about_means(moments, PAIR, [fold]) for fold in range(5)]
    n = views.n
    return held_out(
        [fold_view(x, fold.xx, fold.mean_x - views.mean_x, fold.n, n) for fold in folds],
        [fold_view(y, fold.yy, fold.mean_y - views.mean_y, fold.n, n) for fold in folds],
        [x.basis.T @ fold.xy @ y.basis for fold in folds],
        x.basis.T @ views.xy @ y.basis,
    )
