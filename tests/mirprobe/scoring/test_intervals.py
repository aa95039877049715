"""Bootstrap intervals: width, determinism, and the same draws for every head."""

import math

import pytest
import torch
from torch import Tensor

from mirprobe.scoring.intervals import N_RESAMPLES, bootstrap, interval_of
from mirprobe.scoring.metrics import METRICS, score_once


def accuracy(predicted: Tensor, target: Tensor, counts: Tensor) -> Tensor:
    return (predicted == target).double() @ counts.T / counts.sum(dim=1)


def answers(n_right: int, n_tracks: int) -> tuple[Tensor, Tensor]:
    """One head that is right on the first `n_right` tracks."""
    target = torch.arange(n_tracks) % 7
    predicted = target.clone()
    predicted[n_right:] += 1
    return predicted[None], target


def ends(predicted: Tensor, target: Tensor, seed: int) -> Tensor:
    """(2, H) lower and upper ends."""
    low, high, n_scored = bootstrap(accuracy, predicted, target, seed=seed)
    assert n_scored.tolist() == [N_RESAMPLES] * len(predicted)
    return torch.stack([low, high])


def binomial_quantile(n: int, p: float, level: float) -> int:
    cumulative = 0.0
    for k in range(n + 1):
        cumulative += math.comb(n, k) * p**k * (1 - p) ** (n - k)
        if cumulative >= level:
            return k
    return n


@pytest.mark.parametrize(("n_right", "n_tracks"), [(160, 200), (248, 290), (30, 60), (97, 100)])
def test_interval_of_accuracy_is_close_to_the_binomial_one(n_right: int, n_tracks: int) -> None:
    low, high, _ = bootstrap(accuracy, *answers(n_right, n_tracks), seed=0)
    share = n_right / n_tracks
    expected = [binomial_quantile(n_tracks, share, level) / n_tracks for level in (0.025, 0.975)]
    tolerance = 1.5 / n_tracks + 0.08 * math.sqrt(share * (1 - share) / n_tracks) * 1.96
    assert low.item() == pytest.approx(expected[0], abs=tolerance)
    assert high.item() == pytest.approx(expected[1], abs=tolerance)


def test_gtzan_near_85_percent_has_the_half_width_of_the_facts() -> None:
    """facts/tasks 1.6: about 4.1 points on 290 songs."""
    low, high, _ = bootstrap(accuracy, *answers(248, 290), seed=1)
    assert (high - low).item() / 2 == pytest.approx(0.041, abs=0.004)


def test_the_same_seed_gives_the_same_interval_and_another_seed_another() -> None:
    predicted, target = answers(61, 100)
    first, again, other = (ends(predicted, target, seed) for seed in (3, 3, 4))
    assert torch.equal(first, again)
    draws = [ends(predicted, target, seed) for seed in range(5)]
    assert any(not torch.equal(draws[0], one) for one in draws[1:])
    torch.testing.assert_close(first, other, atol=0.03, rtol=0)


@pytest.mark.parametrize(("n_right", "value"), [(50, 1.0), (0, 0.0)])
def test_constant_scores_give_zero_width(n_right: int, value: float) -> None:
    low, high, _ = bootstrap(accuracy, *answers(n_right, 50), seed=0)
    assert (low.item(), high.item()) == (value, value)


def test_one_track_gives_zero_width() -> None:
    low, high, _ = bootstrap(accuracy, torch.tensor([[1], [2]]), torch.tensor([1]), seed=0)
    assert (low.tolist(), high.tolist()) == ([1.0, 0.0], [1.0, 0.0])


def test_the_same_tracks_are_drawn_for_every_head() -> None:
    """A head that is right exactly where another is wrong has the mirrored interval, to the last
    bit of the draws.
    """
    predicted, target = answers(63, 100)
    mirrored = torch.where(predicted[0] == target, target + 1, target)
    low, high, _ = bootstrap(
        accuracy, torch.stack([predicted[0], mirrored, predicted[0]]), target, seed=0
    )
    assert low[0] == low[2]
    assert high[0] == high[2]
    torch.testing.assert_close(low[1], 1 - high[0], atol=1e-6, rtol=0)
    torch.testing.assert_close(high[1], 1 - low[0], atol=1e-6, rtol=0)


