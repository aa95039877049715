"""Own data: what a table may look like, what follows from it, and what is said of a broken one."""

import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from feeding import items_of, track_of

from datamodules.audio.clips import Clip, ClipRule
from datamodules.datasets.giantsteps import KEYS
from datamodules.datasets.manifest import Manifest
from datamodules.errors import UserError
from datamodules.passport import read_passport
from datamodules.splitting import split_groups
from datamodules.tracks import SPLITS, Segment, Track

SIX = ["a", "b", "c", "d", "e", "f"]
SPLIT = {"a": "train", "b": "train", "c": "train", "d": "train", "e": "val", "f": "test"}
GENRES = {"a": "rock", "b": "jazz", "c": "rock", "d": "folk", "e": "jazz", "f": "rock"}


def touch(folder: Path, names: Sequence[str] = SIX, suffix: str = ".wav") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / f"{name}{suffix}").touch()


def write_csv(path: Path, header: str, lines: Sequence[str]) -> Path:
    path.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    return path


def write_jsonl(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    touch(tmp_path / "audio")
    return tmp_path


@pytest.fixture
def table(folder: Path) -> Path:
    return write_csv(
        folder / "my.csv",
        "path,label,split",
        [f"audio/{n}.wav,{GENRES[n]},{SPLIT[n]}" for n in SIX],
    )


def read(file: Path | None = None, root: Path = Path("/nowhere"), **options: Any) -> Manifest:
    given = {"file": str(file)} if file else {}
    return Manifest(root, ClipRule(), **given, **options)


def by_id(data: Manifest) -> dict[str, Track]:
    return {Path(track.track_id).stem: track for track in data.tracks()}


def refusal(file: Path | None = None, **options: Any) -> str:
    with pytest.raises(UserError) as error:
        read(file, **options).tracks()
    assert "\n" not in str(error.value)
    return str(error.value)


# -- three kinds -----------------------------------------------------------------------------------


def test_a_label_is_one_of_the_sorted_classes(table: Path) -> None:
    data = read(table)
    assert (data.kind, data.classes) == ("classification", ("folk", "jazz", "rock"))
    assert {name: track.target for name, track in by_id(data).items()} == {
        "a": 2,
        "b": 1,
        "c": 2,
        "d": 0,
        "e": 1,
        "f": 2,
    }
    assert {name: track.split for name, track in by_id(data).items()} == SPLIT


def test_labels_are_tags_each_0_or_1(folder: Path) -> None:
    tags = {
        "a": "slow|loud",
        "b": "loud",
        "c": "",
        "d": "warm | slow|",
        "e": "slow",
        "f": "warm|loud|warm",
    }
    lines = [f"audio/{name}.wav,{tags[name]},{SPLIT[name]}" for name in SIX]
    data = read(write_csv(folder / "tags.csv", "path,labels,split", lines))
    assert (data.kind, data.classes) == ("multilabel", ("loud", "slow", "warm"))
    assert [track.target for track in by_id(data).values()] == [
        (1, 1, 0),
        (1, 0, 0),
        (0, 0, 0),
        (0, 1, 1),
        (0, 1, 0),
        (1, 0, 1),
    ]


def test_numeric_columns_are_regression_standardised_on_train(folder: Path) -> None:
    lines = [
        f"audio/{name}.wav,{value},{-10 * value},{SPLIT[name]}"
        for name, value in zip(SIX, (1, 3, 1, 3, 6, 0), strict=True)
    ]
    data = read(
        write_csv(folder / "numbers.csv", "path,arousal,valence,split", lines),
        targets=["arousal", "valence"],
    )
    assert (data.kind, data.classes) == ("regression", ("arousal", "valence"))
    targets = [track.target for track in by_id(data).values()]  # train: mean 2, deviation 1
    assert targets == [(-1, 1), (1, -1), (-1, 1), (1, -1), (4, -4), (-2, 2)]


def test_a_single_target_needs_no_list(folder: Path) -> None:
    lines = [f"audio/{name}.wav,{number},{SPLIT[name]}" for number, name in enumerate(SIX)]
    data = read(write_csv(folder / "numbers.csv", "path,tempo,split", lines), targets="tempo")
    assert (data.kind, data.classes) == ("regression", ("tempo",))


def test_numbers_as_labels_are_classes_in_the_order_of_numbers(folder: Path) -> None:
    lines = [
        f"audio/{name}.wav,{number},{SPLIT[name]}"
        for name, number in zip(SIX, (10, 9, 2, 10, 2, 9), strict=True)
    ]
    data = read(write_csv(folder / "numbers.csv", "path,label,split", lines))
    assert data.classes == ("2", "9", "10")


def test_audio_becomes_clips(folder: Path, table: Path) -> None:
    for name in SIX:
        soundfile.write(folder / "audio" / f"{name}.wav", np.full((700, 2), 0.25, np.float32), 7000)
    data = read(table)
    clips = items_of(data, min_samples=10)
    assert {track_of(item) for item in clips} == {f"audio/{name}.wav" for name in SIX}
    assert all(isinstance(item, Clip) and item.audio.shape == (1600,) for item in clips)


# -- JSONL, and MARBLE v2 --------------------------------------------------------------------------


def marble(folder: Path, labels: dict[str, Any]) -> dict[str, str]:
    """MARBLE v2's three files in data/X, with paths from the folder above, and its GTZAN's keys."""
    touch(folder / "data" / "X" / "clips")
    for split in SPLITS:
        rows = [
            {
                "audio_path": f"data/X/clips/{name}.wav",
                "label": labels[name],
                "sample_rate": 22050,
                "num_samples": 661504,
                "bit_depth": 16,
                "channels": 1,
                "duration": 30.0,
            }
            for name in SIX
            if SPLIT[name] == split
        ]
        write_jsonl(folder / "data" / "X" / f"X.{split}.jsonl", rows)
    return {split: str(folder / "data" / "X" / f"X.{split}.jsonl") for split in SPLITS}


def test_marble_files_with_a_name_are_classification(tmp_path: Path) -> None:
    data = read(root=tmp_path, **marble(tmp_path, GENRES))
    assert (data.kind, data.classes) == ("classification", ("folk", "jazz", "rock"))
    assert {name: track.split for name, track in by_id(data).items()} == SPLIT
    assert by_id(data)["a"].path == tmp_path / "data/X/clips/a.wav"


def test_marble_files_with_lists_of_tags_are_multilabel(tmp_path: Path) -> None:
    tags = {"a": ["slow"], "b": [], "c": ["loud", "slow"], "d": ["loud"], "e": ["loud"], "f": []}
    data = read(root=tmp_path, **marble(tmp_path, tags))
    assert (data.kind, data.classes) == ("multilabel", ("loud", "slow"))
    assert [track.target for track in by_id(data).values()] == [
        (0, 1),
        (0, 0),
        (1, 1),
        (1, 0),
        (1, 0),
        (0, 0),
    ]


def test_marble_files_with_lists_of_numbers_are_regression(tmp_path: Path) -> None:
    values = {
        "a": [-1, 0.5],
        "b": [1, -0.5],
        "c": [-1.0, 0.5],
        "d": [1.0, -0.5],
        "e": [0.5, 0.0],
        "f": [2, 1],
    }
    data = read(root=tmp_path, **marble(tmp_path, values))
    assert (data.kind, data.classes) == ("regression", ("label_0", "label_1"))
    assert [track.target for track in by_id(data).values()] == [
        (-1, 1),
        (1, -1),
        (-1, 1),
        (1, -1),
        (0.5, 0),
        (2, 2),
    ]


def test_marble_files_with_whole_numbers_are_classes(tmp_path: Path) -> None:
    data = read(
        root=tmp_path, **marble(tmp_path, {"a": 0, "b": 1, "c": 2, "d": 3.0, "e": 1, "f": 0})
    )
    assert (data.kind, data.classes) == ("classification", ("0", "1", "2", "3"))
    assert [track.target for track in by_id(data).values()] == [0, 1, 2, 3, 1, 0]


def test_jsonl_may_have_blank_lines_and_separators_inside_text(folder: Path) -> None:
    rows = [
        json.dumps(
            {"path": f"audio/{n}.wav", "label": GENRES[n], "split": SPLIT[n], "x": "\u2028"},
            ensure_ascii=False,
        )
        for n in SIX
    ]
    (folder / "my.jsonl").write_text("\n\n".join(rows) + "\n\n", encoding="utf-8")
    assert len(read(folder / "my.jsonl").tracks()) == 6


# -- splits ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["val", "valid", "Validation", "VAL"])
def test_val_has_several_names(folder: Path, table: Path, name: str) -> None:
    table.write_text(table.read_text().replace(",val", f",{name}"))
    assert by_id(read(table))["e"].split == "val"


def test_without_a_split_one_is_drawn_by_path(folder: Path) -> None:
    names = [f"n{number:02d}" for number in range(40)]
    touch(folder / "audio", names)
    lines = [f"audio/{name}.wav,{'xy'[number % 2]}" for number, name in enumerate(names)]
    forwards = by_id(read(write_csv(folder / "1.csv", "path,label", lines)))
    backwards = by_id(read(write_csv(folder / "2.csv", "path,label", lines[::-1])))
    assert forwards == backwards
    assert Counter(track.split for track in forwards.values()) == {"train": 24, "val": 8, "test": 8}
    assert by_id(read(folder / "1.csv", split_seed=1)) != forwards


def test_a_group_is_never_in_two_drawn_splits(folder: Path) -> None:
    names = [f"n{number:02d}" for number in range(40)]
    touch(folder / "audio", names)
    group = {name: "" if number < 4 else f"g{number % 9}" for number, name in enumerate(names)}
    lines = [
        f"audio/{name}.wav,{'xy'[number % 2]},{group[name]}" for number, name in enumerate(names)
    ]
    tracks = by_id(read(write_csv(folder / "1.csv", "path,label,group", lines)))
    for wanted in set(group.values()) - {""}:
        assert len({tracks[name].split for name in names if group[name] == wanted}) == 1
    assert {track.split for track in tracks.values()} == set(SPLITS)


def test_paper_s_size_is_split_exactly_and_large_groups_go_to_train() -> None:
    assert Counter(split_groups(map(str, range(4000)), seed=3).values()) == {
        "train": 2400,
        "val": 800,
        "test": 800,
    }
    groups = ["large"] * 50 + [str(number) for number in range(50)]
    for seed in range(20):
        drawn = split_groups(groups, seed)
        sizes = Counter(drawn[group] for group in groups)
        assert drawn["large"] == "train"
        assert sizes["val"] >= 10 <= sizes["test"]


def test_drawn_splits_are_3_1_1_within_each_class(folder: Path) -> None:
    """Twenty tracks of a class were split 13/1/6."""
    sizes = {"rock": 50, "jazz": 20, "folk": 15, "rare": 5}
    names = [f"{label}{number:02d}" for label, n in sizes.items() for number in range(n)]
    touch(folder / "audio", names)
    lines = [f"audio/{name}.wav,{name[:4]}" for name in names]
    table = write_csv(folder / "1.csv", "path,label", lines)
    for seed in range(5):
        tracks = read(table, split_seed=seed).tracks()
        counts = Counter((track.track_id[6:10], track.split) for track in tracks)
        for label, n in sizes.items():
            found = [counts[label, split] for split in SPLITS]
            assert found == [3 * n // 5, n // 5, n // 5]


def test_drawn_splits_are_near_3_1_1_where_groups_hold_several_classes(folder: Path) -> None:
    names = [f"n{number:03d}" for number in range(120)]
    touch(folder / "audio", names)
    lines = [f"audio/{n}.wav,{'xxxy'[i % 4]},g{i // 3}" for i, n in enumerate(names)]
    data = read(write_csv(folder / "1.csv", "path,label,group", lines))
    for target, n in ((0, 90), (1, 30)):
        counts = Counter(track.split for track in data.tracks() if track.target == target)
        for split, share in (("train", 0.6), ("val", 0.2), ("test", 0.2)):
            assert counts[split] / n == pytest.approx(share, abs=0.07)


# -- labels of frames ------------------------------------------------------------------------------


def segments_table(folder: Path, header: str = "path,segments,split", more: str = "") -> Path:
    """Six songs of three parts; the first has its labels in another format."""
    for name in SIX:
        (folder / "audio" / f"{name}.lab").write_text("0 2 intro\n2 5 verse\n5 9 intro\n")
    data = [{"time": 0, "duration": 2, "value": "verse"}]
    jams = {"annotations": [{"namespace": "segment_open", "data": data}]}
    (folder / "audio" / "a.jams").write_text(json.dumps(jams))
    lines = [f"audio/{n}.wav,audio/{n}.{'jams' if n == 'a' else 'lab'},{SPLIT[n]}" for n in SIX]
    return write_csv(folder / "frames.csv", header, [line + more for line in lines])


def test_files_of_segments_are_labels_of_frames(folder: Path) -> None:
    data = read(segments_table(folder))
    assert (data.kind, data.classes, data.frame_rate) == ("frames", ("intro", "verse"), 8.0)
    assert by_id(data)["a"].target == (Segment(0, 2, 1),)
    assert by_id(data)["b"].target == (Segment(0, 2, 0), Segment(2, 5, 1), Segment(5, 9, 0))
    assert read(segments_table(folder), frame_rate=2.0).frame_rate == 2.0


def test_a_part_of_a_file_has_the_segments_of_its_time_counted_from_its_start(
    folder: Path,
) -> None:
    header = "path,segments,split,start,end"
    data = read(segments_table(folder, header, ",1,5.5"))
    (part,) = [track for track in data.tracks() if track.track_id == "audio/b.wav@1-5.5"]
    assert part.target == (Segment(0, 1, 0), Segment(1, 4, 1), Segment(4, 4.5, 0))


def test_files_of_segments_are_among_what_a_result_was_made_of(folder: Path) -> None:
    data = read(segments_table(folder))
    _, files = data.inputs()
    assert folder / "audio" / "b.lab" in files and folder / "audio" / "a.jams" in files


def test_segments_lie_below_the_table_or_else_below_the_root(tmp_path: Path) -> None:
    touch(tmp_path / "data" / "audio")
    table = segments_table(tmp_path / "data")
    moved = table.rename(tmp_path / "frames.csv")
    assert len(read(moved, root=tmp_path / "data").tracks()) == 6


def test_segments_that_cannot_be_used_are_named_with_their_row(folder: Path) -> None:
    table = segments_table(folder)
    (folder / "audio" / "c.lab").write_text("0 2\n")
    said = refusal(table)
    assert "1 of 6 rows of" in said and "(first: line 4 names" in said
    assert "c.lab, which cannot be used (line 1 is not start, end and label: '0 2')" in said
    late = segments_table(folder, "path,segments,split,start,end", ",20,30")
    assert "which has no label from 20 s to 30 s" in refusal(late)
    both = segments_table(folder, "path,segments,split,label", ",x")
    assert "has both label and segments" in refusal(both)


def test_clips_of_frames_hold_a_whole_number_of_them(folder: Path) -> None:
    with pytest.raises(UserError, match=r"a clip of 1\.3 s holds 10\.4 frames at 8 Hz"):
        Manifest(Path(), ClipRule(seconds=1.3), file=str(segments_table(folder)))


# -- folds -----------------------------------------------------------------------------------------


def folds_of(file: Path, n: int = 5, **options: Any) -> list[dict[str, str]]:
    """The split of each track, for each fold that is test."""
    return [
        {track.track_id: track.split for track in read(file, fold=fold, **options).tracks()}
        for fold in range(n)
    ]


def test_every_group_is_test_in_one_drawn_fold_and_val_in_the_one_before(tmp_path: Path) -> None:
    names = [f"{artist}{number}" for artist in "abcdefghij" for number in range(1, 4)]
    touch(tmp_path, names)
    lines = [f"{name}.wav,{'xy'[int(name[1]) % 2]},{name[0]}" for name in names]
    file = write_csv(tmp_path / "my.csv", "path,label,group", lines)
    folds = folds_of(file)
    for name in folds[0]:
        splits = [fold[name] for fold in folds]
        assert sorted(splits) == ["test", "train", "train", "train", "val"]
        assert splits[splits.index("test") - 1] == "val"
    for fold in folds:
        assert Counter(fold.values()) == {"train": 18, "val": 6, "test": 6}
        assert len({(name[0], split) for name, split in fold.items()}) == 10, "whole artists"


def test_written_folds_are_called_as_they_are_and_ordered_as_numbers(folder: Path) -> None:
    lines = [
        f"audio/{name}.wav,{'xy'[number % 2]},{fold}"
        for number, (name, fold) in enumerate(zip(SIX, (1, 1, 2, 2, 10, 10), strict=True))
    ]
    file = write_csv(folder / "my.csv", "path,label,fold", lines)
    splits = {name: track.split for name, track in by_id(read(file, fold=2)).items()}
    assert splits == dict(zip(SIX, ["train"] * 2 + ["test"] * 2 + ["val"] * 2, strict=True))
    last = {name: track.split for name, track in by_id(read(file, fold="10")).items()}
    assert last["a"] == "val", "the first follows the last"
    assert refusal(file, fold=3).endswith("has no fold 3: set task.options.fold to one of 1, 2, 10")
    assert "has folds and no splits: say which fold is test, task.options.fold=1, " in refusal(file)
    assert read(file, columns={"fold": None}).tracks(), "looked at no more, splits are drawn"


def test_folds_that_tear_a_group_are_too_few_or_not_all_there_are_refused(folder: Path) -> None:
    def of(written: Sequence[object], header: str = "fold", **options: Any) -> str:
        lines = [
            f"audio/{name}.wav,{'xy'[number % 2]},{fold},one"
            for number, (name, fold) in enumerate(zip(SIX, written, strict=True))
        ]
        file = write_csv(folder / "my.csv", f"path,label,{header},group", lines)
        return refusal(file, **options)

    assert "1 groups of" in of([0, 0, 1, 1, 2, 2], fold=0)
    assert "more than one fold (first: one): correct the folds" in of([0, 0, 1, 1, 2, 2], fold=0)
    assert "1 of 6 tracks in" in of([0, 0, 1, 1, 2, ""], fold=0)
    assert "have no fold" in of([0, 0, 1, 1, 2, ""], fold=0)
    assert "folds must be at least 3" in of([""] * 6, "x", fold=0, folds=2)
    three = {split: str(folder / "my.csv") for split in SPLITS}
    with pytest.raises(UserError, match="fold=1 says what is test, and so do"):
        read(fold=1, **three)


def test_two_written_folds_are_too_few(folder: Path) -> None:
    lines = [f"audio/{n}.wav,{'xy'[i % 2]},{i // 3}" for i, n in enumerate(SIX)]
    file = write_csv(folder / "my.csv", "path,label,fold", lines)
    assert "has 2 folds, and three are needed" in refusal(file, fold=0)


# -- columns of other names ------------------------------------------------------------------------


def test_columns_take_the_roles_that_they_are_given(folder: Path) -> None:
    lines = [f"audio/{n}.wav,{GENRES[n]},{n},{SPLIT[n]},7" for n in SIX]
    file = write_csv(folder / "my.csv", "file,genre,artist,part,label", lines)
    given = {"path": "file", "label": "genre", "group": "artist", "split": "part"}
    tracks = by_id(read(file, columns=given))
    assert {name: track.split for name, track in tracks.items()} == SPLIT
    assert {name: track.group for name, track in tracks.items()} == {name: name for name in SIX}
    assert read(file, columns=given).classes == ("folk", "jazz", "rock")


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"lable": "genre"}, "has the role 'lable', did you mean 'label'?"),
        ({"label": "genre"}, "names a column that .*my.csv does not have: genre; found path, lab"),
        ({"path": None}, r"has no column path \(or audio_path\): found label, split"),
    ],
)
def test_roles_and_columns_that_there_are_not_are_named(
    table: Path, columns: dict[str, str | None], said: str
) -> None:
    assert re.search(said, refusal(table, columns=columns))


