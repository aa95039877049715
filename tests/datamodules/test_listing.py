"""The labelled list as text: equal for equal lists, and what differs between two."""

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from datamodules.listing import differences, hash_list, hash_text, list_text
from datamodules.tracks import Segment, Track

TRACKS = [
    Track("b", Path("/x/b.wav"), "test", 1, audio_id="sound of b"),
    Track("a", Path("/x/a.wav"), "train", 0, audio_id="sound of a"),
    Track("c", Path("/x/c.wav"), "val", 2, group="Bob", audio_id="sound of c"),
]
TEXT = "a\ttrain\t0\tsound of a\nb\ttest\t1\tsound of b\nc\tval\t2\tsound of c\n"


def hash_of(*tracks: Track, audio: bool = True) -> str:
    return hash_text(list_text(tracks, audio=audio))


def test_a_line_holds_id_split_target_and_audio_in_order_of_the_ids() -> None:
    assert list_text(TRACKS, audio=True) == TEXT
    assert list_text(TRACKS, audio=False) == "a\ttrain\t0\nb\ttest\t1\nc\tval\t2\n"


def test_the_hash_is_that_of_the_text() -> None:
    assert hash_of(*TRACKS) == hashlib.sha256(TEXT.encode()).hexdigest()[:16]
    assert hash_list(TRACKS) == hash_of(*TRACKS, audio=False)
    assert hash_list(TRACKS) == hash_list(TRACKS[::-1])


@pytest.mark.parametrize(
    "changes",
    [{"track_id": "z"}, {"split": "val"}, {"target": 7}, {"audio_id": "another"}, {"song": "s"}],
    ids=lambda changes: next(iter(changes)),
)
def test_the_hash_changes_with_what_changes_results(changes: dict[str, object]) -> None:
    other = replace(TRACKS[1], **changes)  # type: ignore[arg-type]
    assert hash_of(other, *TRACKS[2:]) != hash_of(*TRACKS[1:])


@pytest.mark.parametrize("changes", [{"path": Path("/elsewhere/a.wav")}, {"group": "Ann"}])
def test_the_hash_does_not_change_with_what_only_names_or_groups(
    changes: dict[str, object],
) -> None:
    other = replace(TRACKS[1], **changes)  # type: ignore[arg-type]
    assert hash_of(other, *TRACKS[2:]) == hash_of(*TRACKS[1:])


def test_targets_of_several_numbers_are_written_with_six_decimals() -> None:
    values = replace(TRACKS[1], target=(0.1 + 0.2, -0.0, 1e-9))
    assert list_text([values], audio=False) == "a\ttrain\t0.300000 0.000000 0.000000\n"
    segments = replace(TRACKS[1], target=(Segment(0.0, 1.5, 2), Segment(1.5, float("inf"), 0)))
    text = "a\ttrain\t0.000000 1.500000 2.000000 1.500000 inf 0.000000\n"
    assert list_text([segments], audio=False) == text
    assert hash_list([replace(values, target=(0.3, 0.0, 0.0))]) == hash_list([values])


def test_names_that_are_no_utf_8_can_be_hashed() -> None:
    assert hash_list([replace(TRACKS[0], track_id="\udcff.wav")])


# -- differences -----------------------------------------------------------------------------------

NONE = {"tracks gone": 0, "tracks new": 0, "labels": 0, "splits": 0, "audio": 0}


def changes_to(*tracks: Track) -> dict[str, int]:
    """What differs from TRACKS, without what does not."""
    found = differences(TEXT, list_text(tracks, audio=True))
    assert found.keys() == NONE.keys()
    return {what: n for what, n in found.items() if n}


def test_equal_lists_differ_in_nothing() -> None:
    assert changes_to(*TRACKS) == {}
    assert differences("", "") == NONE


def test_each_kind_of_change_is_counted_for_itself() -> None:
    b, a, c = TRACKS
    assert changes_to(b, a) == {"tracks gone": 1}
    assert changes_to(b, a, c, replace(a, track_id="d")) == {"tracks new": 1}
    assert changes_to(replace(b, target=0), replace(a, target=5), c) == {"labels": 2}
    assert changes_to(replace(b, split="val"), a, c) == {"splits": 1}
    assert changes_to(b, replace(a, audio_id="x"), replace(c, audio_id="y")) == {"audio": 2}
    assert changes_to(replace(b, split="val", target=9, audio_id="x"), a, c) == {
        "labels": 1,
        "splits": 1,
        "audio": 1,
    }


@pytest.mark.parametrize("name", ["a b", "a\tb", "a\u2028b", "a\x85b", "a\x0cb", "a\rb", "a\nb"])
def test_odd_names_of_tracks_can_be_compared(name: str) -> None:
    """Tables allow nearly any text as an id."""
    track = replace(TRACKS[0], track_id=name, song=name)
    before = list_text([track, TRACKS[1]], audio=True)
    after = list_text([replace(track, target=5), TRACKS[1]], audio=True)
    assert differences(before, before) == NONE
    assert differences(before, after) == {**NONE, "labels": 1}
