"""What holds for every task of conf/task, whatever users' folders really contain.

It is tried on small trees in the real layouts. They have the demo's labels and paths, and short
noise for audio; nothing marks them as a demo.
"""

import re
import shlex
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from feeding import items_of, track_of

from datamodules.audio.clips import Clip
from datamodules.audio.decode import wav_bytes
from datamodules.datasets import vocalset
from datamodules.datasets.gtzan import read_split
from datamodules.demo import build
from datamodules.errors import UserError
from datamodules.task import TaskDataModule
from datamodules.tracks import MARKER, SPLITS, Segment, Track, UnusableFile
from mirprobe.assembly import make_data
from mirprobe.cell import Cell
from mirprobe.settings import compose_cell, known

RATE = 8000
TASKS = tuple(name for name in known("task") if name != "manifest")  # whose tables are one's own
SECONDS = 1.0


def noise(seconds: float = SECONDS, rate: int = RATE) -> bytes:
    audio = 0.1 * np.random.default_rng(0).standard_normal(round(seconds * rate))
    return wav_bytes(audio.astype(np.float32), rate)


def write(folder: Path, files: Mapping[str, str | bytes]) -> None:
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content.encode() if isinstance(content, str) else content)


@pytest.fixture(scope="module")
def trees(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All datasets, small and whole."""
    root, content = tmp_path_factory.mktemp("trees"), noise()
    for name in build.DATASETS:
        folder = build.dataset_root(root, name)
        recipe = build._DATASETS[name].recipe(0.4)
        paths = [item.path for item in recipe.items]
        if name == "gtzan":  # its list is fixed
            paths = [f"genres/{track.split('.')[0]}/{track}.wav" for track in read_split()]
        write(folder, dict.fromkeys(paths, content))
        write(folder, recipe.labels(folder))
    return root


@pytest.fixture(params=TASKS)
def task(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def root(trees: Path, task: str, tmp_path: Path) -> Path:
    """A copy of the task's tree that a test may damage."""
    folder = cell(task).task.folder
    shutil.copytree(trees / folder, tmp_path / folder)
    return tmp_path


@cache
def cell(task: str) -> Cell:
    return compose_cell([f"task={task}"])


@pytest.fixture(autouse=True)
def complete(trees: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tree of VocalSet has as many recordings as a complete copy, which has no other list."""
    n_recordings = sum(1 for _ in (trees / "VocalSet").rglob("*.wav"))
    monkeypatch.setattr(vocalset, "N_RECORDINGS", n_recordings)


def data(
    root: Path, task: str, without: Sequence[Track] = (), exclude: Sequence[str] = ()
) -> TaskDataModule:
    settings = cell(task)
    folders = replace(settings.data, root=str(root), exclude=[*names(without), *exclude])
    return make_data(replace(settings, data=folders))


def names(tracks: Sequence[Track]) -> list[str]:
    return [track.track_id for track in tracks]


def clips(found: TaskDataModule) -> Mapping[str, list[Clip | UnusableFile]]:
    """What a task decodes, by track."""
    by_track: dict[str, list[Clip | UnusableFile]] = {}
    for item in items_of(found, RATE):
        by_track.setdefault(track_of(item), []).append(item)
    return by_track


def lengths(items: Sequence[Clip | UnusableFile]) -> list[int]:
    return [len(item.audio) for item in items if isinstance(item, Clip)]


def test_tracks_have_unique_ids_a_split_and_a_target_and_all_are_decoded(
    trees: Path, task: str
) -> None:
    found = data(trees, task)
    tracks = found.tracks()
    assert len(set(names(tracks))) == len(tracks)
    assert {track.split for track in tracks} == set(SPLITS)

    decoded = clips(found)
    assert set(decoded) == set(names(tracks))
    for items in decoded.values():
        assert lengths(items) == [round(SECONDS * RATE)]


def test_junk_of_other_systems_is_not_data(root: Path, task: str) -> None:
    before = names(data(root, task).tracks())
    for path in [path for path in root.rglob("*") if path.is_file()]:
        path.with_name(f"._{path.name}").write_bytes(bytes(211))  # AppleDouble

    folder = root / cell(task).task.folder
    inner = [path for path in folder.iterdir() if path.is_dir()]
    for parent in (folder, *inner):
        (parent / "__MACOSX").mkdir()
        (parent / "__MACOSX" / "._x.wav").write_bytes(bytes(211))
        (parent / "Thumbs.db").write_bytes(bytes(99))
        (parent / "notes.txt").write_text("our copy, 2019")
    assert names(data(root, task).tracks()) == before


def test_a_missing_file_is_named_and_can_be_left_out(root: Path, task: str) -> None:
    tracks = data(root, task).tracks()
    gone = tracks[len(tracks) // 2]
    rest = [name for name in names(tracks) if name != gone.track_id]
    gone.path.unlink()

    message = rf"1 of {len(tracks)} .* tracks have no audio .*first: .*data\.exclude="
    without: dict[str, Sequence[Any]] = {"without": [gone]}
    if task.startswith("vocalset"):  # its folders are its list: which one is gone is not known
        message = rf"1 of {len(tracks)} VocalSet recordings are not under .*data\.exclude="
        without = {"exclude": ["vocalset:missing"]}

    with pytest.raises(UserError, match=message) as error:
        data(root, task).tracks()
    assert (
        without.get("exclude", [f"{cell(task).task.demo}:{gone.track_id}"])
        == compose_cell(
            shlex.split(re.findall(r"'data\.exclude=.*\]'", str(error.value))[0])
        ).data.exclude
    )
    assert names(data(root, task, **without).tracks()) == rest


def test_unreadable_files_are_reported_all_at_once_and_the_others_go_on(
    root: Path, task: str
) -> None:
    tracks = data(root, task).tracks()
    bad = tracks[0], tracks[len(tracks) // 2], tracks[-1]
    for track, content in zip(bad, (b"", b"not audio at all", noise()[:30]), strict=True):
        track.path.write_bytes(content)

    found = clips(data(root, task))
    reported = {name for name, items in found.items() if isinstance(items[0], UnusableFile)}
    assert reported == set(names(bad))
    assert len(found) == len(tracks)


def test_stereo_odd_rates_and_short_files_are_taken_as_they_are(root: Path, task: str) -> None:
    import soundfile

    tracks = data(root, task).tracks()
    stereo, short = tracks[0], tracks[-1]
    left = 0.1 * np.random.default_rng(1).standard_normal(round(2.0 * 11025))
    soundfile.write(stereo.path, np.stack([left, left], axis=1), 11025, format="WAV")
    short.path.write_bytes(noise(0.3))

    found = clips(data(root, task))
    assert sum(lengths(found[stereo.track_id])) == pytest.approx(2.0 * RATE, abs=2)
    assert lengths(found[short.track_id]) == [round(0.3 * RATE)]


def test_an_empty_split_is_an_error(trees: Path, task: str) -> None:
    tracks = data(trees, task).tracks()
    for split in SPLITS:
        with pytest.raises(UserError, match=f"has no tracks for {split}"):
            data(trees, task, [track for track in tracks if track.split == split]).tracks()


def test_a_class_that_train_lacks_keeps_its_place(trees: Path, task: str) -> None:
    """Classes are those of the dataset, not those that happen to be in train; and a number stays
    what it is, whoever is left out.
    """
    whole = data(trees, task)
    tracks = whole.tracks()
    train = [track for track in tracks if track.split == "train"]
    members = [track for track in train if has_class(track, lost_class(whole))]
    assert 0 < len(members) < len(train)

    rest = data(trees, task, members)
    kept = {track.track_id: track.target for track in rest.tracks()}
    assert kept == {track.track_id: track.target for track in tracks if track not in members}
    assert rest.classes == whole.classes


def lost_class(whole: TaskDataModule) -> int:
    """The first class that some tracks of train and of val have, but not all of train."""
    in_split = {
        split: [track for track in whole.tracks() if track.split == split]
        for split in ("train", "val")
    }
    for number in range(len(whole.classes)):
        n = {split: sum(has_class(one, number) for one in in_split[split]) for split in in_split}
        if 0 < n["train"] < len(in_split["train"]) and n["val"]:
            return number
    pytest.fail("the tree has no class to lose")


def has_class(track: Track, number: int) -> bool:
    """Whether a track is of a class, bears a tag, has a value above the mean or such a section."""
    if isinstance(track.target, int):
        return track.target == number
    if isinstance(track.target[0], Segment):
        return any(segment.label == number for segment in track.target)
    return track.target[number] > 0


@pytest.mark.parametrize("scale", [0.01, 0.25])
def test_the_demo_of_every_task_has_all_splits_at_any_scale(
    tmp_path: Path, task: str, scale: float
) -> None:
    settings = cell(task).task
    folder = tmp_path / settings.folder
    recipe = build._DATASETS[settings.demo or ""].recipe(scale)
    write(folder, {item.path: "" for item in recipe.items})
    write(folder, {**recipe.labels(folder), MARKER: "{}"})
    assert {track.split for track in data(tmp_path, task).tracks()} == set(SPLITS)
