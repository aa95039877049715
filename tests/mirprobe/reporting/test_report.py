"""The table and the figures, from rows made by hand."""

import io
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from rich.console import Console

from mirprobe.cell import Cell
from mirprobe.reporting.figures import draw_heat_maps, draw_layer_weights
from mirprobe.reporting.report import make_figures, report
from mirprobe.reporting.table import make_lines, make_table, notes
from mirprobe.results import Row, write_rows
from mirprobe.settings import compose_cells

RED = "#c1121f"


def make_rows(
    cell: Cell,
    val: Sequence[float],
    test: Sequence[float],
    *,
    weighted: float | None = None,
    **changes: object,
) -> list[Row]:
    """Rows of a cell whose intervals are 10 points wide to each side; the last layer has the
    largest weight.
    """
    first = Row(
        model=cell.model_name, task=cell.task.name, metric=cell.metrics[0], head="", layer=0, split="val", seed=cell.seed,
        protocol=cell.protocol.name, value=0.0, ci_low=0.0, ci_high=0.0, n_tracks=24, n_expected=24, majority=0.125, epoch=1,
        selected_by="val/accuracy", weights_start=None, weights_end=None, demo=cell.is_demo, config_hash=cell.hash,
        store_hash="0" * 12, versions={},
    )  # fmt: skip
    first = replace(first, **changes)
    rows = [
        replace(
            first,
            head=f"layer_{layer:02d}",
            layer=layer,
            split=split,
            value=value,
            ci_low=value - 0.1,
            ci_high=value + 0.1,
        )
        for split, values in (("val", val), ("test", test))
        for layer, value in enumerate(values)
    ]
    if weighted is not None:
        n_layers = len(test) - 1
        end = [float(layer) for layer in range(1, n_layers + 1)]
        sums = {
            "weights_start": [1 / n_layers] * n_layers,
            "weights_end": [weight / sum(end) for weight in end],
        }
        rows += [
            replace(first, head="weighted", layer=None, split=split, value=weighted, ci_low=weighted - 0.05,
                    ci_high=weighted + 0.05, **sums)
            for split in ("val", "test")
        ]  # fmt: skip
    return rows


def save(cell: Cell, val: Sequence[float], test: Sequence[float], **options: object) -> None:
    write_rows(cell.folder, make_rows(cell, val, test, **options))  # type: ignore[arg-type]


def compose(tmp_path: Path, *overrides: str) -> list[Cell]:
    return compose_cells([f"paths.runs={tmp_path}/runs", *overrides])


def printed(cells: Sequence[Cell]) -> tuple[str, list[dict[str, str]]]:
    """Title and cells of the table as a reader sees them; what a cell says on several lines is
    joined by blanks.
    """
    console = Console(width=300, file=io.StringIO(), color_system=None)
    console.print(make_table(make_lines(cells)))
    assert isinstance(console.file, io.StringIO)
    title, *lines = console.file.getvalue().splitlines()
    blocks: list[list[list[str]]] = [[]]
    for line in lines:
        if line[0] in "┃│":
            blocks[-1].append([word.strip() for word in re.split("[┃│]", line[1:-1])])
        elif blocks[-1]:
            blocks.append([])
    headings, *rows = (
        [" ".join(words).strip() for words in zip(*block, strict=True)] for block in blocks if block
    )
    return title.strip(), [dict(zip(headings, row, strict=True)) for row in rows]


@pytest.fixture
def pitch(tmp_path: Path) -> list[Cell]:
    """The baseline and fcpe on the demo's pitch task: layer 1 is best on val, layer 2 on test."""
    cells = compose(tmp_path, "task=nsynth_pitch")
    save(cells[0], [0.4], [0.45])
    save(cells[1], [0.5, 0.9, 0.7], [0.4, 0.625, 0.708], weighted=0.667)
    return cells


# -- the table -------------------------------------------------------------------------------------


def test_a_line_shows_baseline_chosen_layer_oracle_and_weighted_sum(pitch: list[Cell]) -> None:
    _, rows = printed(pitch)
    assert len(rows) == 1
    row = rows[0]
    assert (row["Task"], row["n"], row["Majority"], row["Model"]) == ("Pitch", "24", "12.5", "fcpe")
    assert row["fbank_chroma"] == "45.0 [35.0, 55.0]"
    assert row["Best layer (by val)"] == "62.5 (1) [52.5, 72.5]"
    assert row["Test oracle"].startswith("70.8 (2)")
    assert row["Weighted sum"] == "66.7 (2) [61.7, 71.7]"


