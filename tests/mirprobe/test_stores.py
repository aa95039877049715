"""Feature stores listed and deleted: what is said of each, and what a kill or a link may do."""

import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from toy_store import ID, TRACKS, item, shard_paths, wanted, write_items, write_toy_store

from datamodules.errors import UserError
from datamodules.features.store import FeatureStore, store_id_text
from datamodules.files import lock
from mirprobe import stores, verbs
from mirprobe.__main__ import main
from mirprobe.stores import choose_store, delete_store, find_stores, list_lines, remove_leftovers

CELL = "fcpe/gtzan_genre/mlp512-s0-0123456789ab"


@pytest.fixture
def features(tmp_path: Path) -> Path:
    """One store of two shards, with three clips each."""
    write_toy_store(tmp_path / "features").prepare()
    return tmp_path / "features"


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """A cell that names the store, and one that names another."""
    write_note(tmp_path / "runs" / CELL, store_id_text(ID))
    other = replace(ID, dataset="other")
    write_note(tmp_path / "runs" / "fcpe/other_task/mlp512-s0-ba9876543210", store_id_text(other))
    return tmp_path / "runs"


def write_note(folder: Path, text: str) -> Path:
    folder.mkdir(parents=True)
    (folder / "features.json").write_text(text)
    return folder / "features.json"


