"""VocalSet: labels from folders, the known flaws of the distribution, and who is in which split."""

import hashlib
import shutil
from collections import Counter
from fnmatch import fnmatchcase
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml
from feeding import items_of, track_of

from datamodules.audio.clips import ClipRule
from datamodules.datasets import vocalset
from datamodules.datasets.vocalset import (
    KEPT_PROBLEMS,
    VocalSetSinger,
    VocalSetTechnique,
    deal,
    technique_split,
)
from datamodules.errors import UserError
from datamodules.task import TaskDataModule
from datamodules.tracks import SPLITS, UnusableFile

CONF = Path(__file__).parents[3] / "conf" / "task"
FOLDERS = {
    **{f"f{n}": f"female{n}" for n in range(1, 10)},
    **{f"m{n}": f"male{n}" for n in range(1, 12)},
}
TEN = [
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
]
SEVEN = ["fast_forte", "fast_piano", "forte", "messa", "pp", "slow_forte", "slow_piano"]
VAL = ["f1", "f4", "f9", "m1", "m8", "m9"]
TEST = ["f2", "f8", "m3", "m5", "m10"]

ODD = {  # file, singer, technique: facts/tasks 4.2 and 13
    "female1/arpeggios/belt/f1_arpeggios_belt_a": ("f1", "belt"),
    "male10/scales/trill/m10_scales_trill_e": ("m10", "trill"),
    "male11/excerpts/spoken/m11_row_spoken": ("m11", "spoken"),
    "male1/scales/straight/m1_straight_tone_scales_u": ("m1", "straight"),
    "female2/arpeggios/vibrado/f2_arpeggios_vibrato_a": ("f2", "vibrato"),
    "female2/arpeggios/vibrado/slow_vibrato_arps": ("f2", "vibrato"),
    "male8/excerpts/vibrato/m9_caro_vibrato": ("m8", "vibrato"),
    "male9/excerpts/vibrato/m9_caro_vibrato": ("m9", "vibrato"),
    "male10/excerpts/vibrato/caro_vibrato": ("m10", "vibrato"),
    "male8/excerpts/straight/row_straight": ("m8", "straight"),
    "female4/scales/straight/scales_straight_a": ("f4", "straight"),
    "male3/scales/lip_trill/scales_lip_trill": ("m3", "lip_trill"),
    "female2/scales/vocal_fry/scales_vocal_fry": ("f2", "vocal_fry"),
    "female7/long_tones/trillo/f7_ long_trillo_a": ("f7", "trillo"),
    "female2/scales/vibrato/f2_scales_vibrato_a": ("f2", "vibrato"),
}
ODD_OTHER = {
    "female9/arpeggios/fast_forte/arps_fast_piano_c": ("f9", "fast_forte"),
    "male10/scales/fast_piano/scales_c_fast_piano_a": ("m10", "fast_piano"),
    "female1/long_tones/pp/f1_long_pp_a": ("f1", "pp"),
}
DUPLICATES = [
    "female2/scales/slow_piano/f2_scales_f_slow_piano_u",
    "female2/scales/straight/f2_scales_straight_u",
    "female2/scales/vibrato/f2_scales_vibrato_a",
]
REGULAR = {
    f"{folder}/scales/{technique}/{singer}_scales_{technique}_{vowel}"
    for singer, folder in FOLDERS.items()
    for technique in (*TEN, *SEVEN)
    for vowel in "aiu"
}


def make_tree(root: Path, folder: str = "FULL") -> Path:
    """Each singer with each technique, the odd files, and the two lists.

    Files are empty, for listing opens no audio.
    """
    doubles = {f"{track_id}(1)" for track_id in DUPLICATES}
    for track_id in {*REGULAR, *ODD, *ODD_OTHER, *DUPLICATES, *doubles}:
        path = root / folder / f"{track_id}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    lists = {"test": TEST, "train": [singer for singer in FOLDERS if singer not in TEST]}
    for split, singers in lists.items():
        text = "\n".join(FOLDERS[singer] for singer in singers)
        (root / folder).parent.joinpath(f"{split}_singers_technique.txt").write_text(text)
    return root