def test_an_incomplete_split_shows_found_and_expected(tmp_path: Path) -> None:
    cells = compose(tmp_path, "task=gtzan_genre", "baseline=null", "data.root=/datasets")
    save(cells[0], [0.5, 0.6], [0.5, 0.6], n_tracks=289, n_expected=290)
    assert printed(cells)[1][0]["n"] == "289/290"


def test_demo_numbers_are_labelled_in_the_title_and_the_notes(
    tmp_path: Path, pitch: list[Cell]
) -> None:
    title, _ = printed(pitch)
    assert title == "Table 1: test scores in % (demo data)"
    assert any("Demo data: rendered or synthesised" in note for note in notes(make_lines(pitch)))
    real = compose(tmp_path, "task=nsynth_pitch", "data.root=/datasets", "baseline=null")
    save(real[0], [0.5, 0.6], [0.5, 0.6])
    assert printed(real)[0] == "Table 1: test scores in %"
    assert not any("emo data" in note for note in notes(make_lines(real)))


def test_notes_say_how_layers_were_chosen_and_what_the_backbone_is(pitch: list[Cell]) -> None:
    text = " ".join(notes(make_lines(pitch)))
    for words in (
        "chosen on val",
        "95 %",
        "seed 0",
        "mlp512",
        "optimistic",
        "trained on singing pitch",
        "licence MIT",
    ):
        assert words in text


def test_every_task_is_a_line_beside_its_own_baseline(tmp_path: Path) -> None:
    cells = compose(tmp_path, "task=nsynth_pitch,nsynth_instrument")
    for cell in cells:
        value = 0.3 if cell.task.name == "nsynth_pitch" else 0.6
        save(cell, [value, value], [value, value]) if cell.model_name == "fcpe" else save(
            cell, [value], [value - 0.1]
        )
    _, rows = printed(cells)
    assert [
        (row["Task"], row["fbank_chroma"].split()[0], row["Test oracle"][:8]) for row in rows
    ] == [
        ("Pitch", "20.0", "30.0 (0)"),
        ("Instrument", "50.0", "60.0 (0)"),
    ]


def test_every_seed_is_a_line_beside_the_baseline_of_its_seed(tmp_path: Path) -> None:
    cells = compose(tmp_path, "task=nsynth_pitch", "seed=0,1")
    for cell in cells:
        value = 0.2 + 0.1 * cell.seed
        save(cell, [value], [value]) if cell.model_name == "fbank_chroma" else save(
            cell, [0.5, 0.6], [0.5, 0.6 + value]
        )
    _, rows = printed(cells)
    assert [
        (row["Seed"], row["fbank_chroma"].split()[0], row["Best layer (by val)"].split()[0])
        for row in rows
    ] == [
        ("0", "20.0", "80.0"),
        ("1", "30.0", "90.0"),
    ]
    assert "seed 0, 1" in notes(make_lines(cells))[0]


def test_cells_that_differ_in_the_protocol_only_are_told_apart(tmp_path: Path) -> None:
    cells = compose(tmp_path, "task=nsynth_pitch", "protocol.lr=1e-3,3e-4", "baseline=null")
    for cell in cells:
        save(cell, [0.5, 0.6], [0.5, 0.6])
    _, rows = printed(cells)
    assert [row["Cell"] for row in rows] == [cell.hash[:6] for cell in cells]


def test_cells_without_rows_make_no_line_and_a_missing_baseline_is_a_dash(tmp_path: Path) -> None:
    cells = compose(tmp_path, "task=nsynth_pitch,nsynth_instrument,giantsteps_key")
    by_name = {(cell.model_name, cell.task.name): cell for cell in cells}
    save(by_name["fcpe", "nsynth_pitch"], [0.5, 0.6], [0.5, 0.6])
    save(by_name["fcpe", "nsynth_instrument"], [0.5, 0.6], [0.5, 0.6])
    save(by_name["fbank_chroma", "nsynth_instrument"], [0.4], [0.4])
    _, rows = printed(cells)
    assert [(row["Task"], row["fbank_chroma"]) for row in rows] == [
        ("Pitch", "-"),
        ("Instrument", "40.0 [30.0, 50.0]"),
    ]
    assert rows[0]["Weighted sum"] == "-"


def test_the_baseline_alone_is_a_line_of_its_own(tmp_path: Path) -> None:
    cells = compose(tmp_path, "task=nsynth_pitch", "model=fbank_chroma")
    save(cells[0], [0.4], [0.45])
    _, rows = printed(cells)
    assert [(row["Model"], row["Best layer (by val)"]) for row in rows] == [
        ("fbank_chroma", "45.0 (0) [35.0, 55.0]")
    ]


