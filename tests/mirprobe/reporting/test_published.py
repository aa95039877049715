"""Published numbers: that they are those of their sources, and what is held against them."""

from collections.abc import Callable
from pathlib import Path

import pytest
from toy_rows import save_rows

from mirprobe.cell import Cell
from mirprobe.reporting.paper_table import latex_text, markdown_text
from mirprobe.reporting.published import (
    Number,
    compare_published,
    layers_by_others,
    published,
    published_table,
)
from mirprobe.reporting.report import report
from mirprobe.reporting.table import make_table_rows
from mirprobe.settings import compose_cells, known

Compose = Callable[..., list[Cell]]

# Table 1 of arXiv 2505.16306 as it is printed: FBANK + Chroma, then MusicFM, its weighted sum,
# MuQ and its weighted sum.
PAPER = """
gtzan_genre accuracy 15.2 85.5 (5) 80.0 (9) 85.9 (6) 82.8 (9)
emomusic_emotion r2_valence 36.7 75.7 (5) 76.2 (4) 76.7 (6) 77.6 (4)
emomusic_emotion r2_arousal 2.9 61.1 (5) 57.2 (4) 62.8 (6) 63.0 (4)
giantsteps_key key_weighted 15.0 63.3 (3) 63.0 (2) 66.9 (5) 63.7 (2)
vocalset_singer accuracy 63.5 92.5 (1) 91.3 (1) 96.0 (1) 94.6 (1)
vocalset_technique accuracy 49.3 78.3 (6) 76.0 (9) 81.5 (7) 76.4 (9)
nsynth_instrument accuracy 38.1 75.5 (3) 75.8 (3) 79.7 (3) 77.9 (11)
nsynth_pitch accuracy 74.4 89.5 (1) 90.2 (4) 91.5 (2) 91.2 (4)
magnatagatune_tags roc_auc 81.3 91.3 (3) 91.3 (2) 91.5 (4) 91.5 (2)
magnatagatune_tags average_precision 23.2 40.0 (5) 39.8 (2) 40.1 (5) 40.0 (2)
musictaste_preference accuracy 62.2 75.4 (5) 74.3 (4) 78.0 (9) 75.2 (4)
musictaste_rap accuracy 90.5 93.9 (3) 93.8 (5) 94.5 (7) 93.9 (5)
musictaste_quality accuracy 76.5 79.5 (4) 78.4 (3) 82.0 (8) 81.0 (4)
harmonix_structure frame_accuracy 75.6 76.5 (6) 76.4 (3) 77.0 (9) 77.2 (9)
"""


def of(source: str) -> list[Number]:
    return [number for number in published().numbers if number.source == source]


# -- the data --------------------------------------------------------------------------------------


def test_the_papers_table_is_as_it_was_printed() -> None:
    lines: dict[str, list[str]] = {}
    for number in of("layer paper"):
        lines.setdefault(f"{number.task} {number.metric}", []).append(number.text)
    found = [" ".join((name, *values)) for name, values in lines.items()]
    assert found == PAPER.strip().splitlines()
    heads = {(number.model, number.head) for number in of("layer paper")}
    assert heads == {("fbank_chroma", "layer")} | {
        (model, head) for model in ("musicfm", "muq") for head in ("layer", "weighted")
    }


def test_the_exchanged_rows_are_the_printed_ones_under_each_others_names() -> None:
    other = {"r2_valence": "r2_arousal", "r2_arousal": "r2_valence"}
    printed = {
        (number.model, number.head, other[number.metric], number.text)
        for number in of("layer paper")
        if number.task == "emomusic_emotion"
    }
    exchanged = {
        (number.model, number.head, number.metric, number.text)
        for number in of("layer paper, exchanged")
    }
    assert exchanged == printed


@pytest.mark.parametrize(
    ("model", "average"),
    [("musicfm", 75.4), ("muq_m4a", 75.8), ("muq_160k", 76.7), ("muq", 77.0), ("mert_330m", 74.4)],
)
def test_the_muq_papers_rows_have_the_averages_that_it_prints(model: str, average: float) -> None:
    """The plain mean of the eleven numbers."""
    values = [100 * number.value for number in of("MuQ paper") if number.model == model]
    assert len(values) == 11
    assert sum(values) / 11 == pytest.approx(average, abs=0.06)


def test_names_of_tasks_and_metrics_are_those_of_the_settings() -> None:
    metrics = {
        task: set(compose_cells([f"task={task}", "baseline=null"])[0].metrics)
        for task in {number.task for number in published().numbers}
    }
    assert len(metrics) == 12
    for number in published().numbers:
        assert number.metric in metrics[number.task]
        assert 0 < number.value < 1
    assert all(metric in metrics[task] for task, metric in published().doubts)
    models = {number.model for number in published().numbers}
    assert models & set(known("model")) == {"fbank_chroma", "musicfm", "muq", "mert_95m"} | {
        "mert_330m"
    }


