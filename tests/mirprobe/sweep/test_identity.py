"""What was computed from what: names, folders and dates are no content.

Each test is an accident that happened, or nearly: it ends with the right number, and with a line
that says what was computed anew and why.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import RATE, SECONDS, write_notes
from file_backbone import FileBackbone
from toy_rows import save_rows

import datamodules.audio.loader
import mirprobe.reporting.report
import mirprobe.sweep.run
from datamodules.digests import KnownDigests
from mirprobe.__main__ import main
from mirprobe.assembly import inputs_of, make_data
from mirprobe.cell import Cell
from mirprobe.probing.probe import open_store
from mirprobe.provenance import (
    MADE_OF,
    Result,
    Stamps,
    current_result,
    note_stamp,
    stored_results,
)
from mirprobe.reporting.table import make_table_rows
from mirprobe.results import Row, read_rows
from mirprobe.scoring.selection import best_layer
from mirprobe.settings import compose_cells
from mirprobe.sweep.status import pending

TOY = ["model=fcpe", "model.name=toy", "model._target_=file_backbone.FileBackbone"]
N_NOTES = 72  # 24 of each split


@dataclass(frozen=True)
class Swept:
    """What a sweep did: what it printed, clips through the backbone, cells that were trained."""

    text: str
    n_clips: int
    n_trained: int


@pytest.fixture
def n_trained(monkeypatch: pytest.MonkeyPatch) -> list[Cell]:
    """The cells whose probes were trained."""
    trained: list[Cell] = []
    probe = mirprobe.sweep.run.probe

    def counted(cell: Cell, *arguments: object) -> object:
        trained.append(cell)
        return probe(cell, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(mirprobe.sweep.run, "probe", counted)
    return trained


@pytest.fixture
def sweep(
    n_trained: list[Cell], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Swept]:
    monkeypatch.setenv("COLUMNS", "300")
    for name in ("make_figures", "make_curves"):  # 2 s each
        monkeypatch.setattr(mirprobe.reporting.report, name, lambda rows: [])

    def run(arguments: Sequence[str]) -> Swept:
        n_clips, n_cells = FileBackbone.n_clips, len(n_trained)
        assert main(["sweep", *arguments]) == 0
        text = capsys.readouterr().out
        return Swept(text, FileBackbone.n_clips - n_clips, len(n_trained) - n_cells)

    return run


@pytest.fixture
def toy(settings: Callable[..., list[str]], tmp_path: Path) -> Callable[..., list[str]]:
    """Settings of the pitch task and the toy backbone, without the baseline."""

    def make(root: Path | None, *more: str, out: Path = tmp_path) -> list[str]:
        place = [] if root is None else [f"data.root={root}"]
        task = ["task=nsynth_pitch", "baseline=null", "protocol.max_epochs=25"]
        task += ["protocol.lr=1e-2", "protocol.batch_size=8"]
        return settings(*TOY, *task, *place, *more, out=out)[1:]

    return make


def rows_in(cell: Cell, result: Result) -> list[Row]:
    return read_rows(result.folder, cell.hash, cell.metrics)


def rows_of(arguments: Sequence[str]) -> list[list[Row]]:
    """Rows of every cell, which have to be current."""
    found = []
    for cell in compose_cells(arguments):
        result = current_result(cell, Stamps())
        assert result is not None, "not current"
        found.append(rows_in(cell, result))
    return found


def accuracy(rows: Sequence[Row]) -> float:
    chosen = best_layer(rows, "val")
    assert chosen is not None and chosen.value is not None
    return chosen.value


def age(folder: Path) -> Path:
    """Makes files so old that nobody doubts their times of change."""
    for path in folder.rglob("*"):
        if path.is_file():
            os.utime(path, (path.stat().st_atime, path.stat().st_mtime - 100))
    return folder


def make_notes(root: Path) -> Path:
    return age(write_notes(root, per_pitch={"train": 1, "valid": 1, "test": 1}))


def make_noise(root: Path) -> Path:
    """Noise under the names, and with the sizes, of the notes."""
    make_notes(root)
    random = np.random.default_rng(0)
    for path in sorted(root.rglob("*.wav")):
        size = path.stat().st_size
        soundfile.write(path, 0.1 * random.standard_normal(round(RATE * SECONDS)), RATE)
        assert path.stat().st_size == size
    return age(root)


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    return make_notes(tmp_path / "notes")


def contents(folder: Path) -> Iterator[tuple[Path, bytes, int]]:
    """Every file but those of the report: its content and time of change."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and "report" not in path.parts:
            yield path, path.read_bytes(), path.stat().st_mtime_ns


