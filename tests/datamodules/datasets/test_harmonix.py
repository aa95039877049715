"""Harmonix: the whole label vocabulary through the rules, segments, folds, groups, real folders."""

import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from feeding import items_of, track_of

from datamodules.audio.clips import Clip, ClipRule
from datamodules.audio.decode import wav_bytes
from datamodules.datasets.harmonix import (
    CLASSES,
    RULES,
    HarmonixStructure,
    fold_splits,
    read_segments,
    song_of,
    structure_class,
)
from datamodules.errors import UserError
from datamodules.passport import read_passport
from datamodules.tracks import Segment, Track

INF = float("inf")
# All 126 labels of the Harmonix Set 1.2 (github.com/urinieto/harmonixset, MIT), by the class that
# the rules of facts/tasks 7.3 give when followed by hand. N..M stands for a number.
VOCABULARY = {
    "intro": "fadein instintro intro intro2..8 intropt2 opening rhythmlessintro",
    "verse": (
        "build instrumentalverse introverse miniverse postverse prechorus prechorus2..3 "
        "prechorus5 preverse raps section section1..17 slow slow2 slowverse "
        "verse verse1..11 verse1a verse_slow verseinst versepart"
    ),
    "chorus": (
        "altchorus chorus chorus1..3 chorus_instrumental chorushalf chorusinst choruspart "
        "instchorus intchorus introchorus postchorus postchorus2 quietchorus refrain stutter"
    ),
    "bridge": "bridge bridge1..3 instbridge transition transition1..3 transition2a",
    "outro": "bigoutro outro outro1..3 outroa vocaloutro",
    "inst": (
        "bre break break1..3 breakdown breakdown2 drumroll fast gtr gtr2 gtrbreak guitar "
        "guitarsolo inst inst2 instrumental instrumental2..3 mainriff mainriff2 oddriff quiet "
        "saxobeat solo solo2..3 synth worstthingever"
    ),
    "silence": "silence",
}


def words(text: str) -> list[str]:
    found = []
    for word in text.split():
        several = re.fullmatch(r"(\D+)(\d+)\.\.(\d+)", word)
        if several is None:
            found.append(word)
        else:
            stem, first, last = several.groups()
            found += [f"{stem}{n}" for n in range(int(first), int(last) + 1)]
    return found


def test_the_whole_vocabulary_goes_through_the_rules() -> None:
    labels = {label: name for name, text in VOCABULARY.items() for label in words(text)}
    assert len(labels) + 1 == 126  # and `end`
    for label, name in labels.items():
        for spelling in (label, label.upper(), label.capitalize()):
            found = structure_class(spelling)
            assert found is not None and CLASSES[found] == name, spelling
    assert structure_class("end") is structure_class("End") is None


def test_rules_are_the_published_ones_in_their_order() -> None:
    """Wang, Hung & Smith 2022, Algorithm 1, by facts/tasks 7.3."""
    order = (
        "silence pre-chorus prechorus refrain chorus theme stutter verse rap section slow build "
        "dialog intro fadein opening bridge trans out coda ending break inst interlude impro solo"
    )
    assert [part for part, _ in RULES] == order.split()
    assert {name for _, name in RULES} == set(CLASSES)


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("pre-chorus", "verse"),
        ("theme", "chorus"),
        ("dialog", "verse"),
        ("coda", "outro"),
        ("ending", "outro"),
        ("interlude", "inst"),
        ("improvisation", "inst"),
        ("weekend", "inst"),
        ("transition", "bridge"),
        ("fadeout", "outro"),
    ],
)
def test_rules_that_no_label_of_the_set_needs(label: str, name: str) -> None:
    found = structure_class(label)
    assert found is not None and CLASSES[found] == name


# -- segments --------------------------------------------------------------------------------------