def test_what_others_found_of_layers_has_a_score_for_each_layer() -> None:
    first, second, *_ = layers_by_others("muq")
    assert "layers 0 to 12: 0.415 0.461" in first and first.endswith("layer_curves.csv)")
    assert "layers 0 to 12: 0.617 0.655" in second
    assert layers_by_others("fcpe") == []


# -- beside ours -----------------------------------------------------------------------------------


def test_a_number_is_held_against_the_layer_chosen_on_val(compose: Compose) -> None:
    (cell,) = compose("task=gtzan_genre", "model=muq", "baseline=null", "data.root=/datasets")
    save_rows(cell, [0.1, 0.9, 0.5], [0.1, 0.80, 0.99], weighted=0.90)
    found = {
        (one.number.source, one.number.head): one
        for one in compare_published(make_table_rows([cell]))
    }
    assert set(found) == {("layer paper", "layer"), ("layer paper", "weighted")} | {
        ("MuQ paper", "layer")
    }
    best = found["layer paper", "layer"]
    assert best.number.text == "85.9 (6)"
    assert best.difference == pytest.approx(0.80 - 0.859)
    assert best.is_inside is True  # [70, 90]
    weighted = found["layer paper", "weighted"]
    assert (weighted.number.text, weighted.is_inside) == ("82.8 (9)", False)  # [85, 95]


def test_the_ends_of_an_interval_are_inside_as_they_are_printed(compose: Compose) -> None:
    (cell,) = compose("task=gtzan_genre", "model=muq", "baseline=null", "data.root=/datasets")
    save_rows(cell, [0.1, 0.9], [0.1, 0.7592])  # up to 85.92, printed as 85.9
    best = [one for one in compare_published(make_table_rows([cell])) if one.number.layer]
    assert [one.is_inside for one in best] == [True]
    save_rows(cell, [0.1, 0.9], [0.1, 0.7584])  # up to 85.84, printed as 85.8
    best = [one for one in compare_published(make_table_rows([cell])) if one.number.layer]
    assert [one.is_inside for one in best] == [False]


def test_the_baseline_is_compared_once_however_many_models_there_are(compose: Compose) -> None:
    cells = compose("task=gtzan_genre", "model=muq,musicfm", "data.root=/datasets")
    for cell in cells:
        save_rows(cell, [0.4], [0.2]) if cell.is_baseline else save_rows(
            cell, [0.4, 0.5], [0.6, 0.8]
        )
    found = compare_published(make_table_rows(cells))
    assert [one.number.text for one in found if one.number.model == "fbank_chroma"] == ["15.2"]
    assert {one.number.model for one in found} == {"fbank_chroma", "muq", "musicfm"}


@pytest.mark.parametrize(
    "settings",
    [
        ("model=muq",),  # rendered data
        ("model=fcpe", "data.root=/datasets"),
        ("model=muq", "model.weights=random", "data.root=/datasets"),
        ("model=musicfm", "model.weights=fma", "data.root=/datasets"),
    ],
)
def test_nothing_is_compared_where_model_or_data_are_others(
    compose: Compose, settings: tuple[str, ...]
) -> None:
    (cell,) = compose("task=gtzan_genre", "baseline=null", *settings)
    save_rows(cell, [0.1, 0.9], [0.1, 0.8])
    assert published_table(make_table_rows([cell])) is None


def test_doubts_and_sources_stand_below(compose: Compose) -> None:
    (cell,) = compose("task=emomusic_emotion", "model=muq", "baseline=null", "data.root=/datasets")
    save_rows(cell, [0.1, 0.5], [0.1, 0.6])
    result = save_rows(cell, [0.1, 0.5], [0.1, 0.6], metric="r2_valence")
    path = result.folder / "rows.jsonl"
    path.write_text(path.read_text() + path.read_text().replace("r2_valence", "r2_arousal"))

    table = published_table(make_table_rows([cell]))
    assert table is not None
    readings = [(line[1], line[8], line[9]) for line in table.lines if line[3] == "best layer"]
    assert ("r2_valence", "layer paper", "76.7 (6)") in readings
    assert ("r2_valence", "layer paper, exchanged", "62.8 (6)") in readings
    assert ("r2_arousal", "layer paper, exchanged", "76.7 (6)") in readings
    notes = "\n".join(table.notes)
    assert notes.count("both readings are shown") == 1
    assert "arXiv 2501.01108" in notes and "arXiv 2306.10548" not in notes
    assert "±" in markdown_text(table)
    assert latex_text(table).isascii()


def test_report_writes_them(
    compose: Compose, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (cell,) = compose("task=gtzan_genre", "model=muq", "baseline=null", "data.root=/datasets")
    save_rows(cell, [0.1, 0.9], [0.1, 0.8])
    report([cell])
    assert "85.6 ±0.7" in capsys.readouterr().out
    lines = (tmp_path / "runs/report/published.csv").read_text().splitlines()
    assert lines[1] == (
        'Genre,accuracy,muq,best layer,0,,80.0 (1),"[70.0, 90.0]",layer paper,85.9 (6),-5.9,yes'
    )
    assert len(lines) == 3