@pytest.fixture(scope="module")
def n_recordings(root: Path) -> int:
    """Of the tree below, which stands for a complete copy."""
    return len({*REGULAR, *ODD, *ODD_OTHER, *DUPLICATES})


@pytest.fixture(autouse=True)
def complete(monkeypatch: pytest.MonkeyPatch, n_recordings: int) -> None:
    monkeypatch.setattr(vocalset, "N_RECORDINGS", n_recordings)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tree(tmp_path_factory.mktemp("vocalset"))


@pytest.fixture
def own_root(root: Path, tmp_path: Path) -> Path:
    """A tree that a test may change."""
    return Path(shutil.copytree(root, tmp_path / "VocalSet"))


def singers(root: Path) -> dict[str, str]:
    return {
        track.track_id: VocalSetSinger.classes[track.target]
        for track in VocalSetSinger(root, ClipRule()).tracks()
    }


def techniques(root: Path) -> dict[str, str]:
    return {
        track.track_id: VocalSetTechnique.classes[track.target]
        for track in VocalSetTechnique(root, ClipRule()).tracks()
    }


def splits(data: type[TaskDataModule], root: Path) -> dict[str, str]:
    return {track.track_id: track.split for track in data(root, ClipRule()).tracks()}


def singer_of(track_id: str) -> str:
    return next(
        singer for singer, folder in FOLDERS.items() if track_id.split("/", maxsplit=1)[0] == folder
    )


# -- labels ----------------------------------------------------------------------------------------


def test_classes_are_in_marbles_order() -> None:
    assert VocalSetSinger.classes == tuple(FOLDERS)
    assert VocalSetTechnique.classes == tuple(TEN)


def test_every_recording_has_the_singer_of_its_folder(root: Path) -> None:
    found = singers(root)
    assert set(found) == REGULAR | set(ODD) | set(ODD_OTHER) | set(DUPLICATES)
    assert found == {track_id: singer_of(track_id) for track_id in found}


def test_only_the_ten_techniques_are_tracks_of_the_technique_task(root: Path) -> None:
    found = techniques(root)
    assert set(found.values()) == set(TEN)
    assert not any(f"/{technique}/" in track_id for track_id in found for technique in SEVEN)
    assert len(found) == len(
        [track_id for track_id in singers(root) if track_id.split("/")[2] not in SEVEN]
    )


@pytest.mark.parametrize("track_id", [*ODD, *ODD_OTHER])
def test_odd_names_and_folders_have_the_right_labels(root: Path, track_id: str) -> None:
    singer, technique = {**ODD, **ODD_OTHER}[track_id]
    assert singers(root)[track_id] == singer
    assert techniques(root).get(track_id) == (technique if technique in TEN else None)


def test_trills_are_told_apart(root: Path) -> None:
    found = techniques(root)
    for technique in ("lip_trill", "trill", "trillo"):
        assert found[f"male11/scales/{technique}/m11_scales_{technique}_a"] == technique


def test_duplicates_are_dropped_and_listed_with_the_reason(root: Path) -> None:
    for task in (VocalSetSinger, VocalSetTechnique):
        assert {bad.name: bad.reason for bad in task.known_bad} == {
            f"{track_id}(1)": "same bytes as the file without (1)" for track_id in DUPLICATES
        }
    assert not [track_id for track_id in singers(root) if "(1)" in track_id]
    assert set(DUPLICATES) <= set(singers(root))


def kept_problem(track_id: str) -> str | None:
    matching = (pattern for pattern in KEPT_PROBLEMS if fnmatchcase(track_id, pattern))
    return KEPT_PROBLEMS.get(next(matching, ""))


