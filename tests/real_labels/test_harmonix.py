"""Harmonix's real sections, songs and URLs beside what was counted of them independently.

The numbers of lines and of hours by class are those of facts/tasks 7.2 and 7.3, which were computed
from the same files by other code. No split is published: what is compared is All-In-One's rule to
the letter, and that songs with one URL are in one split.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from real_labels.reading import csv_rows, read, task_data, write, write_long

from datamodules.datasets.harmonix import CLASSES, structure_class
from datamodules.passport import read_passport
from datamodules.tracks import SPLITS, Track

pytestmark = pytest.mark.trial
Lines = Sequence[str]  # of one song, as in its file: time in s, a blank, raw label

N_LINES = {
    "intro": 874,
    "verse": 3044,
    "chorus": 3622,
    "bridge": 773,
    "outro": 425,
    "inst": 716,
    "silence": 221,
    "end": 914,
}
PERCENT_OF_TIME = {
    "intro": 6.91,
    "verse": 33.43,
    "chorus": 38.76,
    "bridge": 8.89,
    "outro": 4.01,
    "inst": 7.52,
    "silence": 0.45,
}
HOURS = 54.67
# What the order of the rules decides, in words (facts/tasks 7.3).
DECIDED = {
    "verse": ("prechorus", "introverse", "instrumentalverse"),
    "chorus": ("introchorus", "instchorus", "postchorus"),
    "bridge": ("instbridge",),
    "intro": ("instintro",),
    "inst": ("gtr", "mainriff", "quiet", "fast", "drumroll", "bre"),
}


@pytest.fixture(scope="module")
def songs() -> Mapping[str, Lines]:
    """The lines of every segment file."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for line in read("harmonix_segments.txt.gz").splitlines():
        if line.startswith("# "):
            song = line.removeprefix("# ")
        else:
            found[song].append(line)
    return found


@pytest.fixture(scope="module")
def root(songs: Mapping[str, Lines], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository's folder, and audio that ends where the annotation does."""
    folder = tmp_path_factory.mktemp("harmonix") / "Harmonix"
    for name in ("metadata", "youtube_urls"):
        write(folder / f"{name}.csv", read(f"harmonix_{name}.csv.gz"))
    for number, (song, lines) in enumerate(songs.items()):
        write(folder / f"segments/{song}.txt", "\n".join(lines) + "\n")
        last_s = float(lines[-1].split()[0])
        write_long(folder / f"tracks/{song}.mp3", number, last_s)
    return folder.parent


def tracks(root: Path, *options: str) -> dict[str, Track]:
    found = task_data(root, "harmonix_structure", *options).listed()
    return {track.track_id: track for track in found}


def class_of(label: str) -> str:
    number = structure_class(label)
    return "end" if number is None else CLASSES[number]


# -- labels ----------------------------------------------------------------------------------------


def test_every_raw_label_has_a_class_and_the_lines_of_each_are_as_counted(
    songs: Mapping[str, Lines],
) -> None:
    raw = Counter(line.partition(" ")[2] for lines in songs.values() for line in lines)
    n_lines: Counter[str] = Counter()
    for label, n in raw.items():
        n_lines[class_of(label)] += n
    assert (len(songs), len(raw)) == (912, 126)
    assert n_lines == N_LINES

    for name, labels in DECIDED.items():
        assert {label: class_of(label) for label in labels} == dict.fromkeys(labels, name)
        assert set(labels) <= set(raw)


def test_every_section_starts_and_ends_where_its_lines_say(
    root: Path, songs: Mapping[str, Lines]
) -> None:
    found = tracks(root)
    assert set(found) == set(songs)
    for song, lines in songs.items():
        times = [float(line.partition(" ")[0]) for line in lines]
        names = [class_of(line.partition(" ")[2]) for line in lines]
        cut = zip(times, [*times[1:], math.inf], names, strict=True)
        expected = [section for section in cut if section[2] != "end"]
        sections = found[song].target
        assert isinstance(sections, tuple)
        assert [(s.start_s, s.end_s, CLASSES[s.label]) for s in sections] == expected, song


def test_seconds_of_each_class_are_those_that_were_counted(root: Path) -> None:
    """Of the passport, so with the audio's end for the two songs that have no `end`."""
    passport = read_passport(task_data(root, "harmonix_structure"))
    assert passport.missing == passport.unreadable == passport.duplicates == ()
    per_class = [passport.splits[split].per_class for split in SPLITS]
    seconds = dict(zip(passport.classes, map(sum, zip(*per_class, strict=True)), strict=True))

    total_h = sum(seconds.values()) / 3600
    assert total_h == pytest.approx(HOURS, abs=0.05)
    percent = {name: 100 * value / (3600 * HOURS) for name, value in seconds.items()}
    assert percent == pytest.approx(PERCENT_OF_TIME, abs=0.02)


# -- splits ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("fold", range(8))
def test_without_groups_the_folds_are_those_of_all_in_one(
    root: Path, songs: Mapping[str, Lines], fold: int
) -> None:
    names = {fold: "test", (fold + 1) % 8: "val"}
    rule = {song: names.get(n % 8, "train") for n, song in enumerate(sorted(songs))}
    found = tracks(root, f"task.options.fold={fold}", "task.options.group_versions=false")
    assert {song: track.split for song, track in found.items()} == rule
    assert Counter(rule.values())["test"] == 114  # facts/tasks 7.4


@pytest.fixture(scope="module")
def versions() -> list[list[str]]:
    """Songs that are there more than once: by URL, by MusicBrainz id, by title and artist."""
    songs_of: defaultdict[tuple[str, ...], list[str]] = defaultdict(list)
    for row in csv_rows("harmonix_youtube_urls.csv.gz"):
        songs_of["url", row["URL"]].append(row["File"])
    shared = [songs for songs in songs_of.values() if len(songs) > 1]
    assert (len(shared), sum(map(len, shared))) == (27, 55)  # facts/tasks 7.4

    for row in csv_rows("harmonix_metadata.csv.gz"):
        songs_of["name", row["Title"].casefold(), row["Artist"].casefold()].append(row["File"])
        if row["MusicBrainz Id"]:
            songs_of["recording", row["MusicBrainz Id"]].append(row["File"])
    return [songs for songs in songs_of.values() if len(songs) > 1]


@pytest.mark.parametrize("fold", range(8))
def test_versions_of_a_song_are_in_one_split(
    root: Path, versions: list[list[str]], fold: int
) -> None:
    found = tracks(root, f"task.options.fold={fold}")
    for songs in versions:
        assert len({found[song].split for song in songs}) == 1, songs
        assert len({found[song].group for song in songs}) == 1, songs


def test_the_passport_counts_all_songs_and_finds_no_group_in_two_splits(
    root: Path, songs: Mapping[str, Lines]
) -> None:
    passport = read_passport(task_data(root, "harmonix_structure"))
    assert passport.listed == sum(facts.found for facts in passport.splits.values()) == len(songs)
    assert all(facts.found == facts.expected for facts in passport.splits.values())
    assert passport.group_leaks == {}