# -- keys ------------------------------------------------------------------------------------------


def test_classes_that_are_keys_are_the_24_in_the_order_of_their_score(folder: Path) -> None:
    """Sorted by name, `key_weighted` took A minor for C major: 0.623 for 0.744."""
    keys = {"a": "A minor", "b": "C# minor", "c": "Bb major", "d": "C major", "e": "Db minor"}
    keys["f"] = "A# major"
    lines = [f"audio/{name}.wav,{keys[name]},{SPLIT[name]}" for name in SIX]
    data = read(write_csv(folder / "keys.csv", "path,label,split", lines))
    assert data.classes == KEYS
    targets = {name: KEYS[track.target] for name, track in by_id(data).items()}
    spelled = {"C# minor": "Db minor", "A# major": "Bb major"}
    assert targets == {name: spelled.get(key, key) for name, key in keys.items()}


def test_a_key_that_train_lacks_is_named(folder: Path) -> None:
    names = ["C major", "D major", "E major", "C major", "F# major", "D major"]
    keys = dict(zip(SIX, names, strict=True))
    lines = [f"audio/{name}.wav,{keys[name]},{SPLIT[name]}" for name in SIX]
    message = refusal(write_csv(folder / "keys.csv", "path,label,split", lines))
    assert "1 labels" in message and "(first: 'Gb major')" in message