def test_kept_flaws_are_found_by_track_and_regular_names_have_none() -> None:
    assert kept_problem("female4/scales/straight/scales_straight_a") == "ten names lack the singer"
    assert not [track_id for track_id in REGULAR if kept_problem(track_id)]
    fine = {
        "female1/arpeggios/belt/f1_arpeggios_belt_a",
        "male10/scales/trill/m10_scales_trill_e",
        *DUPLICATES,
    }
    fine |= {"male11/excerpts/spoken/m11_row_spoken", "male9/excerpts/vibrato/m9_caro_vibrato"}
    fine |= {"female7/long_tones/trillo/f7_ long_trillo_a", "female1/long_tones/pp/f1_long_pp_a"}
    for track_id in {*ODD, *ODD_OTHER} - fine:
        assert kept_problem(track_id), track_id
    assert not [track_id for track_id in fine if kept_problem(track_id)]
    assert not [bad.name for bad in VocalSetSinger.known_bad if kept_problem(bad.name)]
    assert kept_problem("male10/excerpts/vibrato/m10_caro_vibrato") is None


# -- layouts ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "folder", ["data_by_singer", "VocalSet1-2/data_by_singer", "VocalSet11/FULL"]
)
def test_version_1_2_has_the_same_tracks_and_splits_in_other_places(
    root: Path, tmp_path: Path, folder: str
) -> None:
    make_tree(tmp_path, folder)
    again = tmp_path / folder / "../data_by_technique/belt/f1_arpeggios_belt_a.wav"
    again.parent.mkdir(parents=True)
    again.touch()
    assert singers(tmp_path) == singers(root)
    assert techniques(tmp_path) == techniques(root)
    for data in (VocalSetSinger, VocalSetTechnique):
        assert splits(data, tmp_path) == splits(data, root)


def test_paths_are_the_files(root: Path) -> None:
    for track in VocalSetSinger(root, ClipRule()).tracks():
        assert track.path == root / "FULL" / f"{track.track_id}.wav"


def test_junk_is_ignored(own_root: Path) -> None:
    before = singers(own_root)
    for name in (
        "__MACOSX/FULL/female1/scales/belt/._f1_scales_belt_a.wav",
        "__MACOSX/._x.wav",
        "FULL/__MACOSX/a/b/x.wav",
        "FULL/female1/scales/belt/._f1_scales_belt_a.wav",
        "FULL/.DS_Store",
        "FULL/female1/scales/belt/.DS_Store",
        "FULL/female1/scales/._belt",
        "FULL/._female1",
        "readme-anon.txt",
        "FULL/female1/notes.txt",
        "FULL/female1/scales/f1_too_high.wav",
        "FULL/female1/scales/belt/deeper/f1_too_deep.wav",
        "FULL/x.wav",
    ):
        (own_root / name).parent.mkdir(parents=True, exist_ok=True)
        (own_root / name).write_bytes(b"\x00\x05\x16\x07")
    assert singers(own_root) == before


# -- splits: technique -----------------------------------------------------------------------------


def test_technique_splits_are_nine_six_and_the_datasets_own_five_singers(root: Path) -> None:
    by_split = {split: set[str]() for split in SPLITS}
    for track_id, split in splits(VocalSetTechnique, root).items():
        by_split[split].add(singer_of(track_id))
    assert by_split["test"] == set(TEST)
    assert by_split["val"] == set(VAL)
    assert by_split["train"] == set(FOLDERS) - set(TEST) - set(VAL)
    assert len(by_split["train"]) == 9


def test_val_singers_are_the_first_three_of_each_sex_by_seeded_hash() -> None:
    def place(folder: str) -> str:
        return hashlib.sha1(f"42617:{folder}".encode()).hexdigest()

    split = technique_split()
    for sex in ("female", "male"):
        ordered = sorted(
            (name for name in split if name.startswith(sex) and split[name] != "test"), key=place
        )
        assert [split[name] for name in ordered] == ["val"] * 3 + ["train"] * (len(ordered) - 3)


def test_test_singer_m10_is_not_taken_for_m1(root: Path) -> None:
    split = splits(VocalSetTechnique, root)
    assert split["male10/scales/trill/m10_scales_trill_e"] == "test"
    assert split["male1/scales/straight/m1_straight_tone_scales_u"] == "val"
    assert split["male11/excerpts/spoken/m11_row_spoken"] == "train"


@pytest.mark.parametrize("data", [VocalSetSinger, VocalSetTechnique])
def test_every_class_is_in_every_split(root: Path, data: type[TaskDataModule]) -> None:
    found = {(track.split, track.target) for track in data(root, ClipRule()).tracks()}
    assert found == {(split, target) for split in SPLITS for target in range(len(data.classes))}


