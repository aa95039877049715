"""Bootstrap intervals: width, determinism, and the same draws for every head."""

import math

import pytest
import torch
from torch import Tensor

from mirprobe.scoring.intervals import bootstrap


def accuracy(predicted: Tensor, target: Tensor, counts: Tensor) -> Tensor:
    return (predicted == target).double() @ counts.T / counts.sum(dim=1)


def answers(n_right: int, n_tracks: int) -> tuple[Tensor, Tensor]:
    """One head that is right on the first `n_right` tracks."""
    target = torch.arange(n_tracks) % 7
    predicted = target.clone()
    predicted[n_right:] += 1
    return predicted[None], target


def binomial_quantile(n: int, p: float, level: float) -> int:
    cumulative = 0.0
    for k in range(n + 1):
        cumulative += math.comb(n, k) * p**k * (1 - p) ** (n - k)
        if cumulative >= level:
            return k
    return n


@pytest.mark.parametrize(("n_right", "n_tracks"), [(160, 200), (248, 290), (30, 60), (97, 100)])
def test_interval_of_accuracy_is_close_to_the_binomial_one(n_right: int, n_tracks: int) -> None:
    low, high = bootstrap(accuracy, *answers(n_right, n_tracks), seed=0)
    share = n_right / n_tracks
    expected = [binomial_quantile(n_tracks, share, level) / n_tracks for level in (0.025, 0.975)]
    tolerance = 1.5 / n_tracks + 0.08 * math.sqrt(share * (1 - share) / n_tracks) * 1.96
    assert low.item() == pytest.approx(expected[0], abs=tolerance)
    assert high.item() == pytest.approx(expected[1], abs=tolerance)


def test_gtzan_near_85_percent_has_the_half_width_of_the_facts() -> None:
    """facts/tasks 1.6: about 4.1 points on 290 songs."""
    low, high = bootstrap(accuracy, *answers(248, 290), seed=1)
    assert (high - low).item() / 2 == pytest.approx(0.041, abs=0.004)


def test_the_same_seed_gives_the_same_interval_and_another_seed_another() -> None:
    predicted, target = answers(61, 100)
    first, again, other = (
        torch.stack(bootstrap(accuracy, predicted, target, seed=seed)) for seed in (3, 3, 4)
    )
    assert torch.equal(first, again)
    draws = [torch.stack(bootstrap(accuracy, predicted, target, seed=seed)) for seed in range(5)]
    assert any(not torch.equal(draws[0], one) for one in draws[1:])
    torch.testing.assert_close(first, other, atol=0.03, rtol=0)


@pytest.mark.parametrize(("n_right", "value"), [(50, 1.0), (0, 0.0)])
def test_constant_scores_give_zero_width(n_right: int, value: float) -> None:
    low, high = bootstrap(accuracy, *answers(n_right, 50), seed=0)
    assert (low.item(), high.item()) == (value, value)


def test_one_track_gives_zero_width() -> None:
    low, high = bootstrap(accuracy, torch.tensor([[1], [2]]), torch.tensor([1]), seed=0)
    assert (low.tolist(), high.tolist()) == ([1.0, 0.0], [1.0, 0.0])


def test_the_same_tracks_are_drawn_for_every_head() -> None:
    """A head that is right exactly where another is wrong has the mirrored interval, to the last
    bit of the draws.
    """
    predicted, target = answers(63, 100)
    mirrored = torch.where(predicted[0] == target, target + 1, target)
    low, high = bootstrap(
        accuracy, torch.stack([predicted[0], mirrored, predicted[0]]), target, seed=0
    )
    assert low[0] == low[2]
    assert high[0] == high[2]
    torch.testing.assert_close(low[1], 1 - high[0], atol=1e-6, rtol=0)
    torch.testing.assert_close(high[1], 1 - low[0], atol=1e-6, rtol=0)


def test_an_interval_does_not_depend_on_the_other_heads() -> None:
    (one, target), (two, _) = answers(63, 100), answers(20, 100)
    together = torch.stack(bootstrap(accuracy, torch.cat([one, two]), target, seed=0))
    alone = [torch.stack(bootstrap(accuracy, head, target, seed=0))[:, 0] for head in (one, two)]
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
