"""What a cell names, built: tasks, backbones, devices, and the tracks and store of a job."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from lightning.pytorch.accelerators import CUDAAccelerator
from toy_backbone import Statistics

from datamodules.audio.decode import RESAMPLER
from datamodules.datasets.nsynth import NSynthPitch
from datamodules.digests import KnownDigests
from datamodules.errors import UserError
from datamodules.features.store import StoreId
from datamodules.shuffling import shuffle_labels
from datamodules.tracks import MARKER
from mirprobe.assembly import Job, check_weights, data_root, inputs_of, make_backbone, make_data
from mirprobe.cell import Cell
from mirprobe.devices import n_devices, probe_accelerator
from mirprobe.settings import compose_cell, compose_cells

Settings = Callable[..., list[str]]

NOTHING_KNOWN = KnownDigests(Path("nowhere"))


def job_of(*arguments: str) -> Job:
    cells = compose_cells([*arguments, "baseline=null"])
    return Job(tuple(cells), tuple(make_data(cell) for cell in cells), NOTHING_KNOWN)


# -- tasks and backbones ---------------------------------------------------------------------------


def test_a_task_is_built_with_its_folder_rule_and_exclusions(notes_root: Path) -> None:
    overrides = ["task.clip.seconds=0.1", "data.exclude=[a]", f"data.root={notes_root}"]
    data = make_data(compose_cell(["task=nsynth_pitch", *overrides]))
    assert isinstance(data, NSynthPitch)
    assert data.root == notes_root / "NSynth"
    assert (data.clip.seconds, data.exclude) == (0.1, {"a"})


def test_without_a_root_the_data_is_the_demo_of_that_size(tmp_path: Path) -> None:
    cell = compose_cell([f"paths.data={tmp_path}", "data.scale=0.5"])
    assert data_root(cell).parent == tmp_path
    assert data_root(cell) != data_root(compose_cell([f"paths.data={tmp_path}"]))
    assert data_root(compose_cell(["data.root=/datasets"])) == Path("/datasets")


def test_options_that_a_task_does_not_know_are_said_in_one_line() -> None:
    with pytest.raises(UserError, match="NSynthPitch does not take these settings: ") as caught:
        make_data(compose_cell(["task=nsynth_pitch", "+task.options.colour=red"]))
    assert "\n" not in str(caught.value)


def test_what_a_task_says_is_wrong_with_its_settings_comes_through() -> None:
    with pytest.raises(UserError, match=r"frame_rate must be above 0 Hz, found 0"):
        make_data(compose_cell(["task=harmonix_structure", "task.options.frame_rate=0"]))


def test_a_backbone_is_frozen_and_on_the_cpu() -> None:
    backbone = make_backbone(compose_cell(["model=fbank_chroma"]))
    assert not any(parameter.requires_grad for parameter in backbone.parameters())
    assert not backbone.training
    assert {value.device.type for value in backbone.state_dict().values()} <= {"cpu"}


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (
            "os.system",
            "task._target_=os.system is not a subclass of datamodules.task.TaskDataModule",
        ),
        ("antigravity.fly", "is not a subclass"),  # importing it would open a browser
        ("mirprobe.backbones.fcpe.FCPE", "is not a subclass"),
        ("datamodules.datasets.nsynth.read_notes", "is not a subclass"),
        ("datamodules.datasets.nsynth.Nothing", "does not exist: .* has no 'Nothing'"),
        ("no_such_package.Task", "cannot be imported .ModuleNotFoundError: "),
        ("datamodules.task.TaskDataModule", "only its subclasses say"),
        ("Task", "write package.module.Class"),
    ],
)
def test_only_a_task_is_resolved_as_a_task(path: str, message: str) -> None:
    cell = compose_cell(["task=nsynth_pitch"])
    with pytest.raises(UserError, match=message):
        make_data(replace(cell, task=replace(cell.task, _target_=path)))


def test_a_module_that_fails_when_it_is_imported_is_said_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_task.py").write_text("raise RuntimeError('no\\nluck')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    cell = compose_cell(["model=fcpe", "model._target_=broken_task.Mine"])
    with pytest.raises(
        UserError, match=r"broken_task\.Mine cannot be imported \(RuntimeError: no "
    ):
        make_backbone(cell)


def test_a_class_of_the_users_own_is_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_task.py").write_text(
        "from datamodules.datasets.nsynth import NSynthPitch\n\n"
        "class Mine(NSynthPitch):\n    pass\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    data = make_data(compose_cell(["task=nsynth_pitch", "task._target_=own_task.Mine"]))
    assert type(data).__name__ == "Mine"


def test_nothing_below_an_option_is_called(tmp_path: Path) -> None:
    marker = tmp_path / "code_was_run"
    hidden = {"_target_": "pathlib.Path.touch", "self": str(marker)}
    cell = compose_cell(["task=manifest"])
    task = replace(cell.task, options={"file": hidden})
    with pytest.raises(UserError, match=r"task\.options\.file must be text or null"):
        make_data(replace(cell, task=task))
    with pytest.raises(UserError, match=r"model\.seed must be a whole number"):
        make_backbone(replace(cell, model={**cell.model, "seed": hidden}))
    assert not marker.exists()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["+task.options.fil=x"], "unknown task.options.fil, did you mean 'file'"),
        (["+task.options.root=/"], r"unknown task\.options\.root"),
        (["task.options.split_seed=abc"], "split_seed must be a whole number, found 'abc'"),
        (["task.options.split_seed=true"], "split_seed must be a whole number, found True"),
    ],
)
def test_an_option_that_the_class_does_not_take_names_its_key(
    overrides: list[str], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        make_data(compose_cell(["task=manifest", *overrides]))


def test_weights_are_looked_for_without_building_a_backbone(tmp_path: Path) -> None:
    there = compose_cell(["model=fcpe"])
    gone = compose_cell(["model=fcpe", f"model.checkpoint={tmp_path}/gone.pt"])
    check_weights(there)
    with pytest.raises(UserError, match=r"no weights for model fcpe: .*gone\.pt does not exist"):
        check_weights(gone)


# -- devices ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n_gpus", "accelerator", "devices", "expected"),
    [
        (0, "auto", "auto", 1),
        (0, "cpu", "auto", 1),
        (0, "cpu", "3", 3),
        (4, "auto", "auto", 4),
        (4, "gpu", "auto", 4),
        (4, "gpu", "2", 2),
        (4, "cpu", "auto", 1),
        (2, "cpu", "3", 3),
    ],
)
def test_a_job_is_extracted_by_every_gpu_or_as_asked(
    monkeypatch: pytest.MonkeyPatch, n_gpus: int, accelerator: str, devices: str, expected: int
) -> None:
    monkeypatch.setattr(CUDAAccelerator, "auto_device_count", lambda: n_gpus)
    overrides = [f"launcher.accelerator={accelerator}", f"launcher.devices={devices}"]
    assert n_devices(compose_cell(overrides)) == expected


@pytest.mark.parametrize(
    ("n_gpus", "accelerator", "devices", "message"),
    [
        (0, "gpu", "auto", "launcher.accelerator=gpu, but this machine has none: set auto or cpu"),
        (2, "auto", "3", "launcher.devices=3, but this machine has 2 GPUs: set a smaller number"),
        (0, "cpu", "0", "launcher.devices must be auto or a number of processes, found 0"),
        (0, "cpu", "true", "launcher.devices must be auto or a number of processes, found True"),
        (0, "cpu", "1000", "launcher.devices=1000 is more processes than 256"),
        (0, "cpu", "all", "launcher.devices must be auto or a number of processes, found 'all'"),
        (0, "tpu", "auto", "unknown launcher.accelerator 'tpu'. Known: auto, cpu, gpu, mps"),
    ],
)
def test_devices_that_are_not_there_are_refused(
    monkeypatch: pytest.MonkeyPatch, n_gpus: int, accelerator: str, devices: str, message: str
) -> None:
    monkeypatch.setattr(CUDAAccelerator, "auto_device_count", lambda: n_gpus)
    overrides = [f"launcher.accelerator={accelerator}", f"launcher.devices={devices}"]
    with pytest.raises(UserError) as caught:
        n_devices(compose_cell(overrides))
    assert message in str(caught.value)


def test_a_mac_trains_probes_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its GPU has no float64."""
    cell = compose_cell(["launcher.accelerator=auto"])
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert probe_accelerator(cell) == "auto"
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert probe_accelerator(cell) == "cpu"


