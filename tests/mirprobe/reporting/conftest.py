"""Cells with rows made by hand, below a temporary folder."""

from collections.abc import Callable
from pathlib import Path

import pytest
from toy_rows import save_rows

from mirprobe.cell import Cell
from mirprobe.settings import compose_cells


@pytest.fixture
def compose(tmp_path: Path) -> Callable[..., list[Cell]]:
    """Makes cells of overrides, whose results go to `runs` below the temporary folder."""

    def make(*overrides: str) -> list[Cell]:
        return compose_cells([f"paths.runs={tmp_path}/runs", *overrides])

    return make


@pytest.fixture
def pitch(compose: Callable[..., list[Cell]]) -> list[Cell]:
    """The baseline and fcpe on the demo's pitch task: layer 1 is best on val, layer 2 on test."""
    baseline, fcpe = compose("task=nsynth_pitch")
    save_rows(baseline, [0.4], [0.45])
    save_rows(fcpe, [0.5, 0.9, 0.7], [0.4, 0.625, 0.708], weighted=0.667)
    return [baseline, fcpe]
