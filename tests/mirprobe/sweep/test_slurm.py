"""SLURM's scripts: what they say, and that no value of a user becomes a command."""

import shlex
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from datamodules.errors import UserError
from mirprobe.sections import LauncherConfig, tasks_per_node
from mirprobe.settings import compose_cell
from mirprobe.sweep.slurm import Place, Script, script_text, split_array

GOLDEN = Path(__file__).parents[2] / "data" / "slurm"
PLACE = Place("/opt/mir/bin/python", "/home/jo/mir probe")
LAUNCHER = LauncherConfig(
    name="slurm",
    accelerator="auto",
    devices="auto",
    nodes=2,
    partition="gpu",
    account="music",
    qos="long",
    time="04:00:00",
    gpus_per_node=4,
    cpus_per_task=8,
    mem="64G",
    constraint="a100|h100",
    exclude="node[07-09]",
    array_parallelism=16,
    cells_per_task=2,
    setup=["module load cuda", "source ~/env/bin/activate"],
    sbatch={"mail-type": "END", "exclusive": True, "reservation": None},
    requeue=20,
)
CELLS = tuple(f"/runs/musicfm/gtzan_genre/s{seed}/config.yaml" for seed in range(5))
EXTRACT = Script("extract", "musicfm-gtzan", (CELLS,), LAUNCHER)
PROBE = Script("probe", "musicfm-gtzan", (CELLS,), LAUNCHER, ("afterok:12",))
REPORT = Script("report", "all", (CELLS,), LAUNCHER, ("afterany:12:13",))


def probes(n_most: int = 1000) -> list[Script]:
    return split_array(PROBE, cells_per_task=2, most_tasks=n_most)


@pytest.mark.parametrize("script", [EXTRACT, probes()[0], REPORT], ids=lambda one: one.kind)
def test_scripts_are_those_that_a_person_has_read(script: Script) -> None:
    """When a change is meant, write the files anew and read them."""
    golden = (GOLDEN / f"{script.kind}.sh").read_text(encoding="utf-8")
    assert script_text(script, PLACE) == golden


@pytest.mark.parametrize("script", [EXTRACT, probes()[0], REPORT], ids=lambda one: one.kind)
def test_bash_can_read_them(script: Script) -> None:
    text = script_text(script, PLACE)
    assert subprocess.run(["bash", "-n"], input=text, text=True, check=False).returncode == 0


def test_null_leaves_a_line_out() -> None:
    bare = LauncherConfig(name="slurm", accelerator="cpu", devices="auto")
    for kind in ("extract", "probe", "report"):
        text = script_text(replace(EXTRACT, kind=kind, launcher=bare), PLACE)
        flags = [line.split("=")[0] for line in text.splitlines() if line.startswith("#SBATCH")]
        for flag in ("partition", "account", "qos", "time", "mem", "constraint", "exclude"):
            assert f"#SBATCH --{flag}" not in flags
        assert "#SBATCH --gpus-per-node" not in flags
        assert "#SBATCH --no-requeue" in flags and "scontrol" not in text


# -- arrays ----------------------------------------------------------------------------------------


def test_an_array_task_has_several_cells_and_an_array_no_more_tasks_than_slurm_allows() -> None:
    first, second = probes(n_most=2)
    assert first.tasks == (CELLS[:2], CELLS[2:4])
    assert second.tasks == (CELLS[4:],)
    assert "#SBATCH --array=0-1%16\n" in script_text(first, PLACE)
    assert "#SBATCH --array=0-0%16\n" in script_text(second, PLACE)
    assert first.name != second.name, "each is found in the queue by its name"


def test_equal_work_has_an_equal_name_whatever_it_waits_for() -> None:
    assert replace(PROBE, after=()).name == PROBE.name
    assert replace(PROBE, tasks=(CELLS[:1],)).name != PROBE.name
    assert replace(PROBE, launcher=replace(LAUNCHER, mem="1G")).name != PROBE.name


@pytest.mark.parametrize("index", [0, 2])
def test_a_task_takes_its_own_cells(index: int) -> None:
    (script,) = probes()
    given = run_with_stubs(script_text(script, PLACE), index)
    files = script.tasks[index]
    assert given[-len(files) :] == [f"--cell={file}" for file in files]


# -- what users may write --------------------------------------------------------------------------

