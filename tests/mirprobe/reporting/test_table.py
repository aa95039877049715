"""Table 1, from rows made by hand."""

import io
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from toy_rows import MADE_OF, failed, make_rows, make_scan, save_rows

from datamodules.errors import UserError
from datamodules.tracks import SPLITS, Split
from mirprobe.cell import Cell
from mirprobe.provenance import result_of
from mirprobe.reporting.notes import notes
from mirprobe.reporting.table import make_table, make_table_rows, table_columns
from mirprobe.results import SCANS, read_rows, write_rows
from mirprobe.scoring.scan import scans_text

Compose = Callable[..., list[Cell]]


def print_table(cells: Sequence[Cell], width: int = 300) -> list[str]:
    """The lines that a terminal of `width` columns shows."""
    console = Console(width=width, file=io.StringIO(), color_system=None)
    console.print(make_table(make_table_rows(cells)))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def read_table(lines: Sequence[str], joined_by: str = " ") -> list[dict[str, str]]:
    """The cells of a printed table by their headings; several lines of a cell are joined."""
    blocks: list[list[list[str]]] = [[]]
    for line in lines:
        if line.startswith(("┃", "│")):
            blocks[-1].append([word.strip() for word in re.split("[┃│]", line[1:-1])])
        elif blocks[-1]:
            blocks.append([])

    texts: list[list[str]] = []
    for block in blocks[:-1]:
        texts.append([joined_by.join(words).strip() for words in zip(*block, strict=True)])
    headings, *rows = texts
    return [dict(zip(headings, row, strict=True)) for row in rows]


def printed(cells: Sequence[Cell]) -> list[dict[str, str]]:
    """The cells of Table 1 as a reader sees them."""
    return read_table(print_table(cells)[1:])


# -- one line --------------------------------------------------------------------------------------


def test_a_line_shows_baseline_chosen_layer_oracle_and_weighted_sum(pitch: list[Cell]) -> None:
    assert printed(pitch) == [
        {
            "Task": "Pitch",
            "Metric": "accuracy",
            "n": "48/24/24",
            "Constant": "12.5",
            "fbank_chroma": "45.0 [35.0, 55.0]",
            "Model": "fcpe",
            "Best layer (by val)": "62.5 (1) [52.5, 72.5]",
            "Test oracle": "70.8 (2)",
            "Weighted sum": "66.7 (2, moved 0.17) [61.7, 71.7]",
        }
    ]


def test_an_incomplete_split_shows_found_and_expected(compose: Compose) -> None:
    cells = compose("task=gtzan_genre", "baseline=null", "data.root=/datasets")
    expected = {"train": 443, "val": 197, "test": 290}
    found = expected | {"test": 289}
    save_rows(cells[0], [0.5, 0.6], [0.5, 0.6], n_tracks=found, n_expected=expected)
    assert printed(cells)[0]["n"] == "443 of 443 197 of 197 289 of 290"


@pytest.mark.parametrize("split", SPLITS)
def test_a_track_that_is_missing_shows_whatever_its_split(compose: Compose, split: Split) -> None:
    """The README's own example, jazz.00054, is in train: its absence changed nothing printed."""
    cells = compose("task=gtzan_genre", "baseline=null", "data.root=/datasets")
    expected = {"train": 443, "val": 197, "test": 290}
    found = expected | {split: expected[split] - 1}
    save_rows(cells[0], [0.5, 0.6], [0.5, 0.6], n_tracks=found, n_expected=expected)
    lines = [f"{found[each]} of {expected[each]}" for each in SPLITS]
    assert printed(cells)[0]["n"] == " ".join(lines)


def test_a_count_is_not_folded_within_a_number(compose: Compose) -> None:
    """`289205/12678/409` above `6` would read as two numbers."""
    cells = compose("task=nsynth_pitch", "seed=0,1", "baseline=null")
    expected = {"train": 289205, "val": 12678, "test": 4096}
    save_rows(cells[0], [0.5, 0.6], [0.5, 0.6], n_tracks=expected, n_expected=expected)
    save_rows(cells[1], [0.5, 0.6], [0.5, 0.6], n_expected=expected)
    for width in (90, 100, 120):
        words = " ".join(print_table(cells, width=width)).split()
        for text in ("289205/", "12678/", "4096", "289205", "12678"):
            assert text in words, f"at {width}"


