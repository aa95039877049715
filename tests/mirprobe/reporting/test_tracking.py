"""W&B without a server: what is in the run on disk, where it lies, and that nothing waits."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from toy_rows import MADE_OF, failed, make_rows, save_rows
from wandb_reader import OfflineRun, read_offline_runs

from datamodules.errors import UserError
from mirprobe.cell import Cell
from mirprobe.provenance import MadeOf, Result, result_of
from mirprobe.reporting.tracking import (
    choose_mode,
    is_tracked,
    layer_points,
    push,
    run_config,
    run_id,
    run_summary,
    track,
)
from mirprobe.results import Row, write_rows
from mirprobe.settings import compose_cell
from mirprobe.similarity.rows import SimilarityRow

VAL, TEST = (0.5, 0.9, 0.7), (0.4, 0.625, 0.75)
START, END = (0.5, 0.5), (0.3, 0.7)


def rows_of(cell: Cell) -> list[Row]:
    """Layers 0..2, layer 1 best on val and layer 2 on test, and a weighted sum."""
    return make_rows(cell, VAL, TEST, weighted=0.7, weights=END)


def result_of_cell(cell: Cell, made_of: MadeOf = MADE_OF) -> Result:
    """A result of the cell that holds `rows_of` it."""
    result = result_of(cell, made_of)
    write_rows(result.folder, rows_of(cell))
    return result


def clean(environment: dict[str, str]) -> dict[str, str]:
    """Without any trace of the W&B settings, SLURM and keys of whoever runs the tests."""
    return {
        name: value
        for name, value in environment.items()
        if not name.startswith(("WANDB_", "SLURM_", "MIRPROBE_"))
    }


@pytest.fixture(autouse=True)
def environment(tmp_path: Path) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.clear()
    os.environ.update(
        clean(before) | {"HOME": str(tmp_path / "home"), "NETRC": str(tmp_path / "netrc")}
    )
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def cell(tmp_path: Path) -> Callable[..., Cell]:
    def make(*overrides: str) -> Cell:
        return compose_cell([f"paths.runs={tmp_path}/runs", *overrides])

    return make


# -- a run on disk ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, OfflineRun]:
    """Two cells pushed one after the other: the demo's pitch, and genre on data of one's own."""
    folder = tmp_path_factory.mktemp("tracking")
    before = dict(os.environ)
    os.environ.clear()
    os.environ.update(clean(before) | {"HOME": str(folder / "home")})
    places = [f"paths.runs={folder}/runs", "logger.mode=offline", "logger.project=probing"]
    for overrides in (["task=nsynth_pitch"], ["task=gtzan_genre", "data.root=/datasets", "seed=3"]):
        cell = compose_cell([*places, *overrides])
        result = result_of_cell(cell)
        assert push(cell, result) == "offline"
        written = json.loads((result.folder / "wandb.json").read_text())
        assert written == {"run": f"{cell.hash}{MADE_OF.hash}", "mode": "offline"}
    os.environ.clear()
    os.environ.update(before)
    return {run.config["task"]: run for run in read_offline_runs(folder / "runs" / "wandb")}


def test_two_cells_make_two_finished_runs(runs: dict[str, OfflineRun]) -> None:
    assert set(runs) == {"nsynth_pitch", "gtzan_genre"}
    ids = {run.run_id for run in runs.values()}
    assert ids == {run.config["config_hash"] + MADE_OF.hash for run in runs.values()}
    assert len(ids) == 2
    assert [run.exit_code for run in runs.values()] == [0, 0]


def test_a_run_is_named_grouped_and_tagged_by_its_cell(runs: dict[str, OfflineRun]) -> None:
    pitch, genre = runs["nsynth_pitch"], runs["gtzan_genre"]
    assert (pitch.name, genre.name) == ("fcpe.nsynth_pitch.s0", "fcpe.gtzan_genre.s3")
    assert pitch.group == "fcpe/nsynth_pitch/mlp512"
    assert (pitch.job_type, pitch.project) == ("probe", "probing")
    assert sorted(pitch.tags) == ["demo", "fcpe", "mlp512", "nsynth_pitch"]
    assert sorted(genre.tags) == ["fcpe", "gtzan_genre", "mlp512"]


def test_the_config_holds_names_hashes_versions_and_all_settings(
    runs: dict[str, OfflineRun],
) -> None:
    config = runs["gtzan_genre"].config
    names = ("model", "task", "protocol", "seed", "metric")
    assert [config[name] for name in names] == ["fcpe", "gtzan_genre", "mlp512", 3, "accuracy"]
    assert (config["demo"], config["store_hash"]) == (False, "ba9876543210")
    assert config["versions"] == {"torch": "2.11.0"}
    assert config["settings"]["protocol"]["hidden"] == 512
    assert config["settings"]["data"] == {"demo": None, "exclude": []}
    assert (config["data_root"], config["checkpoint"]) == ("/datasets", None)
    assert (config["weights"], config["tracks_hash"]) == (MADE_OF.weights, MADE_OF.tracks)
    assert runs["nsynth_pitch"].config["demo"] is True


def test_the_series_run_over_the_layers(runs: dict[str, OfflineRun]) -> None:
    run = runs["nsynth_pitch"]
    assert run.series("nsynth_pitch/val_accuracy") == dict(enumerate(VAL))
    assert run.series("nsynth_pitch/test_accuracy") == dict(enumerate(TEST))
    assert run.series("nsynth_pitch/test_accuracy_low") == pytest.approx(
        {layer: value - 0.1 for layer, value in enumerate(TEST)}
    )
    assert run.series("nsynth_pitch/val_accuracy_high") == pytest.approx(
        {layer: value + 0.1 for layer, value in enumerate(VAL)}
    )
    assert run.series("nsynth_pitch/weight_start") == dict(enumerate(START, start=1))
    assert run.series("nsynth_pitch/weight_end") == dict(enumerate(END, start=1))
    assert [point["layer"] for point in run.history] == [0, 1, 2]


def test_layer_is_the_step_metric_of_every_series(runs: dict[str, OfflineRun]) -> None:
    for run in runs.values():
        assert "layer" in run.steps
        task = run.config["task"]
        assert (run.steps[f"{task}/*"], run.steps["similarity/*"]) == ("layer", "layer")
        for point in run.history:
            series = [name for name in point if not name.startswith("_") and name != "layer"]
            assert all(name.startswith(f"{task}/") for name in series), "a section for each task"


def test_the_summary_holds_the_chosen_layer_the_oracle_and_the_weighted_sum(
    runs: dict[str, OfflineRun],
) -> None:
    summary = runs["nsynth_pitch"].summary
    assert (summary["best/layer"], summary["best/test"]) == (1, 0.625)
    assert (summary["oracle/layer"], summary["oracle/test"]) == (2, 0.75)
    assert (summary["weighted/test"], summary["constant"]) == (0.7, 0.125)
    assert [summary[f"n_{split}"] for split in ("train", "val", "test")] == [48, 24, 24]
    assert "problems" not in summary


@pytest.mark.trial
def test_a_run_can_be_written_again_under_the_same_id(
    cell: Callable[..., Cell], tmp_path: Path
) -> None:
    pitch = cell("logger.mode=offline")
    result = result_of_cell(pitch)
    push(pitch, result)
    time.sleep(1.1)  # folders are named by the second
    push(pitch, result)
    runs = read_offline_runs(tmp_path / "runs" / "wandb")
    assert [run.run_id for run in runs] == [run_id(pitch, result)] * 2
    for run in runs:
        assert run.series("nsynth_pitch/test_accuracy") == dict(enumerate(TEST))


# -- pure parts ------------------------------------------------------------------------------------


def test_a_point_per_layer_in_order_whatever_the_order_of_rows(cell: Callable[..., Cell]) -> None:
    rows = rows_of(cell())
    points = layer_points(rows[::-1])
    assert points == layer_points(rows)
    assert [point["layer"] for point in points] == [0, 1, 2]
    assert "nsynth_pitch/weight_end" not in points[0]


def test_a_backbone_of_one_layer_has_one_point_and_no_weights(cell: Callable[..., Cell]) -> None:
    baseline = cell("model=fbank_chroma")
    (point,) = layer_points(make_rows(baseline, [0.5], [0.4]))
    assert point == {
        "layer": 0,
        "nsynth_pitch/val_accuracy": 0.5,
        "nsynth_pitch/val_accuracy_low": 0.4,
        "nsynth_pitch/val_accuracy_high": 0.6,
        "nsynth_pitch/test_accuracy": 0.4,
        "nsynth_pitch/test_accuracy_low": pytest.approx(0.3),
        "nsynth_pitch/test_accuracy_high": 0.5,
    }
    rows = make_rows(baseline, [0.5], [0.4])
    assert run_summary(rows)["best/layer"] == 0


def test_what_has_no_score_is_in_no_series_and_named_in_the_summary(
    cell: Callable[..., Cell],
) -> None:
    bad = ("layer_01", "weighted")
    rows = [failed(row) if row.head in bad else row for row in rows_of(cell())]
    points = layer_points(rows)
    assert [sorted(point) for point in points if point["layer"] == 1] == [["layer"]]
    assert points[2]["nsynth_pitch/test_accuracy"] == TEST[2]
    assert json.loads(json.dumps(points, allow_nan=False)) == points

    summary = run_summary(rows)
    assert summary["best/layer"] == summary["oracle/layer"] == 2
    assert "weighted/test" not in summary
    reason = "layer_01, weighted failed: val score is not a number in any epoch"
    assert summary["problems"] == reason


def test_where_no_layer_has_a_score_there_is_no_best(cell: Callable[..., Cell]) -> None:
    rows = [failed(row) for row in rows_of(cell())]
    summary = run_summary(rows)
    assert not {"best/layer", "best/test", "oracle/layer", "oracle/test"} & set(summary)
    assert summary["n_train"] == 48


def test_config_and_summary_are_plain_json(cell: Callable[..., Cell]) -> None:
    rows = rows_of(cell())
    assert json.loads(json.dumps(run_config(cell(), rows)))["seed"] == 0
    assert json.loads(json.dumps(dict(run_summary(rows))))["best/layer"] == 1


# -- the mode --------------------------------------------------------------------------------------


def test_auto_is_offline_without_a_key_and_online_with_one(
    cell: Callable[..., Cell], tmp_path: Path
) -> None:
    assert choose_mode(cell()) == "offline"
    os.environ["WANDB_API_KEY"] = "0" * 40
    assert choose_mode(cell()) == "online"
    del os.environ["WANDB_API_KEY"]
    (tmp_path / "home").mkdir()
    (tmp_path / "home/.netrc").write_text(
        f"machine api.wandb.ai\n  login user\n  password {'0' * 40}\n"
    )
    (tmp_path / "home/.netrc").chmod(0o600)
    assert choose_mode(cell()) == "online"


def test_auto_is_offline_under_slurm_even_with_a_key(cell: Callable[..., Cell]) -> None:
    os.environ |= {"WANDB_API_KEY": "0" * 40, "SLURM_JOB_ID": "17"}
    assert choose_mode(cell()) == "offline"
    assert choose_mode(cell("logger.mode=online")) == "online"


def test_an_empty_key_is_no_key(cell: Callable[..., Cell]) -> None:
    os.environ["WANDB_API_KEY"] = ""
    assert choose_mode(cell()) == "offline"


def test_wandb_mode_in_the_environment_wins(cell: Callable[..., Cell]) -> None:
    for mode in ("offline", "online", "disabled"):
        os.environ["WANDB_MODE"] = mode
        assert choose_mode(cell("logger.mode=auto")) == mode


def test_an_unknown_mode_lists_the_known_ones(cell: Callable[..., Cell]) -> None:
    os.environ["WANDB_MODE"] = "onlin"
    expected = r"unknown .*'onlin'\. Known: auto, online, offline, disabled"
    with pytest.raises(UserError, match=expected):
        choose_mode(cell())


def test_disabled_writes_nothing(cell: Callable[..., Cell], tmp_path: Path) -> None:
    silent = cell("logger=none")
    result = result_of(silent, MADE_OF)
    assert is_tracked(silent, result)
    assert push(silent, result) == "disabled"
    assert not (tmp_path / "runs").exists()


def test_a_result_is_tracked_once_its_run_is_written(cell: Callable[..., Cell]) -> None:
    pitch = cell()
    result = result_of_cell(pitch)
    assert not is_tracked(pitch, result)
    (result.folder / "wandb.json").write_text("{}")
    assert is_tracked(pitch, result)


def test_results_of_other_content_are_runs_of_their_own(cell: Callable[..., Cell]) -> None:
    pitch = cell()
    before = result_of_cell(pitch)
    (before.folder / "wandb.json").write_text("{}")
    now = result_of_cell(pitch, replace(MADE_OF, tracks="other labels"))
    assert is_tracked(pitch, before) and not is_tracked(pitch, now)
    assert run_id(pitch, before) != run_id(pitch, now)


def test_track_writes_what_has_rows_and_no_run(
    cell: Callable[..., Cell], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pushed: list[tuple[Cell, Result]] = []

    def pretend(pitch: Cell, result: Result, mode: str, similar: Sequence[SimilarityRow]) -> str:
        assert not similar, "no frames were counted"
        pushed.append((pitch, result))
        (result.folder / "wandb.json").write_text("{}")
        return mode

    monkeypatch.setattr("mirprobe.reporting.tracking.push", pretend)
    done, other, nothing = (cell("logger.mode=offline", f"seed={seed}") for seed in (0, 1, 2))
    results = [save_rows(pitch, VAL, TEST) for pitch in (done, other)]
    track([done, other, nothing])
    assert pushed == [(done, results[0]), (other, results[1])]
    assert "W&B: 2 runs, offline, in " in capsys.readouterr().out

    track([done, other, nothing])
    assert (len(pushed), capsys.readouterr().out) == (2, "")
    track([done, nothing], again=True)
    assert pushed[2:] == [(done, results[0])]


# -- without a network -----------------------------------------------------------------------------

PUSH = """
import sys, time
from mirprobe.settings import compose_cell
from mirprobe.provenance import MadeOf, result_of
from mirprobe.reporting.tracking import push
cell = compose_cell(sys.argv[1:])
start = time.monotonic()
mode = push(cell, result_of(cell, MADE_OF))
print(mode, time.monotonic() - start)
""".replace("MADE_OF", repr(MADE_OF))


KEY = {"WANDB_API_KEY": "0" * 40}


@pytest.fixture(scope="module")
def silent_server() -> Iterator[str]:
    """Takes connections and never answers, as a firewall does."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.trial