# -- songs in clips, as MARBLE v2 lists them -------------------------------------------------------


def songs_table(folder: Path, labels: dict[str, str] | None = None) -> Path:
    """Six songs in three clips each, in files of their own."""
    names = [f"{song}-{clip}" for song in SIX for clip in range(3)]
    touch(folder / "audio", names)
    rows = [
        {
            "audio_path": f"audio/{name}.wav",
            "label": (labels or {}).get(name, "jazz" if name[0] in "bdf" else "rock"),
            "split": SPLIT[name[0]],
            "ori_uid": f"song {name[0]}",
        }
        for name in names
    ]
    return write_jsonl(folder / "songs.jsonl", rows)


def test_clips_of_one_song_are_one_track(folder: Path) -> None:
    """2,406 clips of GiantSteps were scored where there are 604 songs."""
    data = read(songs_table(folder))
    tracks = data.tracks()
    assert len(tracks) == 18
    assert {track.scored_as for track in tracks} == {f"song {name}" for name in SIX}
    assert {track.group for track in tracks} == {f"song {name}" for name in SIX}
    assert data.expected == {"train": 4, "val": 1, "test": 1}
    assert {split: f.found for split, f in read_passport(data).splits.items()} == data.expected


def test_a_song_with_several_labels_is_a_track_for_each(folder: Path) -> None:
    data = read(songs_table(folder, {"a-2": "jazz"}))
    names = [track.scored_as for track in data.tracks() if track.group == "song a"]
    assert names == ["song a (rock)", "song a (rock)", "song a (jazz)"]
    assert data.expected["train"] == 5