def test_a_metric_without_a_constant_has_a_dash(compose: Compose) -> None:
    cells = compose("task=nsynth_pitch", "baseline=null")
    save_rows(cells[0], [0.5, 0.6], [0.5, 0.6], constant=None)
    assert printed(cells)[0]["Constant"] == "-"


def test_the_weighted_sum_says_how_far_its_weights_moved(compose: Compose) -> None:
    """From a third each: the largest weight of three that hardly moved is no finding."""
    cells = compose("task=nsynth_pitch,nsynth_instrument", "baseline=null")
    save_rows(cells[0], [0.5] * 4, [0.5] * 4, weighted=0.7, weights=[0.33, 0.33, 0.34])
    save_rows(cells[1], [0.5] * 4, [0.5] * 4, weighted=0.7, weights=[0.1, 0.8, 0.1])
    hardly, far = printed(cells)
    assert hardly["Weighted sum"] == "70.0 (3, moved 0.01) [65.0, 75.0]"
    assert far["Weighted sum"] == "70.0 (2, moved 0.47) [65.0, 75.0]"
    assert any(
        "largest change of a softmax weight" in note for note in notes(make_table_rows(cells))
    )


# -- heads without a score -------------------------------------------------------------------------


def fail(cell: Cell, *heads: str, split: Split | None = None) -> None:
    """Marks heads of a cell as failed, on one split or on both."""
    folder = result_of(cell, MADE_OF).folder
    rows = read_rows(folder, cell.hash, cell.metrics)
    changed = [
        failed(row) if row.head in heads and split in (None, row.split) else row for row in rows
    ]
    write_rows(folder, changed)


def test_a_head_without_a_score_is_not_chosen_and_named_below_the_table(
    pitch: list[Cell],
) -> None:
    fail(pitch[1], "layer_01", "weighted")
    (row,) = printed(pitch)
    assert row["Best layer (by val)"] == "70.8 (2) [60.8, 80.8]"
    assert row["Weighted sum"] == "failed"
    reason = "failed: val score is not a number in any epoch"
    assert f"fcpe, Pitch, accuracy, seed 0: layer_01, weighted {reason}." in notes(
        make_table_rows(pitch)
    )


def test_a_chosen_layer_may_have_failed_on_test(pitch: list[Cell]) -> None:
    fail(pitch[1], "layer_01", split="test")
    (row,) = printed(pitch)
    assert row["Best layer (by val)"] == "failed (1)"
    assert row["Test oracle"] == "70.8 (2)"


def test_a_metric_by_which_no_layer_has_a_score_failed(pitch: list[Cell]) -> None:
    for cell in pitch:
        fail(cell, "layer_00", "layer_01", "layer_02")
    (row,) = printed(pitch)
    columns = ("fbank_chroma", "Best layer (by val)", "Test oracle")
    assert [row[name] for name in columns] == ["failed"] * 3
    assert row["Weighted sum"] == "66.7 (2, moved 0.17) [61.7, 71.7]"
    assert (row["n"], row["Constant"]) == ("48/24/24", "12.5")
    text = "\n".join(notes(make_table_rows(pitch)))
    assert "accuracy, seed 0: the baseline's layer_00 failed: val score is not a" in text


def test_a_score_without_an_interval_says_why(compose: Compose) -> None:
    (cell,) = compose("task=nsynth_pitch", "baseline=null")
    nothing = {
        "ci_low": None,
        "ci_high": None,
        "no_interval": "a score in 7 of 1000 resamples only",
    }
    rows = [replace(row, **nothing) for row in make_rows(cell, [0.5], [0.6])]  # type: ignore[arg-type]
    save_rows(cell, [0.5], [0.6])
    write_rows(result_of(cell, MADE_OF).folder, rows)
    assert printed([cell])[0]["Best layer (by val)"] == "60.0 (0) no interval"
    text = "\n".join(notes(make_table_rows([cell])))
    assert "layer_00 no interval on test: a score in 7 of 1000 resamples only." in text