def test_an_interval_does_not_depend_on_the_other_heads() -> None:
    (one, target), (two, _) = answers(63, 100), answers(20, 100)
    together = ends(torch.cat([one, two]), target, 0)
    alone = [ends(head, target, 0)[:, 0] for head in (one, two)]
    assert torch.equal(together, torch.stack(alone, dim=1))


def test_every_resample_has_as_many_tracks_as_the_split() -> None:
    sizes = set()

    def score(predicted: Tensor, target: Tensor, counts: Tensor) -> Tensor:
        sizes.update(counts.sum(dim=1).tolist())
        return accuracy(predicted, target, counts)

    bootstrap(
        score, torch.zeros(2, 37, dtype=torch.int64), torch.zeros(37, dtype=torch.int64), seed=0
    )
    assert sizes == {37.0}


def test_the_global_random_state_is_left_alone() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    bootstrap(accuracy, *answers(5, 10), seed=0)
    assert torch.equal(before, torch.get_rng_state())


# -- resamples without a score ---------------------------------------------------------------------


def test_resamples_without_a_score_are_left_out_and_counted() -> None:
    """R2 of tracks that are all alike is minus infinity, or not a number: of four tracks, of which
    each is drawn alone in one of 64 resamples. The quantile of numbers beside -inf is NaN.
    """
    target = torch.tensor([[0.0], [1.0], [2.0], [3.0]])
    predicted = (target + 0.1)[None]
    low, high, n_scored = bootstrap(METRICS["r2"].score, predicted, target, seed=0)
    n_left_out = N_RESAMPLES - int(n_scored)
    assert n_left_out == pytest.approx(N_RESAMPLES / 64, abs=3 * math.sqrt(N_RESAMPLES / 64))
    assert math.isfinite(low) and math.isfinite(high)

    value = score_once(METRICS["r2"], predicted, target).item()
    found = interval_of(value, low.item(), high.item(), int(n_scored))
    assert (found.n_left_out, found.problem) == (n_left_out, None)
    assert found.low is not None and found.high is not None
    assert found.low <= value <= found.high < 1


def test_an_interval_needs_nine_of_ten_resamples() -> None:
    assert interval_of(0.5, 0.4, 0.6, 900).problem is None
    without = interval_of(0.5, 0.4, 0.6, 899)
    assert (without.low, without.high, without.n_left_out) == (None, None, 101)
    assert without.problem == "a score in 899 of 1000 resamples only"
    nothing = interval_of(0.5, math.nan, math.nan, 0)
    assert (nothing.low, nothing.problem) == (None, "a score in 0 of 1000 resamples only")


def test_an_interval_that_does_not_hold_its_score_is_none() -> None:
    beside = interval_of(0.5, 0.6, 0.7, 1000)
    assert (beside.low, beside.high) == (None, None)
    expected = "95 % of the resamples score from 0.6 to 0.7, all beside the score"
    assert beside.problem == expected


def test_average_precision_of_rare_tags_leaves_its_own_interval() -> None:
    """Not a made-up case: a track that is drawn twice stands beside its own copy in the ranking.

    Each of 40 tags is on one track of 30, ranked second: its average precision is 0.5. Where the
    track is drawn k times, it is k / (k + 1) of those that stand above it and with it.
    """
    target = torch.zeros(30, 40)
    predicted = torch.rand(1, 30, 40, generator=torch.Generator().manual_seed(0)) / 2
    for tag in range(40):
        target[tag % 30, tag] = 1
        predicted[0, tag % 30, tag] = 0.8
        predicted[0, (tag + 1) % 30, tag] = 0.9

    metric = METRICS["average_precision"]
    value = score_once(metric, predicted, target).item()
    assert value == pytest.approx(0.5)
    low, high, n_scored = bootstrap(metric.score, predicted, target, seed=0)
    found = interval_of(value, low.item(), high.item(), int(n_scored))
    assert low > value
    assert found.low is None and "all beside the score" in (found.problem or "")


def test_a_score_that_rounding_moves_beside_its_resamples_keeps_its_interval() -> None:
    assert interval_of(0.3, 0.3 + 3e-8, 0.3 + 3e-8, 1000).low == 0.3