def test_a_song_is_not_in_two_splits(folder: Path) -> None:
    table = songs_table(folder)
    lines = table.read_text().splitlines()
    lines[0] = lines[0].replace("train", "test")
    table.write_text("\n".join(lines))
    assert "1 groups of" in refusal(table) and "(first: song a)" in refusal(table)
    table.write_text("\n".join(lines).replace('"split"', '"fold"'))
    splits = {(track.group, track.split) for track in read(table).tracks()}
    assert len(splits) == 6


# -- where files are -------------------------------------------------------------------------------


def test_paths_are_relative_to_the_table_or_else_to_the_root_or_absolute(tmp_path: Path) -> None:
    touch(tmp_path / "far" / "audio")
    lines = [f"audio/{n}.wav,{GENRES[n]},{SPLIT[n]}" for n in SIX]
    table = write_csv(tmp_path / "my.csv", "path,label,split", lines)
    assert read(table, tmp_path / "far").tracks()[0].path == tmp_path / "far" / "audio" / "a.wav"
    absolute = write_csv(
        tmp_path / "abs.csv", "path,label,split", [f"{tmp_path}/far/{line}" for line in lines]
    )
    assert read(absolute).tracks()[0].path == tmp_path / "far" / "audio" / "a.wav"
    touch(tmp_path / "audio")
    assert read(table, tmp_path / "far").tracks()[0].path == tmp_path / "audio" / "a.wav"