def test_resamples_that_were_left_out_are_counted_below_the_table(compose: Compose) -> None:
    cells = compose("task=nsynth_pitch,nsynth_instrument", "baseline=null")
    save_rows(cells[0], [0.5, 0.6], [0.5, 0.6])
    assert "left out of its interval" not in "\n".join(notes(make_table_rows(cells[:1])))
    save_rows(cells[1], [0.5, 0.6], [0.5, 0.6], n_left_out=13)
    note = "Resamples in which a metric is not defined are left out of its interval: up to 13."
    assert note in notes(make_table_rows(cells))


# -- the notes -------------------------------------------------------------------------------------


def test_demo_numbers_are_labelled_in_the_title_and_the_notes(
    compose: Compose, pitch: list[Cell]
) -> None:
    assert print_table(pitch)[0].strip() == "Table 1: test scores in % (demo data)"
    demo_notes = notes(make_table_rows(pitch))
    assert any("Demo data: rendered or synthesised" in note for note in demo_notes)

    real = compose("task=nsynth_pitch", "data.root=/datasets", "baseline=null")
    save_rows(real[0], [0.5, 0.6], [0.5, 0.6])
    assert print_table(real)[0].strip() == "Table 1: test scores in %"
    assert not any("emo data" in note for note in notes(make_table_rows(real)))


def test_notes_say_how_layers_were_chosen_and_what_the_backbone_is(pitch: list[Cell]) -> None:
    text = "\n".join(notes(make_table_rows(pitch)))
    for words in ("chosen on val", "95 %", "optimistic", "; seed 0; protocol mlp512; "):
        assert words in text
    assert "trained on singing pitch" in text and "licence MIT" in text


def test_features_of_a_card_and_of_a_laptop_are_marked(compose: Compose) -> None:
    cells = compose("task=nsynth_pitch,giantsteps_key", "baseline=null")
    pitch, key = cells
    save_rows(pitch, [0.5, 0.9], [0.4, 0.6])
    assert not any("Features" in note for note in notes(make_table_rows(cells)))

    save_rows(key, [0.5, 0.9], [0.4, 0.6], precision="tf32")
    where = "fcpe on Pitch: float32; fcpe on Key: tf32"
    assert f"Features of several precisions: {where}." in notes(make_table_rows(cells))
    assert "Features in tf32." in notes(make_table_rows([key]))


@pytest.mark.parametrize(
    ("settings", "says_so"),
    [(("model=mert_95m",), True), (("model=mert_95m", "model.weights=random"), False)],
)
def test_published_weights_that_are_not_for_commerce_say_so(
    compose: Compose, settings: tuple[str, ...], says_so: bool
) -> None:
    cells = compose("task=nsynth_pitch", "baseline=null", *settings)
    save_rows(cells[0], [0.5, 0.6], [0.5, 0.6])
    text = "\n".join(notes(make_table_rows(cells)))
    assert "licence CC BY-NC 4.0 (weights)." in text
    assert ("Non-commercial use only." in text) == says_so


# -- several lines ---------------------------------------------------------------------------------


def test_every_task_is_a_line_beside_its_own_baseline(compose: Compose) -> None:
    cells = compose("task=nsynth_pitch,nsynth_instrument")
    for cell in cells:
        value = 0.3 if cell.task.name == "nsynth_pitch" else 0.6
        if cell.is_baseline:
            save_rows(cell, [value], [value - 0.1])
        else:
            save_rows(cell, [value, value], [value, value])

    pitch, instrument = printed(cells)
    assert (pitch["Task"], instrument["Task"]) == ("Pitch", "Instrument")
    assert pitch["fbank_chroma"].startswith("20.0 [")
    assert pitch["Test oracle"].startswith("30.0 (0)")
    assert instrument["fbank_chroma"].startswith("50.0 [")
    assert instrument["Test oracle"].startswith("60.0 (0)")


