"""EmoMusic's own tables beside jukemir's list of splits and standardised ratings."""

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from real_labels.reading import csv_rows, list_hash, read, rows, task_data, write, write_audio

from datamodules.passport import read_passport
from datamodules.tracks import SPLITS, Split

pytestmark = pytest.mark.trial
Ratings = Mapping[str, tuple[Split, tuple[float, float]]]  # song -> split, (arousal, valence)


@pytest.fixture(scope="module")
def ratings() -> Ratings:
    listed = rows("emomusic_expected.tsv.gz")
    return {
        song: (split, (float(arousal), float(valence)))  # type: ignore[misc]
        for song, split, arousal, valence in listed
    }


@pytest.fixture(scope="module")
def root(ratings: Ratings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("emomusic")
    for name in ("songs_info", "static_annotations"):
        write(root / f"EmoMusic/{name}.csv", read(f"emomusic_{name}.csv.gz"))
    write_audio(root / f"EmoMusic/clips_45seconds/{song}.mp3" for song in ratings)
    return root


def test_every_song_has_the_split_and_both_ratings_of_jukemirs_list(
    root: Path, ratings: Ratings
) -> None:
    data = task_data(root, "emomusic_emotion")
    assert data.classes == ("arousal", "valence")
    found = {track.track_id: track for track in data.listed()}
    assert {song: track.split for song, track in found.items()} == {
        song: split for song, (split, _) in ratings.items()
    }

    ours = np.array([found[song].target for song in ratings])
    theirs = np.array([values for _, values in ratings.values()])
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6)


def test_the_passport_counts_what_the_list_holds(root: Path, ratings: Ratings) -> None:
    passport = read_passport(task_data(root, "emomusic_emotion"))
    assert passport.listed == len(ratings)
    assert passport.missing == passport.unreadable == passport.duplicates == ()
    assert passport.list_hash == list_hash(ratings)

    for split in SPLITS:
        values = np.array([both for in_split, both in ratings.values() if in_split == split])
        facts = passport.splits[split]
        assert facts.found == facts.expected == len(values)
        found = np.array([(one.mean, one.sd, one.low, one.high) for one in facts.values])
        columns = (values.mean(0), values.std(0), values.min(0), values.max(0))
        np.testing.assert_allclose(found, np.stack(columns, axis=1), rtol=0, atol=1e-6)


def test_groups_are_the_artists_and_only_test_shares_some_of_them(
    root: Path, ratings: Ratings
) -> None:
    splits_of = defaultdict(set)
    for row in csv_rows("emomusic_songs_info.csv.gz"):
        splits_of[" ".join(row["Artist"].lower().split())].add(ratings[row["song_id"]][0])
    torn = {name: splits for name, splits in splits_of.items() if len(splits) > 1}
    assert all("test" in splits for splits in torn.values())

    passport = read_passport(task_data(root, "emomusic_emotion"))
    assert set(passport.groups) == set(splits_of)
    assert {name: set(counts) for name, counts in passport.group_leaks.items()} == torn
