"""GiantSteps and its MTG set beside jukemir's list of songs, splits and keys."""

from collections import defaultdict
from pathlib import Path

import pytest
from real_labels.reading import (
    Labels,
    assert_counts,
    audio,
    labels_of,
    list_hash,
    read,
    rows,
    task_data,
    write,
    write_audio,
)

from datamodules.passport import read_passport

pytestmark = pytest.mark.trial
TEST, MTG = "GS/giantsteps-key-dataset-6bcd492", "GS/giantsteps-mtg-key-dataset-fd7b8c5"
# MARBLE v1, v2 and jukemir have one order (facts/tasks 3.2).
TONICS = ("C", "Db", "D", "Eb", "E", "F", "Gb", "G", "Ab", "A", "Bb", "B")
KEYS = [f"{tonic} {mode}" for mode in ("major", "minor") for tonic in TONICS]


@pytest.fixture(scope="module")
def labels() -> Labels:
    return {song: (split, [key]) for song, split, key in rows("giantsteps_expected.tsv.gz")}


@pytest.fixture(scope="module")
def equal_files() -> list[list[str]]:
    """Sets of songs whose files have one MD5, by the repositories' lists."""
    songs = defaultdict(list)
    for md5, song in rows("giantsteps_same_md5.tsv"):
        songs[md5].append(song)
    return list(songs.values())


@pytest.fixture(scope="module")
def root(equal_files: list[list[str]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both repositories with the audio of all their songs, also of those that are no tracks."""
    root = tmp_path_factory.mktemp("giantsteps")
    test_keys = dict(rows("giantsteps_test_keys.tsv.gz"))
    for song, key in test_keys.items():
        write(root / TEST / "annotations/key" / f"{song}.LOFI.key", key)
    write_audio(root / TEST / "audio" / f"{song}.LOFI.mp3" for song in test_keys)

    for name in ("annotations", "beatport_metadata"):
        write(root / MTG / f"annotations/{name}.txt", read(f"giantsteps_mtg_{name}.txt.gz"))
    _, *annotated = rows("giantsteps_mtg_annotations.txt.gz")
    songs = [root / MTG / "audio" / f"{row[0]}.LOFI.mp3" for row in annotated]
    write_audio(songs)
    for number, path in enumerate(songs):
        path.write_bytes(audio(10_000 + number))  # none is a song of the test set
    for number, same in enumerate(equal_files):
        for song in same:
            path = root / MTG / "audio" / f"{song}.LOFI.mp3"
            assert path in songs, "an equal file that is of the test set"
            path.write_bytes(audio(20_000 + number))
    return root


def test_every_song_has_the_split_and_key_of_jukemirs_list(root: Path, labels: Labels) -> None:
    data = task_data(root, "giantsteps_key")
    assert labels_of(data) == labels
    assert list(data.classes) == KEYS


def test_the_passport_counts_what_the_list_holds(root: Path, labels: Labels) -> None:
    passport = read_passport(task_data(root, "giantsteps_key"))
    assert_counts(passport, labels)
    assert all(facts.found == facts.expected for facts in passport.splits.values())
    targets = {song: (split, KEYS.index(*names)) for song, (split, names) in labels.items()}
    assert passport.list_hash == list_hash(targets)


def test_the_passport_finds_the_equal_files_of_the_repositories_md5_lists(
    root: Path, labels: Labels, equal_files: list[list[str]]
) -> None:
    passport = read_passport(task_data(root, "giantsteps_key"))
    found = [[track.track_id for track in same] for same in passport.duplicates]

    # Songs that the rules drop are no tracks, and so no duplicates.
    kept = [sorted(song for song in same if song in labels) for same in equal_files]
    assert sorted(found) == sorted(same for same in kept if len(same) > 1)

    # Those in two splits come first.
    crosses = [len({labels[song][0] for song in same}) > 1 for same in found]
    assert any(crosses)
    assert crosses == sorted(crosses, reverse=True)


def test_artists_are_those_of_the_metadata_and_none_is_in_train_and_val(
    root: Path, labels: Labels
) -> None:
    """The rule carries val on to everybody who appears with an artist of val, twice over."""
    _, *metadata = rows("giantsteps_mtg_beatport_metadata.txt.gz")
    artists = {row[0]: {name.strip() for name in row[1].split(",")} for row in metadata}
    splits_of = defaultdict(set)
    for song, (split, _) in labels.items():
        for name in artists.get(song, ()):
            splits_of[name].add(split)
    assert all(len(splits) == 1 for splits in splits_of.values())

    passport = read_passport(task_data(root, "giantsteps_key"))
    assert set(passport.groups) == set(splits_of) - {""}
    assert passport.group_leaks == {}