# -- jobs ------------------------------------------------------------------------------------------


def test_tracks_of_a_job_are_those_of_all_its_cells_once_by_id(settings: Settings) -> None:
    names = [f"train{family}_synthetic_{family:03d}-048-000" for family in (0, 1)]
    job = job_of(*settings("task=nsynth_pitch", f"data.exclude=[{names[0]}],[{names[1]}]"))
    track_ids = [track.track_id for track in job.tracks()]
    assert len(track_ids) == 96 and track_ids == sorted(set(track_ids))
    for data, name in zip(job.tasks, names, strict=True):
        assert set(track_ids) - {track.track_id for track in data.tracks()} == {name}


def test_a_job_whose_data_is_missing_says_so(tmp_path: Path) -> None:
    job = job_of("task=nsynth_pitch", f"data.root={tmp_path / 'nowhere'}")
    with pytest.raises(UserError, match=r"no nsynth data: .*nowhere/NSynth is not a folder"):
        job.tracks()


@pytest.fixture
def cell(settings: Settings) -> Cell:
    return replace(compose_cell(settings("task=nsynth_pitch")), model={"name": "toy"})


def test_a_store_is_named_by_all_that_its_features_follow_from(cell: Cell, tmp_path: Path) -> None:
    backbone = Statistics()
    store = Job((cell,), (make_data(cell),), NOTHING_KNOWN).store(backbone)
    assert store.id == StoreId(
        backbone="toy",
        fingerprint=backbone.fingerprint(),
        dataset="nsynth",
        clip_rule="whole",
        pooling="mean",
        resampler=RESAMPLER,
        precision="float32",
    )
    assert store.folder == tmp_path / "features" / store.id.folder
    assert not store.folder.exists()


