"""Controls below the table: a score less that of shuffled labels and of a random network."""

from collections.abc import Callable
from dataclasses import replace

from toy_rows import save_rows

from mirprobe.cell import Cell
from mirprobe.reporting.controls import control_notes
from mirprobe.reporting.notes import notes
from mirprobe.reporting.table import make_table_rows

VAL = [0.2, 0.9, 0.3]


def test_a_score_is_held_against_its_own_controls(compose: Callable[..., list[Cell]]) -> None:
    settings = ("task=nsynth_pitch", "baseline=null", "seed=0,1")
    cells = compose(*settings, "data.labels=given,shuffled", "model.weights=trained,random")
    scores = {("given", "trained"): 0.8, ("shuffled", "trained"): 0.1, ("given", "random"): 0.45}
    for cell in cells:
        score = scores.get((cell.data.labels, cell.model["weights"]), 0.05) + 0.1 * cell.seed
        save_rows(cell, VAL, [0.0, score, 1.0])

    rows = make_table_rows(cells)
    lines = control_notes(rows)
    assert lines == [
        "fcpe, Pitch, accuracy, seed 0: +70.0, which is 80.0 less 10.0 with shuffled labels "
        "(selectivity); +35.0, which is 80.0 less 45.0 of the network with random weights.",
        "fcpe, Pitch, accuracy, seed 1: +70.0, which is 90.0 less 20.0 with shuffled labels "
        "(selectivity); +35.0, which is 90.0 less 55.0 of the network with random weights.",
    ]
    assert set(lines) <= set(notes(rows))


def test_without_a_control_nothing_is_said(compose: Callable[..., list[Cell]]) -> None:
    (cell,) = compose("task=nsynth_pitch", "baseline=null")
    save_rows(cell, VAL, VAL)
    other = replace(cell, protocol=replace(cell.protocol, lr=1e-4))
    shuffled = replace(other, data=replace(other.data, labels="shuffled"))
    save_rows(shuffled, VAL, VAL)
    assert control_notes(make_table_rows([cell, shuffled])) == []
