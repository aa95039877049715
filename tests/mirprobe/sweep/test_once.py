"""Each question is answered once: labels, shards, weights, stores, processes."""

import hashlib
import os
import pickle
import shutil
import socket
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from conftest import RATE, write_notes

from datamodules.datasets.nsynth import NSynthInstrument, NSynthPitch
from datamodules.features import store as store_module
from datamodules.features.shards import PATTERN, ClipFeatures, Shard, ShardWriter
from datamodules.features.store import StoreId, parse_store_id
from datamodules.task import TaskDataModule
from datamodules.tracks import Track
from mirprobe import assembly
from mirprobe.__main__ import main
from mirprobe.backbones.backbone import Backbone
from mirprobe.cell import STORE, Cell, read_cell
from mirprobe.extraction.extract import name_audio
from mirprobe.probing.probe import open_store
from mirprobe.provenance import latest_result, stored_results
from mirprobe.settings import compose_cells
from mirprobe.sweep import run
from mirprobe.sweep.local import IS_CHILD
from mirprobe.sweep.plan import make_plan

Settings = Callable[..., list[str]]
QUICK = ("protocol.max_epochs=1", "extract.batch_seconds=5", "extract.shard_clips=40")
TASKS = ("task=nsynth_pitch,nsynth_instrument", *QUICK)  # on one store
RULES = ("task=nsynth_pitch", "task.clip.seconds=null,0.1", *QUICK)  # on two
LIGHT = ("model=fbank_chroma", "task=nsynth_pitch", "baseline=null", *QUICK)  # quick to build
N_SHARDS = 3  # of 96 notes: 40, 40 and 16
HDF5 = b"\x89HDF"


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Classes of the tasks whose labels were parsed, once for each time."""
    classes: list[str] = []
    for task in (NSynthPitch, NSynthInstrument):
        read_tracks = task.read_tracks

        def count(
            self: TaskDataModule, read_tracks: Callable[[Any], list[Track]] = read_tracks
        ) -> list[Track]:
            classes.append(type(self).__name__)
            return read_tracks(self)

        monkeypatch.setattr(task, "read_tracks", count)
    return classes


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the shards that were read back from the disk."""
    names: list[str] = []
    read_shard = store_module.read_shard

    def count(path: Path, *rest: Any) -> Shard:
        names.append(path.name)
        return read_shard(path, *rest)

    monkeypatch.setattr(store_module, "read_shard", count)
    return names


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the shards whose bytes were hashed, wherever that was."""
    names: list[str] = []
    sha256 = hashlib.sha256

    def count(content: Any = b"", **options: Any) -> Any:
        digest = sha256(content, **options)
        if bytes(content[:4]) == HDF5:
            names.append(f"part-{digest.hexdigest()[:16]}.h5")
        return digest

    monkeypatch.setattr(hashlib, "sha256", count)
    return names


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[Backbone]:
    """Backbones that the command has built."""
    backbones: list[Backbone] = []
    make_backbone = assembly.make_backbone

    def count(cell: Cell) -> Backbone:
        backbones.append(make_backbone(cell))
        return backbones[-1]

    monkeypatch.setattr(assembly, "make_backbone", count)
    return backbones


@pytest.fixture
def weighed(monkeypatch: pytest.MonkeyPatch, built: list[Backbone]) -> list[str]:
    """Classes of the backbones whose tensors were gone through once they were built.

    Only `fingerprint` does it, which takes a second for 1.3 GB of weights.
    """
    classes: list[str] = []
    state_dict = Backbone.state_dict

    def count(self: Backbone, *arguments: Any, **options: Any) -> dict[str, Any]:
        if any(self is one for one in built):
            classes.append(type(self).__name__)
        found: dict[str, Any] = state_dict(self, *arguments, **options)
        return found

    monkeypatch.setattr(Backbone, "state_dict", count)
    return classes


@pytest.fixture(autouse=True)
def no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures take longer than all the rest here."""
    monkeypatch.setattr("mirprobe.reporting.report.report", lambda cells: None)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the features are that several tests find stored."""
    return tmp_path_factory.mktemp("stored")


@pytest.fixture
def stored(settings: Settings, place: Path) -> Settings:
    """Settings of cells whose features are stored, with seeds 0 to 3."""
    if not (place / "features").exists():
        assert main(["extract", *settings(*TASKS, "seed=0,1,2,3", out=place)]) == 0

    def make(*more: str) -> list[str]:
        return settings(*TASKS, *more, out=place)

    return make


def refuse(what: str) -> Callable[..., Any]:
    def refused(*_: object, **__: object) -> None:
        raise AssertionError(what)

    return refused


refuse_processes = refuse("processes were started")


def shards_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob(PATTERN))


def stores_of(cells: Sequence[Cell]) -> dict[str, set[StoreId]]:
    """The stores that lie in the folders of each model's cells."""
    found: dict[str, set[StoreId]] = {}
    for cell in cells:
        store_id = parse_store_id((cell.folder / STORE).read_text())
        found.setdefault(cell.model_name, set()).add(store_id)
    return found


