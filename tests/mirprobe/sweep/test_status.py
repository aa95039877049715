"""What is done is what is on disk."""

from collections.abc import Callable

import pytest

from datamodules.errors import UserError
from mirprobe.results import FILE, Row, write_rows
from mirprobe.settings import compose_cells
from mirprobe.sweep.status import check_done, pending

ROW = Row(
    model="fcpe", task="t", metric="accuracy", head="layer_00", layer=0, split="val", seed=0,
    protocol="p", value=0.5, ci_low=0.4, ci_high=0.6, n_tracks=2, n_expected=2, majority=0.5,
    epoch=1, selected_by="val/accuracy", weights_start=None, weights_end=None, demo=False,
    config_hash="a", store_hash="b", versions={},
)  # fmt: skip


def test_cells_with_rows_are_done(settings: Callable[..., list[str]]) -> None:
    cells = compose_cells(settings("task=nsynth_pitch,nsynth_instrument"))
    assert pending(cells) == cells
    with pytest.raises(
        UserError, match=rf"4 of 4 cells have no results \(first: {cells[0].folder}"
    ):
        check_done(cells)

    for cell in (cells[0], cells[2]):
        write_rows(cell.folder, [ROW])
    assert pending(cells) == [cells[1], cells[3]]
    with pytest.raises(
        UserError, match=rf"2 of 4 cells have no results \(first: {cells[1].folder}"
    ):
        check_done(cells)

    for cell in pending(cells):
        write_rows(cell.folder, [ROW])
    assert pending(cells) == []
    check_done(cells)


def test_a_cell_with_settings_and_features_alone_is_not_done(
    settings: Callable[..., list[str]],
) -> None:
    (cell,) = compose_cells(settings("task=nsynth_pitch", "baseline=null"))
    cell.folder.mkdir(parents=True)
    (cell.folder / "config.yaml").write_text("seed: 0\n")
    (cell.folder / "features.json").write_text("{}")
    assert pending([cell]) == [cell]


@pytest.mark.parametrize("text", ["", "{oops\n", "[]\n"])
def test_broken_rows_are_neither_done_nor_computed_over(
    settings: Callable[..., list[str]], text: str
) -> None:
    (cell,) = compose_cells(settings("task=nsynth_pitch", "baseline=null"))
    cell.folder.mkdir(parents=True)
    (cell.folder / FILE).write_text(text)
    with pytest.raises(UserError, match=r"rows\.jsonl is not a list of result rows"):
        pending([cell])
