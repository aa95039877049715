"""MagnaTagATune: tags in a fixed order, splits by folder, untagged and corrupt clips."""

import csv
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from feeding import items_of, track_of

from datamodules.audio.clips import ClipRule
from datamodules.audio.decode import mp3_bytes
from datamodules.datasets.magnatagatune import TAGS, MagnaTagATuneTags, folder_split
from datamodules.demo import build as demo
from datamodules.demo import magnatagatune as demo_magnatagatune
from datamodules.errors import UserError
from datamodules.tracks import Track, UnusableFile

RARE = [f"filler {n:03d}" for n in range(138)]
# By name: not the order of the targets, nor one by counts.
HEADER = ["clip_id", *sorted([*TAGS, *RARE]), "mp3_path"]
BRAUN = "6/norine_braun-now_and_zen-08-gently-117-146.mp3"
CLIPS: dict[str, tuple[str, set[str]]] = {
    "2": ("0/artist-album-01-title-0-29.mp3", {"guitar", "choral"}),
    "6": ("9/artist-album-02-title-0-29.mp3", {"classical", "slow", "filler 001"}),
    "10": ("a/artist-album-03-title-0-29.mp3", {"vocal", "vocals", "voice"}),
    "11": ("b/artist-album-04-title-0-29.mp3", set()),
    "12": ("c/artist-album-05-title-0-29.mp3", {"no vocal", "no vocals", "no voice"}),
    "14": ("c/artist-album-05-title-30-59.mp3", {"filler 002"}),
    "35644": (BRAUN, {"guitar"}),
    "40000": ("d/artist-album-06-title-0-29.mp3", {"guitar"}),
    "40001": ("e/d-c-06-title-0-29.mp3", {"filler 003"}),
    "40002": (
        "f/american_bach_soloists-j_s__bach_solo_cantatas-01-bwv54__i_aria-30-59.mp3",
        {"opera", "guitar"},
    ),
}
CORRUPT = {bad.name: bad.reason for bad in MagnaTagATuneTags.known_bad}
SPLITS = {"2": "train", "6": "train", "10": "train", "11": "train", "12": "val", "14": "val"}


def write_rows(
    root: Path, header: Sequence[str], rows: Sequence[Sequence[Any]], **style: Any
) -> None:
    with (root / "annotations_final.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, **{"delimiter": "\t", "quoting": csv.QUOTE_ALL, **style}).writerows(
            [header, *rows]
        )


def rows_of(clips: Mapping[str, tuple[str, set[str]]]) -> list[list[Any]]:
    return [
        [clip, *(int(tag in tags) for tag in HEADER[1:-1]), path]
        for clip, (path, tags) in clips.items()
    ]


def write_tree(root: Path, clips: Mapping[str, tuple[str, set[str]]] = CLIPS) -> Path:
    write_rows(root, HEADER, rows_of(clips))
    info = [
        '"clip_id"\t"title"\t"mp3_path"\n',
        '"2"\t"title"\t"0/artist-album-01-title-0-29.mp3"\n',
        '"3"\t"no file"\t""\n',
    ]
    (root / "clip_info_final.csv").write_text("".join(info))
    for path, _ in clips.values():
        (root / "mp3" / path).parent.mkdir(parents=True, exist_ok=True)
        (root / "mp3" / path).touch()
    return root


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_tree(tmp_path)


def tracks(root: Path, **options: Any) -> dict[str, Track]:
    return {
        track.track_id: track for track in MagnaTagATuneTags(root, ClipRule(), **options).tracks()
    }


def tags(track: Track) -> set[str]:
    assert isinstance(track.target, tuple)
    return {tag for tag, value in zip(TAGS, track.target, strict=True) if value}


def refusal(root: Path) -> str:
    with pytest.raises(UserError) as error:
        MagnaTagATuneTags(root, ClipRule()).tracks()
    return str(error.value)


# -- tags ------------------------------------------------------------------------------------------


