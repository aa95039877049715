"""Labels by time, as files of several programs hold them."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from datamodules.datasets.segment_file import read_segments

VERSE = ((0.0, 1.5, "verse a"), (1.5, 4.0, "chorus"))


def lab(folder: Path, text: str, name: str = "a.lab") -> Path:
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def jams(folder: Path, *annotations: dict[str, Any]) -> Path:
    return lab(folder, json.dumps({"annotations": list(annotations)}), "a.jams")


def annotation(space: str, *data: tuple[float, float, object]) -> dict[str, Any]:
    found = [{"time": t, "duration": d, "value": v, "confidence": None} for t, d, v in data]
    return {"namespace": space, "data": found}


def test_lines_are_start_end_and_label_apart_by_blanks_or_tabs(tmp_path: Path) -> None:
    for name in ("a.lab", "a.txt"):
        file = lab(tmp_path, "1.5\t4.0\tchorus\r\n\n 0 1.5  verse a \n", name)
        assert read_segments(file) == VERSE


def test_of_jams_the_first_segmentation_counts_and_else_the_only_annotation(tmp_path: Path) -> None:
    data = ((0.0, 1.5, "verse a"), (1.5, 2.5, "chorus"))
    beat, chord = annotation("beat", (0.0, 0.1, 1)), annotation("chord", *data)
    segments, others = annotation("segment_open", *data), annotation("segment_tut", (0.0, 9.0, "x"))
    assert read_segments(jams(tmp_path, beat, segments, others)) == VERSE
    assert read_segments(jams(tmp_path, chord)) == VERSE


def test_rounded_times_that_touch_do_not_overlap(tmp_path: Path) -> None:
    found = read_segments(lab(tmp_path, "0 1.0004 a\n1 2 b\n"))
    assert found == ((0.0, 1.0004, "a"), (1.0004, 2.0, "b"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("0 1 a\n0.5 2 b\n", "two stretches overlap at 0.5 s"),
        ("0 1\n", "line 1 is not start, end and label: '0 1'"),
        ("0 1 a\n2 1 b\n", "line 2 lasts from 2 to 1 s"),
        ("soon 1 a\n", "line 1 lasts from soon to 1 s"),
        ("0 inf a\n", "line 1 lasts from 0 to inf s"),
        ("-1 1 a\n", "line 1 lasts from -1 to 1 s"),
        ("\n", "it has no stretch"),
    ],
)
def test_lines_that_hold_no_stretch_are_named(tmp_path: Path, text: str, said: str) -> None:
    file = lab(tmp_path, text)
    with pytest.raises(ValueError, match=re.escape(f"names {file}, which cannot be used ({said})")):
        read_segments(file)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "cannot be used"),
        ("[]", "it has no list of annotations"),
        (json.dumps({"annotations": [annotation("beat"), annotation("chord")]}), "beat, chord"),
        (json.dumps({"annotations": [{"data": {"time": []}}]}), "no list of data"),
        (json.dumps({"annotations": [{"data": [{"time": 0}]}]}), "observation 1 has no time, dur"),
        (json.dumps({"annotations": [annotation("x", (0, 1, 7))]}), "the label 7, expected text"),
        ("[" * 100_000, "cannot be used"),
    ],
)
def test_jams_that_hold_no_segments_are_named(tmp_path: Path, content: str, said: str) -> None:
    file = lab(tmp_path, content, "a.jams")
    with pytest.raises(ValueError, match=re.escape(said)):
        read_segments(file)


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot be read"):
        read_segments(tmp_path / "none.lab")
    with pytest.raises(ValueError, match=r"is neither \.lab, \.txt nor \.jams"):
        read_segments(tmp_path / "a.xml")
    (tmp_path / "b.lab").write_bytes(b"0 1 \xff\n")
    with pytest.raises(ValueError, match="is not UTF-8 text"):
        read_segments(tmp_path / "b.lab")
