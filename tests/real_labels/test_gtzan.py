"""GTZAN's fault-filtered split beside the published lists."""

from pathlib import Path

import pytest
from real_labels.reading import (
    Labels,
    assert_counts,
    csv_rows,
    labels_of,
    list_hash,
    task_data,
    write_audio,
)

from datamodules.datasets.gtzan import GENRES
from datamodules.passport import read_passport

pytestmark = pytest.mark.trial
BROKEN_COPY = "jazz.00054"  # as Kaggle and Hugging Face have it (facts/tasks 1.1)


@pytest.fixture(scope="module")
def labels() -> Labels:
    return {row["id"]: (row["split"], [row["genre"]]) for row in csv_rows("gtzan.csv")}


@pytest.fixture(scope="module")
def root(labels: Labels, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The archive: 100 clips of every genre, also those that are in no split."""
    folder = tmp_path_factory.mktemp("gtzan")
    genres = sorted({name for _, names in labels.values() for name in names})
    clips = [f"{genre}/{genre}.{number:05d}.wav" for genre in genres for number in range(100)]
    write_audio(folder / "GTZAN/genres" / clip for clip in clips)
    return folder


def test_every_clip_has_the_split_and_genre_of_the_published_lists(
    root: Path, labels: Labels
) -> None:
    assert labels_of(task_data(root, "gtzan_genre")) == labels


def test_the_passport_counts_what_the_lists_hold(root: Path, labels: Labels) -> None:
    passport = read_passport(task_data(root, "gtzan_genre"))
    assert_counts(passport, labels)
    assert all(facts.found == facts.expected for facts in passport.splits.values())
    assert passport.duplicates == passport.left_out == ()

    # The order of the genres is MARBLE's, which is that of the alphabet (facts/tasks 1.1).
    assert list(GENRES) == sorted({name for _, names in labels.values() for name in names})
    targets = {clip: (split, GENRES.index(*names)) for clip, (split, names) in labels.items()}
    assert passport.list_hash == list_hash(targets)


def test_the_clip_that_copies_have_broken_is_all_that_is_left_out(
    root: Path, labels: Labels
) -> None:
    path = root / "GTZAN/genres/jazz" / f"{BROKEN_COPY}.wav"
    sound = path.read_bytes()
    path.write_bytes(sound[:20])
    try:
        data = task_data(root, "gtzan_genre")
        rest = {clip: label for clip, label in labels.items() if clip != BROKEN_COPY}
        assert labels_of(data) == rest
        passport = read_passport(data)
        assert_counts(passport, rest)
        assert [bad.name for bad in passport.left_out] == [BROKEN_COPY]
        assert passport.splits["train"].expected == passport.splits["train"].found + 1
    finally:
        path.write_bytes(sound)