INTRO, VERSE, CHORUS, BRIDGE, OUTRO, INST, SILENCE = range(7)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0.0 intro\n9.5 verse\n20 end\n", [(0.0, 9.5, INTRO), (9.5, 20.0, VERSE)]),
        ("0.0\tintro\r\n9.5\tprechorus\r\n20\tend\r\n", [(0.0, 9.5, INTRO), (9.5, 20.0, VERSE)]),
        ("0.0 silence\n3.28 introchorus\n20.25 end", [(0.0, 3.28, SILENCE), (3.28, 20.25, CHORUS)]),
        ("1.5 instbridge\n20 end\n", [(1.5, 20.0, BRIDGE)]),  # what precedes is not annotated
        # no end: to the end of the audio
        ("0 verse\n20 worstthingever\n", [(0.0, 20.0, VERSE), (20.0, INF, INST)]),
        ("0 verse\n20 end\n21 end\n", [(0.0, 20.0, VERSE)]),
        ("0 verse\n20 end\n21 outro\n30 end\n", [(0.0, 20.0, VERSE), (21.0, 30.0, OUTRO)]),
        ("0 verse\n20 chorus\n20 bridge\n30 end\n\n", [(0.0, 20.0, VERSE), (20.0, 30.0, BRIDGE)]),
        ("0 big chorus\n20 end\n", [(0.0, 20.0, CHORUS)]),
    ],
)
def test_segments_of_a_file(
    tmp_path: Path, text: str, expected: list[tuple[float, float, int]]
) -> None:
    path = tmp_path / "0001_song.txt"
    path.write_bytes(text.encode())
    assert read_segments(path) == tuple(Segment(*one) for one in expected)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("intro 0.0\n", 1),
        ("0 intro\n5\n", 2),
        ("0 intro\n9 verse\n8 end\n", 3),
        ("nan intro\n", 1),
        ("-1 intro\n", 1),
        ("inf end", 1),
    ],
)
def test_lines_that_are_no_segment_are_named(tmp_path: Path, text: str, number: int) -> None:
    path = tmp_path / "0001_song.txt"
    path.write_text(text)
    with pytest.raises(
        UserError, match=rf"^line {number} of .*0001_song\.txt is .*expected a time in s"
    ):
        read_segments(path)


def test_an_empty_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "0001_song.txt").touch()
    with pytest.raises(UserError, match="has no sections"):
        read_segments(tmp_path / "0001_song.txt")


# -- folds -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("fold", range(8))
def test_folds_of_all_songs_are_all_in_ones(fold: int) -> None:
    """912 sorted ids: 114 in each fold, test k, val k + 1."""
    songs = [f"{number:04d}_x" for number in range(1, 913)]
    splits = fold_splits({song: song for song in songs}, fold)
    assert Counter(splits.values()) == {"train": 684, "val": 114, "test": 114}
    assert [song for song in songs if splits[song] == "test"] == songs[fold::8]
    assert [song for song in songs if splits[song] == "val"] == songs[(fold + 1) % 8 :: 8]


# -- folders ---------------------------------------------------------------------------------------

SONGS = [f"{number:04d}_song" for number in range(1, 17)]


def write_tree(root: Path, urls: dict[str, str] | None = None) -> Path:
    """Sixteen songs of 3 s; the fourth and the eleventh have one URL unless told otherwise."""
    if urls is None:
        urls = {song: f"https://x/{number}" for number, song in enumerate(SONGS)}
        urls[SONGS[10]] = urls[SONGS[3]]
    for folder in ("segments", "tracks"):
        (root / folder).mkdir(parents=True)
    noise = 0.1 * np.random.default_rng(0).standard_normal(3 * 8000)
    audio = wav_bytes(noise.astype(np.float32), 8000)
    for song in SONGS:
        (root / "segments" / f"{song}.txt").write_text("0.5 intro\n1.5 verse\n2.5 end\n")
        (root / "tracks" / f"{song}.wav").write_bytes(audio)
    (root / "youtube_urls.csv").write_text(
        "File,URL\n" + "".join(f"{song},{url}\n" for song, url in urls.items())
    )
    rows = "".join(f'{song},"Yes, {song}",The Same,\n' for song in SONGS)
    (root / "metadata.csv").write_text(f"File,Title,Artist,MusicBrainz Id\n{rows}")
    return root