def test_the_list_may_be_absent_or_written_otherwise(own_root: Path) -> None:
    before = splits(VocalSetTechnique, own_root)
    path = own_root / "test_singers_technique.txt"
    path.write_bytes(b"\r\n male10 \r\nfemale8\r\nmale3\r\nmale5\r\nfemale2\r\n\r\n")
    assert splits(VocalSetTechnique, own_root) == before
    path.unlink()
    assert splits(VocalSetTechnique, own_root) == before


def test_another_list_of_test_singers_is_an_error_for_technique_only(own_root: Path) -> None:
    (own_root / "test_singers_technique.txt").write_text("female2\nmale1\n")
    with pytest.raises(
        UserError,
        match=(
            r"test_singers_technique\.txt lists female2, male1, "
            r"but VocalSet's test singers are female2, .* unpack"
        ),
    ):
        VocalSetTechnique(own_root, ClipRule()).tracks()
    assert VocalSetSinger(own_root, ClipRule()).tracks()


# -- splits: singer --------------------------------------------------------------------------------


def test_each_singer_is_dealt_twelve_eight_five(root: Path) -> None:
    counts: dict[str, Counter[str]] = {singer: Counter() for singer in FOLDERS}
    for track_id, split in splits(VocalSetSinger, root).items():
        counts[singer_of(track_id)][split] += 1
    for found in counts.values():
        total = found.total()
        assert (found["test"], found["val"]) == (round(total / 5), round(total * 8 / 25))


def test_deal_goes_by_the_hash_of_the_id_and_not_by_order() -> None:
    ids = [f"male1/scales/belt/m1_{number}" for number in range(25)]
    split = deal(ids)
    ordered = sorted(ids, key=lambda name: hashlib.sha1(name.encode()).hexdigest())
    assert [split[name] for name in ordered] == ["test"] * 5 + ["val"] * 8 + ["train"] * 12
    assert deal(ids[::-1]) == split


def test_splits_do_not_depend_on_what_is_excluded(root: Path) -> None:
    everything = splits(VocalSetSinger, root)
    gone = sorted(everything)[5:200:7]
    rest = {
        track.track_id: track.split
        for track in VocalSetSinger(root, ClipRule(), exclude=gone).tracks()
    }
    assert rest == {
        track_id: split for track_id, split in everything.items() if track_id not in gone
    }


# -- what is missing or broken ---------------------------------------------------------------------


@pytest.mark.parametrize("data", [VocalSetSinger, VocalSetTechnique])
def test_a_folder_without_singers_says_where_to_unpack(
    tmp_path: Path, data: type[TaskDataModule]
) -> None:
    with pytest.raises(
        UserError,
        match=(
            r"no VocalSet audio: .* has no folder FULL or data_by_singer\. "
            r"Unpack VocalSet11\.zip"
        ),
    ):
        data(tmp_path, ClipRule()).tracks()


def test_an_unknown_singer_is_named_with_the_known_ones(own_root: Path) -> None:
    (own_root / "FULL/female10").mkdir()
    with pytest.raises(
        UserError,
        match=(
            r"1 folders of unknown singers \(first: female10\): "
            r".* known singers are female1, .*male11"
        ),
    ):
        singers(own_root)


def test_missing_singers_are_counted(own_root: Path) -> None:
    for folder in ("male5", "female7"):
        shutil.rmtree(own_root / "FULL" / folder)
    with pytest.raises(
        UserError,
        match=r"2 of 20 VocalSet singers have no folder under .* \(first: female7\): unpack",
    ):
        techniques(own_root)


def test_an_unknown_technique_is_named_with_the_known_ones(own_root: Path) -> None:
    (own_root / "FULL/male2/scales/belt").rename(own_root / "FULL/male2/scales/bel")
    with pytest.raises(
        UserError, match=r"unknown techniques \(first: bel\): rename .* are belt, .* slow_piano"
    ):
        techniques(own_root)