def test_features_are_shared_by_all_tables_wherever_they_and_their_audio_lie(
    folder: Path, table: Path, tmp_path: Path
) -> None:
    other = write_csv(
        folder / "other.csv",
        "path,label,split",
        [f"./audio/{n}.wav,{n in 'ace'},{SPLIT[n]}" for n in SIX],
    )
    touch(tmp_path / "elsewhere" / "audio")
    moved = tmp_path / "elsewhere" / "my.csv"
    moved.write_text(table.read_text())
    assert read(table).dataset == read(other).dataset == read(moved).dataset == "manifest"
    assert [track.track_id for track in read(table).tracks()] == [
        track.track_id for track in read(other).tracks()
    ]
    assert {track.audio_id for track in read(moved).tracks()} == {""}  # what tells audio apart


def test_missing_audio_is_counted_and_can_be_left_out(folder: Path, table: Path) -> None:
    (folder / "audio" / "a.wav").unlink()
    pattern = (
        r"1 of 6 manifest tracks have no audio under .* \(first: "
        r".*audio/a\.wav\)\..*'data\.exclude=\[manifest:audio/a\.wav\]'"
    )
    assert re.fullmatch(pattern, refusal(table))
    assert len(read(table, exclude=["audio/a.wav"]).tracks()) == 5