def test_every_metric_of_a_task_is_a_line(compose: Compose) -> None:
    cells = compose("task=emomusic_emotion", "baseline=null")
    first, second = cells[0].metrics
    path = save_rows(cells[0], [0.5, 0.6], [0.5, 0.6], metric=first).folder / "rows.jsonl"
    text = path.read_text()
    path.write_text(text + text.replace(first, second).replace("0.6", "0.7"))
    lines = [(row["Metric"], row["Best layer (by val)"][:8]) for row in printed(cells)]
    assert lines == [(first, "60.0 (1)"), (second, "70.0 (1)")]


def test_every_seed_is_a_line_beside_the_baseline_of_its_seed(compose: Compose) -> None:
    cells = compose("task=nsynth_pitch", "seed=0,1,10,2")
    for cell in cells:
        value = 0.2 + 0.01 * cell.seed
        if cell.is_baseline:
            save_rows(cell, [value], [value])
        else:
            save_rows(cell, [0.5, 0.6], [0.5, 0.6 + value])

    rows = printed(cells)
    assert [row["Seed"] for row in rows] == ["0", "1", "10", "2"]
    assert [row["fbank_chroma"][:4] for row in rows] == ["20.0", "21.0", "30.0", "22.0"]
    assert [row["Best layer (by val)"][:4] for row in rows] == ["80.0", "81.0", "90.0", "82.0"]
    assert "Setting" not in rows[0]
    assert "; seed 0, 1, 2, 10; " in notes(make_table_rows(cells))[0]


def test_cells_without_rows_make_no_line_and_a_missing_baseline_is_a_dash(compose: Compose) -> None:
    cells = compose("task=nsynth_pitch,nsynth_instrument,giantsteps_key")
    by_name = {(cell.model_name, cell.task.name): cell for cell in cells}
    save_rows(by_name["fcpe", "nsynth_pitch"], [0.5, 0.6], [0.5, 0.6])
    save_rows(by_name["fcpe", "nsynth_instrument"], [0.5, 0.6], [0.5, 0.6])
    save_rows(by_name["fbank_chroma", "nsynth_instrument"], [0.4], [0.4])

    pitch, instrument = printed(cells)
    assert (pitch["Task"], pitch["fbank_chroma"]) == ("Pitch", "-")
    assert (instrument["Task"], instrument["fbank_chroma"]) == ("Instrument", "40.0 [30.0, 50.0]")
    assert pitch["Weighted sum"] == "-"


def test_the_baseline_alone_is_a_line_of_its_own(compose: Compose) -> None:
    cells = compose("task=nsynth_pitch", "model=fbank_chroma")
    save_rows(cells[0], [0.4], [0.45])
    (row,) = printed(cells)
    assert (row["Model"], row["Best layer (by val)"]) == ("fbank_chroma", "45.0 (0) [35.0, 55.0]")


def test_a_random_network_is_a_line_of_its_own(compose: Compose) -> None:
    cells = compose("task=nsynth_pitch", "model.weights=trained,random", "baseline=null")
    for cell in cells:
        save_rows(cell, [0.5, 0.6], [0.5, 0.6])
    assert [row["Model"] for row in printed(cells)] == ["fcpe", "fcpe-random"]
    assert "fcpe-random: random weights, the control; " in "\n".join(notes(make_table_rows(cells)))


# -- what lines differ in --------------------------------------------------------------------------


def test_lines_that_differ_in_the_protocol_say_in_what(compose: Compose) -> None:
    cells = compose("task=nsynth_pitch", "protocol.lr=1e-3,3e-4")
    for cell in cells:
        if cell.is_baseline:
            save_rows(cell, [10 * cell.protocol.lr], [100 * cell.protocol.lr])
        else:
            save_rows(cell, [0.5, 0.6], [0.5, 0.6])

    rows = printed(cells)
    assert [row["Setting"] for row in rows] == ["lr=0.001", "lr=0.0003"]
    assert [row["fbank_chroma"].split()[0] for row in rows] == ["10.0", "3.0"]
    first_note = notes(make_table_rows(cells))[0]
    assert "; protocols mlp512 lr=0.001, mlp512 lr=0.0003; " in first_note