def call(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """Exit code and output of `mirprobe features`."""
    code = main(["features", *words])
    said = capsys.readouterr()
    return code, said.out, said.err


@pytest.fixture
def places(features: Path, runs: Path) -> list[str]:
    return [f"paths.features={features}", f"paths.runs={runs}"]


# -- what there is ---------------------------------------------------------------------------------


def test_a_store_is_told_with_its_size_its_clips_and_its_cells(features: Path, runs: Path) -> None:
    (store,) = find_stores(features, runs)
    assert store.id == ID
    assert (store.n_shards, store.n_clips) == (2, 6)
    assert store.n_bytes == sum(path.stat().st_size for path in (features / ID.folder).iterdir())
    assert store.cells == [CELL]
    assert store.problems == ()


def test_the_command_says_all_of_it(places: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(capsys, *places)
    assert code == 0
    name, identity, size, users, total = out.splitlines()
    assert name == ID.folder
    assert "fcpe (weights 0a1b2c) over toy; clips 1s, pooling mean" in identity
    assert "precision float32" in identity
    assert re.fullmatch(
        r"  0\.0\d MB: 6 clips in 2 shards; last use \d{4}-\d\d-\d\d \d\d:\d\d", size
    )
    assert users == f"  used by {CELL}"
    assert total.startswith("1 stores below")


def test_the_last_use_is_the_newest_of_its_shards_and_of_the_notes_and_rows_of_its_cells(
    features: Path, runs: Path
) -> None:
    rows = runs / CELL / "0123abcd" / "rows.jsonl"
    rows.parent.mkdir()
    rows.write_text("")
    files = [*(features / ID.folder).iterdir(), runs / CELL / "features.json", rows]
    for path in files:
        os.utime(path, (1e9, 1e9))
    for used_s, path in enumerate(files, start=10**9 + 1):
        os.utime(path, (used_s, used_s))
        assert find_stores(features, runs)[0].used_s == used_s


def test_other_folders_and_hidden_ones_are_no_stores(features: Path, runs: Path) -> None:
    (features / "known").mkdir()
    (features / "known" / "toy.jsonl").write_text("")
    (features / ID.folder).rename(features / f".{ID.folder}")
    assert find_stores(features, runs) == []


def test_nothing_at_all_is_no_error(tmp_path: Path) -> None:
    lines = list(list_lines(tmp_path / "none", tmp_path / "nowhere"))
    assert lines == [f"0 stores below {tmp_path / 'none'}, 0.00 MB"]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"a": 1}', "[" * 10**5, '{"backbone": "fcpe"}'])
def test_a_broken_description_is_a_line(features: Path, runs: Path, text: str) -> None:
    (features / ID.folder / "store.json").write_text(text)
    (store,) = find_stores(features, runs)
    assert store.id is None
    assert store.n_clips == 6
    (problem,) = store.problems
    assert "store.json does not describe a store" in problem
    assert problem in "\n".join(list_lines(features, runs))


def test_a_description_that_is_missing_or_a_folder_is_a_line(features: Path, runs: Path) -> None:
    path = features / ID.folder / "store.json"
    path.unlink()
    assert "it is missing" in find_stores(features, runs)[0].problems[0]
    path.mkdir()
    assert "it is no such file" in find_stores(features, runs)[0].problems[0]


def test_a_store_under_another_name_is_found_by_nobody(features: Path, runs: Path) -> None:
    (features / ID.folder).rename(features / "mine")
    (problem,) = find_stores(features, runs)[0].problems
    assert problem == f"is found by no cell under this name: rename it to {ID.folder}"


def test_a_torn_shard_is_named_and_the_others_are_counted(features: Path, runs: Path) -> None:
    first, _ = shard_paths(features / ID.folder)
    first.write_bytes(first.read_bytes()[:1000])
    (store,) = find_stores(features, runs)
    assert store.n_clips == 3
    assert f"shard {first} is broken" in store.problems[0]


def test_a_shard_that_is_a_pipe_is_not_waited_for(features: Path, runs: Path) -> None:
    os.mkfifo(features / ID.folder / "part-0123.h5")
    assert "it is not a file" in find_stores(features, runs)[0].problems[0]


def test_a_note_that_names_no_store_is_a_line(features: Path, runs: Path) -> None:
    note = write_note(runs / "fcpe/x/mlp512-s0-1", "{")
    said = [line for line in list_lines(features, runs) if str(note) in line]
    assert said == [
        f"{note} does not name a feature store: run `mirprobe extract` for its cell again"
    ]


# -- the end of a store ----------------------------------------------------------------------------


def test_deleting_takes_the_store_and_the_notes_of_its_cells_and_nothing_else(
    features: Path, runs: Path, places: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    other = replace(ID, dataset="other")
    FeatureStore(features, other).prepare()
    (runs / CELL / "0123abcd").mkdir()

    code, out, _ = call(capsys, "--delete", ID.folder, "--yes", *places)
    assert code == 0
    assert f"{ID.folder}: 6 clips" in out
    assert "1 cells have to be extracted again before they are probed again" in out
    assert CELL in out
    assert [path.name for path in features.iterdir()] == [other.folder]
    assert [path.name for path in (runs / CELL).iterdir()] == ["0123abcd"]
    assert len(list(runs.glob("*/*/*/features.json"))) == 1


def test_a_store_is_found_by_the_first_digits_of_its_hash(features: Path, runs: Path) -> None:
    assert choose_store(ID.hash[:4], features, runs).folder.name == ID.folder
    for name in (ID.hash[:3], "..", "", "nsynth", f"../features/{ID.folder}"):
        with pytest.raises(UserError, match="no store"):
            choose_store(name, features, runs)


def test_a_hash_of_several_is_refused(features: Path, runs: Path) -> None:
    (features / f"copy-{ID.hash}").mkdir()
    (features / f"copy-{ID.hash}" / "store.json").write_text(store_id_text(ID))
    with pytest.raises(UserError, match="more than one store"):
        choose_store(ID.hash, features, runs)


def test_nobody_is_asked_without_a_terminal(
    features: Path,
    places: list[str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(verbs.sys.stdin, "isatty", lambda: False, raising=False)
    code, _, error = call(capsys, "--delete", ID.folder, *places)
    assert code == 2
    assert error == "mirprobe: nothing was deleted, as nobody can be asked here: add --yes\n"
    assert (features / ID.folder).is_dir()


@pytest.mark.parametrize(
    ("answer", "is_yes"), [("yes", True), (" YES ", True), ("y", False), ("", False)]
)
def test_only_yes_is_a_yes(answer: str, is_yes: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("builtins.input", lambda _prompt: answer)
    assert stores.confirm("Delete?") is is_yes


def test_on_a_terminal_the_end_of_input_is_a_no(
    features: Path,
    places: list[str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def end(_prompt: str) -> str:
        raise EOFError

    monkeypatch.setattr(verbs.sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", end)
    code, out, _ = call(capsys, "--delete", ID.folder, *places)
    assert (code, out.splitlines()[-1]) == (1, "nothing was deleted")
    assert (features / ID.folder).is_dir()


def test_a_store_that_is_being_written_stays(features: Path, runs: Path) -> None:
    store = choose_store(ID.folder, features, runs)
    with (
        lock(features / ID.folder / ".lock", wait=False),
        pytest.raises(UserError, match="is being written by process"),
    ):
        delete_store(store, pytest.fail)
    assert FeatureStore(features, ID).missing(wanted(*TRACKS)) == []
    assert (runs / CELL / "features.json").is_file()


def test_nothing_outside_is_deleted(tmp_path: Path, features: Path, runs: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "mine").write_text("")
    (features / ID.folder / "link").symlink_to(outside)
    delete_store(choose_store(ID.folder, features, runs), print)
    assert (outside / "mine").is_file()


def test_a_store_that_is_a_link_is_shown_and_not_deleted(
    tmp_path: Path, features: Path, runs: Path
) -> None:
    (features / ID.folder).rename(tmp_path / "elsewhere")
    (features / ID.folder).symlink_to(tmp_path / "elsewhere")
    assert find_stores(features, runs)[0].n_clips == 6
    with pytest.raises(UserError, match=r"is a link, to .*elsewhere"):
        choose_store(ID.folder, features, runs)
    assert len(shard_paths(tmp_path / "elsewhere")) == 2


KILLED = """
import os, shutil, sys
from pathlib import Path
from mirprobe.stores import choose_store, delete_store

def unlink_one(folder, **_):
    os.unlink(sorted(Path(folder).glob("part-*"))[0])
    os._exit(9)

shutil.rmtree = unlink_one
features, runs, name = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
delete_store(choose_store(name, features, runs), print)
"""


def test_a_kill_in_the_middle_leaves_no_half_store_and_the_next_call_finishes_it(
    features: Path, places: list[str], runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [sys.executable, "-c", KILLED, str(features), str(runs), ID.folder]
    assert subprocess.run(arguments, check=False).returncode == 9
    assert find_stores(features, runs) == []
    assert len(list(features.iterdir())) == 1

    # Another of the same name may be there by now; it has nothing to do with that.
    write_items(features, item("a", 0, 1))
    code, out, _ = call(capsys, *places)
    assert code == 0
    assert out.startswith("removed what an interrupted deletion had left")
    assert [path.name for path in features.iterdir()] == [ID.folder]


def test_leftovers_that_are_links_or_files_are_not_ours(tmp_path: Path, features: Path) -> None:
    (tmp_path / "outside").mkdir()
    (features / ".x.deleted").symlink_to(tmp_path / "outside")
    (features / ".y.deleted").write_text("")
    remove_leftovers(features, pytest.fail)
    assert {".x.deleted", ".y.deleted"} < {path.name for path in features.iterdir()}


def test_what_another_process_has_removed_meanwhile_is_no_error(
    features: Path, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, said = choose_store(ID.folder, features, runs), list[str]()
    real = os.unlink

    def unlink_twice(path: str, **keywords: int) -> None:
        real(path, **keywords)
        real(path, **keywords)

    monkeypatch.setattr(stores.shutil.os, "unlink", unlink_twice)
    delete_store(store, said.append)
    assert not list(features.iterdir())
    assert said[0].startswith(f"deleted {ID.folder}")
