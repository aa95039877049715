"""`mirprobe data` prints a passport that names every flaw, or how to obtain the data."""

import re
import shlex
from collections.abc import Callable
from dataclasses import replace
from itertools import takewhile
from pathlib import Path

import numpy as np
import pytest
import soundfile

from datamodules.audio.decode import wav_bytes
from datamodules.card import Card
from datamodules.passport import Passport, SplitFacts, Values
from datamodules.passport_text import passport_lines
from datamodules.tracks import SPLITS, BadFile, Track, UnusableFile
from mirprobe.__main__ import main
from mirprobe.data import print_lines

CARD = Card("Toys (2001)", "CC0", "A. Nobody: Toys, 2001", "Write to A. Nobody.\nUnpack into Toys.")


def make_passport(**changes: object) -> Passport:
    """Of a dataset without flaws, but for the changes."""
    clean = Passport(
        dataset="toys",
        root=Path("/data/Toys"),
        is_demo=False,
        card=CARD,
        kind="classification",
        classes=("cat", "dog"),
        splits={
            "train": SplitFacts(1, 4, 3600.0, (1.0, 0.0)),
            "val": SplitFacts(2, 4, 7200.0, (2.0, 0.0)),
            "test": SplitFacts(3, 4, 10800.0, (3.0, 0.0)),
        },
        durations_s=(1.0, 2.0, 3.5),
        sample_rates={8000: 5, 44100: 1},
        channels={1: 6},
        missing=(),
        unreadable=(),
        left_out=(),
        excluded=(),
        duplicates=(),
        groups={},
        grouped={},
        listed=6,
        list_hash="0123456789abcdef",
    )
    return replace(clean, **changes)


def lines_of(**changes: object) -> list[str]:
    return list(passport_lines("toy_task", make_passport(**changes)))


def fact(name: str, **changes: object) -> list[str]:
    """The lines of one fact."""
    lines = lines_of(**changes)
    start = next(number for number, line in enumerate(lines) if line.startswith(f"  {name}  "))
    more = takewhile(lambda line: line.startswith(" " * 15), lines[start + 1 :])
    return [line[15:] for line in [lines[start], *more]]


def track(name: str, split: str, target: int = 0) -> Track:
    return Track(name, Path(f"/data/{name}.wav"), split, target)  # type: ignore[arg-type]


def test_a_clean_passport_is_short_and_says_what_was_looked_for() -> None:
    assert lines_of() == [
        "toy_task: train 1/4, val 2/4, test 3/4 tracks, 2 classes, in /data/Toys",
        "  dataset      Toys (2001)",
        "  licence      CC0",
        "  citation     A. Nobody: Toys, 2001",
        "                 train    val   test",
        "  tracks           1/4    2/4    3/4",
        "  hours           1.00   2.00   3.00",
        "  cat                1      2      3",
        "  dog                0      0      0",
        "  empty        all splits dog",
        "  train lacks  none of the classes of val and test",
        "  audio        6.00 h; a track lasts 1.00 to 3.50 s, median 2.00 s (as the headers say: "
        "no sample was decoded)",
        "  rates        8000 Hz: 5 files, 44100 Hz: 1 files",
        "  channels     1: 6 files",
        "  missing      none",
        "  unreadable   none",
        "  left out     none",
        "  excluded     none",
        "  duplicates   no two files have the same bytes",
        "  groups       not known",
        "  list hash    0123456789abcdef (SHA-256 over id, split and target of 6 tracks)",
    ]


def test_a_passport_needs_no_card_and_no_audio() -> None:
    empty = {split: SplitFacts(0, None, 0.0, (0.0, 0.0)) for split in SPLITS}
    lines = lines_of(card=None, splits=empty, durations_s=None, sample_rates={}, channels={})
    assert lines[0] == "toy_task: train 0, val 0, test 0 tracks, 2 classes, in /data/Toys"
    assert not any("licence" in line for line in lines)
    assert "  audio        0.00 h (as the headers say: no sample was decoded)" in lines
    assert "  rates        none" in lines


def test_a_demo_says_so_and_how_to_obtain_the_real_data() -> None:
    assert "(demo data, rendered: not the dataset)" in lines_of(is_demo=True)[0]
    assert fact("real data", is_demo=True) == ["Write to A. Nobody.", "Unpack into Toys."]


def test_many_classes_are_summarised_and_neighbours_without_tracks_taken_together() -> None:
    classes = tuple(str(number) for number in range(30))
    counts = {
        "train": [0, 0, 0, *range(1, 28)],
        "val": [0, 0, 0, 4, *([1] * 25), 0],
        "test": [0, 0, 2, *([1] * 27)],
    }
    splits = {split: SplitFacts(9, None, 0.0, tuple(map(float, counts[split]))) for split in SPLITS}
    lines = lines_of(classes=classes, splits=splits)
    assert "  fewest per class      0      0      0" in lines
    assert "  median per class   12.5      1      1" in lines
    assert "  most per class       27      4      2" in lines
    assert not any(line.startswith("  17 ") for line in lines)
    assert fact("empty", classes=classes, splits=splits) == ["train 2; val 2, 29; all splits 0, 1"]
    assert fact("train lacks", classes=classes, splits=splits) == [
        "2 of the classes of val and test"
    ]