def test_the_50_tags_stand_in_marbles_order() -> None:
    assert len(TAGS) == len(set(TAGS)) == 50
    assert (TAGS[0], TAGS[-1]) == ("guitar", "choral")
    at = {
        1: "classical",
        9: "piano",
        10: "ambient",
        21: "no vocals",
        28: "no vocal",
        29: "pop",
        34: "classic",
        37: "new age",
    }
    assert {place: TAGS[place] for place in at} == at
    ties = {39: "male voice", 40: "female vocal", 47: "metal", 48: "female voice"}
    assert {place: TAGS[place] for place in ties} == ties
    assert MagnaTagATuneTags.classes == TAGS
    assert MagnaTagATuneTags.kind == "multilabel"


def test_targets_follow_the_fixed_order_whatever_the_columns_and_counts_are(root: Path) -> None:
    found = tracks(root)
    assert {clip: tags(track) for clip, track in found.items()} == {
        clip: names - set(RARE) for clip, (_, names) in CLIPS.items() if clip not in CORRUPT
    }
    assert found["2"].target == (1.0, *[0.0] * 48, 1.0)
    assert set(map(type, found["2"].target)) == {float}
    turned = [list(reversed(row)) for row in rows_of(CLIPS)]
    write_rows(root, list(reversed(HEADER)), turned, quoting=csv.QUOTE_MINIMAL)
    assert tracks(root) == found


def test_synonyms_and_opposites_are_not_merged(root: Path) -> None:
    assert tags(tracks(root)["10"]) == {"vocal", "vocals", "voice"}
    assert tags(tracks(root)["12"]) == {"no vocal", "no vocals", "no voice"}


# -- splits and which clips ------------------------------------------------------------------------


def test_the_folder_decides_the_split() -> None:
    found = {folder: folder_split(f"{folder}/c-d-01-e-0-29.mp3") for folder in "0123456789abcdef"}
    assert found == {
        **dict.fromkeys("0123456789ab", "train"),
        "c": "val",
        **dict.fromkeys("def", "test"),
    }
    assert Counter(found.values()) == {"train": 12, "val": 1, "test": 3}


@pytest.mark.parametrize(
    "path", ["", "0", "0/", "g/a.mp3", "A/a.mp3", "/a.mp3", "01/a.mp3", "mp3/0/a.mp3"]
)
def test_what_lies_in_no_hex_folder_has_no_split(path: str) -> None:
    with pytest.raises(ValueError):
        folder_split(path)


def test_tracks_are_the_annotated_clips_by_id(root: Path) -> None:
    found = tracks(root)
    assert {clip: track.split for clip, track in found.items()} == {
        clip: SPLITS.get(clip, "test") for clip in CLIPS if clip not in CORRUPT
    }
    assert all(track.path == root / "mp3" / CLIPS[clip][0] for clip, track in found.items())


def test_untagged_clips_are_kept_or_dropped_on_demand(root: Path) -> None:
    kept, dropped = tracks(root), tracks(root, keep_untagged=False)
    assert set(kept) - set(dropped) == {
        "11",
        "14",
        "40001",
    }  # without any tag, and with rare ones only
    assert {clip: kept[clip] for clip in dropped} == dropped


def test_sizes_of_the_complete_set_depend_on_that_option(root: Path) -> None:
    assert MagnaTagATuneTags.expected == {"train": 18706, "val": 1825, "test": 5329}
    assert MagnaTagATuneTags(root, ClipRule()).expected == MagnaTagATuneTags.expected
    tagged = MagnaTagATuneTags(root, ClipRule(), keep_untagged=False).expected
    assert tagged == {"train": 15247, "val": 1529, "test": 4332}
    assert sum(MagnaTagATuneTags.expected.values()) + len(CORRUPT) == 25863
    assert sum(MagnaTagATuneTags.expected.values()) - sum(tagged.values()) == 4752


def test_sizes_follow_from_the_folders_of_the_archive() -> None:
    """facts/tasks 6.3: the annotated clips of each of the 16 folders, the corrupt ones included."""
    sizes = (1108, 1543, 1562, 1238, 2421, 1604, 1788, 1163, 1144, 1773, 1417, 1948)
    sizes += (1825, 1677, 1547, 2105)
    n: Counter[str] = Counter()
    for folder, size in zip("0123456789abcdef", sizes, strict=True):
        n[folder_split(f"{folder}/a.mp3")] += size
    for reason in CORRUPT.values():
        n[folder_split(reason.split(": ")[1])] -= 1
    assert n == MagnaTagATuneTags.expected


