"""Music Taste's stand-in: means on the thresholds, the drawn split, ratings that cannot be used."""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile
from feeding import items_of, track_of

from datamodules.audio.clips import Clip, ClipRule
from datamodules.datasets.musictaste import (
    MusicTastePreference,
    MusicTasteQuality,
    MusicTasteRap,
    MusicTasteTask,
)
from datamodules.demo import musictaste as demo
from datamodules.errors import UserError
from datamodules.tracks import SPLITS

TASKS: tuple[type[MusicTasteTask], ...] = (MusicTastePreference, MusicTasteRap, MusicTasteQuality)
HEADER = "track,rater,mpc,rd,sqc"
# track -> the scores of its raters, who are not equally many: (mpc, rd, sqc). The means are worked
# out by hand.
GOLDEN: dict[str, list[tuple[str, str, str]]] = {
    "on_one": [("0", "2", "0"), ("2", "1", "1")],  # means 1, 1.5, 0.5
    "above_one": [("1", "1", "1"), ("1", "1", "0"), ("2", "2", "1")],  # 4/3, 4/3, 2/3
    "below_one": [("0", "0", "0"), ("1", "1", "0"), ("1", "1", "1")],  # 2/3, 2/3, 1/3
    "on_067": [*[("2", "1", "1")] * 67, *[("2", "0", "1")] * 33],  # 2, 67/100, 1
    "on_134": [*[("0", "2", "0")] * 34, *[("0", "1", "0")] * 66],  # 0, 134/100, 0
    "over_134": [*[("0", "2", "0")] * 35, *[("0", "1", "0")] * 65],  # 0, 135/100, 0
    # 1, 0.67, 0.5, and no score is exact in binary
    "decimals": [("1.1", "0.66", "0.4"), ("0.9", "0.68", "0.6")],
}
N_TRACKS = 20  # the golden ones and fillers


def lines_of(track: str, scores: Sequence[tuple[str, str, str]]) -> list[str]:
    return [f"{track},r{number},{','.join(three)}" for number, three in enumerate(scores)]


def write(root: Path, lines: Sequence[str], header: str = HEADER) -> Path:
    (root / "ratings.csv").write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    return root


def rows() -> list[str]:
    fillers = {
        f"filler{number:02d}": [("1", "0", "1"), ("2", "2", "1")]
        for number in range(N_TRACKS - len(GOLDEN))
    }
    return [
        line for track, scores in (GOLDEN | fillers).items() for line in lines_of(track, scores)
    ]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "audio").mkdir()
    for track in {line.split(",")[0] for line in rows()}:
        (tmp_path / "audio" / f"{track}.wav").touch()
    return write(tmp_path, rows())


def labels(root: Path, task: type[MusicTasteTask], **options: float) -> dict[str, str]:
    data = task(root, ClipRule(), **options)  # type: ignore[arg-type]
    return {
        track.track_id: data.classes[track.target]
        for track in data.tracks()
        if isinstance(track.target, int)
    }


def splits(root: Path, seed: int = 0) -> dict[str, str]:
    return {
        track.track_id: track.split
        for track in MusicTasteRap(root, ClipRule(), split_seed=seed).tracks()
    }


def refusal(
    root: Path, task: type[MusicTasteTask] = MusicTastePreference, **options: object
) -> str:
    with pytest.raises(UserError) as error:
        task(root, ClipRule(), **options).tracks()  # type: ignore[arg-type]
    assert "\n" not in str(error.value)
    return str(error.value)


# -- classes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "classes"),
    [
        (
            MusicTastePreference,
            "non-preferred preferred non-preferred preferred non-preferred non-preferred "
            "non-preferred",
        ),
        (MusicTasteRap, "non-rap mix rap mix mix non-rap mix"),
        (MusicTasteQuality, "bad good bad good bad bad bad"),
    ],
)
def test_means_on_a_threshold_belong_to_the_class_of_the_wording(
    root: Path, task: type[MusicTasteTask], classes: str
) -> None:
    found = labels(root, task)
    assert [found[track] for track in GOLDEN] == classes.split()
    assert len(found) == N_TRACKS


def test_class_order_goes_up_the_scale() -> None:
    assert [task.classes for task in TASKS] == [
        ("non-preferred", "preferred"),
        ("rap", "mix", "non-rap"),
        ("bad", "good"),
    ]


def test_all_tasks_share_audio_and_promise_no_size() -> None:
    assert {task.dataset for task in TASKS} == {"musictaste"}
    assert not any(task.expected for task in TASKS)