def test_a_variant_of_the_baseline_stands_beside_the_baseline(tmp_path: Path) -> None:
    """The literal reading of the paper, a shift of 15 ms, against the default of 10 ms."""
    cells = compose(tmp_path, "task=nsynth_pitch", "model=fbank_chroma", "model.frame_shift_ms=15")
    assert len(cells) == 2
    save(cells[0], [0.4], [0.4])
    save(cells[1], [0.7], [0.7])
    _, rows = printed(cells)
    found = {row["Best layer (by val)"].split()[0]: row["fbank_chroma"].split()[0] for row in rows}
    assert found["70.0"] == "40.0"


def test_a_random_network_is_a_line_of_its_own(tmp_path: Path) -> None:
    cells = compose(tmp_path, "task=nsynth_pitch", "model.weights=trained,random", "baseline=null")
    for cell in cells:
        save(cell, [0.5, 0.6], [0.5, 0.6])
    assert [row["Model"] for row in printed(cells)[1]] == ["fcpe", "fcpe-random"]


# -- figures ---------------------------------------------------------------------------------------


def marks(
    figure: Figure, panel: int = 0
) -> tuple[set[tuple[int, int]], set[tuple[int, int]], dict[tuple[int, int], str]]:
    """(column, layer) of the red cells, of the framed cells, and the number in every cell."""
    axis = figure.axes[panel]
    texts = {
        (round(text.get_position()[0]), round(text.get_position()[1])): text for text in axis.texts
    }
    red = {place for place, text in texts.items() if to_hex(str(text.get_color())) == RED}
    frames = [patch for patch in axis.patches if isinstance(patch, Rectangle)]
    framed = {
        (round(f.get_x() + f.get_width() / 2), round(f.get_y() + f.get_height() / 2))
        for f in frames
    }
    assert len(texts) == len(axis.texts)
    return red, framed, {place: text.get_text() for place, text in texts.items()}


def test_the_heat_map_marks_the_best_layer_on_test_red_and_frames_the_layer_chosen_on_val() -> None:
    scores = {
        "Pitch": (np.array([50.0, 90.0, 70.0]), np.array([40.0, 62.54, 70.8])),
        "Key": (np.array([80.0, 10.0, 20.0]), np.array([75.0, 20.0, 30.0])),
    }
    figure = draw_heat_maps({"fcpe": scores}, demo=False)
    red, framed, numbers = marks(figure)
    assert red == {(0, 2), (1, 0)}
    assert framed == {(0, 1), (1, 0)}
    assert numbers == {
        (0, 0): "40.0",
        (0, 1): "62.5",
        (0, 2): "70.8",
        (1, 0): "75.0",
        (1, 1): "20.0",
        (1, 2): "30.0",
    }
    axis = figure.axes[0]
    assert [label.get_text() for label in axis.get_xticklabels()] == ["Pitch", "Key"]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["0", "1", "2"]
    assert axis.get_ylim()[0] < axis.get_ylim()[1], "layer 0 is at the bottom"
    bold = {text.get_text() for text in axis.texts if text.get_fontweight() == "bold"}
    assert bold == {"70.8", "75.0"}


def test_colour_runs_from_the_worst_to_the_best_layer_of_each_task() -> None:
    scores = {
        "Pitch": (np.array([1.0, 2.0, 3.0]), np.array([80.0, 90.0, 85.0])),
        "Key": (np.ones(3), np.ones(3) * 50),
    }
    image = draw_heat_maps({"fcpe": scores}, demo=False).axes[0].images[0].get_array()
    assert image is not None
    np.testing.assert_allclose(np.asarray(image), [[0, 0], [1, 0], [0.5, 0]])


def test_of_equal_layers_the_lowest_is_marked_as_in_the_table() -> None:
    scores = {"Pitch": (np.array([50.0, 90.0, 90.0]), np.array([70.0, 40.0, 70.0]))}
    red, framed, _ = marks(draw_heat_maps({"fcpe": scores}, demo=False))
    assert (red, framed) == ({(0, 0)}, {(0, 1)})


@pytest.mark.parametrize("demo", [True, False])
def test_figures_say_that_their_data_is_a_demo(demo: bool) -> None:
    pair = (np.array([0.5, 0.5]), np.array([0.4, 0.6]))
    for draw in (draw_heat_maps, draw_layer_weights):
        figure = draw({"fcpe": {"Pitch": pair}}, demo=demo)
        texts = [axis.get_title() for axis in figure.axes] + [
            text.get_text() for text in figure.texts
        ]
        texts.append(figure.get_supxlabel())
        assert any("demo data" in text for text in texts) is demo


