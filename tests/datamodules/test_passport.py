"""Passports: what is counted, what is found wrong, and what two people can compare."""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from datamodules.audio.clips import ClipRule
from datamodules.audio.decode import wav_bytes
from datamodules.datasets.emomusic import EmoMusicEmotion
from datamodules.datasets.giantsteps import GiantStepsKey
from datamodules.datasets.gtzan import GTZANGenre, read_split
from datamodules.datasets.magnatagatune import TAGS, MagnaTagATuneTags
from datamodules.datasets.manifest import Manifest
from datamodules.datasets.musictaste import MusicTasteRap
from datamodules.datasets.nsynth import NSynthInstrument
from datamodules.datasets.vocalset import SINGER_FOLDERS, VocalSetSinger, VocalSetTechnique
from datamodules.errors import UserError
from datamodules.listing import hash_list
from datamodules.passport import Values, read_passport
from datamodules.task import TaskDataModule
from datamodules.tracks import Segment, Split, Track

RATE = 8000


def write_wav(path: Path, seed: int, seconds: float = 0.5) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).uniform(-0.5, 0.5, round(seconds * RATE))
    path.write_bytes(wav_bytes(noise.astype(np.float32), RATE))


def make_manifest(folder: Path, exclude: Sequence[str] = (), lines: Sequence[str] = ()) -> Manifest:
    """Twelve files of two classes, of which some are not as they should be.

    A copy in another split and one in the same, a stereo one at an odd rate, a broken and an empty
    one.
    """
    for seed, name in enumerate("abcdefg"):
        write_wav(folder / f"{name}.wav", seed)
    (folder / "copy.wav").write_bytes((folder / "a.wav").read_bytes())
    (folder / "twin.wav").write_bytes((folder / "b.wav").read_bytes())
    stereo = np.random.default_rng(9).uniform(-0.5, 0.5, (11025, 2))
    soundfile.write(folder / "odd.wav", stereo, 11025)
    (folder / "broken.wav").write_bytes(b"RIFF\x24\x08")
    soundfile.write(folder / "silent.wav", np.zeros(0), RATE)

    rows = [
        "a,rock,train,ann",
        "b,jazz,train,ann",
        "twin,rock,train,tom",
        "c,jazz,train,",
        "d,rock,val,bob",
        "e,jazz,val,bob",
        "copy,rock,test,kim",
        "odd,jazz,test,",
        "broken,rock,train,",
        "silent,rock,train,",
        "f,rock,train,",
        "g,rock,train,",
    ]
    text = "".join(row.replace(",", ".wav,", 1) + "\n" for row in [*rows, *lines])
    (folder / "my.csv").write_text("path,label,split,group\n" + text)
    return Manifest(Path("/nowhere"), ClipRule(), exclude, file=str(folder / "my.csv"))


class Toy(TaskDataModule):
    """Tracks as they are given, with a tenth of a second of audio for each."""

    dataset = "toy"
    classes = ("x", "y", "z")

    def __init__(self, root: Path, tracks: Sequence[Track]) -> None:
        super().__init__(root, ClipRule())
        self.everything = [replace(track, path=root / track.path) for track in tracks]
        for seed, path in enumerate(sorted({track.path for track in self.everything})):
            write_wav(path, seed, 0.1)

    def read_tracks(self) -> list[Track]:
        return self.everything


def toy_track(name: str, split: Split, target: int = 0, group: str | None = None) -> Track:
    return Track(name, Path(f"{name}.wav"), split, target, group)


# -- counts ----------------------------------------------------------------------------------------


def test_tracks_hours_and_classes_are_counted_per_split(tmp_path: Path) -> None:
    passport = read_passport(make_manifest(tmp_path, exclude=["g.wav"]))
    assert (passport.kind, passport.is_demo) == ("classification", False)
    assert passport.classes == ("jazz", "rock")
    found = {split: facts.found for split, facts in passport.splits.items()}
    assert found == {"train": 7, "val": 2, "test": 2}
    per_class = {split: facts.per_class for split, facts in passport.splits.items()}
    assert per_class == {"train": (2, 5), "val": (1, 1), "test": (1, 1)}
    assert passport.splits["train"].seconds == pytest.approx(5 * 0.5)  # of the readable ones
    assert passport.durations_s == pytest.approx((0.5, 0.5, 1.0))
    assert passport.excluded == ("g.wav",)