def test_thresholds_can_be_set(root: Path) -> None:
    assert labels(root, MusicTastePreference, threshold=0.6)["below_one"] == "preferred"
    assert labels(root, MusicTasteQuality, threshold=0.7)["above_one"] == "bad"
    assert labels(root, MusicTasteQuality, threshold=0.3)["below_one"] == "good"
    assert labels(root, MusicTasteRap, rap_below=0.66)["below_one"] == "mix"
    assert labels(root, MusicTasteRap, rap_below=0.68)["on_067"] == "rap"
    assert labels(root, MusicTasteRap, non_rap_above=1.3)["above_one"] == "non-rap"


@pytest.mark.parametrize(
    ("task", "options", "pattern"),
    [
        (
            MusicTasteQuality,
            {"threshold": 1},
            r"threshold must be from 0 up to below 1, which no mean of sqc exceeds, found 1",
        ),
        (
            MusicTastePreference,
            {"threshold": "high"},
            r"threshold must be from 0 up to below 2.*found high",
        ),
        (
            MusicTasteRap,
            {"rap_below": -0.1},
            r"rap_below must be from 0 up to below 2.*found -0\.1",
        ),
        (
            MusicTasteRap,
            {"non_rap_above": float("nan")},
            r"non_rap_above must be from 0 .*found nan",
        ),
        (
            MusicTasteRap,
            {"rap_below": 1.5},
            r"rap_below=1\.5 is above non_rap_above=1\.34: between them is mix, exchange them",
        ),
    ],
)
def test_a_threshold_that_makes_no_sense_is_refused(
    root: Path, task: type[MusicTasteTask], options: dict[str, object], pattern: str
) -> None:
    assert re.search(pattern, refusal(root, task, **options))


# -- the split -------------------------------------------------------------------------------------


def test_twenty_tracks_are_split_12_4_4(root: Path) -> None:
    assert Counter(splits(root).values()) == {"train": 12, "val": 4, "test": 4}


def test_the_split_is_the_same_for_all_tasks_and_in_any_order_of_rows(root: Path) -> None:
    before = splits(root)
    assert all(
        {t.track_id: t.split for t in task(root, ClipRule()).tracks()} == before for task in TASKS
    )
    shuffled = [rows()[index] for index in np.random.default_rng(0).permutation(len(rows()))]
    assert splits(write(root, shuffled)) == before


def test_the_split_is_this_one_on_every_machine(root: Path) -> None:
    """Sorted by SHA-256 of `0:track:<id>`, every fourth of five is val and every fifth test: made
    with sha256sum and awk.
    """
    found = splits(root)
    assert sorted(track for track in found if found[track] == "val") == [
        "filler03",
        "filler06",
        "filler09",
        "over_134",
    ]
    assert sorted(track for track in found if found[track] == "test") == [
        "filler00",
        "filler07",
        "filler08",
        "on_067",
    ]


def test_another_seed_is_another_split(root: Path) -> None:
    assert splits(root, seed=1) != splits(root)


def test_a_left_out_track_does_not_move_the_others(root: Path) -> None:
    data = MusicTasteRap(root, ClipRule(), exclude=["on_one"])
    before = splits(root)
    del before["on_one"]
    assert {track.track_id: track.split for track in data.tracks()} == before


def test_no_artist_is_in_two_splits(root: Path) -> None:
    names = {
        track: f"artist {number % 7}"
        for number, track in enumerate(sorted({line.split(",")[0] for line in rows()}))
    }
    names["on_one"] = ""  # of no known artist: a group of its own
    write(
        root, [f"{line},{names[line.split(',')[0]].title()}" for line in rows()], f"{HEADER},artist"
    )
    found = splits(root)
    places = {
        name: {found[track] for track in found if names[track] == name}
        for name in set(names.values())
    }
    assert all(len(where) == 1 for where in places.values())
    assert set(found.values()) == set(SPLITS)
    capital = [f"{line},{names[line.split(',')[0]].upper()}" for line in rows()]
    assert splits(write(root, capital, f"{HEADER},artist")) == found


# -- what files may look like ----------------------------------------------------------------------


def test_tracks_may_be_written_with_their_suffix_and_lie_in_folders(root: Path) -> None:
    (root / "audio" / "disc 1").mkdir()
    (root / "audio" / "on_one.wav").rename(root / "audio" / "disc 1" / "Mr. X.MP3")
    write(
        root,
        [
            line.replace("on_one", "disc 1/Mr. X.MP3").replace("filler00", "filler00.wav")
            for line in rows()
        ],
    )
    paths = {track.track_id: track.path for track in MusicTasteRap(root, ClipRule()).tracks()}
    assert paths["disc 1/Mr. X"] == root / "audio" / "disc 1" / "Mr. X.MP3"
    assert paths["filler00"] == root / "audio" / "filler00.wav"


