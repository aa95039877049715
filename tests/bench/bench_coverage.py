"""Coverage of the intervals of scores, on simulated heads whose true score is known.

    python tests/bench/bench_coverage.py [--repeats 2000] [--only accuracy|clusters|r2|ap|key|set]

Conventions: a repeat draws a test set, scores a head on it with the project's own metric and makes
its interval as a row does; covered is the share of repeats whose interval holds the true score,
which is what the head scores on average on test sets of that size. (Of macro average precision that
is more than on an endless test set, where tags are rare.) What is left and right are the shares
whose interval lies below the true score and above it. The standard error of a coverage of 95 % in
2,000 repeats is 0.5 points.

The heads: accuracy is a coin; clusters are singers whose own share of right answers is drawn from a
beta distribution of four pseudo-tracks; values are one of two dimensions of normal numbers of
which the head knows `rho`; keys are taken for their fifth, relative and parallel keys; tags share a
latent cause, and the rarest of ten is on 4 % of the tracks. The best set of 13 layers should hold
the best one in 95 % of test sets or more.
"""

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import norm
from torch import Tensor

from mirprobe.scoring.intervals import Array, Clusters, interval_of, n_telling, resample
from mirprobe.scoring.metrics import METRICS, score_of_counts, score_once
from mirprobe.scoring.selection import best_set

N_TAGS, N_LAYERS = 10, 13
SIZES = (48, 140, 290)
TRUTH_TESTS = 8000  # test sets whose mean is the true score


@dataclass(frozen=True)
class Head:
    """A simulated head.

    Attributes:
        name: in the table.
        metric: that it is scored by.
        draw: (generator, n) -> (1, n, ...) predictions and (n, ...) targets.
        n_tracks: of a test set.
        truth: true score; None is found by simulation.
        cluster_size: tracks of one cluster.
    """

    name: str
    metric: str
    draw: Callable[[np.random.Generator, int], tuple[Array, Array]]
    n_tracks: int
    truth: float | None = None
    cluster_size: int = 1


def draw_classes(share: float) -> Callable[[np.random.Generator, int], tuple[Array, Array]]:
    """A head that is right on this share of tracks, each on its own."""

    def draw(generator: np.random.Generator, n: int) -> tuple[Array, Array]:
        return (generator.random((1, n)) >= share).astype(int), np.zeros(n, int)

    return draw