def test_neighbours_are_written_as_a_run() -> None:
    splits = {split: SplitFacts(9, None, 0.0, (1.0, 0.0, 0.0, 0.0, 1.0)) for split in SPLITS}
    assert fact("empty", classes=("a", "b", "c", "d", "e"), splits=splits) == ["all splits b .. d"]


def test_regression_shows_the_dimensions_and_no_classes() -> None:
    values = (Values(0.5, 1.25, -2.0, 3.0),)
    splits = {
        split: SplitFacts(2, None, 60.0, values=values if split != "test" else ())
        for split in SPLITS
    }
    lines = lines_of(kind="regression", classes=("valence",), splits=splits)
    assert lines[0].endswith("1 dimensions, in /data/Toys")
    assert "  valence, mean (sd)    0.50 (1.25)    0.50 (1.25)              -" in lines
    assert "  valence, range      -2.00 to 3.00  -2.00 to 3.00              -" in lines
    assert not any(line.startswith(("  empty", "  train lacks")) for line in lines)


def test_frames_are_counted_in_seconds() -> None:
    assert any(line.startswith("  cat, s ") for line in lines_of(kind="frames"))


def test_every_file_that_is_not_used_is_named_with_its_reason() -> None:
    broken = [UnusableFile(f"t{number}", Path("x"), "is empty (0 bytes)") for number in range(30)]
    shown = fact(
        "unreadable", unreadable=(*broken, UnusableFile("u", Path("x"), "holds no samples"))
    )
    assert shown == [
        "30 files, is empty (0 bytes): " + ", ".join(f"t{n}" for n in range(30)),
        "1 files, holds no samples: u",
    ]
    assert fact("left out", left_out=(BadFile("x", "corrupt", "2021"),)) == [
        "x: corrupt (listed 2021)"
    ]
    assert fact("excluded", excluded=("a", "b")) == ["a (data.exclude)", "b (data.exclude)"]
    missing = tuple(track(f"m{number:02d}", "val") for number in range(22))
    (line,) = fact("missing", missing=missing)
    assert line.startswith("22 tracks: m00, m01")
    assert line.endswith("m19 and 2 more")


def test_duplicates_name_tracks_and_splits() -> None:
    across = (track("a", "train"), track("b", "test", 1))
    within = (track("c", "val"), track("d", "val"))
    assert fact("duplicates", duplicates=(across, within)) == [
        "2 sets of files with the same bytes, 1 of them across splits",
        "across splits, with different targets: a (train), b (test)",
        "in val: c (val), d (val)",
        "'data.exclude=[toys:duplicates]' keeps one copy: in test, else in val",
    ]
    assert fact("duplicates", duplicates=(across,) * 23)[-2] == "and 3 more"
    assert fact("duplicates", duplicates=(within,)) == [
        "1 sets of files with the same bytes, 0 of them across splits",
        "in val: c (val), d (val)",
    ]


def test_lengths_are_compared_with_those_of_the_dataset() -> None:
    assert not any(line.startswith("  lengths") for line in lines_of())
    assert fact("lengths", lasts_s=(3.99, 4.01)) == [
        "every track lasts 3.99 to 4.01 s, as it should"
    ]
    assert fact("lengths", lasts_s=(3.99, 4.01), odd_lengths=(("a", 1.2), ("b", 0.5))) == [
        "2 tracks do not last 3.99 to 4.01 s: a (1.20 s), b (0.50 s)"
    ]


def test_group_leaks_name_groups_splits_and_tracks() -> None:
    groups = {"ann": {"train": 3, "test": 2}, "bob": {"train": 1}, "cat": {"val": 1, "test": 1}}
    assert fact("groups", groups=groups, grouped={"train": 4, "val": 1, "test": 3}) == [
        "3, known of train 4, val 1, test 3 tracks; "
        "in more than one split: train+test 1, val+test 1",
        "in train+test: ann (train 3, test 2)",
        "in val+test: cat (val 1, test 1)",
    ]
    assert fact("groups", groups={"bob": {"val": 1}}, grouped={"val": 1}) == [
        "1, known of train 0, val 1, test 0 tracks; none is in more than one split"
    ]


def test_names_are_not_taken_for_markup_and_lines_are_not_broken(
    capsys: pytest.CaptureFixture[str],
) -> None:
    print_lines(lines_of(excluded=("[bold]x[/bold]", ":cat:", "y" * 300)))
    text = capsys.readouterr().out
    assert "[bold]x[/bold] (data.exclude)" in text
    assert ":cat:" in text
    assert "y" * 300 in text