def test_a_sweep_from_nothing_asks_everything_once(
    settings: Settings,
    tmp_path: Path,
    parsed: list[str],
    hashed: list[str],
    read: list[str],
    built: list[Backbone],
    weighed: list[str],
) -> None:
    """Two models, two tasks and two seeds: eight cells on two stores."""
    arguments = settings(*TASKS, "seed=0,1")
    cells = compose_cells(arguments)
    assert len(cells) == 8
    assert main(["sweep", *arguments]) == 0

    assert sorted(parsed) == ["NSynthInstrument", "NSynthPitch"], "for both models and seeds"
    assert [type(backbone).__name__ for backbone in built] == ["FCPE", "FbankChroma"]
    assert weighed == ["FCPE", "FbankChroma"]

    written = shards_in(tmp_path)
    assert len(written) == 2 * N_SHARDS
    assert sorted(hashed) == written, "when they were written, and not again"
    assert read == []

    stores = stores_of(cells)
    assert {model: len(ids) for model, ids in stores.items()} == {"fcpe": 1, "fbank_chroma": 1}


@pytest.mark.parametrize(
    ("verb", "seeds", "n_built"), [("extract", "0,1", 2), ("probe", "0,1", 0), ("sweep", "2,3", 2)]
)
def test_a_command_on_stored_features_reads_each_shard_and_label_once(
    stored: Settings,
    place: Path,
    parsed: list[str],
    hashed: list[str],
    read: list[str],
    built: list[Backbone],
    verb: str,
    seeds: str,
    n_built: int,
) -> None:
    """Two tasks and two seeds ask what is missing, and for three splits each."""
    for names in (parsed, hashed, read, built):
        names.clear()  # of what the first test that needs the features has stored
    arguments = stored(f"seed={seeds}")
    assert main([verb, *arguments]) == 0
    assert sorted(read) == sorted(hashed) == shards_in(place)
    assert sorted(parsed) == ["NSynthInstrument", "NSynthPitch"]
    assert len(built) == n_built

    are_done = {latest_result(cell) is not None for cell in compose_cells(arguments)}
    assert are_done == {verb != "extract"}


