"""The plan: which cells share a store, which share a task, and in which order jobs come."""

from collections.abc import Callable
from pathlib import Path

import pytest

from datamodules.errors import UserError
from mirprobe.settings import compose_cell, compose_cells
from mirprobe.sweep.plan import Plan, make_plan

Settings = Callable[..., list[str]]
TASKS = "task=nsynth_pitch,nsynth_instrument"


def plan_of(*arguments: str) -> Plan:
    return make_plan(compose_cells(arguments))


def contents(plan: Plan) -> list[tuple[str, list[str]]]:
    """Model and tasks with seeds of each job."""
    return [
        (
            job.cells[0].model_name,
            [f"{cell.task.name}-{cell.seed}-{cell.data.exclude}" for cell in job.cells],
        )
        for job in plan.jobs
    ]


def test_cells_of_one_audio_are_one_job_and_the_baseline_comes_last(settings: Settings) -> None:
    tasks = ["nsynth_pitch-0-[]", "nsynth_instrument-0-[]"]
    assert contents(plan_of(*settings(TASKS))) == [("fcpe", tasks), ("fbank_chroma", tasks)]


def test_seeds_and_protocols_share_a_job(settings: Settings) -> None:
    plan = plan_of(*settings("task=nsynth_pitch", "seed=0,1", "protocol.lr=1e-3,1e-4"))
    assert [len(job.cells) for job in plan.jobs] == [4, 4]


@pytest.mark.parametrize(
    "more",
    [
        "task.clip.seconds=null,0.1",  # another cutting rule
        "model.weights=trained,random",  # another backbone
        "extract.precision=32,bf16",
        "extract.pooling=clip,1Hz",
    ],
)
def test_cells_of_other_features_are_another_job(settings: Settings, more: str) -> None:
    arguments = settings("task=nsynth_pitch", "baseline=null", more)
    assert [len(job.cells) for job in plan_of(*arguments).jobs] == [1, 1]


def test_a_backbone_in_two_precisions_is_built_twice(settings: Settings) -> None:
    """One object would compute the second precision's features in the first."""
    plan = plan_of(*settings("task=nsynth_pitch", "baseline=null", "extract.precision=32,bf16"))
    assert [len(jobs) for jobs in plan.by_model()] == [1, 1]


def test_stores_in_other_places_are_another_job(settings: Settings, tmp_path: Path) -> None:
    cells = [
        compose_cell(settings("task=nsynth_pitch", out=tmp_path / place)) for place in ("a", "b")
    ]
    assert [job.cells for job in make_plan(cells).jobs] == [(cells[0],), (cells[1],)]


def test_datasets_and_label_grids_have_stores_of_their_own(tmp_path: Path) -> None:
    tasks = "task=gtzan_genre,giantsteps_key,harmonix_structure"
    plan = plan_of(f"data.root={tmp_path}", "baseline=null", tasks)
    assert [len(job.cells) for job in plan.jobs] == [1, 1, 1]
    rates = plan_of(
        f"data.root={tmp_path}",
        "baseline=null",
        "task=harmonix_structure",
        "task.options.frame_rate=4,8",
    )
    assert [len(job.cells) for job in rates.jobs] == [1, 1]


def test_a_task_is_one_object_whatever_the_model_seed_and_protocol(settings: Settings) -> None:
    plan = plan_of(*settings(TASKS, "seed=0,1"))
    by_task: dict[str, set[int]] = {}
    for job in plan.jobs:
        for cell, data in zip(job.cells, job.tasks, strict=True):
            by_task.setdefault(cell.task.name, set()).add(id(data))
    assert {task: len(objects) for task, objects in by_task.items()} == {
        "nsynth_pitch": 1,
        "nsynth_instrument": 1,
    }


def test_other_tracks_of_the_same_audio_are_another_task_on_the_same_store(
    settings: Settings,
) -> None:
    name = "train0_synthetic_000-048-000"
    plan = plan_of(*settings("task=nsynth_pitch", "baseline=null", f"data.exclude=[],[{name}]"))
    (job,) = plan.jobs
    assert [len(data.tracks()) for data in job.tasks] == [96, 95]
    assert len(job.tracks()) == 96


def test_a_backbone_is_there_once_for_all_its_jobs(settings: Settings) -> None:
    plan = plan_of(*settings("task=nsynth_pitch", "task.clip.seconds=null,0.1"))
    models = [[job.cells[0].model_name for job in jobs] for jobs in plan.by_model()]
    assert models == [["fcpe", "fcpe"], ["fbank_chroma", "fbank_chroma"]]


def test_random_weights_of_two_seeds_are_two_backbones(settings: Settings) -> None:
    arguments = settings("task=nsynth_pitch", "model.weights=random", "model.seed=0,1")
    assert [len(jobs) for jobs in plan_of(*arguments).by_model()] == [1, 1, 1]


def test_a_plan_reads_no_labels_and_a_task_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    nowhere = [f"data.root={tmp_path / 'nowhere'}", "baseline=null"]
    assert len(plan_of(*nowhere, "task=gtzan_genre").jobs) == 1
    with pytest.raises(UserError, match=r"does not take these settings"):
        plan_of(*nowhere, "task=gtzan_genre", "+task.options.colour=red")


def test_no_cells_are_no_jobs() -> None:
    assert make_plan([]).jobs == ()
    assert list(make_plan([]).by_model()) == []


def test_shuffled_labels_share_features_and_differ_by_seed() -> None:
    settings = ("task=nsynth_pitch", "baseline=null", "seed=0,1", "data.labels=given,shuffled")
    (job,) = make_plan(compose_cells(list(settings))).jobs
    seeds = {
        (cell.data.labels, cell.seed): data for cell, data in zip(job.cells, job.tasks, strict=True)
    }
    assert seeds["given", 0] is seeds["given", 1]
    assert [seeds["shuffled", seed].shuffle_seed for seed in (0, 1)] == [0, 1]
    assert seeds["given", 0].shuffle_seed is None