def labels_of(root: Path) -> list[Path]:
    return sorted(root.rglob("examples.json"))


def rotate_labels(root: Path) -> None:
    """Gives every note the pitch of its neighbour."""
    for path in labels_of(root):
        entries = json.loads(path.read_text())
        for entry in entries.values():
            entry["pitch"] = 48 + (entry["pitch"] - 48 + 3) % 24
        path.write_text(json.dumps(entries))


# -- audio -----------------------------------------------------------------------------------------


def test_other_audio_under_equal_names_and_sizes_has_features_and_rows_of_its_own(
    toy: Callable[..., list[str]], sweep: Callable[..., Swept], tmp_path: Path
) -> None:
    """The worst of all: 100.0 % was printed for noise, since the tones had been swept before."""
    tones, noise = make_notes(tmp_path / "tones"), make_noise(tmp_path / "noise")
    assert sweep(toy(tones)).n_clips == N_NOTES
    (of_tones,) = rows_of(toy(tones))

    second = sweep(toy(noise))
    assert (second.n_clips, second.n_trained) == (N_NOTES, 1)
    sweep(toy(noise, out=tmp_path / "alone"))
    (of_noise,) = rows_of(toy(noise))
    assert [of_noise] == rows_of(toy(noise, out=tmp_path / "alone"))
    assert accuracy(of_tones) > 0.6
    assert accuracy(of_noise) < 0.4

    # Both are there, side by side, and one command shows both and says which is which.
    assert rows_of(toy(tones)) == [of_tones]
    (cell,) = compose_cells(toy(tones))
    assert len(stored_results(cell)) == 2
    both = sweep(toy(None, f"data.root={tones},{noise}"))
    assert (both.n_clips, both.n_trained) == (0, 0)
    for name, rows in (("tones", of_tones), ("noise", of_noise)):
        (line,) = [
            line
            for line in both.text.splitlines()
            if line.startswith("│") and f"root={name}" in line
        ]
        assert f" {100 * accuracy(rows):.1f} (" in line


def test_two_roots_in_one_command_are_two_datasets(
    toy: Callable[..., list[str]], sweep: Callable[..., Swept], tmp_path: Path
) -> None:
    tones, noise = make_notes(tmp_path / "tones"), make_noise(tmp_path / "noise")
    swept = sweep(toy(None, f"data.root={tones},{noise}"))
    assert (swept.n_clips, swept.n_trained) == (2 * N_NOTES, 2)
    found = rows_of(toy(None, f"data.root={tones},{noise}"))
    assert found == [*rows_of(toy(tones)), *rows_of(toy(noise))]
    assert accuracy(found[0]) > 0.6
    assert accuracy(found[1]) < 0.4
    assert all(f"root={name}" in swept.text for name in ("tones", "noise"))


@pytest.mark.parametrize(
    "how",
    ["moved", *(pytest.param(how, marks=pytest.mark.trial) for how in ("copied", "linked", "new"))],
)
def test_data_in_another_place_is_neither_extracted_nor_trained_again(
    toy: Callable[..., list[str]],
    sweep: Callable[..., Swept],
    notes: Path,
    tmp_path: Path,
    how: str,
) -> None:
    sweep(toy(notes))
    before, hashes = rows_of(toy(notes)), [cell.hash for cell in compose_cells(toy(notes))]

    other = tmp_path / "deeper" / "elsewhere"
    other.parent.mkdir()
    if how == "moved":
        notes.rename(other)
    elif how == "linked":
        other.symlink_to(notes)
    else:
        copy = shutil.copy2 if how == "copied" else shutil.copyfile  # with times of its own
        shutil.copytree(notes, other, copy_function=copy)
    again = sweep(toy(other))
    assert (again.n_clips, again.n_trained) == (0, 0)
    assert "toy nsynth_pitch: results of this very content are there" in again.text
    assert rows_of(toy(other)) == before
    assert [cell.hash for cell in compose_cells(toy(other))] == hashes
    if how != "moved":
        assert rows_of(toy(notes)) == before
        assert sweep(toy(notes)).text.count("content") == 0  # both places are known now


