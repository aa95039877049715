"""EmoMusic: the artist rule, targets standardised over train and val, tables as distributed."""

import csv
import hashlib
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from feeding import items_of, track_of

from datamodules.audio.clips import ClipRule
from datamodules.audio.decode import mp3_bytes
from datamodules.datasets.emomusic import EmoMusicEmotion, development_split
from datamodules.demo import build as demo
from datamodules.demo import emomusic as demo_emomusic
from datamodules.errors import UserError
from datamodules.tracks import Track, UnusableFile

SONG_HEADER = [
    "song_id",
    "file_name",
    "Artist",
    "Song title",
    "start of the segment (min.sec)",
    "end of the segment (min.sec)",
    "Genre",
    "Mediaeval 2013 set",
]
RATING_HEADER = ["song_id", "mean_arousal", "std_arousal", "mean_valence", "std_valence"]
SONGS: dict[str, tuple[str, str, float, float]] = {  # artist, set, arousal, valence
    "2": ("Tom Waits", "development", 2.0, 7.0),
    "3": ("Tom Waits  ", "development", 4.0, 5.0),
    "5": ("Sigur Rós", "development", 6.0, 3.0),
    "7": ("The White Stripes", "development", 8.0, 1.5),
    "8": ("the  white stripes!", "development ", 5.0, 6.5),
    "12": ("Kraftwerk", "development", 3.0, 2.0),
    "100": ("blink-182", "development", 7.5, 8.0),
    "101": ("Blink", "development", 1.6, 4.0),
    "500": ("Tom Waits", "evaluation", 5.0, 5.0),
    "999": ("Someone", " evaluation", 9.0, 1.0),
    "1000": ("Jónsi", "evaluation", 1.0, 9.0),
}
SPLITS = {
    song: "test" if "evaluation" in kind else "val" if song == "5" else "train"
    for song, (_, kind, _, _) in SONGS.items()
}
RULE = ClipRule(5.0)


def write_csv(path: Path, header: list[str], rows: list[list[Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])


def write_tree(
    root: Path,
    songs: Mapping[str, tuple[str, str, Any, Any]] = SONGS,
    *,
    folder: str = ".",
    suffix: str = ".mp3",
) -> Path:
    rows = [
        [
            song,
            f"{song}.mp3\t",
            artist,
            f'Title, "{song}" ',
            "0.4" if song == "2" else "1.33",
            "1.25",
            " Rock",
            kind,
        ]
        for song, (artist, kind, _, _) in songs.items()
    ]
    write_csv(root / folder / "songs_info.csv", SONG_HEADER, rows)
    ratings = [
        [song, f" {arousal}", 1.5, f"{valence} ", 1.5]
        for song, (_, _, arousal, valence) in songs.items()
    ]
    write_csv(root / folder / "static_annotations.csv", RATING_HEADER, ratings)
    moments = [[song, 0.1] for song in songs]  # ratings in time, which nothing reads
    for dimension in ("valence", "arousal"):
        for kind in ("average", "std"):
            path = root / folder / f"{dimension}_cont_{kind}.csv"
            write_csv(path, ["song_id", "sample_15000ms"], moments)
    (root / "clips_45seconds").mkdir(exist_ok=True)
    for song in songs:
        (root / "clips_45seconds" / f"{song}{suffix}").touch()
    return root


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_tree(tmp_path)


def tracks(root: Path, **options: Any) -> dict[str, Track]:
    return {track.track_id: track for track in EmoMusicEmotion(root, RULE, **options).tracks()}


def refusal(root: Path) -> str:
    with pytest.raises(UserError) as error:
        EmoMusicEmotion(root, RULE).tracks()
    return str(error.value)


def bucket(name: str) -> int:
    return int(hashlib.sha1(name.encode()).hexdigest(), 16) % 10


# -- the split -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("artist", "hashed", "golden"),
    [
        ("Tom Waits", "tom waits", 2),
        ("Queen", "queen", 7),  # the last bucket of train
        ("Pixies", "pixies", 8),  # the first of val
        ("  TOM \t  Waits ", "tom waits", 2),
        ("Sigur Rós", "sigur rs", 9),
        ("HÜSKER DÜ", "hsker d", 9),  # with u for ü it would be 2, with the letter kept 1
        ("Mötley Crüe", "mtley cre", 5),  # with o and u it would be 8
        ("Blue Öyster Cult", "blue yster cult", 2),  # with the letter kept it would be 9
        ("Sinéad O\u2019Connor", "sinad oconnor", 9),
        ("blink-182", "blink", 0),
        ("AC/DC", "acdc", 0),
        ("cd\u00a0cd", "cdcd", 9),  # a blank beyond ASCII is dropped, with a blank it would be 6
        ("\u212aiss", "kiss", 9),  # the Kelvin sign becomes an ASCII k, without it would be 3
        ("東京事変", "", 5),
    ],
)
def test_development_songs_go_by_the_hash_of_the_artists_ascii_letters(
    artist: str, hashed: str, golden: int
) -> None:
    assert bucket(hashed) == golden
    assert development_split(artist) == ("train" if golden < 8 else "val")


