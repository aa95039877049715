"""MagnaTagATune's annotations, made anew to the byte, beside two lists of splits and tags."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
from real_labels.reading import (
    Labels,
    assert_counts,
    labels_of,
    list_hash,
    rows,
    task_data,
    write,
    write_audio,
)

from datamodules.datasets.magnatagatune import ANNOTATIONS, CARD, TAGS, MagnaTagATuneTags
from datamodules.passport import read_passport

pytestmark = pytest.mark.trial
Annotated = Sequence[tuple[str, set[int], str]]  # clip, places of its tags among 188, path


@pytest.fixture(scope="module")
def header() -> list[str]:
    """The 188 tags in the order of the file."""
    return rows("magnatagatune_annotations.tsv.gz")[0]


@pytest.fixture(scope="module")
def annotated() -> Annotated:
    _, *clips = rows("magnatagatune_annotations.tsv.gz")
    return [(clip, {int(n) for n in tags.split(",") if n}, path) for clip, tags, path in clips]


@pytest.fixture(scope="module")
def listed() -> Sequence[Sequence[str]]:
    """Clip, split and tags in jukemir's list, split and tags in that of Won et al."""
    return rows("magnatagatune_expected.tsv.gz")


@pytest.fixture(scope="module")
def labels(listed: Sequence[Sequence[str]]) -> Labels:
    return {clip: (split, _names(tags)) for clip, split, tags, _, _ in listed}  # type: ignore[misc]


@pytest.fixture(scope="module")
def root(header: list[str], annotated: Annotated, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mtt") / "MagnaTagATune"
    lines = ["\t".join(f'"{name}"' for name in ("clip_id", *header, "mp3_path"))]
    for clip, tags, path in annotated:
        flags = ["1" if place in tags else "0" for place in range(len(header))]
        lines.append('"' + '"\t"'.join((clip, *flags, path)) + '"')
    write(folder / ANNOTATIONS, "".join(f"{line}\r\n" for line in lines))
    write_audio(folder / "mp3" / path for _, _, path in annotated)
    return folder.parent


def _names(places: str) -> list[str]:
    """Tags of a list's numbers, which count in MARBLE's order of the 50."""
    return [TAGS[int(place)] for place in places.split(",") if place not in ("", "-", "?")]


def test_the_table_is_the_distributed_file(root: Path) -> None:
    """So the header, its order, its quotes and its line ends are those that users have."""
    content = (root / "MagnaTagATune" / ANNOTATIONS).read_bytes()
    published = next(archive for archive in CARD.archives if archive.path == ANNOTATIONS)
    assert len(content) == published.n_bytes
    assert hashlib.sha256(content).hexdigest() == published.sha256


def test_the_tags_are_the_50_most_frequent_by_falling_counts(
    header: list[str], annotated: Annotated
) -> None:
    n = Counter(header[place] for _, tags, _ in annotated for place in tags)
    most_frequent = sorted(n.values(), reverse=True)
    assert most_frequent[49] > most_frequent[50], "the set would hang on a tie"
    assert [n[tag] for tag in TAGS] == most_frequent[:50]


def test_every_clip_has_the_split_and_tags_of_jukemirs_list(root: Path, labels: Labels) -> None:
    """Its numbers count in the order of the 50: a tag in another place would show in its clips."""
    assert labels_of(task_data(root, "magnatagatune_tags")) == labels


def test_the_passport_counts_what_the_list_holds(
    root: Path, labels: Labels, annotated: Annotated
) -> None:
    passport = read_passport(task_data(root, "magnatagatune_tags"))
    assert_counts(passport, labels)
    assert all(facts.found == facts.expected for facts in passport.splits.values())
    assert passport.duplicates == ()
    flags = {
        clip: (split, [float(tag in names) for tag in TAGS])
        for clip, (split, names) in labels.items()
    }
    assert passport.list_hash == list_hash(flags)

    # The corrupt clips are annotated: they are all that jukemir's list lacks.
    lacking = {clip for clip, _, _ in annotated} - set(labels)
    assert {bad.name for bad in passport.left_out} == lacking
    path_of = {clip: path for clip, _, path in annotated}
    assert {bad.name: bad.reason for bad in MagnaTagATuneTags.known_bad} == {
        clip: f"corrupt mp3: {path_of[clip]}" for clip in lacking
    }


def test_without_untagged_clips_splits_and_tags_are_those_of_won_et_al(
    root: Path, listed: Sequence[Sequence[str]], labels: Labels
) -> None:
    data = task_data(root, "magnatagatune_tags", "task.options.keep_untagged=false")
    found = labels_of(data)
    assert found == {clip: label for clip, label in labels.items() if label[1]}

    theirs = {clip: (split, tags) for clip, _, _, split, tags in listed if split != "-"}
    assert {clip: found[clip][0] for clip in theirs} == {
        clip: split for clip, (split, _) in theirs.items()
    }
    stored = {clip: _names(tags) for clip, (_, tags) in theirs.items() if tags != "?"}
    assert {clip: found[clip][1] for clip in stored} == stored

    # Their lists lack the first three tagged files of folder 0 (facts/tasks 6.3), and no other.
    paths = {track.track_id: track.path for track in data.listed()}
    in_folder_0 = sorted((clip for clip in found if paths[clip].parent.name == "0"), key=paths.get)
    assert {clip for clip in found if clip not in theirs} == set(in_folder_0[:3])
    assert data.expected == Counter(split for split, _ in found.values())
