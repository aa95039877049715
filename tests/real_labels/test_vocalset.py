"""VocalSet's recordings beside CMI-Bench's and MARBLE v1's lists of technique and singer.

Compared are the label of every recording of the lists, the doubles, and which singers are test:
that is published. How the other fifteen singers go to train and val, and the whole split of the
singer task, are rules of ours (MARBLE v1's hang on one numpy state and are not shipped), so that
nothing independent can be held against them but what they promise.
"""

from collections import defaultdict
from pathlib import Path

import pytest
from real_labels.reading import rows, task_data, write, write_audio

from datamodules.datasets.vocalset import TEST_LIST
from datamodules.passport import read_passport
from datamodules.task import TaskDataModule
from datamodules.tracks import SPLITS

pytestmark = pytest.mark.trial
DATASETS_TEST_SINGERS = ("female2", "female8", "male3", "male5", "male10")  # facts/tasks 4.4
TECHNIQUES = (  # MARBLE v1's order (facts/tasks 4.1)
    "belt",
    "breathy",
    "inhaled",
    "lip_trill",
    "spoken",
    "straight",
    "trill",
    "trillo",
    "vibrato",
    "vocal_fry",
)


@pytest.fixture(scope="module")
def listed() -> list[list[str]]:
    """Path in the archive, technique, singer; `-` for both where a recording is there twice."""
    return rows("vocalset_recordings.tsv.gz")


@pytest.fixture(scope="module")
def root(listed: list[list[str]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("vocalset")
    write_audio(root / f"VocalSet/FULL/{recording}.wav" for recording, _, _ in listed)
    write(root / "VocalSet" / TEST_LIST, "\n".join(DATASETS_TEST_SINGERS))
    return root


def vocalset(root: Path, task: str) -> TaskDataModule:
    """A task without the recordings that no list names: the loader would miss them."""
    return task_data(root, task, "data.exclude=[vocalset:missing]")


def classes_of(data: TaskDataModule) -> dict[str, str]:
    return {track.track_id: data.classes[track.target] for track in data.listed()}


def test_every_recording_has_the_singer_of_the_lists(root: Path, listed: list[list[str]]) -> None:
    data = vocalset(root, "vocalset_singer")
    assert classes_of(data) == {name: singer for name, _, singer in listed if singer != "-"}

    # MARBLE v1's order: the women by number, then the men.
    by_number = [f"f{n}" for n in range(1, 10)] + [f"m{n}" for n in range(1, 12)]
    assert list(data.classes) == by_number


def test_every_recording_of_the_ten_techniques_has_that_of_the_lists(
    root: Path, listed: list[list[str]]
) -> None:
    data = vocalset(root, "vocalset_technique")
    assert data.classes == TECHNIQUES
    expected = {name: technique for name, technique, _ in listed if technique in TECHNIQUES}
    assert classes_of(data) == expected
    assert {technique for _, technique, _ in listed} > set(TECHNIQUES), "no dynamics in the lists"


def test_the_singers_of_the_datasets_own_list_are_test_and_none_is_in_two_splits(
    root: Path, listed: list[list[str]]
) -> None:
    data = vocalset(root, "vocalset_technique")
    singers = defaultdict(set)
    for track in data.listed():
        assert track.group == track.track_id.split("/")[0]
        singers[track.split].add(track.group)
    assert singers["test"] == set(DATASETS_TEST_SINGERS)
    assert len(set.union(*singers.values())) == sum(map(len, singers.values())) == 20
    assert (len(singers["train"]), len(singers["val"])) == (9, 6)  # MARBLE's paper


@pytest.mark.parametrize("task", ["vocalset_singer", "vocalset_technique"])
def test_the_passport_counts_what_the_lists_hold(
    root: Path, task: str, listed: list[list[str]]
) -> None:
    data = vocalset(root, task)
    passport = read_passport(data)
    column = 2 if task == "vocalset_singer" else 1
    names = [row[column] for row in listed if row[column] in data.classes]
    assert passport.listed == sum(passport.splits[split].found for split in SPLITS) == len(names)
    assert passport.missing == passport.unreadable == passport.duplicates == ()

    counted = zip(*(passport.splits[split].per_class for split in SPLITS), strict=True)
    found = {name: sum(n) for name, n in zip(passport.classes, counted, strict=True)}
    assert found == {name: names.count(name) for name in data.classes}
    doubles = {name for name, technique, _ in listed if technique == "-"}
    assert {bad.name for bad in passport.left_out} == doubles