def test_evaluation_songs_are_test_whoever_the_artist_is_and_the_rest_follow_the_artist(
    root: Path,
) -> None:
    assert {song: track.split for song, track in tracks(root).items()} == SPLITS
    assert SPLITS["500"] == "test" != SPLITS["2"]  # both Tom Waits


def test_sizes_of_the_complete_set_are_those_of_jukemir() -> None:
    assert EmoMusicEmotion.expected == {"train": 504, "val": 115, "test": 125}
    assert sum(EmoMusicEmotion.expected.values()) == 744


# -- targets ---------------------------------------------------------------------------------------


def test_dimensions_are_arousal_then_valence(root: Path) -> None:
    assert EmoMusicEmotion.classes == ("arousal", "valence")
    assert EmoMusicEmotion.kind == "regression"
    top, bottom = tracks(root)["999"].target, tracks(root)["1000"].target
    assert isinstance(top, tuple)
    assert isinstance(bottom, tuple)
    assert top[0] > 1.5 > -1.5 > bottom[0]
    assert top[1] < -1.2 < 1.2 < bottom[1]


def test_targets_are_standardised_over_train_and_val_only(root: Path) -> None:
    found = tracks(root)
    development = [found[song].target for song in SONGS if found[song].split != "test"]
    np.testing.assert_allclose(np.mean(development, axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(np.std(development, axis=0), 1, atol=1e-12)
    # by hand: arousal 2 4 6 8 5 3 7.5 1.6 has mean 37.1 / 8 = 4.6375 and variance 212.81 / 8 -
    # 4.6375^2 = 5.09484375
    assert found["2"].target[0] == pytest.approx((2.0 - 4.6375) / 5.09484375**0.5)
    assert found["1000"].target[0] == pytest.approx((1.0 - 4.6375) / 5.09484375**0.5)
    # valence 7 5 3 1.5 6.5 2 8 4 has mean 37 / 8 = 4.625 and variance 211.5 / 8 - 4.625^2 =
    # 5.046875
    assert found["2"].target[1] == pytest.approx((7.0 - 4.625) / 5.046875**0.5)


def test_ratings_of_test_songs_move_no_other_target(root: Path, tmp_path: Path) -> None:
    other = {
        song: (*row[:2], 5.0, 5.0) if "evaluation" in row[1] else row for song, row in SONGS.items()
    }
    changed = tracks(write_tree(tmp_path / "other", other))
    assert {s: t.target for s, t in changed.items() if t.split != "test"} == {
        s: t.target for s, t in tracks(root).items() if t.split != "test"
    }


def test_leaving_out_a_song_moves_no_target(root: Path) -> None:
    everything = tracks(root)
    assert {song: track.target for song, track in tracks(root, exclude=["2"]).items()} == {
        song: track.target for song, track in everything.items() if song != "2"
    }


def test_columns_are_found_by_name(root: Path) -> None:
    before = tracks(root)
    rows = [[valence, 1.5, arousal, 1.5, song] for song, (_, _, arousal, valence) in SONGS.items()]
    write_csv(
        root / "static_annotations.csv",
        ["mean_valence", "std_valence", "mean_arousal", "std_arousal", " song_id"],
        rows,
    )
    assert tracks(root) == before


# -- layouts ---------------------------------------------------------------------------------------


def test_files_bear_the_number_without_zeros(root: Path) -> None:
    found = tracks(root)
    assert set(found) == set(SONGS)
    assert all(
        track.path == root / "clips_45seconds" / f"{song}.mp3" for song, track in found.items()
    )


def test_tables_may_lie_in_annotations_and_audio_may_be_wav(root: Path, tmp_path: Path) -> None:
    other = write_tree(tmp_path / "other", folder="annotations", suffix=".wav")
    found = tracks(other)
    assert {song: (t.split, t.target) for song, t in found.items()} == {
        song: (t.split, t.target) for song, t in tracks(root).items()
    }
    assert all(track.path.suffix == ".wav" for track in found.values())


def test_padded_ids_windows_line_ends_a_byte_order_mark_and_empty_lines_change_nothing(
    root: Path,
) -> None:
    before = tracks(root)
    table = root / "static_annotations.csv"
    header, *lines = table.read_text(encoding="utf-8").splitlines()
    table.write_bytes(
        ("\ufeff" + "\r\n".join([header, *(f"00{line}" for line in lines), "", ""])).encode()
    )
    assert tracks(root) == before


def test_junk_beside_the_files_is_ignored(root: Path) -> None:
    before = tracks(root)
    (root / "clips_45seconds/._2.mp3").write_bytes(b"\x00\x05\x16\x07")
    (root / "clips_45seconds/4.mp3").touch()
    (root / "__MACOSX").mkdir()
    (root / "._songs_info.csv").write_bytes(b"\x00\x05\x16\x07")
    assert tracks(root) == before


# -- what is missing or broken ---------------------------------------------------------------------


@pytest.mark.parametrize("name", ["songs_info.csv", "static_annotations.csv"])
def test_a_missing_table_is_named_with_both_places(root: Path, name: str) -> None:
    (root / name).unlink()
    assert refusal(root) == (
        f"no EmoMusic labels: {root} has no {name} and no annotations/{name}. Unpack "
        "annotations.tar.gz there"
    )


@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("songs_info.csv", "Artist"),
        ("songs_info.csv", "Mediaeval 2013 set"),
        ("static_annotations.csv", "mean_valence"),
    ],
)
def test_a_missing_column_is_named(root: Path, name: str, column: str) -> None:
    path = root / name
    path.write_text(path.read_text(encoding="utf-8").replace(column, "Something"), encoding="utf-8")
    found = refusal(root)
    assert f"{name} has no column {column}, found song_id, " in found
    assert ": expected a comma-separated table with song_id, " in found
    assert found.endswith("; unpack annotations.tar.gz again")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", "none"),
        (
            "song_id\tmean_arousal\tmean_valence\n2\t5\t5\n",
            "song_id mean_arousal mean_valence",
        ),
    ],
)
def test_an_empty_table_and_a_wrong_delimiter_lack_columns(
    root: Path, text: str, found: str
) -> None:
    (root / "static_annotations.csv").write_text(text)
    assert (
        "static_annotations.csv has no column song_id, mean_arousal, mean_valence, "
        f"found {found}: expected a comma-separated table" in refusal(root)
    )


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ("2,5", "breaks off before its std_arousal"),
        ("2,5,1,5,1,1", "has more cells than there are columns"),
        ("x,5,1,5,1", "has the song_id 'x', expected a whole number"),
        ("-2,5,1,5,1", "has the song_id '-2', expected a whole number"),
        (",5,1,5,1", "has the song_id '', expected a whole number"),
    ],
)
def test_a_broken_row_is_named_by_its_number(root: Path, row: str, problem: str) -> None:
    path = root / "static_annotations.csv"
    lines = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join([*lines[:3], row, *lines[4:]]), encoding="utf-8")
    assert refusal(root) == (
        f"1 of 11 rows of {path} cannot be used (first: line 4 {problem}): "
        "unpack annotations.tar.gz again"
    )


