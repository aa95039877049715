"""data.exclude: advice that works when pasted, lists in files, and names that music really has."""

import shlex
from collections.abc import Sequence
from pathlib import Path

import pytest

from datamodules.audio.clips import ClipRule
from datamodules.datasets.manifest import Manifest
from datamodules.errors import UserError
from datamodules.excluding import exclude_remedy, ignored_entries, read_exclude
from mirprobe.settings import compose_cell, compose_cells

NAMES = [
    "10089 Jason Sparks - Close My Eyes (Original Mix).mp3",
    "[0001] M4-01-SA.wav",
    "I Don't Mind",
    "006_FH C#3 SCF.wav",
    "Suite: I. Allemande.flac",
    "a,b=c.wav",
    'She said "no"',
    'ends with a quote"',
    "back\\slash\\",
    'both \\" of them',
    "Café del Mar, Ümläut 音楽.wav",
    "$HOME `date` !x; rm -rf *",
    "1e5",
    "12_3",
    "12.50",
    "0123",
    "10097",
    "true",
    "null",
    "nan",
    "@home.wav",
    "#1.wav",
    "{a}",
    " blank before.wav",
    "a\tb.wav",
    "audio/rock/a-b_c.wav",
    "missing.wav",
    "?*.wav",
    "x@10-25",
]


def pasted(remedy: str) -> list[str]:
    """What the setting excludes once a shell and Hydra have read it."""
    words = shlex.split(remedy)
    assert len(words) == 1
    return compose_cell(words).data.exclude


@pytest.mark.parametrize("name", NAMES)
def test_advice_works_when_pasted_whatever_a_file_is_called(name: str) -> None:
    assert pasted(exclude_remedy("gtzan", [name])) == [f"gtzan:{name}"]


def test_advice_is_one_value_and_does_not_forget_what_is_excluded_already() -> None:
    """A second bad file must not bring the first back."""
    remedy = exclude_remedy("gtzan", NAMES[5:], already=[f"nsynth:{NAMES[0]}", *NAMES[1:5]])
    wanted = {f"nsynth:{NAMES[0]}", *NAMES[1:5], *(f"gtzan:{name}" for name in NAMES[5:])}
    assert set(pasted(remedy)) == wanted
    assert len(compose_cells([*shlex.split(remedy), "task=gtzan_genre", "baseline=null"])) == 1


def test_plain_names_stand_without_quotes_inside() -> None:
    remedy = exclude_remedy("giantsteps", ["1926377", "10097"], already=["gtzan:jazz.00054"])
    assert remedy == "'data.exclude=[gtzan:jazz.00054,giantsteps:10097,giantsteps:1926377]'"


# -- files -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("ends", ["\n", "\r\n"])
@pytest.mark.parametrize("form", ["data.exclude=@{}", "data.exclude=[a,@{},b]"])
def test_a_file_is_a_list_of_ids(tmp_path: Path, ends: str, form: str) -> None:
    path = tmp_path / "bad.txt"
    path.write_bytes((ends.join([*NAMES, "", "last"]) + ends).encode())
    found = compose_cell([form.format(path)]).data.exclude
    expected = [*NAMES, "last"]
    assert found == (expected if form.endswith("{}") else ["a", *expected, "b"])


def test_a_cell_is_known_by_what_its_file_lists(tmp_path: Path) -> None:
    for name, text in (("1.txt", "a\nb\n"), ("2.txt", "b\na"), ("3.txt", "c\n")):
        (tmp_path / name).write_text(text)
    one, two, three = (compose_cell([f"data.exclude=@{tmp_path}/{n}.txt"]).hash for n in (1, 2, 3))
    assert one == two == compose_cell(["data.exclude=[a,b]"]).hash
    assert one != three


@pytest.mark.parametrize(
    ("content", "problem"),
    [(None, "cannot read .*No such file"), ("ä".encode("latin-1"), "is not UTF-8 text")],
)
def test_a_file_that_cannot_be_read_is_named(
    tmp_path: Path, content: bytes | None, problem: str
) -> None:
    if content is not None:
        (tmp_path / "bad.txt").write_bytes(content)
    with pytest.raises(UserError, match=problem) as error:
        compose_cell([f"data.exclude=@{tmp_path}/bad.txt"])
    assert "bad.txt" in str(error.value) and "\n" not in str(error.value)


def test_what_is_no_list_is_left_to_the_schema() -> None:
    assert read_exclude("jazz.00054") == "jazz.00054"
    assert read_exclude([12, "a"]) == [12, "a"]


# -- tasks -----------------------------------------------------------------------------------------


def own_data(folder: Path, names: Sequence[str], exclude: Sequence[str] = ()) -> Manifest:
    lines = []
    for number, name in enumerate(names):
        (folder / name).write_bytes(b"x")
        quoted = name.replace('"', '""')
        lines.append(f'"{quoted}",{"ab"[number % 2]},{("train", "val", "test")[number // 2 % 3]}\n')
    (folder / "my.csv").write_text("path,label,split\n" + "".join(lines), encoding="utf-8")
    return Manifest(folder, ClipRule(), exclude, file=str(folder / "my.csv"))


def test_an_id_may_hold_a_colon(tmp_path: Path) -> None:
    names = [f"Suite {number}: I.wav" for number in range(12)]
    dataset = own_data(tmp_path, names).dataset
    for entry in (names[3], f"{dataset}:{names[3]}"):
        data = own_data(tmp_path, names, [entry])
        assert [track.track_id for track in data.tracks()] == sorted(set(names) - {names[3]})
        assert ignored_entries(data.exclude, [data]) == []


def test_an_entry_of_no_dataset_at_hand_is_ignored_and_not_silently(tmp_path: Path) -> None:
    data = own_data(tmp_path, [f"{number}.wav" for number in range(12)], ["gtzan:x", "1.wav"])
    assert len(data.tracks()) == 11
    assert ignored_entries(data.exclude, [data]) == ["gtzan:x"]


def test_a_sweep_says_what_it_ignores(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from mirprobe.provenance import Stamps
    from mirprobe.sweep.run import checked_plan

    own_data(tmp_path, [f"{number}.wav" for number in range(12)])
    cells = compose_cells(
        [
            "task=manifest",
            f"task.options.file={tmp_path}/my.csv",
            f"data.root={tmp_path}",
            "data.exclude=[gtzan:jazz.00054]",
            f"paths.features={tmp_path}/features",
        ]
    )
    checked_plan(cells, Stamps())
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("data.exclude: gtzan:jazz.00054 ignored")]