def test_a_sweep_of_two_settings_names_both(compose: Compose) -> None:
    cells = compose(
        "task=nsynth_pitch",
        "protocol.layer_weights_init=zeros,normal",
        "data.exclude=[],[a]",
        "baseline=null",
    )
    for cell in cells:
        save_rows(cell, [0.5, 0.6], [0.5, 0.6])
    assert [row["Setting"] for row in printed(cells)] == [
        "exclude=[] layer_weights_init=zeros",
        "exclude=[a] layer_weights_init=zeros",
        "exclude=[] layer_weights_init=normal",
        "exclude=[a] layer_weights_init=normal",
    ]


def test_a_variant_of_the_baseline_stands_beside_the_baseline(compose: Compose) -> None:
    """The literal reading of the paper, a shift of 15 ms, against the default of 10 ms."""
    cells = compose("task=nsynth_pitch", "model=fbank_chroma", "model.frame_shift_ms=15")
    assert len(cells) == 2
    save_rows(cells[0], [0.4], [0.4])
    save_rows(cells[1], [0.7], [0.7])
    (row,) = printed(cells)
    assert row["fbank_chroma"].startswith("40.0 ")
    assert row["Best layer (by val)"].startswith("70.0 ")
    assert row["Setting"] == "frame_shift_ms=15"


def test_two_tables_of_ones_own_are_told_apart_by_their_files(
    compose: Compose, tmp_path: Path
) -> None:
    mine, yours = tmp_path / "mine.csv", tmp_path / "yours.csv"
    mine.write_text("path,label\n")
    yours.write_text("path,label\n")  # the same content: still two tables
    cells = compose("task=manifest", f"task.options.file={mine},{yours}", "baseline=null")
    for cell in cells:
        save_rows(cell, [0.5, 0.6], [0.5, 0.6])
    assert [row["Setting"] for row in printed(cells)] == ["file=mine.csv", "file=yours.csv"]


def test_two_roots_are_told_apart_and_each_stands_beside_its_own_baseline(
    compose: Compose, tmp_path: Path
) -> None:
    cells = compose("task=nsynth_pitch", "data.root=/here/clean,/there/noisy")
    for cell in cells:
        value = 0.3 if cell.data.root == "/here/clean" else 0.1
        made_of = replace(MADE_OF, tracks=str(value))
        n = 1 if cell.is_baseline else 2
        save_rows(cell, [value] * n, [value] * n, made_of=made_of)
    rows = printed(cells)
    assert [row["Setting"] for row in rows] == ["root=clean", "root=noisy"]
    assert [row["fbank_chroma"][:4] for row in rows] == ["30.0", "10.0"]


def test_equal_tables_beside_other_audio_have_a_baseline_each(
    compose: Compose, tmp_path: Path
) -> None:
    """Their hash is the same, and no root is set: only the places tell them apart."""
    tables = [tmp_path / name / "my.csv" for name in ("clean", "noisy")]
    for table in tables:
        table.parent.mkdir()
        table.write_text("path,label\nx.wav,a\n")
    cells = compose("task=manifest", f"task.options.file={tables[0]},{tables[1]}")
    assert len({cell.hash for cell in cells}) == 2  # of the baseline and of fcpe
    for cell in cells:
        value = 0.3 if "clean" in cell.task.options["file"] else 0.1
        made_of = replace(MADE_OF, tracks=str(value))
        n = 1 if cell.is_baseline else 2
        save_rows(cell, [value] * n, [value] * n, made_of=made_of)
    assert [row["fbank_chroma"][:4] for row in printed(cells)] == ["30.0", "10.0"]