def test_a_song_without_ratings_and_ratings_without_a_song_are_counted(
    root: Path, tmp_path: Path
) -> None:
    fewer = write_tree(
        tmp_path / "fewer", {song: row for song, row in SONGS.items() if song not in ("7", "12")}
    )
    shutil.copy(root / "songs_info.csv", fewer)
    assert "2 songs of songs_info.csv are not in static_annotations.csv (first: 7)" in refusal(
        fewer
    )
    shutil.copy(fewer / "valence_cont_std.csv", fewer / "songs_info.csv")
    write_csv(
        fewer / "songs_info.csv",
        SONG_HEADER,
        [["2", "", "Tom Waits", "", "", "", "", "development"]],
    )
    assert "8 songs of static_annotations.csv are not in songs_info.csv (first: 3)" in refusal(
        fewer
    )


@pytest.mark.parametrize("value", ["", "high", "nan", "inf", "0.5", "9.5", "5,5"])
def test_a_rating_that_is_no_number_from_1_to_9_is_named(tmp_path: Path, value: str) -> None:
    root = write_tree(tmp_path, {**SONGS, "7": ("The White Stripes", "development", 5.0, value)})
    assert refusal(root) == (
        f"1 of 11 rows of {root}/static_annotations.csv cannot be used (first: line 5 (song 7) "
        f"has the mean_valence '{value}', expected a number from 1 to 9): "
        "unpack annotations.tar.gz again"
    )


def test_an_unknown_set_is_named(tmp_path: Path) -> None:
    root = write_tree(tmp_path, {**SONGS, "7": ("The White Stripes", "dev", 5.0, 5.0)})
    assert refusal(root) == (
        f"1 of 11 rows of {root}/songs_info.csv cannot be used (first: line 5 (song 7) "
        "is of the set 'dev', expected development or evaluation): unpack annotations.tar.gz again"
    )