def test_every_model_is_a_panel(tmp_path: Path) -> None:
    pair = (np.array([1.0, 2.0, 3.0]), np.array([1.0, 3.0, 2.0]))
    shallow = (np.array([2.0, 1.0]), np.array([2.0, 1.0]))
    figure = draw_heat_maps(
        {"fcpe": {"Pitch": pair, "Key": pair}, "other": {"Pitch": shallow}}, demo=False
    )
    assert [axis.get_title() for axis in figure.axes] == ["fcpe", "other"]
    assert marks(figure, 0)[0] == {(0, 1), (1, 1)}
    assert marks(figure, 1)[0] == {(0, 0)}


def test_layer_weights_are_bars_over_layers_from_one_with_the_largest_in_red() -> None:
    end = np.array([0.2, 0.5, 0.3])
    figure = draw_layer_weights({"fcpe": {"Pitch": (np.full(3, 1 / 3), end)}}, demo=False)
    bars = [patch for patch in figure.axes[0].patches if isinstance(patch, Rectangle)]
    assert [round(bar.get_x() + bar.get_width() / 2) for bar in bars] == [1, 2, 3]
    assert [bar.get_height() for bar in bars] == pytest.approx(end.tolist())
    assert [to_hex(bar.get_facecolor()) == RED for bar in bars] == [False, True, False]
    line = figure.axes[0].lines[0]
    assert np.asarray(line.get_ydata()).tolist() == pytest.approx([1 / 3] * 4)


def test_figures_are_made_of_the_rows(pitch: list[Cell]) -> None:
    figures = dict(make_figures(make_lines(pitch)))
    assert set(figures) == {"figure2", "layer_weights"}
    red, framed, numbers = marks(figures["figure2"])
    assert (red, framed) == ({(0, 2)}, {(0, 1)})
    assert list(numbers.values()) == ["40.0", "62.5", "70.8"]
    bars = [patch.get_height() for patch in figures["layer_weights"].axes[0].patches]
    assert bars == pytest.approx([1 / 3, 2 / 3])


def test_figures_show_the_mean_over_seeds(tmp_path: Path) -> None:
    cells = compose(tmp_path, "task=nsynth_pitch", "seed=0,1", "baseline=null")
    save(cells[0], [0.9, 0.5, 0.1], [0.2, 0.4, 0.6], weighted=0.5)
    save(cells[1], [0.1, 0.7, 0.1], [0.4, 0.6, 0.2], weighted=0.5)
    red, framed, numbers = marks(dict(make_figures(make_lines(cells)))["figure2"])
    assert list(numbers.values()) == ["30.0", "50.0", "40.0"]
    assert (red, framed) == ({(0, 1)}, {(0, 1)})


def test_a_backbone_of_one_layer_has_no_figure(tmp_path: Path) -> None:
    cells = compose(tmp_path, "task=nsynth_pitch", "model=fbank_chroma")
    save(cells[0], [0.4], [0.45])
    assert make_figures(make_lines(cells)) == []


def test_a_backbone_of_one_block_has_a_heat_map_though_no_weighted_sum(tmp_path: Path) -> None:
    cells = compose(tmp_path, "task=nsynth_pitch", "baseline=null")
    save(cells[0], [0.4, 0.5], [0.6, 0.5])
    assert marks(dict(make_figures(make_lines(cells)))["figure2"])[:2] == ({(0, 0)}, {(0, 1)})


# -- the whole -------------------------------------------------------------------------------------


def test_report_prints_the_table_and_writes_png_and_pdf(
    pitch: list[Cell], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report(pitch)
    out = capsys.readouterr().out
    for words in ("Table 1", "demo data", "62.5 (1)", "70.8 (2)", "chosen on val", "figure2.png"):
        assert words in out
    written = {path.name: path.read_bytes() for path in (tmp_path / "runs/report").iterdir()}
    assert set(written) == {"figure2.png", "figure2.pdf", "layer_weights.png", "layer_weights.pdf"}
    for name, content in written.items():
        assert content.startswith(b"\x89PNG" if name.endswith("png") else b"%PDF-")
        assert len(content) > 3000


def test_report_of_nothing_prints_nothing_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report(compose(tmp_path, "task=nsynth_pitch"))
    assert capsys.readouterr().out == ""
    assert not (tmp_path / "runs").exists()