def test_stale_rows_are_marked_and_a_note_says_what_that_is(compose: Compose) -> None:
    cells = compose("task=nsynth_pitch", "seed=0,1", "baseline=null")
    for cell in cells:
        save_rows(cell, [0.5, 0.6], [0.5, 0.6], current=cell.seed == 1)
    assert [row["State"] for row in printed(cells)] == ["stale", "current"]
    text = "\n".join(notes(make_table_rows(cells)))
    assert "Stale: files of labels, audio or weights are not those that the number" in text

    assert "State" not in printed(cells[1:])[0]
    assert "tale" not in "\n".join(notes(make_table_rows(cells[1:])))


# -- plain text ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["[x]", "[/x]", "[bold]x[/bold]", "a\\[b]", ":smile:"])
def test_names_from_users_appear_as_they_are(compose: Compose, name: str) -> None:
    (cell,) = compose("task=nsynth_pitch", f"task.label='{name}'", "baseline=null")
    save_rows(cell, [0.5, 0.6], [0.5, 0.6])
    assert printed([cell])[0]["Task"] == cell.task.label


def test_columns_say_the_same_in_plain_text(pitch: list[Cell]) -> None:
    """What Markdown, CSV and HTML are made of holds no markup of a terminal."""
    (row,) = make_table_rows(pitch)
    texts = {column.heading: column.text(row) for column in table_columns([row])}
    assert texts["Best layer\n(by val)"] == "62.5 (1)\n[52.5, 72.5]"
    assert texts["fbank_chroma"] == "45.0\n[35.0, 55.0]"
    assert [heading for heading, text in texts.items() if "\\" in text] == []


def test_nothing_is_cut_off_in_a_narrow_terminal(compose: Compose) -> None:
    cells = compose(
        "task=nsynth_pitch", "protocol.layer_weights_init=zeros,normal", "seed=0,1", "baseline=null"
    )
    for cell in cells:
        save_rows(cell, [0.5, 0.6], [0.5, 0.6], weighted=0.7)
    rows = read_table(print_table(cells, width=90)[1:], joined_by="")
    settings = ["layer_weights_init=zeros"] * 2 + ["layer_weights_init=normal"] * 2
    assert sorted(row["Setting"] for row in rows) == sorted(settings)
    sums = {row["Weightedsum"].replace(" ", "") for row in rows}
    assert sums == {"70.0(1,moved0.00)[65.0,75.0]"}


# -- the linear twin -------------------------------------------------------------------------------


def add_linear(cell: Cell, val: Sequence[float], test: Sequence[float]) -> None:
    """Rows of a linear twin beside those that a cell has, and what the heads say together."""
    folder = result_of(cell, MADE_OF).folder
    rows = read_rows(folder, cell.hash, cell.metrics)
    linear = [
        replace(row, probe="linear", epoch=None, chosen={"penalty": 0.1})
        for row in make_rows(cell, val, test)
    ]
    write_rows(folder, [*rows, *linear])
    scans = [make_scan("mlp", optimism=0.021), make_scan("linear", optimism=0.004)]
    (folder / SCANS).write_text(scans_text(scans))


def test_the_linear_twin_stands_below_each_score_baseline_included(pitch: list[Cell]) -> None:
    baseline, model = pitch
    add_linear(baseline, [0.8], [0.89])
    add_linear(model, [0.1, 0.5, 0.9], [0.6, 0.93, 0.91])
    (row,) = printed(pitch)
    assert row["fbank_chroma"] == "45.0 [35.0, 55.0] lin 89.0 [79.0, 99.0]"
    assert row["Best layer (by val)"].endswith("] lin 91.0 (2) [81.0, 101.0]")
    assert row["Test oracle"] == "70.8 (2) optimism 2.1 lin 93.0 (1) optimism 0.4"
    assert "lin" not in row["Weighted sum"]