def test_junk_beside_the_audio_is_ignored(root: Path) -> None:
    (root / "audio" / "__MACOSX").mkdir()
    for name in ("._on_one.wav", "__MACOSX/x.wav", "cover.jpg", "notes.txt"):
        (root / "audio" / name).write_bytes(b"junk")
    assert len(splits(root)) == N_TRACKS


def test_a_table_saved_by_excel_is_the_same_table(root: Path) -> None:
    before = splits(root)
    text = (root / "ratings.csv").read_text().replace(",", " , ").replace("\n", "\r\n")
    (root / "ratings.csv").write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert splits(root) == before


def test_stereo_odd_rates_and_short_files_become_clips(root: Path) -> None:
    for path in (root / "audio").iterdir():
        soundfile.write(path, np.full((700, 2), 0.25, np.float32), 7000)
    data = MusicTasteRap(root, ClipRule(30.0, 5.0))
    clips = items_of(data, min_samples=10)
    assert len(clips) == N_TRACKS
    assert all(isinstance(clip, Clip) and clip.audio.shape == (1600,) for clip in clips)


def test_an_unreadable_file_is_reported_by_its_track(root: Path) -> None:
    data = MusicTasteRap(root, ClipRule())
    items = items_of(data, min_samples=10)
    assert {track_of(item): getattr(item, "reason", "") for item in items}[
        "on_one"
    ] == "is empty (0 bytes)"


# -- errors ----------------------------------------------------------------------------------------


def test_missing_ratings_are_named(root: Path) -> None:
    (root / "ratings.csv").unlink()
    pattern = (
        r"cannot read .*ratings\.csv \(No such file or directory\): "
        r"put the table there or correct its path"
    )
    assert re.fullmatch(pattern, refusal(root))


def test_missing_columns_are_named_with_what_was_found(root: Path) -> None:
    write(root, ["a,r,1"], "track;rater,x,mpc")
    pattern = (
        r".*ratings\.csv has no column track, rater, rd, sqc, found track;rater, x, mpc: "
        r"expected a comma-separated table with track, rater, mpc, rd, sqc"
    )
    assert re.fullmatch(pattern, refusal(root))
    (root / "ratings.csv").write_text("")
    assert "has no column track, rater, mpc, rd, sqc, found none" in refusal(root)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("on_one,x,two,1,1", r"has mpc='two', which is not a number"),
        ("on_one,x,,1,1", r"has mpc='', which is not a number"),
        ("on_one,x,nan,1,1", r"has mpc=nan, which is not on the scale from 0 to 2"),
        ("on_one,x,1,3,1", r"has rd=3, which is not on the scale from 0 to 2"),
        ("on_one,x,1,1,2", r"has sqc=2, which is not on the scale from 0 to 1"),
        ("on_one,x,1,-1,0", r"has rd=-1, which is not on the scale"),
        ("on_one,,1,1,1", r"has no rater"),
        (",x,1,1,1", r"has no track"),
        ("on_one,x,1,1", r"breaks off before its sqc"),
        ("on_one,x,1,1,1,1", r"has more cells than there are columns"),
    ],
)
def test_rows_that_cannot_be_used_are_counted_and_the_first_is_named(
    root: Path, line: str, why: str
) -> None:
    write(root, [*rows()[:3], line, line, *rows()[3:]])
    pattern = (
        rf"2 of {len(rows()) + 2} rows of .*ratings\.csv cannot be used "
        rf"\(first: line 5 {why}.*\): correct the file"
    )
    assert re.fullmatch(pattern, refusal(root))


def test_a_rater_who_rates_a_track_twice_is_named(root: Path) -> None:
    write(root, [*rows(), rows()[0], rows()[0], rows()[-1].replace("filler12", "filler12.wav")])
    pattern = (
        r"2 times a rater has rated a track more than once in .*"
        r"\(first: rater r0, track on_one\): keep one row of each"
    )
    assert re.fullmatch(pattern, refusal(root))


def test_a_track_of_two_artists_is_named(root: Path) -> None:
    write(
        root,
        [f"{line},{'Bob' if number else 'Ann'}" for number, line in enumerate(rows())],
        f"{HEADER},artist",
    )
    assert re.fullmatch(
        r"1 tracks have more than one artist in .*\(first: on_one\): write the same in all rows",
        refusal(root),
    )