def draw_singers(
    share: float, size: int
) -> Callable[[np.random.Generator, int], tuple[Array, Array]]:
    """The same, with singers that are easy and singers that are not."""

    def draw(generator: np.random.Generator, n: int) -> tuple[Array, Array]:
        of_singer = generator.beta(4 * share, 4 * (1 - share), n // size)
        is_wrong = generator.random(n) >= of_singer.repeat(size)
        return is_wrong[None].astype(int), np.zeros(n, int)

    return draw


def draw_values(rho: float) -> Callable[[np.random.Generator, int], tuple[Array, Array]]:
    """Two dimensions of which the head knows a part."""

    def draw(generator: np.random.Generator, n: int) -> tuple[Array, Array]:
        known = rho * generator.standard_normal((n, 2))
        rest = np.sqrt(1 - rho**2) * generator.standard_normal((n, 2))
        return known[None], known + rest

    return draw


def draw_keys(generator: np.random.Generator, n: int) -> tuple[Array, Array]:
    """Keys: 65 % right, 7 % their fifth, 8 % the relative, 4 % the parallel key, else any."""
    true = generator.integers(24, size=n)
    tonic, is_minor = true % 12, true // 12
    fifth = (tonic + 7) % 12 + 12 * is_minor
    relative = np.where(is_minor == 1, (tonic + 3) % 12, (tonic + 9) % 12 + 12)
    parallel = (true + 12) % 24

    any_key = generator.integers(24, size=n)
    kind = generator.choice(5, p=[0.65, 0.07, 0.08, 0.04, 0.16], size=n)
    return np.choose(kind, [true, fifth, relative, parallel, any_key])[None], true


def draw_tags(generator: np.random.Generator, n: int) -> tuple[Array, Array]:
    """Ten tags on 4 to 30 % of the tracks, which a head hears through noise."""
    shares = np.geomspace(0.04, 0.3, N_TAGS)
    common, own = generator.standard_normal((n, 1)), generator.standard_normal((n, N_TAGS))
    cause = 0.5 * common + np.sqrt(0.75) * own
    heard = cause + generator.standard_normal((n, N_TAGS))
    return heard[None], (cause > norm.ppf(1 - shares)).astype(float)


def make_heads(only: str | None) -> Iterator[Head]:
    """The heads of the table, in its order."""
    if only in (None, "accuracy"):
        for share in (0.5, 0.85, 0.94, 0.975):
            for n in SIZES:
                yield Head(f"accuracy {share}", "accuracy", draw_classes(share), n, share)
    if only in (None, "clusters"):
        for share in (0.85, 0.94):
            for n_singers, size in ((5, 40), (10, 14), (20, 14), (145, 2)):
                name = f"accuracy {share}, {n_singers} singers"
                draw = draw_singers(share, size)
                yield Head(name, "accuracy", draw, n_singers * size, share, cluster_size=size)
    for n in SIZES:
        if only in (None, "r2"):
            yield Head("r2 0.36", "r2", draw_values(0.6), n)
            yield Head("r2 0.72", "r2", draw_values(0.85), n)
        if only in (None, "key"):
            yield Head("key_weighted", "key_weighted", draw_keys, n)
        if only in (None, "ap"):
            yield Head("average_precision", "average_precision", draw_tags, n)


def coverage(head: Head, n_repeats: int) -> tuple[float, float, float]:
    """Shares of repeats whose interval holds the true score, lies below it, lies above it."""
    generator = np.random.default_rng(1)
    metric = METRICS[head.metric]

    def draw() -> tuple[Tensor, Tensor]:
        predicted, target = head.draw(generator, head.n_tracks)
        return torch.from_numpy(predicted), torch.from_numpy(target)

    truth = head.truth
    if truth is None:
        truth = float(np.mean([score_once(metric, *draw()).item() for _ in range(TRUTH_TESTS)]))

    clusters = Clusters(np.arange(head.n_tracks) // head.cluster_size)
    below, above = 0, 0
    for _ in range(n_repeats):
        predicted, target = draw()
        value = score_once(metric, predicted, target).item()
        drawn = resample(score_of_counts(metric, predicted, target), clusters)[0]
        telling = n_telling(target.numpy()) if metric.kind == "multilabel" else head.n_tracks
        found = interval_of(value, drawn, clusters, metric.scale, n_telling=telling)

        # An interval that is missing covers nothing.
        low, high = (found.low, found.high) if found.low is not None else (2.0, 2.0)
        below += high < truth
        above += low > truth
    return 1 - (below + above) / n_repeats, below / n_repeats, above / n_repeats


def coverage_of_best_set(n_tracks: int, slope: float, n_repeats: int) -> tuple[float, float]:
    """Share of test sets whose best set holds the best of 13 layers; the mean size of the set.

    Layers fall by `slope` from the seventh to both sides; of their errors 0.6 is common.
    """
    generator = np.random.default_rng(2)
    truth = 0.82 - slope * abs(np.arange(N_LAYERS) - 6)
    clusters = Clusters.of_independent(n_tracks)

    n_held, n_layers = 0, 0
    for _ in range(n_repeats):
        hard = generator.standard_normal((1, n_tracks))
        own = generator.standard_normal((N_LAYERS, n_tracks))
        right = np.sqrt(0.6) * hard + np.sqrt(0.4) * own < norm.ppf(truth)[:, None]
        scores = right.astype(float)

        drawn = resample(lambda counts, scores=scores: scores @ counts.T / n_tracks, clusters)
        found = best_set(scores.mean(axis=1), drawn)
        n_held += 6 in found
        n_layers += len(found)
    return n_held / n_repeats, n_layers / n_repeats


def main() -> None:
    """Prints the table, a line for each head."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=2000)
    parser.add_argument("--only", choices=("accuracy", "clusters", "r2", "ap", "key", "set"))
    options = parser.parse_args()
    torch.set_num_threads(1)

    print(f"{'head':28} {'n':>4} {'covered':>8} {'below':>6} {'above':>6}")
    for head in make_heads(options.only):
        covered, below, above = coverage(head, options.repeats)
        shares = f"{covered:8.3f} {below:6.3f} {above:6.3f}"
        print(f"{head.name:28} {head.n_tracks:4d} {shares}", flush=True)

    if options.only in (None, "set"):
        print(f"{'best set of 13 layers':28} {'n':>4} {'held':>8} {'size':>6}")
        for slope in (0.0, 0.004, 0.02):
            for n in SIZES:
                held, size = coverage_of_best_set(n, slope, options.repeats)
                print(f"{f'falling {slope} a layer':28} {n:4d} {held:8.3f} {size:6.1f}", flush=True)


if __name__ == "__main__":
    main()