HOSTILE = [
    "$(touch owned)",
    "`touch owned`",
    "; touch owned #",
    "a'b\"c",
    "two words",
    "line\nbreak; touch owned",
    "müsli ☃",
    "back\\slash",
    "#SBATCH --wrap=x",
    "~/$HOME/*",
    ")",
]


def run_with_stubs(text: str, index: int = 0) -> list[str]:
    """Arguments that srun would get, of a script that is run by bash with stubs for the rest."""
    stubs = (
        "cd() { return 0; }; source() { return 0; }; module() { return 0; }\n"
        "srun() { printf '%s\\0' \"$@\"; }\n"
        f"SLURM_ARRAY_TASK_ID={index}; SLURM_JOB_ID=1\n"
    )
    done = subprocess.run(["bash"], input=(stubs + text).encode(), capture_output=True, check=False)
    assert done.stderr == b"", done.stderr
    return done.stdout.decode().split("\0")[:-1]


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("kind", ["extract", "probe"])
def test_names_of_folders_reach_the_command_as_they_are(
    name: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    files = tuple(f"{tmp_path}/{name}/{seed}/config.yaml" for seed in (0, 1))
    place = Place(f"/opt/{name}/python", f"/home/{name}")
    script = Script(kind, name, (files,), replace(LAUNCHER, setup=[]))
    given = run_with_stubs(script_text(script, place))
    assert given[-6:] == [place.python, "-m", "mirprobe", kind, *(f"--cell={f}" for f in files)]
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("key", ["partition", "account", "qos", "mem", "constraint", "exclude"])
def test_a_value_is_one_line_for_sbatch_or_it_is_refused(name: str, key: str) -> None:
    script = replace(EXTRACT, launcher=replace(LAUNCHER, **{key: name}))
    if "\n" in name:
        with pytest.raises(UserError, match=rf"the value of --{key} holds a line break"):
            script_text(script, PLACE)
        return

    lines = script_text(script, PLACE).splitlines()
    (line,) = [one for one in lines if one.startswith(f"#SBATCH --{key}=")]
    value = line.partition("=")[2]
    assert value.isascii() or value.startswith('"')
    unescaped = value[1:-1].replace('\\"', '"').replace("\\\\", "\\")
    assert unescaped == name


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"time": "43200"}, 'launcher.time must be written as "04:00:00"'),
        ({"time": "1:00\n#SBATCH"}, "launcher.time must be written as"),
        ({"sbatch": {"array": "0-9"}}, "launcher.sbatch.array is set by mirprobe"),
        ({"sbatch": {"ntasks_per_node": 2}}, "launcher.sbatch.ntasks_per_node is set by mirprobe"),
        ({"sbatch": {"mail type\n": "END"}}, "which is no flag of sbatch"),
        ({"sbatch": {"comment": "a\nb"}}, "the value of --comment holds a line break"),
        ({"devices": 2}, "launcher.devices=2, but launcher.gpus_per_node=4"),
        ({"devices": "all"}, "launcher.devices must be auto or a number of processes"),
    ],
)
def test_what_cannot_stand_in_a_script_is_refused(
    settings: dict[str, object], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        script_text(replace(EXTRACT, launcher=replace(LAUNCHER, **settings)), PLACE)


@pytest.mark.parametrize(
    ("devices", "n_gpus", "accelerator", "n_tasks"),
    [("auto", 4, "auto", 4), ("auto", None, "cpu", 1), (3, None, "cpu", 3), (3, 1, "cpu", 3)],
)
def test_a_process_has_a_gpu_of_its_own(
    devices: object, n_gpus: int | None, accelerator: str, n_tasks: int
) -> None:
    launcher = replace(LAUNCHER, devices=devices, gpus_per_node=n_gpus, accelerator=accelerator)
    assert tasks_per_node(launcher) == n_tasks


def test_the_settings_as_shipped_make_scripts() -> None:
    launcher = compose_cell(["launcher=slurm"]).launcher
    text = script_text(replace(EXTRACT, launcher=launcher), PLACE)
    assert "#SBATCH --ntasks-per-node=1\n" in text and "#SBATCH --time=04:00:00\n" in text


def test_the_launcher_is_in_no_hash() -> None:
    assert compose_cell(["launcher=slurm"]).hash == compose_cell([]).hash


def test_quotes_of_the_shell_are_those_of_the_standard_library() -> None:
    place = Place("/a b/python", "/c d")
    text = script_text(EXTRACT, place)
    assert f"cd {shlex.quote('/c d')} ||" in text