def test_other_columns_and_excel_s_marks_do_not_matter(table: Path) -> None:
    before = by_id(read(table))
    text = (
        table.read_text()
        .replace(",", ', "', 1)
        .replace("label", 'label"', 1)
        .replace("\n", ",seen\r\n")
    )
    table.write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert by_id(read(table)) == before


def test_quoted_cells_keep_commas_and_line_ends(folder: Path) -> None:
    (folder / "audio" / "a.wav").rename(folder / "audio" / "a, b.wav")
    lines = [
        '"audio/a, b.wav","rock\n& roll",train',
        *(f"audio/{n}.wav,{'rock' if n in 'be' else 'jazz'},{SPLIT[n]}" for n in SIX[1:]),
    ]
    data = read(write_csv(folder / "my.csv", "path,label,split", lines))
    assert data.classes == ("jazz", "rock", "rock\n& roll")


# -- errors ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({}, "none of them"),
        ({"train": "t.csv", "val": "v.csv"}, "train, val"),
        ({"file": "f.csv", "test": "t.csv"}, "file, test"),
    ],
)
def test_one_table_or_three_are_needed(options: dict[str, str], found: str) -> None:
    assert refusal(**options) == (
        "task=manifest reads task.options.file, or else task.options.train, val and test "
        f"together; found {found}: set task.options.file=TABLE.csv"
    )


def test_a_missing_table_is_named(tmp_path: Path) -> None:
    pattern = (
        r"cannot read .*/no\.csv \(No such file or directory\): "
        r"put the table there or correct its path"
    )
    assert re.fullmatch(pattern, refusal(tmp_path / "no.csv"))


def test_an_unknown_format_is_named(tmp_path: Path) -> None:
    assert re.fullmatch(
        r".*/my\.xlsx is neither \.csv nor \.jsonl: .*", refusal(tmp_path / "my.xlsx")
    )


def test_a_table_that_is_no_text_is_named(table: Path) -> None:
    table.write_bytes("path,label\nä.wav,x\n".encode("latin-1"))
    assert re.fullmatch(
        r".*my\.csv is not UTF-8 text \(invalid .* at byte 11\): save it anew as UTF-8",
        refusal(table),
    )
    table.write_text('path,label\n"a.wav,x\n')
    assert re.fullmatch(
        r".*my\.csv is not a comma-separated table \(after line 1: unexpected end of data\): "
        "save it anew as CSV",
        refusal(table),
    )


@pytest.mark.parametrize(
    ("header", "options", "message"),
    [
        (
            "file,label",
            {},
            (
                r"has no column path \(or audio_path\): "
                r"found file, label\. Name the column of the audio files so"
            ),
        ),
        (
            "path,genre",
            {},
            (
                r"has neither label nor labels: found path, genre\. "
                r"Keep label for .* or set task\.options\.targets="
            ),
        ),
        (
            "path,label,labels",
            {},
            (
                r"has both label and labels: found path, label, labels\. "
                r"Keep label for one class or .*"
            ),
        ),
        ("path,label,label", {}, r"has two columns named 'label': keep one of them"),
        (
            "path,tempo",
            {"targets": ["tempo", "bpm"]},
            r"names a column that .*my\.csv does not have: bpm; found path, tempo",
        ),
        ("", {}, r"has no column path \(or audio_path\): found nothing\."),
        ("path,label", {}, r"my\.csv lists no tracks: add one row per audio file"),
    ],
)
def test_columns_that_do_not_fit_are_named(
    folder: Path, header: str, options: dict[str, Any], message: str
) -> None:
    path = folder / "my.csv"
    path.write_text(f"{header}\n" if header else "")
    assert re.search(message, refusal(path, **options))


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("audio/b.wav,,train,,", "has no label"),
        (",rock,train,,", "has no path"),
        ("audio/b.wav,rock,dev,,", "has the unknown split 'dev': write train, val, test"),
        ("audio/b.wav,rock,,,", "has the unknown split '': write train, val, test"),
        (
            "audio/b.wav,rock,train,5,5",
            r"has start=5 and end=5\.0: expected 0 <= start < end, in s",
        ),
        (
            "audio/b.wav,rock,train,-1,",
            r"has start=-1 and end=None: expected 0 <= start < end, in s",
        ),
        ("audio/b.wav,rock,train,soon,", r"has start='soon', which is not a number"),
        ("audio/b.wav,rock,train", "breaks off before its start"),
        ("audio/b.wav,rock,train,,,,", "has more cells than there are columns"),
    ],
)
def test_rows_that_cannot_be_used_are_counted_and_the_first_is_named(
    folder: Path, line: str, why: str
) -> None:
    path = write_csv(
        folder / "my.csv", "path,label,split,start,end", ["audio/a.wav,rock,train,,", line, line]
    )
    assert re.fullmatch(
        rf"2 of 3 rows of .*my\.csv cannot be used \(first: line 3 {why}\): correct the file",
        refusal(path),
    )