@pytest.mark.trial
def test_renamed_files_find_their_features(
    toy: Callable[..., list[str]], sweep: Callable[..., Swept], notes: Path
) -> None:
    sweep(toy(notes))
    for path in labels_of(notes):
        entries = json.loads(path.read_text())
        path.write_text(json.dumps({f"x{note}": entry for note, entry in entries.items()}))
    for path in notes.rglob("*.wav"):
        path.rename(path.with_name(f"x{path.name}"))

    again = sweep(toy(notes))
    assert (again.n_clips, again.n_trained) == (0, 1)
    assert f"tracks gone: {N_NOTES}; tracks new: {N_NOTES}" in again.text
    assert accuracy(rows_of(toy(notes))[0]) > 0.6


@pytest.mark.trial
def test_a_file_replaced_under_its_name_is_seen(
    toy: Callable[..., list[str]], sweep: Callable[..., Swept], notes: Path, tmp_path: Path
) -> None:
    """The same name and size, another time: all that a copy of degraded audio changes."""
    sweep(toy(notes))
    (before,) = rows_of(toy(notes))
    path = sorted(notes.rglob("*.wav"))[0]
    size = path.stat().st_size
    samples, rate = soundfile.read(path)
    soundfile.write(path, -samples[::-1], rate)
    assert path.stat().st_size == size

    again = sweep(toy(notes))
    assert (again.n_clips, again.n_trained) == (1, 1)
    assert f"not what it was made of before (audio changed: 1 of {N_NOTES})" in again.text
    (cell,) = compose_cells(toy(notes))
    assert before in [rows_in(cell, result) for result in stored_results(cell)]

    sweep(toy(notes, out=tmp_path / "alone"))
    assert rows_of(toy(notes)) == rows_of(toy(notes, out=tmp_path / "alone"))


def test_equal_files_are_extracted_once_and_each_has_its_features(
    toy: Callable[..., list[str]], sweep: Callable[..., Swept], notes: Path
) -> None:
    """In one split and across two; which of them the first run meets first does not matter."""
    train = sorted((notes / "NSynth/nsynth-train/audio").iterdir())
    test = sorted((notes / "NSynth/nsynth-test/audio").iterdir())
    for copy in (train[5], test[7]):
        shutil.copyfile(train[0], copy)
    age(notes)
    assert sweep(toy(notes)).n_clips == N_NOTES - 2

    (cell,) = compose_cells(toy(notes))
    data, digests = make_data(cell), KnownDigests(Path(cell.paths.features, "known/nsynth.jsonl"))
    data.identify(digests)
    clips = open_store(cell).read(data.tracks())
    assert clips.track.tolist() == list(range(N_NOTES))
    position = {track.path: number for number, track in enumerate(data.tracks())}
    values = clips.read_all()
    for copy in (train[5], test[7]):
        np.testing.assert_array_equal(values[:, position[copy]], values[:, position[train[0]]])
    assert not np.array_equal(values[:, position[train[1]]], values[:, position[train[0]]])


def test_touched_files_are_read_and_nothing_is_computed(
    toy: Callable[..., list[str]], sweep: Callable[..., Swept], notes: Path
) -> None:
    sweep(toy(notes))
    before = rows_of(toy(notes))
    for path in notes.rglob("*"):
        os.utime(path)
    (cell,) = compose_cells(toy(notes))
    assert current_result(cell, Stamps()) is None

    again = sweep(toy(notes))
    assert (again.n_clips, again.n_trained) == (0, 0)
    assert rows_of(toy(notes)) == before


# -- labels ----------------------------------------------------------------------------------------