def test_a_singer_with_too_few_recordings_for_three_splits_is_named(own_root: Path) -> None:
    files = sorted((own_root / "FULL/male4").rglob("*.wav"))
    for path in files[2:]:
        path.unlink()
    with pytest.raises(
        UserError,
        match=r"1 VocalSet singers have fewer than 3 recordings under .* \(first: male4 has 2\)",
    ):
        VocalSetSinger(own_root, ClipRule(), ["missing"]).tracks()


@pytest.mark.parametrize("data", [VocalSetSinger, VocalSetTechnique])
def test_half_a_download_is_refused_or_shown_as_half(
    own_root: Path, n_recordings: int, data: type[TaskDataModule]
) -> None:
    """No list says which recordings there should be, but how many there are is published."""
    whole = data(own_root, ClipRule())
    counts = Counter(track.split for track in whole.tracks())
    assert whole.expected == counts

    files = sorted((own_root / "FULL").rglob("*.wav"))
    for path in files[::2]:
        path.unlink()
    pattern = (
        rf"of {n_recordings} VocalSet recordings are not under .*VocalSet: unpack the archive "
        r"again, or go on without them with 'data\.exclude=\[vocalset:missing\]'"
    )
    with pytest.raises(UserError, match=pattern):
        data(own_root, ClipRule()).tracks()

    half = data(own_root, ClipRule(), ["vocalset:missing"])
    for split, n in Counter(track.split for track in half.tracks()).items():
        assert half.expected[split] == pytest.approx(2 * n, rel=0.02)
        assert half.expected[split] == pytest.approx(counts[split], rel=0.1)


def test_the_number_of_recordings_is_the_published_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert vocalset.N_RECORDINGS + len(vocalset.DOUBLES) == 3613


def test_suffixes_in_capitals_are_the_same_recordings(own_root: Path) -> None:
    before = splits(VocalSetSinger, own_root)
    for path in sorted((own_root / "FULL/female1").rglob("*.wav")):
        path.rename(path.with_suffix(".WAV"))
    assert splits(VocalSetSinger, own_root) == before


# -- audio -----------------------------------------------------------------------------------------


def settings(task: str) -> ClipRule:
    return ClipRule(**yaml.safe_load((CONF / f"{task}.yaml").read_text())["clip"])


def test_a_clip_is_132000_samples_at_44100_hz() -> None:
    for task in ("vocalset_singer", "vocalset_technique"):
        assert (settings(task).seconds or 0) * 44100 == pytest.approx(132000, abs=1e-6)


@pytest.mark.parametrize(
    ("data", "task", "lengths"),
    [
        (
            VocalSetSinger,
            "vocalset_singer",
            {"short": [2.5], "one": [2.993], "long": [2.993, 2.993, 1.414]},
        ),
        (
            VocalSetTechnique,
            "vocalset_technique",
            {"short": [2.5], "one": [2.993], "long": [2.993, 2.993]},
        ),
    ],
)
def test_recordings_are_cut_as_in_the_settings(
    own_root: Path, data: type[TaskDataModule], task: str, lengths: dict[str, list[float]]
) -> None:
    """Short ones are one clip, stereo and other rates are read, what is unreadable is reported."""
    folder = own_root / "FULL/male2/scales/belt"
    soundfile.write(folder / "short.wav", np.zeros(110250), 44100)
    soundfile.write(folder / "one.wav", np.zeros((66150, 2)), 22050)
    soundfile.write(folder / "long.wav", np.zeros(355200), 48000)
    module = data(own_root, settings(task))
    items = items_of(module)
    clips = [item for item in items if not isinstance(item, UnusableFile)]
    found = {
        name: [len(clip.audio) / 16000 for clip in clips if track_of(clip).endswith(f"/{name}")]
        for name in lengths
    }
    assert found == {name: pytest.approx(seconds, abs=1e-3) for name, seconds in lengths.items()}
    assert all(
        first.place.index < second.place.index
        for first, second in pairwise(clips)
        if track_of(first) == track_of(second)
    )
    broken = [item for item in items if isinstance(item, UnusableFile)]
    assert {problem.reason for problem in broken} == {"is empty (0 bytes)"}
    assert len(broken) + 3 == len(module.tracks())