@pytest.mark.parametrize(
    ("mode", "key", "server"),
    [
        ("online", {}, None),  # asked for, but there is no key
        ("auto", KEY, "http://127.0.0.1:9"),  # refuses connections
        ("online", KEY, "silent"),
    ],
    ids=["no key", "nobody there", "no answer"],
)
def test_a_run_that_cannot_go_online_is_kept_offline_in_a_few_seconds_and_outside_home(
    cell: Callable[..., Cell],
    tmp_path: Path,
    silent_server: str,
    mode: str,
    key: dict[str, str],
    server: str | None,
) -> None:
    settings = [f"logger.mode={mode}", "logger.timeout_s=2"]
    pitch = cell(*settings)
    result = result_of_cell(pitch)
    (tmp_path / "home").mkdir()
    where = {"WANDB_BASE_URL": silent_server if server == "silent" else server} if server else {}
    command = [sys.executable, "-c", PUSH, f"paths.runs={tmp_path}/runs", *settings]
    # No pipe: W&B's own process may outlive this one and keep it open.
    with (tmp_path / "out").open("w+") as out:
        done = subprocess.run(
            command,
            env={**os.environ, **key, **where},
            stdout=out,
            stderr=out,
            timeout=20,
            check=False,
        )
    text = (tmp_path / "out").read_text()
    assert done.returncode == 0, text[-1500:]
    written, seconds = text.split()[-2:]
    assert written == "offline"
    assert float(seconds) < 8
    assert json.loads((result.folder / "wandb.json").read_text())["mode"] == "offline"
    (run,) = read_offline_runs(tmp_path / "runs" / "wandb")
    assert (run.run_id, run.exit_code) == (run_id(pitch, result), 0)
    assert run.series("nsynth_pitch/val_accuracy") == dict(enumerate(VAL))
    assert list((tmp_path / "home").rglob("*")) == []