def test_features_of_a_demo_are_not_taken_for_those_of_the_dataset(
    cell: Cell, tmp_path: Path
) -> None:
    (tmp_path / "NSynth").mkdir()
    (tmp_path / "NSynth" / MARKER).write_text("{}")
    placed = replace(cell, data=replace(cell.data, root=str(tmp_path)))
    store = Job((placed,), (make_data(placed),), NOTHING_KNOWN).store(Statistics())
    assert store.id.dataset == "nsynth-demo"


def test_a_label_grid_is_part_of_a_stores_name(tmp_path: Path) -> None:
    job = job_of("task=harmonix_structure", f"data.root={tmp_path}", "task.options.frame_rate=4")
    assert job.store(Statistics()).id.pooling == "4Hz"


def test_other_weights_have_another_store(cell: Cell) -> None:
    job = Job((cell,), (make_data(cell),), NOTHING_KNOWN)
    assert job.store(Statistics(1.0)).folder != job.store(Statistics(2.0)).folder


# -- files that results follow from ----------------------------------------------------------------


def test_results_follow_from_the_data_and_from_the_weights_that_are_there(
    notes_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = f"data.root={notes_root}"
    own = compose_cell(["model=fcpe", f"model.checkpoint={tmp_path}/last.pt", root])
    inputs = inputs_of(own, make_data(own))
    assert inputs.folders == (str(notes_root / "NSynth"),)
    assert inputs.files == (str(tmp_path / "last.pt"),)

    random = compose_cell(["model=fcpe", "model.weights=random", root])
    assert inputs_of(random, make_data(random)).files == ()


def test_a_machine_without_the_weights_can_probe(
    notes_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """1.3 GB are not needed to train probes on stored features."""
    monkeypatch.setattr("mirprobe.backbones.hub.try_to_load_from_cache", lambda *_, **__: None)
    muq = compose_cell(["model=muq", f"data.root={notes_root}"])
    with pytest.raises(UserError, match="are not on this machine"):
        make_backbone(muq)
    assert inputs_of(muq, make_data(muq)).files == ()


def test_shuffled_labels_are_those_of_the_cells_seed_and_refused_for_frames(
    settings: Callable[..., list[str]],
) -> None:
    given, shuffled = (
        compose_cell(settings("task=nsynth_pitch", f"data.labels={labels}", "seed=3"))
        for labels in ("given", "shuffled")
    )
    assert given.hash != shuffled.hash
    assert given.identity()["data"] == {"demo": None, "exclude": []}  # hashes of old cells hold

    before, after = make_data(given).tracks(), make_data(shuffled).tracks()
    assert after == shuffle_labels(before, seed=3) != before
    with pytest.raises(UserError, match="harmonix_structure is scored by frames: leave it out"):
        make_data(compose_cell(settings("task=harmonix_structure", "data.labels=shuffled")))