def test_what_is_expected_is_counted_before_any_track_is_excluded(tmp_path: Path) -> None:
    """Where nothing is published a table would say that nothing is missing."""
    passport = read_passport(make_manifest(tmp_path, exclude=["g.wav", "odd.wav"]))
    counts = {split: (facts.found, facts.expected) for split, facts in passport.splits.items()}
    assert counts == {"train": (7, 8), "val": (2, 2), "test": (1, 2)}


def test_one_word_leaves_out_copies_in_other_splits(tmp_path: Path) -> None:
    for entry in ("duplicates", f"{make_manifest(tmp_path).dataset}:duplicates"):
        data = make_manifest(tmp_path, exclude=[entry, "g.wav"])
        passport = read_passport(data)
        assert passport.excluded == ("a.wav", "g.wav")  # the copy is in test
        assert [len(same) for same in passport.duplicates] == [2]  # b and its twin, both in train
        assert {track.track_id for track in data.tracks()} >= {"copy.wav", "b.wav", "twin.wav"}
        assert passport.splits["train"].found == 6 and passport.splits["train"].expected == 8


def test_tracks_that_do_not_last_as_long_as_the_datasets_are_named(tmp_path: Path) -> None:
    data = Toy(tmp_path, [toy_track("a", "train"), toy_track("b", "test")])
    write_wav(tmp_path / "b.wav", 3, seconds=0.05)
    assert read_passport(data).odd_lengths == ()
    data.lasts_s = (0.09, 0.11)
    passport = read_passport(data)
    assert (passport.odd_lengths, passport.lasts_s) == ((("b", 0.05),), (0.09, 0.11))


def test_rates_and_channels_are_those_of_the_files(tmp_path: Path) -> None:
    passport = read_passport(make_manifest(tmp_path))
    assert passport.sample_rates == {RATE: 9, 11025: 1}
    assert passport.channels == {1: 9, 2: 1}


def test_tracks_that_are_parts_of_files_count_their_part(tmp_path: Path) -> None:
    write_wav(tmp_path / "long.wav", 1, seconds=2.0)
    lines = [
        "long.wav,a,train,,0.5",
        "long.wav,b,train,0.5,0.75",
        "long.wav,a,val,1.5,",
        "long.wav,a,test,0.75,1.5",
    ]
    rows = "".join(f"{line},g{number}\n" for number, line in enumerate(lines))
    (tmp_path / "my.csv").write_text("path,label,split,start,end,group\n" + rows)
    passport = read_passport(Manifest(tmp_path, ClipRule(), file=str(tmp_path / "my.csv")))
    seconds = {split: facts.seconds for split, facts in passport.splits.items()}
    assert seconds == {"train": 0.75, "val": 0.5, "test": 0.75}
    assert passport.durations_s == (0.25, 0.5, 0.75)
    assert passport.sample_rates == {RATE: 1}
    assert passport.duplicates == ()


def test_expected_numbers_are_those_of_the_dataset_and_unknown_for_a_demo(tmp_path: Path) -> None:
    data = Toy(tmp_path, [toy_track("a", "train"), toy_track("b", "test")])
    data.expected = {"train": 5}
    assert [facts.expected for facts in read_passport(data).splits.values()] == [5, None, None]
    (tmp_path / "demo.json").write_text("{}")
    (tmp_path / "b.wav").unlink()
    passport = read_passport(data)
    assert [facts.expected for facts in passport.splits.values()] == [None] * 3
    assert (passport.is_demo, passport.listed, passport.missing) == (True, 1, ())


def test_positives_are_counted_for_tags(tmp_path: Path) -> None:
    targets = {"a": (1.0, 1.0, 0.0), "b": (1.0, 0.0, 0.0), "c": (0.0, 0.0, 1.0)}
    data = Toy(
        tmp_path,
        [Track(name, Path(f"{name}.wav"), "train", target) for name, target in targets.items()],
    )
    data.kind = "multilabel"
    assert read_passport(data).splits["train"].per_class == (2, 1, 1)