def rewrite_metadata(root: Path, changed: dict[str, str]) -> None:
    """Other titles, artists and ids for some songs, as `title,artist,id`."""
    lines = (root / "metadata.csv").read_text().splitlines()
    rows = [changed.get(line.split(",")[0], line.partition(",")[2]) for line in lines]
    names = [line.split(",")[0] for line in lines]
    text = "".join(f"{name},{row}\n" for name, row in zip(names, rows, strict=True))
    (root / "metadata.csv").write_text(text)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_tree(tmp_path / "Harmonix")


def task(root: Path, **options: object) -> HarmonixStructure:
    return HarmonixStructure(root, ClipRule(1.0, 0.5, join_rest=True), **options)  # type: ignore[arg-type]


def by_id(data: HarmonixStructure) -> dict[str, Track]:
    return {track.track_id: track for track in data.tracks()}


def test_songs_are_read_with_their_segments_and_split(root: Path) -> None:
    data = task(root)
    tracks = by_id(data)
    assert list(tracks) == SONGS
    assert tracks["0002_song"].path == root / "tracks" / "0002_song.wav"
    assert tracks["0002_song"].target == (Segment(0.5, 1.5, INTRO), Segment(1.5, 2.5, VERSE))
    assert data.expected == {"train": 12, "val": 2, "test": 2}


@pytest.mark.parametrize("fold", range(8))
def test_songs_of_one_url_stay_together_unless_told_otherwise(root: Path, fold: int) -> None:
    tracks = by_id(task(root, fold=fold))
    assert tracks["0011_song"].split == tracks["0004_song"].split
    assert tracks["0011_song"].group == "0004_song"

    plain = by_id(task(root, fold=fold, group_versions=False))
    assert [track.split for track in plain.values()] == list(
        fold_splits({song: song for song in SONGS}, fold).values()
    )
    assert plain["0011_song"].group == "0004_song"  # so that the leak can be shown


def test_versions_of_a_song_stay_together_whatever_they_have_in_common(root: Path) -> None:
    """Entries with URLs of their own were torn: an edit in test, its remix in train."""
    rewrite_metadata(
        root,
        {
            "0001_song": "Hello,Martin Solveig,",
            "0006_song": "hello (Dada Life remix),Martin Solveig & Dragonette,id-1",
            "0009_song": "Salut,Somebody,id-1",  # a link, by its recording
            "0012_song": "Hello,Adele,",
        },
    )
    tracks = by_id(task(root))
    assert {tracks[f"{number:04d}_song"].group for number in (1, 6, 9)} == {"0001_song"}
    assert {tracks[f"{number:04d}_song"].split for number in (1, 6, 9)} == {"test"}
    assert tracks["0012_song"].group == "0012_song"
    assert read_passport(task(root)).group_leaks == {}
    assert read_passport(task(root, group_versions=False)).group_leaks.keys() == {"0001_song"}


def test_a_song_may_join_two_that_had_nothing_in_common(root: Path) -> None:
    rewrite_metadata(root, {"0005_song": "A,X,id-1", "0006_song": "B,Y,", "0007_song": "B,Y,id-1"})
    tracks = by_id(task(root))
    assert {tracks[f"{number:04d}_song"].group for number in (5, 6, 7)} == {"0005_song"}


@pytest.mark.parametrize(
    ("title", "artist", "expected"),
    [
        ("Club Can\u2019t Handle Me", "Flo Rida", ("clubcanthandleme", "flo rida")),
        (
            "Club Can't Handle Me (mix)",
            "Flo Rida feat. David Guetta",
            ("clubcanthandleme", "flo rida"),
        ),
        ("S&M [album version]", "Rihanna", ("sm", "rihanna")),
        ("Day 'N' Nite", "Kid Cudi vs. Crookers", ("daynnite", "kid cudi")),
        ("(When You Gonna) Give It Up", "Sean Paul", ("whenyougonnagiveitup", "sean paul")),
        ("You Make Me Feel\u2026", "Cobra Starship ft. Sabi", ("youmakemefeel", "cobra starship")),
        ("...", "Anybody", None),
    ],
)
def test_what_versions_of_a_song_have_in_common(
    title: str, artist: str, expected: tuple[str, str] | None
) -> None:
    assert song_of(title, artist) == expected