def test_rated_tracks_without_audio_are_counted_and_can_be_left_out(root: Path) -> None:
    (root / "audio" / "on_one.wav").unlink()
    assert re.search(
        r"1 of 20 musictaste tracks have no audio .*on_one\.wav"
        r".*data\.exclude=\[musictaste:on_one\]",
        refusal(root),
    )
    assert len(MusicTasteRap(root, ClipRule(), exclude=["on_one"]).tracks()) == N_TRACKS - 1


def test_audio_without_a_rating_is_counted(root: Path) -> None:
    write(root, [line for line in rows() if not line.startswith(("on_one", "filler03"))])
    pattern = (
        r"2 of 20 audio files under .*audio have no rating in ratings\.csv "
        r"\(first: filler03\.wav\): add their ratings or .*"
    )
    assert re.fullmatch(pattern, refusal(root))


def test_two_files_of_one_name_are_refused(root: Path) -> None:
    (root / "audio" / "on_one.mp3").touch()
    assert re.fullmatch(
        r"two audio files for one track: .*on_one\.mp3 and on_one\.wav\. Keep one of them",
        refusal(root),
    )


def test_too_few_tracks_for_three_splits_are_refused(root: Path) -> None:
    for path in (root / "audio").glob("filler*"):
        path.unlink()
    few = ["on_one", "above_one", "below_one"]
    for track in set(GOLDEN) - set(few):
        (root / "audio" / f"{track}.wav").unlink()
    write(root, [line for line in rows() if line.split(",")[0] in few])
    assert "has no tracks for val, test" in refusal(root)


# -- the demo --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def demo_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's labels beside empty files: listing opens none."""
    root = tmp_path_factory.mktemp("demo")
    plan = demo.recipe(1.0)
    (root / "audio").mkdir()
    for item in plan.items:
        (root / item.path).touch()
    for path, text in plan.labels(root).items():
        (root / path).write_text(text)
    return root


@pytest.mark.parametrize("task", TASKS)
def test_the_demo_has_all_classes_in_all_splits(
    demo_root: Path, task: type[MusicTasteTask]
) -> None:
    tracks = task(demo_root, ClipRule()).tracks()
    assert Counter(track.split for track in tracks) == {"train": 36, "val": 12, "test": 12}
    counts = Counter((track.split, track.target) for track in tracks)
    assert len(counts) == len(SPLITS) * len(task.classes)
    assert min(counts.values()) >= 3


def test_the_demo_s_ratings_say_what_its_songs_are(demo_root: Path) -> None:
    items = demo.recipe(1.0).items
    tracks = {item.name: item for item in items if isinstance(item, demo.TasteTrack)}
    for task, trait in (
        (MusicTastePreference, "preferred"),
        (MusicTasteRap, "rap"),
        (MusicTasteQuality, "good"),
    ):
        found = {track.track_id: track.target for track in task(demo_root, ClipRule()).tracks()}
        assert found == {name: getattr(track, trait) for name, track in tracks.items()}


def test_the_demo_s_raters_do_not_always_agree(demo_root: Path) -> None:
    lines = (demo_root / "ratings.csv").read_text().splitlines()[1:]
    assert len(lines) == 60 * 5
    scores = {
        (track, three)
        for track, _, *three_and_artist in (line.split(",") for line in lines)
        for three in [tuple(three_and_artist[:3])]
    }
    assert len(scores) > 2 * 60


def test_the_demo_s_songs_sound_as_they_are_rated(tmp_path: Path) -> None:
    """Above 5 kHz a bad recording only hisses; the voice of rap is where the melody is not."""
    spectra = {}
    for track in demo.recipe(0.01).items:
        assert isinstance(track, demo.TasteTrack)
        (tmp_path / "x.wav").write_bytes(track.encode())
        audio, rate = soundfile.read(tmp_path / "x.wav")
        assert (len(audio), rate) == (176400, 22050)
        assert np.abs(audio).max() == pytest.approx(0.7, abs=0.01)
        spectra[track] = np.abs(np.fft.rfft(audio.reshape(-1, 2205) * np.hanning(2205))).mean(
            axis=0
        )
    flatness = {
        track: np.exp(np.log(s[500:]).mean()) / s[500:].mean() for track, s in spectra.items()
    }
    assert min(f for track, f in flatness.items() if not track.good) > max(
        f for track, f in flatness.items() if track.good
    )
