"""Figure 3: curves, what is held out, what is chance; and that no measure passes for a selector."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from toy_similarity import save_similarity, similarity_row

from datamodules.errors import UserError
from mirprobe.cell import MOMENTS, Cell
from mirprobe.reporting.figure3 import (
    SimilarityPanel,
    draw_figure3,
    draw_layer_pairs,
    draw_similarity,
    draw_without_labels,
)
from mirprobe.reporting.rank_correlation import rank_correlation
from mirprobe.reporting.tracking import layer_points
from mirprobe.settings import compose_cells
from mirprobe.similarity.rows import read_similarity, sources_of

Settings = Callable[..., list[str]]
CURVE = [0.9, 0.8, 0.6, 0.5, 0.45, 0.4]


@pytest.fixture
def panel(pitch: list[Cell]) -> SimilarityPanel:
    rows = save_similarity(pitch[1], CURVE)
    return SimilarityPanel("fcpe", rows, {"Pitch": np.array([0.1, 0.2, 0.4, 0.3, 0.5, 0.6])})


def lines_of(figure: Figure) -> dict[str, list[tuple[str, list[float]]]]:
    """Style and values of all lines, by colour."""
    found: dict[str, list[tuple[str, list[float]]]] = {}
    for line in figure.axes[0].get_lines():
        entry = (str(line.get_linestyle()), [float(value) for value in line.get_ydata()])
        found.setdefault(str(line.get_color()), []).append(entry)
    return found


def test_curves_are_the_rows(panel: SimilarityPanel) -> None:
    mel, h0 = lines_of(draw_figure3([panel])).values()
    assert ("-", CURVE) in mel
    assert ("--", pytest.approx([value - 0.2 for value in CURVE])) in mel
    assert ("-", [1.0, *(value / 2 for value in CURVE[1:])]) in h0


def test_layer_0_is_hollow_and_no_other_is(panel: SimilarityPanel) -> None:
    lines = draw_figure3([panel]).axes[0].get_lines()
    hollow = [line for line in lines if line.get_markerfacecolor() == "white"]
    assert [list(line.get_xdata()) for line in hollow] == [[0.0], [0.0]]
    full = [line for line in lines if line.get_marker() == "o" and line not in hollow]
    assert all(0.0 not in line.get_xdata() for line in full)


def test_the_band_ends_at_what_unrelated_views_give(panel: SimilarityPanel) -> None:
    band = draw_figure3([panel]).axes[0].collections[0]
    heights = band.get_paths()[0].vertices[:, 1]  # type: ignore[index]
    assert (heights.min(), heights.max()) == (0.0, pytest.approx(0.3))


def test_depth_may_be_relative(panel: SimilarityPanel) -> None:
    line = draw_figure3([panel], relative_depth=True).axes[0].get_lines()[0]
    assert list(line.get_xdata()) == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1])


def test_panels_say_what_they_are_made_of(panel: SimilarityPanel) -> None:
    title = draw_figure3([panel]).axes[0].get_title()
    assert title == "fcpe (demo data)\n9000 frames of 60 tracks"


def test_a_measure_without_labels_stands_beside_its_correlation(panel: SimilarityPanel) -> None:
    figure = draw_without_labels([panel])
    assert figure.axes[0].get_xlabel() == "layer\nPitch: .94 [.38, 1.00]"
    assert figure.axes[3].get_xlabel() == "layer\nPitch: -.94 [-1.00, -.38]"
    assert "chooses a layer" in str(figure.get_supxlabel())


def test_few_layers_and_even_curves_have_no_correlation() -> None:
    rising = np.arange(6.0)
    assert rank_correlation(rising[:4], rising[:4]) is None
    assert rank_correlation(rising, np.ones(6)) is None
    gap = np.array([0.0, np.nan, 2, 3, 4, 5])
    found = rank_correlation(rising, gap)
    assert found is not None
    assert (found.value, found.n, found.high) == (1.0, 5, 1.0)


def test_pairs_of_layers_are_drawn_where_they_were_counted(panel: SimilarityPanel) -> None:
    assert draw_layer_pairs([panel]) is None
    rows = [*panel.rows, similarity_row("cka", 2, 0.25, "h01")]
    figure = draw_layer_pairs([SimilarityPanel("fcpe", rows, {})])
    assert figure is not None
    image = np.asarray(figure.axes[0].get_images()[0].get_array())
    assert (image[1, 2], image[2, 1], image[0, 0]) == (0.25, 0.25, 1.0)


def test_files_are_written_and_hold_the_numbers(
    pitch: list[Cell], panel: SimilarityPanel, capsys: pytest.CaptureFixture[str]
) -> None:
    draw_similarity(pitch, {"fcpe": panel.probes})
    folder = Path(pitch[0].paths.runs) / "report"
    assert {path.name for path in folder.iterdir()} == {
        "figure3.png",
        "figure3.pdf",
        "figure3.csv",
        "layers_without_labels.png",
        "layers_without_labels.pdf",
    }
    with (folder / "figure3.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 12
    assert lines[1]["input"] == "mel"
    assert (lines[1]["pwcca"], lines[1]["null"], lines[1]["within"]) == ("0.800000", "0.300000", "")
    assert "fcpe against log-mel: 9000 frames say as much as 1500" in capsys.readouterr().out


def test_models_of_unequal_depth_are_drawn_over_it_too(settings: Settings) -> None:
    models = compose_cells(settings("task=nsynth_pitch", "model=fcpe,musicfm", "baseline=null"))
    for cell, curve in zip(models, (CURVE, [*CURVE, 0.5, 0.4]), strict=True):
        save_similarity(cell, curve)
    draw_similarity(models)
    names = {path.name for path in (Path(models[0].paths.runs) / "report").iterdir()}
    assert {"figure3.pdf", "figure3_over_depth.pdf", "figure3_over_depth.png"} <= names


def test_nothing_is_drawn_where_nothing_was_counted(pitch: list[Cell]) -> None:
    draw_similarity(pitch)
    assert not (Path(pitch[0].paths.runs) / "report").exists()


def test_the_dashboard_has_the_curves_over_layers() -> None:
    points = layer_points(
        [], [similarity_row("null", 1, 0.3, "mel"), similarity_row("entropy", 1, 2.0)]
    )
    assert points == [{"layer": 1, "similarity/mel_null": 0.3, "similarity/entropy": 2.0}]


# -- rows on disk ------------------------------------------------------------------------------


def test_rows_are_read_as_they_were_written(pitch: list[Cell]) -> None:
    rows = save_similarity(pitch[1], CURVE)
    (source,) = sources_of(pitch)
    assert source.path.parts[-4:-2] == ("fcpe", "similarity")
    assert read_similarity(source.path) == rows
    assert read_similarity(source.path.with_name("other.jsonl")) == []


@pytest.mark.parametrize("text", ["{", "[1]\n", '{"kind": "similarity"}\n', "null\n"])
def test_broken_rows_are_named_with_the_way_out(pitch: list[Cell], text: str) -> None:
    save_similarity(pitch[1], CURVE)
    (source,) = sources_of(pitch)
    source.path.write_text(text)
    with pytest.raises(UserError, match=r"is not a list of similarity rows .*delete it and run"):
        read_similarity(source.path)


@pytest.mark.parametrize("note", ["{", "[]", '{"dataset": 1}', '{"dataset": "../x"}', "{}"])
def test_a_broken_note_is_named_with_the_way_out(pitch: list[Cell], note: str) -> None:
    (pitch[1].folder / MOMENTS).write_text(note)
    with pytest.raises(UserError, match=r"moments.json does not name moments .*delete it and run"):
        sources_of(pitch)


def test_other_moments_or_another_weighting_are_other_rows(
    pitch: list[Cell], compose: Callable[..., list[Cell]]
) -> None:
    save_similarity(pitch[1], CURVE)
    (source,) = sources_of(pitch)
    note = json.loads((pitch[1].folder / MOMENTS).read_text())
    (pitch[1].folder / MOMENTS).write_text(json.dumps(note | {"moments": "similarity-1"}))
    (other,) = sources_of(pitch)
    (layer,) = sources_of(compose("task=nsynth_pitch", "similarity.weights=layer"))
    assert len({source.hash, other.hash, layer.hash}) == 3
