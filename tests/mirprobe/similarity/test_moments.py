"""Moments: in any order, in any pieces, on any number of processes the same; a clip counts once."""

import io
import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from similar_views import PAIR, moments_of
from torch import Tensor

from datamodules.errors import UserError
from mirprobe.similarity import cca, measures
from mirprobe.similarity.clip_sums import add_gram, phases_of, scramble, symmetric, turning
from mirprobe.similarity.moments import Layout, Moments, merged
from mirprobe.similarity.two_views import TwoViews, about_means, unrelated, within_tracks

SELF = (("x", "x"), ("y", "y"))


def two_views(n: int = 400, seed: int = 0, offset: float = 3.0) -> dict[str, Tensor]:
    """A view of 6 values, far from 0, and one of 4 that has something to do with it."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 6, generator=generator, dtype=torch.float64) + offset
    y = x[:, :4] + torch.randn(n, 4, generator=generator, dtype=torch.float64)
    return {"x": x, "y": y}


def one_clip(number: int, views: dict[str, Tensor]) -> Moments:
    moments = Moments.empty(Layout({"x": 6, "y": 4}, (PAIR,), n_folds=5))
    moments.update(f"audio {number}", 0, track=f"t{number}", fold=number % 5, frames=views)
    return moments


def numbers_of(moments: Moments) -> list[float]:
    """Everything that moments say, as numbers."""
    views, null = about_means(moments, PAIR), unrelated(moments, PAIR)
    within = within_tracks(moments, PAIR)
    sums = [moments.with_squares(pair) for pair in (PAIR, *SELF)]
    tensors = [views.xx, views.xy, views.yy, null.xy, within.xx, within.xy, within.yy]
    scalars = [measures.debiased_cka(moments.n_frames, *sums)]
    scalars += [measures.mean_cosine(moments.directions["x"], moments.n_frames)]
    return [float(value) for tensor in tensors for value in tensor.flatten()] + scalars


def test_merging_in_any_order_gives_the_same() -> None:
    parts = [one_clip(number, two_views(seed=number)) for number in range(4)]
    wanted = numbers_of(merged(parts))
    for order in itertools.permutations(range(4)):
        found = numbers_of(merged([parts[number] for number in order]))
        assert found == pytest.approx(wanted, rel=1e-12, abs=1e-12)
    pairwise = merged([merged(parts[:2]), merged(parts[2:])])
    assert numbers_of(pairwise) == pytest.approx(wanted, rel=1e-12, abs=1e-12)


def test_a_far_away_mean_costs_no_digits() -> None:
    """Sums of raw squares would be off by 1e-4 here."""
    near, far = (moments_of(two_views(offset=offset)) for offset in (0.0, 2.0**20))
    assert numbers_of(far)[:-1] == pytest.approx(numbers_of(near)[:-1], rel=1e-9, abs=1e-7)


def test_a_clip_may_be_cut_without_a_change_of_what_is_there() -> None:
    whole, pieces = (moments_of(two_views(), n_clips=n, clips_per_track=n) for n in (1, 8))
    for pair in (PAIR, *SELF):
        one, other = about_means(whole, pair), about_means(pieces, pair)
        torch.testing.assert_close(one.xy, other.xy, rtol=1e-12, atol=1e-11)
        one, other = within_tracks(whole, pair), within_tracks(pieces, pair)
        torch.testing.assert_close(one.xy, other.xy, rtol=1e-12, atol=1e-11)
        assert one.n == other.n == 400


def test_the_scatter_is_that_of_the_frames() -> None:
    views = two_views()
    found = about_means(moments_of(views), PAIR)
    frames = torch.cat([views["x"], views["y"]], dim=1).T
    wanted = torch.cov(frames) * 399
    torch.testing.assert_close(found.xx, wanted[:6, :6])
    torch.testing.assert_close(found.xy, wanted[:6, 6:])
    torch.testing.assert_close(found.yy, wanted[6:, 6:])


def test_a_symmetric_product_by_blocks_is_whole() -> None:
    values = torch.randn(20, 600, dtype=torch.float64)
    total = torch.zeros(600, 600, dtype=torch.float64)
    add_gram(total, values)
    torch.testing.assert_close(symmetric(total), values.T @ values)
    assert not bool(total[300:, :200].any()), "the lower blocks are left out"


def test_a_file_holds_every_bit() -> None:
    moments = moments_of(two_views())
    file = io.BytesIO()
    np.savez(file, **moments.to_arrays())  # type: ignore[arg-type]
    file.seek(0)
    with np.load(file, allow_pickle=False) as arrays:
        again = Moments.from_arrays(dict(arrays))
    assert again.layout == moments.layout
    assert numbers_of(again) == numbers_of(moments)
    assert [clip.angles for clip in again.clips.values()] == [
        clip.angles for clip in moments.clips.values()
    ]

    more = two_views(seed=9)
    for one in (moments, again):
        one.update("audio 9", 0, track="t9", fold=4, frames=more)
    assert numbers_of(again) == numbers_of(moments), "going on is as if nothing had been"


def test_moments_of_nothing_can_be_kept_and_merged() -> None:
    empty = Moments.empty(Layout({"x": 6, "y": 4}, (PAIR,)))
    again = Moments.from_arrays(empty.to_arrays())
    moments = moments_of(two_views())
    assert numbers_of(merged([again, moments, empty])) == numbers_of(moments)


def test_a_clip_that_two_processes_counted_is_an_error() -> None:
    parts = [one_clip(number, two_views()) for number in (0, 1, 1)]
    with pytest.raises(UserError, match=r"1 clips are in both \(first: clip 0 of audio 1"):
        merged(parts)


def test_frames_that_are_not_finite_name_the_track() -> None:
    views = two_views()
    views["y"][17, 2] = math.nan
    with pytest.raises(UserError, match="frames of y are not finite for track t3: listen to"):
        one_clip(3, views)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_sums_are_of_float64_whatever_the_frames_are(dtype: torch.dtype) -> None:
    rounded = {name: view.to(dtype) for name, view in two_views().items()}
    wanted = moments_of({name: view.double() for name, view in rounded.items()})
    assert numbers_of(moments_of(rounded)) == numbers_of(wanted)


# -- the null, and what is constant in a track -------------------------------------------------


def tracks_with_timbre(share: float, n_tracks: int = 60) -> dict[str, Tensor]:
    """Unrelated views of 60 tracks of 200 frames, of whose variance a share is constant."""
    generator = torch.Generator().manual_seed(1)
    views = {}
    for name in "xy":
        frames = torch.randn(n_tracks, 200, 16, generator=generator, dtype=torch.float64)
        tracks = torch.randn(n_tracks, 1, 16, generator=generator, dtype=torch.float64)
        views[name] = ((1 - share) ** 0.5 * frames + share**0.5 * tracks).flatten(0, 1)
    return views


def pwcca_of(views: TwoViews) -> float:
    x = cca.whiten(views.xx, views.mean_x, views.n)
    y = cca.whiten(views.yy, views.mean_y, views.n)
    return cca.pwcca(cca.canonical_pairs(views.n, x, y, views.xy))


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_the_null_shows_what_unrelated_views_give(share: float) -> None:
    moments = moments_of(tracks_with_timbre(share), n_clips=60)
    plain, null = pwcca_of(about_means(moments, PAIR)), pwcca_of(unrelated(moments, PAIR))
    assert null == pytest.approx(plain, rel=0.2), "all of the plain value is chance"
    assert pwcca_of(within_tracks(moments, PAIR)) < 0.05, "what is constant is taken out"


def test_the_null_of_related_views_is_as_if_they_were_not() -> None:
    views = tracks_with_timbre(0.3)
    floor = pwcca_of(unrelated(moments_of(views, n_clips=60), PAIR))
    views["y"] = views["x"] + 0.1 * views["y"]
    moments = moments_of(views, n_clips=60)
    assert pwcca_of(about_means(moments, PAIR)) > 0.98
    assert pwcca_of(unrelated(moments, PAIR)) == pytest.approx(floor, rel=0.3)


def test_the_null_needs_another_track() -> None:
    moments = moments_of(two_views(), n_clips=3, clips_per_track=3)
    with pytest.raises(UserError, match="pairs each track with another one, found 1"):
        unrelated(moments, PAIR)


def test_scrambling_keeps_covariances_at_every_lag() -> None:
    generator = torch.Generator().manual_seed(2)
    for n in (64, 65):
        frames = torch.randn(n, 3, generator=generator, dtype=torch.float64)
        frames -= frames.mean(dim=0)
        other = scramble(frames, phases_of("some audio", 0, n))
        for lag in (0, 1, 7):
            one, two = (view.T @ view.roll(lag, 0) for view in (frames, other))
            torch.testing.assert_close(two, one)
        assert float((frames * other).sum() / (frames * frames).sum()) < 0.3
    assert not torch.equal(phases_of("a", 0, 64), phases_of("a", 1, 64))


# -- one view ----------------------------------------------------------------------------------


def test_the_mean_cosine_is_that_of_all_pairs_of_frames() -> None:
    views = two_views(n=50)
    found = measures.mean_cosine(moments_of(views).directions["x"], 50)
    cosines = torch.nn.functional.cosine_similarity(
        views["x"][:, None], views["x"][None], dim=2
    ).fill_diagonal_(0)
    assert found == pytest.approx(float(cosines.sum()) / (50 * 49))


def test_turning_knows_lines_circles_and_noise() -> None:
    line = torch.arange(10.0)[:, None] * torch.tensor([1.0, 2.0])
    assert turning(line)[0] == pytest.approx(0, abs=1e-2)

    angles = 2 * math.pi * torch.arange(12.0) / 12
    circle = torch.stack([angles.cos(), angles.sin()], dim=1).double()
    total, count = turning(circle)
    assert (float(total / count), int(count)) == (pytest.approx(math.pi / 6, rel=1e-5), 10)

    noise = torch.randn(4000, 64, generator=torch.Generator().manual_seed(3)).double()
    total, count = turning(noise)
    assert math.degrees(total / count) == pytest.approx(120, abs=1), "independent frames"
    total, count = turning(noise.cumsum(0))
    assert math.degrees(total / count) == pytest.approx(90, abs=1), "independent steps"

    total, count = turning(torch.zeros(5, 2))
    assert (float(total), int(count)) == (0.0, 0), "what stands still does not turn"


@pytest.mark.parametrize(
    ("first", "step", "corners"), [(0, 2, [2, 4]), (1, 3, [1, 4]), (2, 9, [2])]
)
def test_frames_that_count_turn_between_their_own_neighbours(
    first: int, step: int, corners: list[int]
) -> None:
    """Every corner of the path has an angle of its own, so that a wrong neighbour shows."""
    headings = torch.tensor([0.0, 0.1, 0.3, 0.6, 1.0, 1.5]).double()  # of six steps, seven frames
    steps = torch.stack([headings.cos(), headings.sin()], dim=1)
    path = torch.cat([torch.zeros(1, 2).double(), steps.cumsum(0)])
    total, count = turning(path, first, step)
    assert float(total) == pytest.approx(sum(0.1 * corner for corner in corners), rel=1e-6)
    assert int(count) == len(corners)
    for n_frames in (1, 2):
        assert int(turning(path[:n_frames], first, step)[1]) == 0


# -- several processes -------------------------------------------------------------------------


@pytest.mark.trial
@pytest.mark.parametrize("n_ranks", [2, 3])
def test_ranks_have_the_moments_of_all_of_them(n_ranks: int, tmp_path: Path) -> None:
    torch.multiprocessing.spawn(_rank, (n_ranks, str(tmp_path / "meet")), nprocs=n_ranks)


def _rank(rank: int, n_ranks: int, meeting: str) -> None:
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{meeting}", rank=rank, world_size=n_ranks
    )
    parts = [one_clip(number, two_views(seed=number)) for number in range(5)]
    layout = parts[0].layout
    # The last rank has no clips: there are fewer tracks than processes.
    own = [part for number, part in enumerate(parts) if number % max(1, n_ranks - 1) == rank]
    total = merged([Moments.empty(layout), *own])
    total.all_reduce()
    assert numbers_of(total) == pytest.approx(numbers_of(merged(parts)), rel=1e-12, abs=1e-12)
    torch.distributed.destroy_process_group()