def test_probes_on_stored_features_build_no_backbone_anywhere(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = settings(*LIGHT)
    assert main(["extract", *arguments]) == 0
    for place in ("mirprobe.assembly.make_backbone", "mirprobe.sweep.run.extracting_backbone"):
        monkeypatch.setattr(place, refuse("a backbone was built"))
    assert main(["probe", *arguments]) == 0

    monkeypatch.setattr(run, "make_plan", refuse("a plan was made where everything is done"))
    assert main(["probe", *arguments]) == 0
    assert main(["sweep", *arguments]) == 0


def test_shards_of_an_earlier_run_are_read_once_beside_those_that_are_written(
    settings: Settings, tmp_path: Path, hashed: list[str], read: list[str]
) -> None:
    arguments = settings(*LIGHT)
    assert main(["extract", *arguments]) == 0
    lost, *kept = sorted(tmp_path.rglob(PATTERN))
    lost.unlink()
    hashed.clear()
    assert main(["sweep", *arguments]) == 0
    assert sorted(read) == sorted(path.name for path in kept)
    assert sorted(hashed) == shards_in(tmp_path)


@pytest.mark.trial
def test_weights_are_hashed_once_for_all_stores_of_a_backbone(
    settings: Settings, weighed: list[str], tmp_path: Path
) -> None:
    assert main(["extract", *settings(*RULES)]) == 0
    assert len(list((tmp_path / "features").glob("nsynth-*"))) == 4
    assert weighed == ["FCPE", "FbankChroma"]


def test_each_precision_of_one_command_has_features_of_its_own(settings: Settings) -> None:
    arguments = settings("task=nsynth_pitch", "baseline=null", "extract.precision=bf16,32")
    assert main(["extract", *arguments]) == 0

    found = {}
    for job in make_plan(compose_cells(arguments)).jobs:
        name_audio(job)
        store = open_store(job.cells[0])
        found[store.id.precision] = store.read(job.tracks()).read_all().astype(float)
    error = np.abs(found["bf16"] - found["float32"]).max() / np.abs(found["float32"]).max()
    assert 1e-5 < error < 0.1


def test_an_open_shard_holds_no_audio(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """A note is 16 kB of audio; with 512 clips of 30 s an open shard would hold 1.5 GB."""
    add, n_seen = ShardWriter.add, 0

    def look(self: ShardWriter, clips: Sequence[ClipFeatures]) -> None:
        nonlocal n_seen
        add(self, clips)
        for clip in self._open:
            n_seen += 1
            assert set(vars(clip)) == {"place", "values", "last_row"}
            assert len(pickle.dumps(clip)) < clip.values.nbytes + 1000
            assert not any(hasattr(value, "nbytes") for value in vars(clip.place).values())

    monkeypatch.setattr(ShardWriter, "add", look)
    assert main(["extract", *settings(*LIGHT)]) == 0
    assert n_seen > 0


@pytest.mark.parametrize("devices", [1, 2])
@pytest.mark.parametrize("are_known", [True, False])
def test_a_complete_store_that_cannot_be_written_is_used_and_left_alone(
    settings: Settings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    are_known: bool,
    devices: int,
) -> None:
    """Somebody else's features, on files that this user has read before or not."""
    arguments = settings(*LIGHT, f"launcher.devices={devices}")
    assert main(["extract", *settings(*LIGHT)]) == 0
    (folder,) = (tmp_path / "features").glob("nsynth-*")
    if not are_known:
        shutil.rmtree(tmp_path / "features" / "known")
    times = {path: path.stat().st_mtime_ns for path in folder.iterdir()}

    access = os.access

    def refuse(path: Path, mode: int) -> bool:
        return not (mode == os.W_OK and Path(path) == folder) and access(path, mode)

    monkeypatch.setattr(os, "access", refuse)
    monkeypatch.setattr(run, "run_on_all_devices", refuse_processes)
    assert main(["extract", *arguments]) == 0
    assert main(["probe", *arguments]) == 0
    assert main(["sweep", *arguments, "seed=1"]) == 0
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == times

    if devices == 1:
        next(folder.glob(PATTERN)).unlink()
        assert main(["sweep", *arguments, "seed=2"]) == 2
        assert f"cannot write in the folder {folder}" in capsys.readouterr().err


def test_probes_read_the_files_whose_digests_are_lost(settings: Settings, tmp_path: Path) -> None:
    assert main(["extract", *settings(*LIGHT)]) == 0
    shutil.rmtree(tmp_path / "features" / "known", ignore_errors=True)
    assert main(["probe", *settings(*LIGHT)]) == 0


def test_what_a_killed_writer_left_among_the_results_is_cleared(
    settings: Settings, tmp_path: Path
) -> None:
    (cell,) = compose_cells(settings(*LIGHT))
    process = subprocess.Popen(["true"])
    process.wait()
    cell.folder.mkdir(parents=True)
    left = cell.folder / f".config.yaml.0123abcd-{process.pid}@{socket.gethostname()}.tmp"
    left.write_text("half a line")
    assert main(["sweep", *settings(*LIGHT)]) == 0
    assert not list((tmp_path / "runs").rglob(".*.tmp"))


# -- several devices -------------------------------------------------------------------------------


def in_this_process(
    started: list[list[Cell]], monkeypatch: pytest.MonkeyPatch
) -> Callable[[Sequence[Path], int], None]:
    """Stands in for the processes of two devices: extracts here, and notes the cells."""
    monkeypatch.setenv(IS_CHILD, str(os.getppid()))

    def extract(files: Sequence[Path], n_ranks: int) -> None:
        cells = [read_cell(file) for file in files]
        started.append(cells)
        assert n_ranks == 2
        run.extract_here(
            [replace(cell, launcher=replace(cell.launcher, devices=1)) for cell in cells]
        )

    return extract


@pytest.mark.trial
def test_one_group_of_processes_extracts_all_cells_of_a_store(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[list[Cell]] = []
    monkeypatch.setattr(run, "run_on_all_devices", in_this_process(started, monkeypatch))
    arguments = settings(*TASKS, "launcher.devices=2")
    assert main(["sweep", *arguments]) == 0

    names = [[f"{cell.model_name} {cell.task.name}" for cell in cells] for cells in started]
    assert names == [
        ["fcpe nsynth_pitch", "fcpe nsynth_instrument"],
        ["fbank_chroma nsynth_pitch", "fbank_chroma nsynth_instrument"],
    ]
    assert all(len(ids) == 1 for ids in stores_of(compose_cells(arguments)).values())


@pytest.mark.parametrize(("verb", "seed"), [("sweep", 4), ("extract", 5)])
def test_no_process_is_started_where_no_features_are_missing(
    stored: Settings, monkeypatch: pytest.MonkeyPatch, verb: str, seed: int
) -> None:
    monkeypatch.setattr(run, "run_on_all_devices", refuse_processes)
    arguments = stored("launcher.devices=2", f"seed={seed}")
    assert main([verb, *arguments]) == 0
    assert all(len(ids) == 1 for ids in stores_of(compose_cells(arguments)).values())


def test_changed_audio_is_noticed_and_computed_beside_the_old(
    settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_notes(tmp_path / "own", per_pitch={"train": 1, "valid": 1, "test": 1})
    arguments = [*settings(*LIGHT), f"data.root={root}"]
    (cell,) = compose_cells(arguments)
    assert main(["sweep", *arguments]) == 0
    changed = next(root.rglob("*.wav"))
    soundfile.write(changed, [0.0] * 5000, RATE)

    assert main(["sweep", *arguments]) == 0
    shown = capsys.readouterr().out
    assert "not what it was made of before (audio changed: 1 of 72)" in shown
    assert len(stored_results(cell)) == 2