def test_tracks_may_be_parts_of_files(folder: Path) -> None:
    """One file of four tones, one a second, two of them listed; the other files are whole."""
    tones = [np.sin(2 * np.pi * hz * np.arange(8000) / 8000) for hz in (200, 400, 800, 1600)]
    soundfile.write(folder / "audio" / "a.wav", 0.5 * np.concatenate(tones), 8000)
    for name in "bcdef":
        soundfile.write(folder / "audio" / f"{name}.wav", 0.5 * tones[0], 8000)
    lines = [
        "a.wav,rock,train,1,2",
        "a.wav,jazz,train,3,",
        "b.wav,jazz,val,,",
        "c.wav,rock,test,0.25,0.5",
        "d.wav,rock,test,2,3",
    ]
    data = read(
        write_csv(
            folder / "my.csv", "path,label,split,start,end", [f"audio/{line}" for line in lines]
        )
    )
    assert [track.track_id for track in data.tracks()] == [
        "audio/a.wav@1-2",
        "audio/a.wav@3-",
        "audio/b.wav",
        "audio/c.wav@0.25-0.5",
        "audio/d.wav@2-3",
    ]
    found = {track_of(item): item for item in items_of(data, 8000, min_samples=1)}
    for track, tone in (
        ("audio/a.wav@1-2", tones[1]),
        ("audio/a.wav@3-", tones[3]),
        ("audio/c.wav@0.25-0.5", tones[0][2000:4000]),
    ):
        clip = found[track]
        assert isinstance(clip, Clip)
        np.testing.assert_allclose(clip.audio, 0.5 * tone, atol=1e-4)
    assert (
        getattr(found["audio/d.wav@2-3"], "reason", "") == "lasts 1.00 s, 2 s to 3 s was asked for"
    )


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ('{"path": "a.wav", "label": "x"', r"is not valid JSON \(Expecting ',' delimiter.*\)"),
        ("[1]", "is a JSON list, expected an object with path and label"),
        ('{"path": "a.wav"}', "has no label"),
        ('{"path": "a.wav", "label": null}', "has no label"),
        ('{"path": 3, "label": "x"}', "has no path"),
        (
            '{"path": "a.wav", "label": {"x": 1}}',
            r"has label=\{'x': 1\}, expected text or a whole number",
        ),
        (
            '{"path": "a.wav", "label": 0.5}',
            (
                r"has label=0\.5, which is no class: "
                r"for regression set task\.options\.targets=\[label\]"
            ),
        ),
        ('{"path": "a.wav", "label": [0.5, NaN]}', r"has label=nan, which is not a number"),
        ('{"path": "a.wav", "label": ["x", 0.5]}', r"has label=0\.5, which is no class: .*"),
    ],
)
def test_json_lines_that_cannot_be_used_are_named(folder: Path, line: str, why: str) -> None:
    path = folder / "my.jsonl"
    path.write_text(f'{{"path": "b.wav", "label": "x"}}\n\n{line}\n')
    assert re.fullmatch(
        rf"1 of 2 rows of .*my\.jsonl cannot be used \(first: line 3 {why}\): correct the file",
        refusal(path),
    )


@pytest.mark.parametrize("value", ["fast", "", "inf", "nan"])
def test_a_target_that_is_no_number_is_named(folder: Path, value: str) -> None:
    path = write_csv(folder / "my.csv", "path,tempo", ["audio/a.wav,120", f"audio/b.wav,{value}"])
    assert re.search(
        rf"line 3 has tempo='{value}', which is not a number", refusal(path, targets=["tempo"])
    )


def test_a_target_that_never_changes_is_named(folder: Path) -> None:
    lines = [f"audio/{n}.wav,120,{SPLIT[n]}" for n in SIX]
    path = write_csv(folder / "my.csv", "path,tempo,split", lines)
    assert "tempo has the same value in all of train" in refusal(path, targets=["tempo"])