@pytest.mark.trial
def test_labels_that_changed_are_trained_anew_beside_the_old_rows(
    toy: Callable[..., list[str]], sweep: Callable[..., Swept], notes: Path, tmp_path: Path
) -> None:
    sweep(toy(notes))
    (before,) = rows_of(toy(notes))
    old = [path.read_text() for path in labels_of(notes)]
    rotate_labels(notes)

    again = sweep(toy(notes))
    assert (again.n_clips, again.n_trained) == (0, 1)
    reason = f"not what it was made of before (labels changed: {N_NOTES} of {N_NOTES})"
    assert f"toy nsynth_pitch: {reason}" in again.text
    (now,) = rows_of(toy(notes))
    assert now[0].tracks_hash != before[0].tracks_hash
    assert now[0].config_hash == before[0].config_hash
    sweep(toy(notes, out=tmp_path / "alone"))
    assert [now] == rows_of(toy(notes, out=tmp_path / "alone"))
    (cell,) = compose_cells(toy(notes))
    assert before in [rows_in(cell, result) for result in stored_results(cell)]

    for path, text in zip(labels_of(notes), old, strict=True):
        path.write_text(text)
    back = sweep(toy(notes))
    assert (back.n_clips, back.n_trained) == (0, 0)
    assert "results of this very content are there" in back.text
    assert rows_of(toy(notes)) == [before]


@pytest.mark.trial
def test_one_label_in_another_split_is_counted_as_what_it_is(
    toy: Callable[..., list[str]], sweep: Callable[..., Swept], notes: Path
) -> None:
    sweep(toy(notes))
    path = labels_of(notes)[1]
    entries = json.loads(path.read_text())
    first = next(iter(entries.values()))
    first["pitch"] = 100
    path.write_text(json.dumps(entries))
    again = sweep(toy(notes))
    assert f"(labels changed: 1 of {N_NOTES})" in again.text