def test_the_corrupt_clips_are_listed_with_their_files_and_left_out_even_where_they_are_gone(
    root: Path,
) -> None:
    assert set(CORRUPT) == {"35644", "55753", "57881"}
    assert CORRUPT["35644"] == f"corrupt mp3: {BRAUN}"
    assert {folder_split(reason.split(": ")[1]) for reason in CORRUPT.values()} == {"train"}
    (root / "mp3" / BRAUN).unlink()
    assert "35644" not in tracks(root)


def test_junk_and_files_without_annotation_are_ignored(root: Path) -> None:
    before = tracks(root)
    (root / "mp3/0/._artist-album-01-title-0-29.mp3").write_bytes(b"\x00\x05\x16\x07")
    (root / "mp3/0/other.mp3").touch()
    (root / "__MACOSX").mkdir()
    (root / "mp3.zip.001").touch()
    assert tracks(root) == before


# -- what is missing or broken ---------------------------------------------------------------------


def test_missing_annotations_are_named(root: Path) -> None:
    (root / "annotations_final.csv").unlink()
    assert refusal(root) == (
        f"no MagnaTagATune labels: {root} has no annotations_final.csv. "
        "Put annotations_final.csv there"
    )


def test_commas_instead_of_tabs_are_refused(root: Path) -> None:
    missing = "has no column clip_id, mp3_path, guitar, classical, .* and 44 more, found"
    expected = "expected a tab-separated table with clip_id, mp3_path, .* and 44 more; download it"
    write_rows(root, HEADER, rows_of(CLIPS), delimiter=",", quoting=csv.QUOTE_MINIMAL)
    assert re.search(rf"{missing} .+: {expected}", refusal(root))
    (root / "annotations_final.csv").write_text("")
    assert re.search(f"{missing} none: {expected}", refusal(root))
    write_rows(root, HEADER, rows_of(CLIPS), delimiter=",", quoting=csv.QUOTE_ALL)
    assert "is not a tab-separated table (after line 0: " in refusal(root)


@pytest.mark.parametrize("column", ["clip_id", "mp3_path", "no vocals", "choral"])
def test_a_missing_column_is_named(root: Path, column: str) -> None:
    write_rows(root, [name if name != column else "something" for name in HEADER], rows_of(CLIPS))
    assert f"has no column {column}, found " in refusal(root)


@pytest.mark.parametrize("value", ["2", "", "yes", "0.5"])
def test_a_tag_that_is_not_0_or_1_is_named(root: Path, value: str) -> None:
    rows = rows_of(CLIPS)
    rows[1][HEADER.index("piano")] = value
    write_rows(root, HEADER, rows)
    assert refusal(root) == (
        f"1 of 10 rows of {root}/annotations_final.csv cannot be used (first: line 3 (clip 6) "
        f"has the tag value '{value}', expected 0 or 1): download it again"
    )


def test_a_path_outside_of_the_folders_is_named(tmp_path: Path) -> None:
    write_rows(tmp_path, HEADER, rows_of({**CLIPS, "3": ("g/a.mp3", set())}))
    assert refusal(tmp_path) == (
        f"1 of 11 rows of {tmp_path}/annotations_final.csv cannot be used (first: line 12 (clip 3) "
        "has the path 'g/a.mp3', expected one below a folder from 0 to f): download it again"
    )


def test_a_row_that_breaks_off_and_one_that_comes_twice_are_refused(root: Path) -> None:
    rows = rows_of(CLIPS)
    write_rows(root, HEADER, [*rows[:2], rows[2][:50], *rows[3:]])
    text = rf"1 of 10 rows of .* \(first: line 4 breaks off before its {HEADER[50]}\): download it"
    assert re.match(text, refusal(root))
    write_rows(root, HEADER, [*rows, rows[0]])
    assert "has 1 clips more than once" in refusal(root)


