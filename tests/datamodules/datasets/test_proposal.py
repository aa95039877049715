"""What the columns of a table are taken for: by their names, else by their cells."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from datamodules.datasets.own_table import read_table
from datamodules.datasets.proposal import Proposal, propose
from datamodules.errors import UserError

N = 12
FILES = [f"{number}.flac" for number in range(N)]


def table(folder: Path, **columns: Sequence[Any]) -> Path:
    file = folder / "my.csv"
    rows = [",".join(map(str, cells)) for cells in zip(*columns.values(), strict=True)]
    file.write_text("\n".join([",".join(columns), *rows]) + "\n")
    return file


def of(folder: Path, **columns: Sequence[Any]) -> Proposal:
    return propose(read_table(table(folder, **columns)))


def test_files_are_found_by_their_endings_and_labels_by_their_name(tmp_path: Path) -> None:
    found = of(tmp_path, year=[1990] * N, song=FILES, mood=["sad", "glad"] * 6, note=["x"] * N)
    assert found.columns == {"path": "song", "label": "mood"}
    assert found.lines == (
        "path: column song (12 files in 12 rows)",
        "label: column mood (2 different, most often sad, 6 times)",
        "not looked at: year, note",
    )


def test_a_song_that_is_a_file_is_no_group_and_an_artist_is(tmp_path: Path) -> None:
    found = of(tmp_path, path=FILES, Artist=["a", "b", "c"] * 4, label=["x", "y"] * 6)
    assert found.columns == {"path": "path", "group": "Artist", "label": "label"}


def test_splits_are_found_by_what_they_say_and_folds_by_their_name(tmp_path: Path) -> None:
    splits = ["train", "train", "Validation", "test"] * 3
    found = of(tmp_path, path=FILES, part=splits, my_fold=[1, 2, 3] * 4, label=["x", "y"] * 6)
    assert (found.columns["split"], "fold" in found.columns) == ("part", False)
    found = of(tmp_path, path=FILES, my_fold=[1, 2, 3] * 4, label=["x", "y"] * 6)
    assert found.columns["fold"] == "my_fold"
    assert "fold: column my_fold (1 4, 2 4, 3 4)" in found.lines
    found = of(tmp_path, path=FILES, part=["train", "dev"] * 6, label=["x", "y"] * 6)
    assert "split" not in found.columns


def test_tags_numbers_and_classes_are_told_apart_by_their_cells(tmp_path: Path) -> None:
    tags = of(tmp_path, path=FILES, genre=["rock|pop", "rock", "", "pop"] * 3)
    assert tags.columns == {"path": "path", "labels": "genre"}
    values = [0.5 * number for number in range(N)]
    numbers = of(tmp_path, path=FILES, arousal=values, valence=values, year=[1990] * N)
    assert numbers.targets == ("arousal", "valence") and "label" not in numbers.columns
    whole = of(tmp_path, path=FILES, target=[1, 2, 3] * 4, valence=values)
    assert (whole.columns["label"], whole.targets) == ("target", ())
    assert of(tmp_path, path=FILES, target=values).targets == ("target",)


def test_names_of_things_are_no_classes(tmp_path: Path) -> None:
    found = of(tmp_path, path=FILES, title=[f"t{n}" for n in range(N)], scene=["a", "b", "c"] * 4)
    assert found.columns["label"] == "scene"


def test_times_are_numbers(tmp_path: Path) -> None:
    found = of(tmp_path, path=FILES, onset=[0.5] * N, end=["soon"] * N, label=["x", "y"] * 6)
    assert found.columns["start"] == "onset" and "end" not in found.columns
    assert found.targets == ()


def test_files_of_labels_are_labels_of_frames(tmp_path: Path) -> None:
    labs = [f"{number}.lab" for number in range(N)]
    found = of(tmp_path, audio=FILES, structure=labs, genre=["x", "y"] * 6)
    assert found.columns == {"path": "audio", "segments": "structure"}


def test_lists_of_json_are_tags(tmp_path: Path) -> None:
    rows = [{"audio_path": file, "tags": ["a"] if n % 2 else []} for n, file in enumerate(FILES)]
    file = tmp_path / "my.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert propose(read_table(file)).columns == {"path": "audio_path", "labels": "tags"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name,label\na,x\nb,y\n", "has no column of audio files, such as path with a.wav in it"),
        ("path,title\na.wav,x\nb.wav,y\n", "has no column that looks like labels"),
        ("path,label\n", "lists no tracks"),
    ],
)
def test_what_no_task_can_be_made_of_is_said(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "my.csv").write_text(text)
    with pytest.raises(UserError, match=said):
        propose(read_table(tmp_path / "my.csv"))
