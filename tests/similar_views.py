"""Two views to hold against each other, and their moments: tests of similarity share them."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mirprobe.similarity.moments import Layout, Moments

# Recipes of (n, D) views, and the answers by Morcos et al.'s definition in 80 digits (mpmath).
GOLDEN = json.loads((Path(__file__).parent / "data" / "pwcca.json").read_text())
PAIR = ("x", "y")


def golden_views(case: str) -> tuple[Tensor, Tensor]:
    """The views of a golden case, checked to be those its answers are of."""
    names: dict[str, object] = {"np": np}
    names["rng"] = np.random.Generator(np.random.PCG64(GOLDEN[case]["seed"]))
    for line in GOLDEN[case]["recipe"]:
        exec(line, names)

    views = []
    for name in "XY":
        view = np.asarray(names[name], dtype=np.float64)
        found = [view.sum(), np.square(view).sum(), view.flat[0], view.flat[-1]]
        check = GOLDEN[case]["check"]
        wanted = [check[f"{key}_{name}"] for key in ("sum", "sumsq")]
        wanted += [check[f"{name}_{key}"] for key in ("first", "last")]
        np.testing.assert_allclose(found, wanted, rtol=1e-10)
        views.append(torch.from_numpy(view))
    return views[0], views[1]


def moments_of(
    views: Mapping[str, Tensor],
    pairs: tuple[tuple[str, str], ...] = (PAIR,),
    *,
    n_clips: int = 5,
    clips_per_track: int = 1,
    device: str = "cpu",
) -> Moments:
    """Moments of views that are cut into clips of about equal length, each a fold of its own."""
    n_frames = len(next(iter(views.values())))
    dims = {name: view.shape[1] for name, view in views.items()}
    moments = Moments.empty(Layout(dims, pairs, n_folds=5), device)
    for clip in range(n_clips):
        rows = slice(clip * n_frames // n_clips, (clip + 1) * n_frames // n_clips)
        number = clip // clips_per_track
        moments.update(
            f"audio {number}",
            clip % clips_per_track,
            track=f"track {number}",
            fold=number % 5,
            frames={name: view[rows] for name, view in views.items()},
        )
    return moments