def test_another_encoding_is_refused(root: Path) -> None:
    with (root / "annotations_final.csv").open("ab") as file:
        file.write("é".encode("latin-1"))
    assert "annotations_final.csv is not UTF-8 text" in refusal(root)


def test_missing_clips_are_counted(root: Path) -> None:
    for clip in ("2", "40002"):
        (root / "mp3" / CLIPS[clip][0]).unlink()
    assert "2 of 9 magnatagatune tracks have no audio" in refusal(root)


def test_a_split_without_clips_is_named(tmp_path: Path) -> None:
    root = write_tree(tmp_path, {clip: row for clip, row in CLIPS.items() if row[0][0] != "c"})
    assert "has no tracks for val" in refusal(root)


def test_mp3_stereo_and_odd_rates_are_decoded_and_empty_files_are_reported(root: Path) -> None:
    tone = 0.1 * np.sin(np.arange(11025) * 0.2).astype(np.float32)
    for clip in set(CLIPS) - {"2", "35644"}:
        (root / "mp3" / CLIPS[clip][0]).write_bytes(mp3_bytes(tone, 11025))
    stereo = np.stack([tone, -tone], axis=1)
    soundfile.write(root / "mp3" / CLIPS["6"][0], stereo, 11025, format="MP3")
    data = MagnaTagATuneTags(root, ClipRule())
    items = {track_of(item): item for item in items_of(data)}
    broken = items.pop("2")
    assert isinstance(broken, UnusableFile)
    assert broken.reason == "is empty (0 bytes)"
    assert set(items) == set(CLIPS) - {"2", "35644"}
    assert all(
        not isinstance(item, UnusableFile) and abs(len(item.audio) - 16000) < 10
        for item in items.values()
    )


# -- the demo --------------------------------------------------------------------------------------


def test_the_demo_is_read_without_its_corrupt_clip(tmp_path: Path) -> None:
    demo.build(tmp_path, "magnatagatune", scale=0.02)
    folder = demo.dataset_root(tmp_path, "magnatagatune")
    assert (folder / "mp3" / BRAUN).stat().st_size == 0
    found = tracks(folder)
    assert sorted(track.split for track in found.values()) == ["test", "train", "train", "val"]
    for track in found.values():
        audio, rate = soundfile.read(track.path)
        assert (len(audio), rate, soundfile.info(track.path).format) == (128000, 16000, "MP3")


def test_the_demos_table_has_188_tags_of_which_few_of_the_50_occur_and_some_clips_none(
    tmp_path: Path,
) -> None:
    plan = demo_magnatagatune.recipe(1.0)
    (tmp_path / "demo.json").touch()
    for path, text in plan.labels(tmp_path).items():
        (tmp_path / path).write_text(text)
        assert len(text.splitlines()[0].split("\t")) == 190
        assert text.startswith('"clip_id"\t"')
    for item in plan.items:
        (tmp_path / item.path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / item.path).touch()
    found = tracks(tmp_path)
    assert Counter(track.split for track in found.values()) == {"train": 78, "val": 18, "test": 24}
    assert Counter(tag for track in found.values() for tag in tags(track)).keys() >= {
        "guitar",
        "drums",
        "slow",
        "fast",
        "loud",
    }
    used = {
        split: {tag for t in found.values() if t.split == split for tag in tags(t)}
        for split in ("train", "val", "test")
    }
    assert len(used["train"]) == 25
    assert used["val"] | used["test"] < used["train"]
    untagged = Counter(track.split for track in found.values() if not tags(track))
    assert untagged["train"] >= 2
    assert untagged["test"] >= 2


def test_the_demos_tags_are_what_is_heard() -> None:
    for clip in demo_magnatagatune.recipe(1.0).items[:-1:7]:
        song, names = clip.song(), clip.tags()
        programs = {note.program for note in song.notes}
        assert ("drums" in names) == (128 in programs)
        assert ("piano" in names) == (0 in programs)
        assert ("fast" in names) == (song.tempo > 125)
        assert ("loud" in names) == (clip.level() == "loud")