def test_the_repository_s_own_layout_is_found(tmp_path: Path) -> None:
    write_tree(tmp_path / "Harmonix" / "dataset")
    assert len(task(tmp_path / "Harmonix").tracks()) == 16
    (tmp_path / "Harmonix" / "dataset" / "tracks").rename(tmp_path / "Harmonix" / "tracks")
    assert len(task(tmp_path / "Harmonix").tracks()) == 16


@pytest.mark.parametrize("suffix", [".flac", ".ogg", ".MP3"])
def test_audio_of_any_format_is_found(root: Path, suffix: str) -> None:
    path = root / "tracks" / "0003_song.wav"
    path.rename(path.with_suffix(suffix))
    assert by_id(task(root))["0003_song"].path == path.with_suffix(suffix)


def test_missing_audio_is_counted_and_can_be_left_out(root: Path) -> None:
    for song in SONGS[3:6]:
        (root / "tracks" / f"{song}.wav").unlink()
    with pytest.raises(
        UserError,
        match=(
            r"3 of 16 harmonix tracks have no audio .*first: "
            r".*tracks/0004_song\.mp3.*data\.exclude="
        ),
    ):
        task(root).tracks()
    (root / "tracks" / "0007_song.wav").unlink()
    with pytest.raises(UserError, match=r"4 of 16 .*data\.exclude=\[harmonix:missing\]"):
        task(root).tracks()
    assert len(HarmonixStructure(root, ClipRule(1.0), ["harmonix:missing"]).tracks()) == 12
    assert len(HarmonixStructure(root, ClipRule(1.0), ["missing", "0001_song"]).tracks()) == 11
    with pytest.raises(UserError, match=r"1 of 13 harmonix tracks have no audio"):
        HarmonixStructure(root, ClipRule(1.0), [*SONGS[3:6], "gtzan:missing"]).tracks()
    data = HarmonixStructure(root, ClipRule(1.0), SONGS[3:7])
    assert len(data.tracks()) == 12 and data.expected["train"] == 12  # found 9 to 11 of them


def test_without_urls_the_choice_is_the_users(root: Path) -> None:
    (root / "metadata.csv").rename(root / "kept.csv")
    with pytest.raises(UserError, match=r"has no metadata\.csv, .*group_versions=false"):
        task(root).tracks()
    (root / "kept.csv").rename(root / "metadata.csv")
    (root / "youtube_urls.csv").unlink()
    with pytest.raises(
        UserError, match=r"has no youtube_urls\.csv.*task\.options\.group_versions=false"
    ):
        task(root).tracks()
    tracks = by_id(task(root, group_versions=False))
    assert tracks["0004_song"].split == "train"
    assert {track.group for track in tracks.values()} == {None}


def test_a_table_of_urls_without_its_columns_is_named(root: Path) -> None:
    (root / "youtube_urls.csv").write_text("File,Link\n")
    with pytest.raises(
        UserError, match=r"youtube_urls\.csv has no column URL, found File, Link: .*unpack"
    ):
        task(root).tracks()


def test_no_segments_says_where_they_come_from(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no Harmonix labels: .*urinieto/harmonixset"):
        task(tmp_path).tracks()


def test_a_fold_beyond_seven_is_refused(root: Path) -> None:
    with pytest.raises(UserError, match=r"fold must be from 0 to 7, found 8"):
        task(root, fold=8)


def test_clips_keep_every_sample(root: Path) -> None:
    """3 s in clips of 0.8 s: a rest of 0.6 s is a clip of its own, one below 0.7 s is joined."""
    for tail, lengths in ((0.5, [0.8, 0.8, 0.8, 0.6]), (0.7, [0.8, 0.8, 1.4])):
        data = HarmonixStructure(root, ClipRule(0.8, tail, join_rest=True), frame_rate=10.0)
        items = [
            item for item in items_of(data, 8000, min_samples=1) if track_of(item) == "0001_song"
        ]
        assert [
            len(item.audio) / 8000 for item in items if isinstance(item, Clip)
        ] == pytest.approx(lengths)