def test_notes_name_the_best_set_what_the_last_layer_loses_and_what_shows(
    pitch: list[Cell],
) -> None:
    add_linear(pitch[1], [0.1, 0.5, 0.9], [0.6, 0.93, 0.91])
    text = notes(make_table_rows(pitch))
    expected = (
        "the best layer is among 0-1 ▅▄.; over the last layer +12.3 [+8.0, +16.1]; "
        "differences that show: 5.0 between layers, 11.2 to other test sets."
    )
    name = "fcpe, Pitch, accuracy, seed 0"
    assert f"{name}: {expected}" in text
    assert f"{name}, linear: {expected}" in text
    assert any(line.startswith("lin: ") for line in text)


def test_a_file_of_scans_that_is_broken_is_named(pitch: list[Cell]) -> None:
    folder = result_of(pitch[1], MADE_OF).folder
    for text in ("{", "[1]", '[{"probe": "mlp"}]'):
        (folder / SCANS).write_text(text)
        with pytest.raises(
            UserError, match=r"scans\.json cannot be read .*: delete the rows\.jsonl"
        ):
            make_table_rows(pitch)


def test_seeds_have_a_spread_beside_the_error_of_the_tracks(compose: Compose) -> None:
    cells = compose("task=nsynth_pitch", "seed=0,1,2", "baseline=null")
    for cell, score in zip(cells, (0.5, 0.52, 0.54), strict=True):
        save_rows(cell, [0.5], [score])
    text = notes(make_table_rows(cells))
    wanted = "fcpe, Pitch, accuracy: standard deviation 2.0 over 3 seeds, 5.1 over tracks."
    assert wanted in text
    assert not any("over tracks." in line for line in notes(make_table_rows(cells[:1])))


def test_every_protocol_has_a_comparison_of_its_own(compose: Compose) -> None:
    """One name for both would show one of them and leave the other out."""
    cells = compose("task=nsynth_pitch", "protocol.lr=1e-3,5e-4")
    for cell in cells:
        right = "0" * 10 + "1" * 14 if cell.is_baseline else "1" * 24
        share = right.count("1") / 24
        save_rows(cell, [share], [share])
        (result_of(cell, MADE_OF).folder / SCANS).write_text(
            scans_text([make_scan("mlp", right=right)])
        )
    found = [line for line in notes(make_table_rows(cells)) if "fcpe over fbank_chroma" in line]
    settings = [line.partition(":")[0].rpartition(", ")[2] for line in found]
    assert settings == ["lr=0.001", "lr=0.0005"]


def test_two_precisions_of_one_model_are_told_apart(compose: Compose) -> None:
    cells = compose("task=nsynth_pitch", "baseline=null", "extract.precision=auto,bf16")
    for cell in cells:
        save_rows(cell, [0.5, 0.9], [0.4, 0.6])
    rows = make_table_rows(cells)
    assert [row.settings for row in rows] == [("precision=auto",), ("precision=bf16",)]


def test_models_are_compared_with_the_baseline_on_the_same_tracks(pitch: list[Cell]) -> None:
    """Fourteen tracks gained, none lost: 2 / 2^14; the linear twin gains two: 2 / 2^2."""
    for cell, right in zip(pitch, ("0" * 14 + "1" * 10, "1" * 24), strict=True):
        folder = result_of(cell, MADE_OF).folder
        share = right.count("1") / 24
        rows = make_rows(cell, [share, 0, 0][: 3 if cell is pitch[1] else 1], [share, 0, 0])
        rows = [row for row in rows if cell is pitch[1] or row.layer == 0]
        twins = [replace(row, probe="linear", chosen={"penalty": 0.1}) for row in rows]
        write_rows(folder, [*rows, *twins])
        linear = right.replace("0" * 14, "1" * 12 + "00")
        scans = [make_scan("mlp", right=right), make_scan("linear", right=linear)]
        (folder / SCANS).write_text(scans_text(scans))

    wanted = "fcpe over fbank_chroma, nsynth_pitch, accuracy, seed 0: +58.3 ["
    (line,) = [line for line in notes(make_table_rows(pitch)) if line.startswith(wanted)]
    assert "], p < 0.001, lin +8.3 [" in line
    assert line.endswith("], p 0.500.")