def test_a_class_that_train_lacks_is_named(table: Path) -> None:
    table.write_text(
        table.read_text().replace("jazz,val", "jass,val").replace("rock,test", "roc,test")
    )
    pattern = (
        r"2 labels of .*my\.csv are in val or test but not in train \(first: 'jass'\): "
        r"no probe can learn them\. "
        r"Correct the spelling, the split, or set another task\.options\.split_seed"
    )
    assert re.fullmatch(pattern, refusal(table))


def test_a_tag_that_train_lacks_is_named_too(tmp_path: Path) -> None:
    tags = {"a": ["x"], "b": ["x"], "c": [], "d": [], "e": ["x", "new"], "f": []}
    assert "1 labels of" in refusal(root=tmp_path, **marble(tmp_path, tags))


def test_a_single_class_is_refused(folder: Path) -> None:
    path = write_csv(
        folder / "my.csv", "path,label,split", [f"audio/{n}.wav,rock,{SPLIT[n]}" for n in SIX]
    )
    assert re.fullmatch(
        r".*my\.csv has 1 different labels in train: there is nothing to tell apart", refusal(path)
    )


def test_a_track_listed_twice_is_named_also_across_files(table: Path, tmp_path: Path) -> None:
    table.write_text(table.read_text() + "./audio/a.wav,jazz,test\n")
    pattern = (
        r"1 tracks are listed more than once in .*my\.csv \(first: audio/a\.wav\): "
        r"keep one row of each"
    )
    assert re.fullmatch(pattern, refusal(table))
    files = marble(tmp_path, GENRES)
    files["test"] = files["train"]
    assert re.match(
        r"4 tracks are listed more than once in .*train\.jsonl, .*val\.jsonl, .*train\.jsonl",
        refusal(**files),
    )


def test_a_group_in_two_written_splits_is_named(folder: Path) -> None:
    lines = [f"audio/{n}.wav,{GENRES[n]},{SPLIT[n]},{'Ann' if n in 'af' else ''}" for n in SIX]
    path = write_csv(folder / "my.csv", "path,label,split,group", lines)
    assert re.match(
        r"1 groups of .*my\.csv are in more than one split \(first: Ann\): correct the splits, or",
        refusal(path),
    )


def test_a_split_for_some_tracks_only_is_named(folder: Path) -> None:
    rows = [
        {"path": f"audio/{n}.wav", "label": GENRES[n]} | ({"split": SPLIT[n]} if n != "c" else {})
        for n in SIX
    ]
    pattern = (
        r"1 of 6 tracks in .*my\.jsonl have no split \(first: audio/c\.wav\): "
        r"write it for all or for none"
    )
    assert re.fullmatch(pattern, refusal(write_jsonl(folder / "my.jsonl", rows)))


def test_labels_of_several_kinds_are_named(folder: Path) -> None:
    rows = [
        {"path": f"audio/{n}.wav", "label": ["x"] if n == "c" else "x", "split": SPLIT[n]}
        for n in SIX
    ]
    pattern = (
        r"labels of several kinds in .*my\.jsonl: classification \(first: audio/a\.wav\), "
        r"multilabel \(first: audio/c\.wav\)\. "
        r"Write all labels in one form"
    )
    assert re.fullmatch(pattern, refusal(write_jsonl(folder / "my.jsonl", rows)))


def test_values_of_another_number_are_named(tmp_path: Path) -> None:
    values = {name: [0.5 * number, 1.0] for number, name in enumerate(SIX)} | {"c": [1.0]}
    pattern = (
        r"1 tracks in .* do not have 2 values \(first: data/X/clips/c\.wav\): give all as many"
    )
    assert re.fullmatch(pattern, refusal(root=tmp_path, **marble(tmp_path, values)))


def test_an_empty_split_is_refused(table: Path) -> None:
    table.write_text(table.read_text().replace(",val", ",train"))
    assert re.search(r"has no tracks for val", refusal(table))
    table.write_text(table.read_text().replace(",train", ",test"))
    assert "labels of" in refusal(table)


@pytest.mark.parametrize("value", ["1e308", "-1e200"])
def test_values_that_cannot_be_squared_are_refused(folder: Path, value: str) -> None:
    lines = [f"audio/{n}.wav,{value if n == 'a' else i},{SPLIT[n]}" for i, n in enumerate(SIX)]
    table = write_csv(folder / "numbers.csv", "path,tempo,split", lines)
    assert "whose square no number holds" in refusal(table, targets="tempo")


def test_json_that_is_nested_too_deep_is_one_line(folder: Path) -> None:
    (folder / "deep.jsonl").write_text('{"path": "a", "label": ' + "[" * 100_000 + "\n")
    assert "1 of 1 rows" in refusal(folder / "deep.jsonl")


def test_a_field_of_a_million_characters_is_one_line(folder: Path) -> None:
    table = write_csv(folder / "long.csv", "path,label", [f"audio/a.wav,{'x' * 10**6}"])
    message = refusal(table)
    assert "long.csv is not a comma-separated table" in message and len(message) < 400