def test_values_of_regression_are_summarised_per_dimension(tmp_path: Path) -> None:
    targets = {"a": (1.0, 0.0, 2.0), "b": (3.0, 0.0, -2.0)}
    data = Toy(
        tmp_path,
        [Track(name, Path(f"{name}.wav"), "train", target) for name, target in targets.items()],
    )
    data.kind = "regression"
    facts = read_passport(data).splits
    assert facts["train"].values == (Values(2, 1, 1, 3), Values(0, 0, 0, 0), Values(0, 2, -2, 2))
    assert (facts["train"].per_class, facts["val"].values) == ((), ())


def test_seconds_of_each_class_are_counted_for_frames_up_to_the_end_of_the_audio(
    tmp_path: Path,
) -> None:
    segments = (
        Segment(0.01, 0.04, 0),
        Segment(0.05, 0.06, 2),
        Segment(0.06, math.inf, 0),
        Segment(0.5, 0.7, 1),
    )
    data = Toy(tmp_path, [Track("a", Path("a.wav"), "val", segments)])
    data.kind = "frames"
    assert read_passport(data).splits["val"].per_class == pytest.approx((0.07, 0.0, 0.01))


def test_classes_that_train_lacks_are_named(tmp_path: Path) -> None:
    tracks = [toy_track("a", "train", 0), toy_track("b", "val", 0), toy_track("c", "test", 2)]
    passport = read_passport(Toy(tmp_path, tracks))
    assert passport.classes_train_lacks == ["z"]
    assert passport.classes_without("val") == ["y", "z"]


# -- what is wrong ---------------------------------------------------------------------------------


def test_files_that_cannot_be_read_are_all_named_with_reasons(tmp_path: Path) -> None:
    passport = read_passport(make_manifest(tmp_path))
    assert {item.track_id: item.reason for item in passport.unreadable} == {
        "broken.wav": "cannot be decoded (Format not recognised)",
        "silent.wav": "holds no samples",
    }
    assert passport.complaint is not None
    assert passport.complaint.startswith(
        f"2 of 12 {passport.dataset} files cannot be read: broken.wav, silent.wav. Replace them"
    )
    excluded = [f"{passport.dataset}:{name}" for name in ("broken.wav", "silent.wav")]
    assert f"'data.exclude=[{','.join(excluded)}]'" in passport.complaint
    sound = read_passport(make_manifest(tmp_path, exclude=["broken.wav", "silent.wav"]))
    assert (sound.unreadable, sound.complaint) == ((), None)


def test_missing_files_are_listed_and_no_error(tmp_path: Path) -> None:
    data = make_manifest(tmp_path, lines=["gone,rock,val,"])
    (tmp_path / "e.wav").unlink()
    passport = read_passport(data)
    assert [track.track_id for track in passport.missing] == ["e.wav", "gone.wav"]
    assert (passport.splits["val"].found, passport.listed) == (1, 13)


