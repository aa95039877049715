"""GTZAN: the fault-filtered split, its layouts, and the one file that is broken in most copies."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile
from feeding import items_of, track_of
from torchaudio.datasets import gtzan as torchaudio_gtzan

from datamodules.audio.clips import ClipRule
from datamodules.datasets.gtzan import GENRES, GTZANGenre, read_split
from datamodules.errors import UserError
from datamodules.tracks import SPLITS, UnusableFile

PER_CLASS = {  # train, val, test: facts/tasks 1.2
    "blues": (46, 23, 31),
    "classical": (48, 20, 31),
    "country": (45, 23, 30),
    "disco": (42, 22, 29),
    "hiphop": (47, 18, 27),
    "jazz": (43, 17, 27),
    "metal": (44, 20, 27),
    "pop": (41, 13, 30),
    "reggae": (43, 17, 26),
    "rock": (44, 24, 32),
}


def make_tree(root: Path, folder: str = "genres", suffix: str = ".wav") -> Path:
    """All 1000 files, empty but for the one that listing opens."""
    for genre in PER_CLASS:
        where = root / folder / genre
        where.mkdir(parents=True)
        for number in range(100):
            (where / f"{genre}.{number:05d}{suffix}").touch()
    opened = root / folder / "jazz" / f"jazz.00054{suffix}"
    soundfile.write(opened, np.zeros(100), 22050, subtype="PCM_16")
    return root


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tree(tmp_path_factory.mktemp("gtzan"))


# -- the split -------------------------------------------------------------------------------------


def test_split_sizes_are_those_of_the_fault_filtered_list() -> None:
    assert Counter(read_split().values()) == {"train": 443, "val": 197, "test": 290}
    assert GTZANGenre.expected == {"train": 443, "val": 197, "test": 290}


@pytest.mark.parametrize("genre", PER_CLASS)
def test_split_sizes_per_class_are_golden(genre: str) -> None:
    counts = Counter(split for name, split in read_split().items() if name.startswith(f"{genre}."))
    assert tuple(counts[split] for split in SPLITS) == PER_CLASS[genre]


def test_split_equals_the_lists_that_torchaudio_carries() -> None:
    """An independent copy of the same lists (BSD-2)."""
    lists = {
        "train": torchaudio_gtzan.filtered_train,
        "val": torchaudio_gtzan.filtered_valid,
        "test": torchaudio_gtzan.filtered_test,
    }
    assert read_split() == {name: split for split, names in lists.items() for name in names}


def test_the_corrupt_file_is_in_train_and_classical_42_is_unused() -> None:
    split = read_split()
    assert split["jazz.00054"] == "train"
    assert "classical.00042" not in split


# -- layouts ---------------------------------------------------------------------------------------


def test_classes_are_in_marbles_order() -> None:
    order = "blues classical country disco hiphop jazz metal pop reggae rock"
    assert " ".join(GENRES) == " ".join(GTZANGenre.classes) == order


def test_every_listed_clip_is_a_track_with_its_genre_and_file(root: Path) -> None:
    tracks = GTZANGenre(root, ClipRule()).tracks()
    assert len(tracks) == 930
    assert {track.track_id: track.split for track in tracks} == read_split()
    for track in tracks:
        genre, number = track.track_id.split(".")
        assert GENRES[track.target] == genre
        assert track.path == root / "genres" / genre / f"{genre}.{number}.wav"


@pytest.mark.parametrize(
    ("folder", "suffix"),
    [
        ("Data/genres_original", ".wav"),
        (".", ".wav"),
        ("genres", ".au"),
        ("Data/genres_original", ".au"),
    ],
)
def test_other_copies_have_the_same_tracks_in_other_places(
    tmp_path: Path, folder: str, suffix: str
) -> None:
    make_tree(tmp_path, folder, suffix)
    tracks = GTZANGenre(tmp_path, ClipRule()).tracks()
    assert {track.track_id: track.split for track in tracks} == read_split()
    assert all(track.path.is_file() and track.path.suffix == suffix for track in tracks)


def test_au_and_wav_may_be_mixed(tmp_path: Path) -> None:
    make_tree(tmp_path)
    (tmp_path / "genres/blues/blues.00029.wav").rename(tmp_path / "genres/blues/blues.00029.au")
    paths = {track.track_id: track.path.name for track in GTZANGenre(tmp_path, ClipRule()).tracks()}
    assert (paths["blues.00029"], paths["blues.00030"]) == ("blues.00029.au", "blues.00030.wav")


def test_apple_double_files_and_other_junk_are_no_tracks(tmp_path: Path) -> None:
    make_tree(tmp_path)
    (tmp_path / "genres/blues/._blues.00012.wav").write_bytes(b"\x00\x05\x16\x07" + bytes(207))
    (tmp_path / "genres/.DS_Store").touch()
    (tmp_path / "genres/blues/blues.00100.wav").touch()
    (tmp_path / "genres/._blues").touch()
    assert {track.track_id for track in GTZANGenre(tmp_path, ClipRule()).tracks()} == set(
        read_split()
    )


def test_an_apple_double_file_is_not_taken_for_the_clip_beside_which_it_lies(
    tmp_path: Path,
) -> None:
    make_tree(tmp_path)
    (tmp_path / "genres/blues/blues.00012.wav").rename(tmp_path / "genres/blues/._blues.00012.wav")
    with pytest.raises(UserError, match=r"1 of 930 gtzan tracks have no audio .*blues\.00012\.wav"):
        GTZANGenre(tmp_path, ClipRule()).tracks()


# -- what is missing or broken ---------------------------------------------------------------------


def test_a_folder_without_genres_says_where_to_unpack(tmp_path: Path) -> None:
    (tmp_path / "music").mkdir()
    with pytest.raises(
        UserError,
        match=r"no GTZAN audio: .* has no genres/blues folder\. Unpack genres\.tar\.gz into",
    ):
        GTZANGenre(tmp_path, ClipRule()).tracks()


def test_missing_clips_are_counted_and_the_first_is_named(tmp_path: Path) -> None:
    make_tree(tmp_path)
    in_no_split = "classical/classical.00042"
    for name in ("rock/rock.00099", "blues/blues.00012", in_no_split):
        (tmp_path / "genres" / f"{name}.wav").unlink()
    with pytest.raises(
        UserError,
        match=r"2 of 930 gtzan tracks have no audio under .* \(first: .*blues\.00012\.wav\)",
    ):
        GTZANGenre(tmp_path, ClipRule()).tracks()


def test_the_corrupt_file_can_be_left_out_which_makes_442(root: Path) -> None:
    tracks = GTZANGenre(root, ClipRule(), exclude=["jazz.00054"]).tracks()
    assert Counter(track.split for track in tracks) == {"train": 442, "val": 197, "test": 290}


@pytest.mark.parametrize("exclude", [[], ["jazz.00054"], ["gtzan:jazz.00054"]])
def test_the_one_known_bad_file_is_left_out_where_it_cannot_be_read(
    tmp_path: Path, exclude: list[str]
) -> None:
    make_tree(tmp_path)
    (tmp_path / "genres/jazz/jazz.00054.wav").write_bytes(b"RIFF\x24\x08")
    (tmp_path / "genres/jazz/jazz.00055.wav").write_bytes(b"RIFF\x24\x08")  # not on the list
    data = GTZANGenre(tmp_path, ClipRule(), exclude=exclude)
    assert {track.track_id for track in data.tracks()} == set(read_split()) - {"jazz.00054"}
    assert [item.name for item in data.left_out()] == ["jazz.00054"]
    assert data.expected["train"] == 443


def test_the_one_known_bad_file_is_a_track_where_it_is_sound_and_missed_where_it_is_gone(
    root: Path, tmp_path: Path
) -> None:
    assert GTZANGenre(root, ClipRule()).left_out() == []
    make_tree(tmp_path)
    (tmp_path / "genres/jazz/jazz.00054.wav").unlink()
    with pytest.raises(UserError, match=r"1 of 930 gtzan tracks have no audio .*jazz\.00054\.wav"):
        GTZANGenre(tmp_path, ClipRule()).tracks()


def test_an_unused_clip_cannot_be_left_out_because_it_is_no_track(root: Path) -> None:
    with pytest.raises(UserError, match=r"gtzan does not have \(first: classical\.00042\)"):
        GTZANGenre(root, ClipRule(), exclude=["classical.00042"]).tracks()


def test_a_corrupt_header_is_reported_and_au_files_are_decoded(tmp_path: Path) -> None:
    make_tree(tmp_path)
    (tmp_path / "demo.json").touch()  # a demo may be a part of the list: three clips are enough
    wanted = {"blues.00029": ".au", "blues.00000": ".wav", "rock.00010": ".wav"}
    for track in GTZANGenre(tmp_path, ClipRule()).tracks():
        track.path.unlink()
        if track.track_id in wanted:
            samples = np.full(2205, 0.25, np.float32)
            soundfile.write(
                track.path.with_suffix(wanted[track.track_id]), samples, 22050, subtype="PCM_16"
            )
    (tmp_path / "genres/jazz/jazz.00055.wav").write_bytes(b"RIFF\x24\x08")
    data = GTZANGenre(tmp_path, ClipRule())
    items = {track_of(item): item for item in items_of(data, 22050)}
    assert set(items) == {*wanted, "jazz.00055"}
    for name in wanted:
        item = items.pop(name)
        assert not isinstance(item, UnusableFile)
        np.testing.assert_array_equal(item.audio, np.full(2205, 0.25, np.float32))
    broken = items["jazz.00055"]
    assert isinstance(broken, UnusableFile)
    assert "cannot be decoded" in broken.reason