@pytest.mark.trial
def test_report_marks_rows_whose_labels_changed(
    toy: Callable[..., list[str]],
    sweep: Callable[..., Swept],
    notes: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    sweep(toy(notes, "seed=0,1"))
    assert main(["report", *toy(notes, "seed=0,1")]) == 0
    assert "State" not in (text := capsys.readouterr().out) and "tale" not in text

    rotate_labels(notes)
    assert main(["report", *toy(notes, "seed=0,1")]) == 0
    text = capsys.readouterr().out
    assert "State" in text and len(re.findall("│ stale +│", text)) == 2
    assert "Stale: files of labels, audio or weights are not those" in text

    sweep(toy(notes, "seed=1"))
    assert main(["report", *toy(notes, "seed=0,1")]) == 0
    text = capsys.readouterr().out
    assert len(re.findall("│ stale +│", text)) == len(re.findall("│ current +│", text)) == 1


def test_report_of_cells_that_were_never_computed_is_refused(
    toy: Callable[..., list[str]],
    sweep: Callable[..., Swept],
    notes: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Not the rows of another root: they are of the same hash, but of other content perhaps."""
    sweep(toy(notes))
    for other in (toy(notes, "seed=1"), toy(make_notes(tmp_path / "other"))):
        assert main(["report", *other]) == 2
        shown = capsys.readouterr()
        assert shown.err.startswith("mirprobe: 1 of 1 cells have no results (first: ")
        assert (shown.err.count("\n"), shown.out) == (1, "")


# -- weights ---------------------------------------------------------------------------------------


@pytest.mark.trial
def test_a_checkpoint_that_is_replaced_is_another_backbone(
    toy: Callable[..., list[str]], sweep: Callable[..., Swept], notes: Path, tmp_path: Path
) -> None:
    """`model.checkpoint=last.pt` in the middle of a training run: the path says nothing."""
    last = tmp_path / "last.txt"
    last.write_text("1.0")
    arguments = toy(notes, f"model.checkpoint={last}")
    sweep(arguments)
    (before,) = rows_of(arguments)

    last.write_text("0.5")  # as many bytes
    again = sweep(arguments)
    assert (again.n_clips, again.n_trained) == (N_NOTES, 1)
    assert "not what it was made of before (the weights are others)" in again.text
    (now,) = rows_of(arguments)
    assert now[0].weights != before[0].weights
    assert now[0].store_hash != before[0].store_hash
    assert now[0].config_hash == before[0].config_hash

    last.write_text("1.0")
    back = sweep(arguments)
    assert (back.n_clips, back.n_trained) == (0, 0)
    assert rows_of(arguments) == [before]


@pytest.mark.trial
def test_two_checkpoints_in_one_command_are_two_lines(
    toy: Callable[..., list[str]], sweep: Callable[..., Swept], notes: Path, tmp_path: Path
) -> None:
    for name, scale in (("one.txt", 1.0), ("two.txt", 0.01)):
        (tmp_path / name).write_text(str(scale))
    both = toy(notes, f"model.checkpoint={tmp_path}/one.txt,{tmp_path}/two.txt")
    swept = sweep(both)
    assert (swept.n_clips, swept.n_trained) == (2 * N_NOTES, 2)
    first, second = rows_of(both)
    assert first[0].weights != second[0].weights
    assert all(f"checkpoint={name}" in swept.text for name in ("one.txt", "two.txt"))
    again = sweep(both)
    assert (again.n_clips, again.n_trained) == (0, 0)


# -- nothing changed -------------------------------------------------------------------------------


def test_a_second_sweep_imports_no_torch_and_writes_nothing_but_the_report(
    toy: Callable[..., list[str]], sweep: Callable[..., Swept], notes: Path, tmp_path: Path
) -> None:
    sweep(toy(notes))
    before = list(contents(tmp_path))
    program = (
        "import sys\n"
        "from mirprobe.__main__ import main\n"
        "code = main(['sweep', *sys.argv[1:]])\n"
        "heavy = {'torch', 'lightning', 'librosa', 'h5py', 'wandb'} & set(sys.modules)\n"
        "print('ended with', code, sorted(heavy))\n"
    )
    command = [sys.executable, "-c", program, *toy(notes)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.stdout.endswith("ended with 0 []\n"), done.stdout + done.stderr
    assert "Table 1" in done.stdout
    assert list(contents(tmp_path)) == before


# -- killed between two files ----------------------------------------------------------------------


OTHERS = ("stamp-*.json", "features.json", "both notes", "lists")


@pytest.mark.parametrize(
    "lost", [MADE_OF, *(pytest.param(lost, marks=pytest.mark.trial) for lost in OTHERS)]
)
def test_a_kill_between_rows_and_notes_costs_no_work(
    toy: Callable[..., list[str]],
    sweep: Callable[..., Swept],
    notes: Path,
    tmp_path: Path,
    lost: str,
) -> None:
    sweep(toy(notes))
    before = rows_of(toy(notes))
    patterns = {"both notes": [MADE_OF, "stamp-*.json"], "lists": ["*.tsv.gz", "stamp-*.json"]}
    for pattern in patterns.get(lost, [lost]):
        found = list((tmp_path / "runs").rglob(pattern))
        assert found
        for path in found:
            path.unlink()

    again = sweep(toy(notes))
    assert (again.n_clips, again.n_trained) == (0, 0)
    assert rows_of(toy(notes)) == before
    if lost == "lists":
        assert list((tmp_path / "runs").rglob("*.tsv.gz"))


# -- what is shared --------------------------------------------------------------------------------


@pytest.mark.trial
def test_seeds_and_tasks_share_clips_labels_and_the_backbone(
    toy: Callable[..., list[str]],
    sweep: Callable[..., Swept],
    notes: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    built: list[Cell] = []
    make = mirprobe.assembly.make_backbone

    def counted(cell: Cell) -> object:
        built.append(cell)
        return make(cell)

    monkeypatch.setattr(mirprobe.assembly, "make_backbone", counted)
    swept = sweep(toy(notes, "seed=0,1", "task=nsynth_instrument,nsynth_pitch"))
    assert (swept.n_clips, swept.n_trained, len(built)) == (N_NOTES, 4, 1)
    hashes = {rows[0].tracks_hash for rows in rows_of(toy(notes, "seed=0,1"))}
    assert len(hashes) == 1
    third = sweep(toy(notes, "seed=0,1,2"))
    assert (third.n_clips, third.n_trained) == (0, 1)


HEADER = "path,label,split\n"


def write_table(notes: Path, path: Path) -> Path:
    """The notes as a table of one's own, with names relative to it."""
    lines = []
    for audio in sorted(notes.rglob("*.wav")):
        split = audio.parents[1].name.removeprefix("nsynth-")
        pitch = audio.stem.split("-")[1]
        name = os.path.relpath(audio, path.parent)
        lines.append(f"{name},{pitch},{split}\n")
    path.write_text(HEADER + "".join(lines))
    return path


def manifest(toy: Callable[..., list[str]], *tables: Path, out: Path, more: str = "") -> list[str]:
    files = ",".join(map(str, tables))
    extra = [more] if more else []
    return toy(None, "task=manifest", f"task.options.file={files}", *extra, out=out)


@pytest.mark.trial
def test_a_table_under_another_path_is_the_same_cell(
    toy: Callable[..., list[str]], sweep: Callable[..., Swept], notes: Path, tmp_path: Path
) -> None:
    table = write_table(notes, notes / "my.csv")
    arguments = manifest(toy, table, out=tmp_path)
    sweep(arguments)
    (before,) = rows_of(arguments)
    copy = shutil.copyfile(table, notes / "copy.csv")
    (cell,), (other,) = compose_cells(arguments), compose_cells(manifest(toy, copy, out=tmp_path))
    assert (cell.hash, cell.folder) == (other.hash, other.folder)
    again = sweep(manifest(toy, copy, out=tmp_path))
    assert (again.n_clips, again.n_trained) == (0, 0)
    assert rows_of(manifest(toy, copy, out=tmp_path)) == [before]


def test_two_tables_in_one_sweep_share_the_store_and_are_two_lines(
    toy: Callable[..., list[str]], sweep: Callable[..., Swept], notes: Path, tmp_path: Path
) -> None:
    first = write_table(notes, notes / "a.csv")
    text = first.read_text()
    swapped = text.replace(",048,", ",x,").replace(",051,", ",048,").replace(",x,", ",051,")
    second = notes / "b.csv"
    second.write_text(swapped)
    arguments = manifest(toy, first, second, out=tmp_path)
    swept = sweep(arguments)
    assert (swept.n_clips, swept.n_trained) == (N_NOTES, 2)
    one, other = rows_of(arguments)
    assert one[0].store_hash == other[0].store_hash
    assert one[0].tracks_hash != other[0].tracks_hash
    assert [path.name for path in (tmp_path / "features").glob("manifest-*")] == [
        f"manifest-30s-tail5s-toy-mean-float32-{one[0].store_hash}"
    ]
    assert all(f"file={name}" in swept.text for name in ("a.csv", "b.csv"))


@pytest.mark.trial
def test_equal_tables_beside_other_audio_are_never_mixed(
    toy: Callable[..., list[str]], sweep: Callable[..., Swept], tmp_path: Path
) -> None:
    """Clean and degraded copies, each with the same table beside it: a study of robustness."""
    roots = make_notes(tmp_path / "clean"), make_noise(tmp_path / "noisy")
    tables = [write_table(root, root / "my.csv") for root in roots]
    assert tables[0].read_text() == tables[1].read_text()
    both = manifest(toy, *tables, out=tmp_path, more="baseline=fbank_chroma")
    swept = sweep(both)
    assert (swept.n_clips, swept.n_trained) == (2 * N_NOTES, 4)
    _, clean, _, noisy = found = rows_of(both)
    assert accuracy(clean) > 0.6
    assert accuracy(noisy) < 0.4

    alone = []
    for table in tables:
        one = manifest(toy, table, out=tmp_path / "alone", more="baseline=fbank_chroma")
        sweep(one)
        alone += rows_of(one)
    assert sorted(map(str, found)) == sorted(map(str, alone))

    # Each beside its own baseline, and named.
    lines = make_table_rows(compose_cells(both))
    assert [line.differs.task for line in lines] == [(f"file={table}",) for table in tables]
    baselines = [line.baseline["mlp"].value for line in lines if line.baseline]
    assert baselines == [accuracy(alone[0]), accuracy(alone[2])]
    assert len(set(baselines)) == 2


# -- files that have just been written -------------------------------------------------------------


def test_files_that_are_not_remembered_yet_are_read_where_they_have_to_be(
    toy: Callable[..., list[str]], sweep: Callable[..., Swept], notes: Path, tmp_path: Path
) -> None:
    """Younger than the clock's grain: known to the process that read them and to no other."""
    for path in notes.rglob("*.wav"):
        os.utime(path)
    n_clips = FileBackbone.n_clips
    assert main(["extract", *toy(notes)]) == 0
    assert not (tmp_path / "features/known/nsynth.jsonl").exists()
    assert main(["probe", *toy(notes)]) == 0
    assert FileBackbone.n_clips - n_clips == N_NOTES
    assert accuracy(rows_of(toy(notes))[0]) > 0.6


@pytest.mark.trial
def test_files_that_another_process_read_need_not_be_remembered(
    settings: Callable[..., list[str]], notes: Path
) -> None:
    """Two ranks, each with half of the files, all of them just written."""
    arguments = settings("task=nsynth_pitch", f"data.root={notes}", "launcher.devices=2")
    arguments += ["model=fbank_chroma", "baseline=null"]
    for path in notes.rglob("*.wav"):
        os.utime(path, (2**31, 2**31))  # by a clock that is ahead: never settled
    command = [sys.executable, "-m", "mirprobe", "sweep", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=200)
    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stdout + done.stderr
    assert len(rows_of(arguments)) == 1


def test_a_file_that_changes_while_it_is_decoded_is_not_stored_under_its_old_content(
    toy: Callable[..., list[str]],
    sweep: Callable[..., Swept],
    notes: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    """A copy that is still running: the content that was hashed is not what was heard."""
    victim = sorted(notes.rglob("*.wav"))[3]
    load_audio = datamodules.audio.loader.load_audio

    def late(path: Path, *arguments: object, **options: object) -> object:
        if path == victim:
            soundfile.write(path, np.zeros(round(RATE * SECONDS)), RATE)
        return load_audio(path, *arguments, **options)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(datamodules.audio.loader, "load_audio", late)
        assert main(["sweep", *toy(notes)]) == 2
    assert f"{victim} changed while it was read" in capsys.readouterr().err

    assert sweep(toy(notes)).n_clips == 1
    sweep(toy(notes, out=tmp_path / "alone"))
    assert rows_of(toy(notes)) == rows_of(toy(notes, out=tmp_path / "alone"))


# -- at real size ----------------------------------------------------------------------------------

N_REAL = {"train": 289_205, "valid": 12_678, "test": 4_096}


@pytest.fixture
def real_size(tmp_path: Path) -> Path:
    """As many files as NSynth has: links to one, which cost nothing."""
    root = tmp_path / "real"
    first = tmp_path / "note.wav"
    soundfile.write(first, np.zeros(800), RATE)
    source, n_links = first, 0
    for split, n_notes in N_REAL.items():
        folder = root / "NSynth" / f"nsynth-{split}"
        (folder / "audio").mkdir(parents=True)
        entries = {}
        for number in range(n_notes):
            name = f"{split}_synthetic_{number // 1000:03d}-{number:06d}-127"
            if n_links % 60_000 == 0:  # a file may have 65,000 names
                source = Path(shutil.copyfile(first, tmp_path / f"note{n_links}.wav"))
            os.link(source, folder / "audio" / f"{name}.wav")
            n_links += 1
            entries[name] = {"pitch": 20 + number % 80, "instrument_family": number % 11}
        (folder / "examples.json").write_text(json.dumps(entries))
    return root


MEASURE = """
import sys, time
from pathlib import Path
start_s = time.monotonic()
from mirprobe.__main__ import main
code = main(["sweep", *sys.argv[1:]])
seconds = time.monotonic() - start_s
# Not getrusage, which counts the process that started this one too.
status = Path("/proc/self/status").read_text()
memory = int(status.split("VmHWM:")[1].split()[0]) * 1024
print("ended with", code, seconds, memory / 1e9, "torch" in sys.modules)
"""


@pytest.mark.trial
def test_a_second_sweep_of_all_of_nsynth_says_so_within_a_minute_and_2_gb(
    settings: Callable[..., list[str]], real_size: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The results are made up; what is asked for is the way to know that they hold."""
    tasks = "task=nsynth_pitch,nsynth_instrument"
    arguments = settings(tasks, f"data.root={real_size}")
    for cell in compose_cells(arguments):
        values = [0.4] if cell.is_baseline else [0.5, 0.9, 0.7]
        result = save_rows(cell, values, values)
        inputs = inputs_of(cell, make_data(cell))
        note_stamp(cell, result, inputs, Stamps().take(inputs))

    command = [sys.executable, "-c", MEASURE, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    *_, code, seconds, gigabytes, heavy = done.stdout.split()
    with capsys.disabled():
        print(f"\nsecond sweep of {sum(N_REAL.values())} files: {seconds} s, {gigabytes} GB")
    assert (code, heavy) == ("0", "False"), done.stdout + done.stderr
    assert float(seconds) < 60
    assert float(gigabytes) < 2

    path = next(iter((real_size / "NSynth/nsynth-train/audio").iterdir()))
    path.unlink()
    assert len(pending(compose_cells(arguments))) == 4