# -- the command -----------------------------------------------------------------------------------


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """A manifest with a copy in another split, a stereo file at an odd rate and a broken one."""
    for seed, name in enumerate("abcde"):
        noise = np.random.default_rng(seed).uniform(-0.5, 0.5, 4000).astype(np.float32)
        (tmp_path / f"{name}.wav").write_bytes(wav_bytes(noise, 8000))
    (tmp_path / "copy.wav").write_bytes((tmp_path / "a.wav").read_bytes())
    stereo = np.random.default_rng(9).uniform(-0.5, 0.5, (11025, 2))
    soundfile.write(tmp_path / "odd.wav", stereo, 11025)
    (tmp_path / "broken.wav").write_bytes(b"RIFF\x24\x08")
    rows = [
        "path,label,split",
        "a.wav,x,train",
        "b.wav,y,train",
        "broken.wav,x,train",
        "c.wav,x,val",
        "d.wav,y,val",
        "e.wav,x,test",
        "copy.wav,x,test",
        "odd.wav,y,test",
    ]
    (tmp_path / "my.csv").write_text("".join(f"{row}\n" for row in rows))
    return tmp_path / "my.csv"


def data(settings: Callable[..., list[str]], *more: str) -> int:
    return main(["data", *settings("baseline=null", *more)])


def test_flaws_are_printed_before_the_error(
    table: Path, settings: Callable[..., list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = ("task=manifest", f"task.options.file={table}")
    assert data(settings, *manifest) == 2
    shown = capsys.readouterr()
    assert "manifest: train 3/3, val 2/2, test 3/3 tracks, 2 classes" in shown.out
    for words in (
        "11025 Hz: 1 files",
        "2: 1 files",
        "across splits: a.wav (train), copy.wav (test)",
        "Your own data",
    ):
        assert words in shown.out
    unreadable = "1 files, cannot be decoded (Format not recognised): broken.wav"
    assert f"unreadable   {unreadable}\n" in shown.out

    assert shown.err.startswith("mirprobe: 1 of 8 manifest files ")
    assert shown.err.count("\n") == 1
    remedy = "Replace them, or leave them out with 'data.exclude=[manifest:broken.wav]'"
    assert f"files cannot be read: broken.wav. {remedy}" in shown.err

    (advice,) = re.findall(r"'data\.exclude=.*\]'", shown.err)
    assert data(settings, *manifest, *shlex.split(advice)) == 0
    assert "excluded     broken.wav (data.exclude)\n" in capsys.readouterr().out
    assert data(settings, *manifest, "data.exclude=[broken.wav,gtzan:x]") == 0
    shown = capsys.readouterr()
    assert "excluded     broken.wav (data.exclude)\n" in shown.out
    assert "manifest: train 2/3, val 2/2, test 3/3 tracks, 2 classes" in shown.out
    assert (
        "data.exclude: gtzan:x ignored, it is neither of the dataset manifest nor an id"
        in shown.out
    )


def test_missing_audio_is_printed_and_said(
    table: Path, settings: Callable[..., list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    (table.parent / "c.wav").unlink()
    assert data(settings, "task=manifest", f"task.options.file={table}") == 2
    shown = capsys.readouterr()
    assert "missing      1 tracks: c.wav\n" in shown.out
    for words in ("cannot be read: broken.wav", "1 of 8", "have no audio"):
        assert words in shown.err


def test_a_dataset_that_is_not_there_is_described(
    tmp_path: Path, settings: Callable[..., list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert data(settings, "task=gtzan_genre", f"data.root={tmp_path}") == 2
    shown = capsys.readouterr()
    assert shown.out.startswith("gtzan_genre: no data to read\n")
    for words in (
        "licence      ",
        "citation     ",
        "obtain       ",
        "huggingface.co/datasets/marsyas/gtzan",
        "or fetch     mirprobe fetch task=gtzan_genre",
    ):
        assert words in shown.out
    assert shown.err.startswith("mirprobe: no gtzan data: ")


def test_several_tasks_are_all_shown_and_the_problems_said_at_once(
    tmp_path: Path, settings: Callable[..., list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert data(settings, "task=nsynth_pitch,gtzan_genre,emomusic_emotion") == 2
    shown = capsys.readouterr()
    found = "nsynth_pitch: train 48/289205, val 24/12678, test 24/4096 tracks, 128 classes"
    assert found in shown.out
    assert "gtzan_genre: no data to read" in shown.out
    assert "emomusic_emotion: no data to read" in shown.out

    assert shown.err.startswith("mirprobe: data of 2 of 3 tasks cannot be used as it is. ")
    assert shown.err.count("\n") == 1
    assert "gtzan_genre: no gtzan data" in shown.err
    assert "emomusic_emotion: no emomusic data" in shown.err
