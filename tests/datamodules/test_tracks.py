"""Which scored tracks belong together."""

from pathlib import Path

from datamodules.tracks import Track, cluster_scored


def test_tracks_of_one_file_one_song_or_one_group_belong_together() -> None:
    tracks = [
        Track("first", Path("long.wav"), "test", 0, end_s=10.0),
        Track("alone", Path("other.wav"), "test", 0),
        Track("second", Path("long.wav"), "test", 0, start_s=10.0),
        Track("p1", Path("p1.wav"), "test", 0, song="opera"),
        Track("p2", Path("p2.wav"), "test", 0, song="opera", group="Callas"),
        Track("aria", Path("aria.wav"), "test", 0, "Callas"),
    ]
    assert cluster_scored(tracks) == {"first": 0, "alone": 1, "second": 0, "opera": 2, "aria": 2}


def test_groups_are_joined_by_who_is_in_both_whatever_the_order() -> None:
    groups = {"x": "a|b", "y": "c|d", "z": "e", "w": "d|a"}
    for names in ("xyzw", "wzyx", "zxwy"):
        found = cluster_scored(Track(name, Path(name), "test", 0, groups[name]) for name in names)
        assert found["x"] == found["y"] == found["w"] != found["z"]


def test_a_track_and_a_group_of_one_name_are_not_the_same() -> None:
    found = cluster_scored(
        [Track("Abba", Path("1"), "test", 0), Track("b", Path("2"), "test", 0, "Abba")]
    )
    assert found == {"Abba": 0, "b": 1}