def test_missing_folders_and_wrong_targets_are_errors(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no gtzan data: .*/no is not a folder"):
        read_passport(GTZANGenre(tmp_path / "no", ClipRule()))
    with pytest.raises(UserError, match=r"1 toy tracks have a target that is not one of 3 classes"):
        read_passport(Toy(tmp_path, [toy_track("a", "train", 3)]))


def test_equal_files_are_found_by_their_bytes_and_those_across_splits_come_first(
    tmp_path: Path,
) -> None:
    passport = read_passport(make_manifest(tmp_path))
    found = [[(track.track_id, track.split) for track in same] for same in passport.duplicates]
    assert found == [
        [("a.wav", "train"), ("copy.wav", "test")],
        [("b.wav", "train"), ("twin.wav", "train")],
    ]


def test_files_of_one_size_with_the_same_middle_are_no_duplicates(tmp_path: Path) -> None:
    data = Toy(tmp_path, [toy_track(name, "train") for name in "abc"])
    audio = np.zeros(20000, np.float32)
    for number, name in enumerate("abc"):
        audio[0] = (number + 1) // 2 / 10
        (tmp_path / f"{name}.wav").write_bytes(wav_bytes(audio, RATE))
    assert [[track.track_id for track in same] for same in read_passport(data).duplicates] == [
        ["b", "c"]
    ]


def test_groups_in_more_than_one_split_are_leaks_the_largest_first(tmp_path: Path) -> None:
    tracks = [
        toy_track("a", "train", group="ann"),
        toy_track("b", "val", group="ann"),
        toy_track("c", "train", group="bob|cat"),
        toy_track("d", "test", group="cat"),
        toy_track("e", "test", group="cat|cat"),
        toy_track("f", "train", group="eve"),
        toy_track("g", "train", group="eve"),
        toy_track("h", "val", group=None),
    ]
    passport = read_passport(Toy(tmp_path, tracks))
    assert passport.group_leaks == {"cat": {"train": 1, "test": 2}, "ann": {"train": 1, "val": 1}}
    assert list(passport.group_leaks) == ["cat", "ann"]
    assert passport.groups["eve"] == {"train": 2}
    assert passport.grouped == {"train": 4, "val": 1, "test": 2}


# -- what can be compared --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "same"),
    [
        (lambda track: track, True),
        (lambda track: replace(track, path=Path("/elsewhere.mp3"), group="x"), True),
        (lambda track: replace(track, split="val"), False),
        (lambda track: replace(track, track_id="c"), False),
        (lambda track: replace(track, target=2), False),
        (lambda track: replace(track, target=(0.1 + 0.2, -1e-17)), False),
    ],
)
def test_the_list_hash_tells_other_lists_apart(
    change: Callable[[Track], Track], same: bool
) -> None:
    tracks = [toy_track("a", "train", 1), toy_track("b", "test", 0)]
    assert (hash_list([tracks[1], change(tracks[0])]) == hash_list(tracks)) == same


def test_the_list_hash_does_not_see_rounding() -> None:
    exact = Track("a", Path("a"), "train", (0.3, 0.0))
    rounded = Track("a", Path("a"), "train", (0.1 + 0.2, -1e-17))
    assert hash_list([exact]) == hash_list([rounded])


def test_the_list_hash_sees_segments() -> None:
    one = Track("a", Path("a"), "train", (Segment(0.0, math.inf, 1),))
    other = Track("a", Path("a"), "train", (Segment(0.0, 2.0, 1),))
    assert hash_list([one]) != hash_list([other])


def test_progress_ends_with_all_files(tmp_path: Path) -> None:
    steps: list[tuple[int, int]] = []
    read_passport(make_manifest(tmp_path), lambda done, total: steps.append((done, total)))
    assert steps[0] == (12, 12)  # headers; then files that share their size are hashed
    assert steps[-1][0] == steps[-1][1] > 12


# -- known bad files, and groups, of each dataset --------------------------------------------------