def test_a_song_that_comes_twice_is_named(root: Path) -> None:
    with (root / "static_annotations.csv").open("a") as file:
        file.write("002,5,1,5,1\n")
    assert "static_annotations.csv has song 2 twice" in refusal(root)


def test_a_table_saved_in_another_encoding_is_refused_because_the_split_hangs_on_letters(
    root: Path,
) -> None:
    path = root / "songs_info.csv"
    path.write_bytes(path.read_text(encoding="utf-8").encode("latin-1"))
    assert "songs_info.csv is not UTF-8" in refusal(root)


@pytest.mark.parametrize("kind", ["evaluation", "development"])
def test_songs_that_cannot_be_standardised_are_refused(tmp_path: Path, kind: str) -> None:
    root = write_tree(tmp_path, {song: (row[0], kind, 5.0, row[3]) for song, row in SONGS.items()})
    assert "do not vary: targets cannot be standardised" in refusal(root)


def test_a_split_without_songs_is_named(tmp_path: Path) -> None:
    root = write_tree(
        tmp_path, {song: row for song, row in SONGS.items() if "evaluation" not in row[1]}
    )
    assert "has no tracks for test" in refusal(root)


def test_missing_clips_are_counted(root: Path) -> None:
    for song in ("2", "1000"):
        (root / "clips_45seconds" / f"{song}.mp3").unlink()
    assert "2 of 11 emomusic tracks have no audio" in refusal(root)


def test_clips_are_cut_into_windows_and_unreadable_ones_are_reported(root: Path) -> None:
    (root / "demo.json").touch()  # a demo may be a part of the list
    for song in SONGS:
        (root / "clips_45seconds" / f"{song}.mp3").unlink()
    tone = 0.1 * np.sin(np.arange(8 * 11025) * 0.2).astype(np.float32)
    longer, short, broken = [
        next(s for s, t in SPLITS.items() if t == split) for split in ("train", "val", "test")
    ]
    soundfile.write(
        root / "clips_45seconds" / f"{longer}.wav",
        np.stack([np.concatenate([tone, tone])] * 2, axis=1),
        11025,
    )
    (root / "clips_45seconds" / f"{short}.mp3").write_bytes(mp3_bytes(tone[: 3 * 11025], 11025))
    (root / "clips_45seconds" / f"{broken}.mp3").write_bytes(b"ID3")
    data = EmoMusicEmotion(root, RULE)
    items = items_of(data)
    assert [
        len(i.audio) for i in items if not isinstance(i, UnusableFile) and track_of(i) == longer
    ] == [80000] * 3
    assert len([i for i in items if not isinstance(i, UnusableFile) and track_of(i) == short]) == 1
    unusable = [item for item in items if isinstance(item, UnusableFile)]
    assert [item.track_id for item in unusable] == [broken]
    assert "cannot be decoded" in unusable[0].reason


# -- the demo --------------------------------------------------------------------------------------


def test_the_demo_has_all_splits_and_audio_of_ten_seconds(tmp_path: Path) -> None:
    demo.build(tmp_path, "emomusic", scale=0.02)
    found = tracks(demo.dataset_root(tmp_path, "emomusic"))
    assert sorted(track.split for track in found.values()) == ["test", "train", "val"]
    for track in found.values():
        audio, rate = soundfile.read(track.path)
        assert (len(audio), rate, soundfile.info(track.path).format) == (220500, 22050, "MP3")
        assert 0.02 < np.abs(audio).max() <= 1


def test_the_demos_artists_follow_the_real_rule_and_some_are_not_ascii() -> None:
    songs = demo_emomusic.recipe(1.0).items
    assert len(songs) == 90
    artists = {song: song.artist() for song in songs}
    assert all(
        song.split in ("test", development_split(artist)) for song, artist in artists.items()
    )
    assert any(not artist.isascii() for song, artist in artists.items() if song.split == "val")
    elsewhere = {artist for song, artist in artists.items() if song.split != "test"}
    assert {artist for song, artist in artists.items() if song.split == "test"} & elsewhere


def test_the_demos_mood_is_what_is_played() -> None:
    songs = demo_emomusic.recipe(1.0).items
    arousal, valence = np.array([song.mood() for song in songs]).T
    assert (
        np.abs(
            np.array([song.ratings() for song in songs])
            - 5
            - 3 * np.stack([arousal, valence], axis=1)
        ).max()
        < 0.95
    )
    played = [song.song() for song in songs]
    assert np.corrcoef(arousal, [song.tempo for song in played])[0, 1] > 0.99
    assert np.corrcoef(valence, [song.mode == "major" for song in played])[0, 1] > 0.5
    assert all(max(note.onset_s for note in song.notes) > 8 for song in played)