@pytest.fixture(scope="module")
def gtzan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The 930 clips of the split, of a hundredth of a second."""
    root = tmp_path_factory.mktemp("gtzan")
    for seed, name in enumerate(read_split()):
        write_wav(root / "genres" / name.split(".")[0] / f"{name}.wav", seed, 0.01)
    return root


def test_gtzan_is_complete_where_jazz_54_is_sound(gtzan: Path) -> None:
    passport = read_passport(GTZANGenre(gtzan, ClipRule()))
    assert [(facts.found, facts.expected) for facts in passport.splits.values()] == [
        (443, 443),
        (197, 197),
        (290, 290),
    ]
    assert passport.left_out == passport.unreadable == passport.duplicates == ()
    assert passport.groups == {}
    assert passport.splits["train"].per_class == (46, 48, 45, 42, 47, 43, 44, 41, 43, 44)


def test_gtzan_leaves_jazz_54_out_where_it_cannot_be_read(gtzan: Path) -> None:
    path = gtzan / "genres/jazz/jazz.00054.wav"
    sound = path.read_bytes()
    try:
        path.write_bytes(b"not audio")
        passport = read_passport(GTZANGenre(gtzan, ClipRule()))
    finally:
        path.write_bytes(sound)
    assert (passport.splits["train"].found, passport.splits["train"].expected) == (442, 443)
    assert [(item.name, item.listed) for item in passport.left_out] == [
        ("jazz.00054", "2026-11-24")
    ]
    assert passport.unreadable == ()


def test_emomusic_groups_are_artists(tmp_path: Path) -> None:
    (tmp_path / "songs_info.csv").write_text(
        "song_id,Artist,Mediaeval 2013 set\n2, Tom  WAITS "
        ",development\n3,Ella,development\n4,,evaluation\n"
    )
    (tmp_path / "static_annotations.csv").write_text(
        "song_id,mean_arousal,mean_valence\n2,3,4\n3,5,6\n4,2,2\n"
    )
    groups = {
        track.track_id: track.group for track in EmoMusicEmotion(tmp_path, ClipRule()).read_tracks()
    }
    assert groups == {"2": "tom waits", "3": "ella", "4": None}


def test_giantsteps_groups_are_all_artists_and_unknown_for_test(tmp_path: Path) -> None:
    keys = tmp_path / "giantsteps-key-dataset" / "annotations" / "key"
    keys.mkdir(parents=True)
    (keys / "1.LOFI.key").write_text("C major")
    mtg = tmp_path / "giantsteps-mtg-key-dataset" / "annotations"
    mtg.mkdir(parents=True)
    (mtg / "beatport_metadata.txt").write_text("ID\tARTIST\n2\tAnn, Bob\n3\tAnn\n")
    (mtg / "annotations.txt").write_text("ID\tMANUAL KEY\tC\n2\tC major\t2\n3\tD minor\t2\n")
    groups = {
        track.track_id: track.group for track in GiantStepsKey(tmp_path, ClipRule()).read_tracks()
    }
    assert groups == {"1": None, "2": "Ann|Bob", "3": "Ann"}


def test_vocalset_groups_are_singers_for_the_technique_task_only(tmp_path: Path) -> None:
    for singer in SINGER_FOLDERS:
        for name in "abc":
            path = tmp_path / "FULL" / singer / "scales" / "belt" / f"{name}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    techniques = VocalSetTechnique(tmp_path, ClipRule(), ["missing"])
    singers = VocalSetSinger(tmp_path, ClipRule(), ["missing"])
    assert all(track.group == track.track_id.split("/")[0] for track in techniques.read_tracks())
    assert {track.group for track in singers.read_tracks()} == {None}
    assert techniques.left_out() == singers.left_out()
    assert {item.reason for item in singers.left_out()} == {"same bytes as the file without (1)"}


def test_nsynth_groups_are_instruments(tmp_path: Path) -> None:
    for folder in ("nsynth-train", "nsynth-valid", "nsynth-test"):
        (tmp_path / folder).mkdir()
        entry = {"instrument_family": 0, "instrument_str": "bass_synthetic_009"}
        (tmp_path / folder / "examples.json").write_text(json.dumps({f"{folder}-note": entry}))
    assert {track.group for track in NSynthInstrument(tmp_path, ClipRule()).read_tracks()} == {
        "bass_synthetic_009"
    }


def test_magnatagatune_groups_are_artists_and_corrupt_clips_are_left_out(tmp_path: Path) -> None:
    zeros = "\t0" * len(TAGS)
    header = "\t".join(("clip_id", "mp3_path", *TAGS))
    row = f"7\tf/some_one-an_album-01-title-0-29.mp3{zeros}"
    (tmp_path / "annotations_final.csv").write_text(f"{header}\n{row}\n")
    data = MagnaTagATuneTags(tmp_path, ClipRule())
    assert [track.group for track in data.read_tracks()] == ["some_one"]
    assert [item.name for item in data.left_out()] == ["35644", "55753", "57881"]


def test_musictaste_groups_are_artists_where_they_are_known(tmp_path: Path) -> None:
    (tmp_path / "ratings.csv").write_text(
        "track,rater,mpc,rd,sqc,artist\na,1,1,1,1,Ann\nb,1,1,1,1,\n"
    )
    assert {
        track.track_id: track.group for track in MusicTasteRap(tmp_path, ClipRule()).read_tracks()
    } == {"a": "ann", "b": None}


def test_manifest_groups_are_those_of_the_table(tmp_path: Path) -> None:
    groups = {track.track_id: track.group for track in make_manifest(tmp_path).read_tracks()}
    assert (groups["a.wav"], groups["d.wav"], groups["c.wav"]) == ("ann", "bob", None)
