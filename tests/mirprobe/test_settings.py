"""Settings: what a command line composes to, and what it is told when it is wrong."""

import importlib
import re
import shlex
import shutil
from dataclasses import asdict
from pathlib import Path

import pytest
import yaml

from datamodules.errors import UserError
from datamodules.task import TaskDataModule
from mirprobe.cell import GROUPS
from mirprobe.scoring.metrics import METRICS
from mirprobe.settings import compose_cell, compose_cells, conf_dir, known

CONF = Path(__file__).parents[2] / "conf"
FILES = sorted(path.relative_to(CONF).as_posix() for path in CONF.rglob("*.yaml"))
NAMED = [name for name in FILES if name.startswith(("model/", "task/", "protocol/"))]
TASKS = sorted(path.stem for path in (CONF / "task").glob("*.yaml"))
MODELS = sorted(path.stem for path in (CONF / "model").glob("*.yaml"))


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    folders = ("MIRPROBE_DATA", "MIRPROBE_CACHE", "MIRPROBE_RUNS")
    for name in (*folders, "WANDB_PROJECT", "WANDB_ENTITY"):
        monkeypatch.delenv(name, raising=False)


def refusal(*overrides: str) -> str:
    """The one line that a wrong command line is answered with."""
    with pytest.raises(UserError) as error:
        compose_cells(overrides)
    assert "\n" not in str(error.value)
    return str(error.value)


def names(*overrides: str) -> list[tuple[str, str, int]]:
    return [(cell.model_name, cell.task.name, cell.seed) for cell in compose_cells(overrides)]


# -- the files -------------------------------------------------------------------------------------


def uncommented_keys(text: str) -> list[str]:
    """Keys with a value that no comment says anything of.

    A comment may stand on the key's line, on the line above, or on the line of the mapping around.
    Hydra's `_target_` is a class path everywhere and needs none.
    """
    missing: list[str] = []
    open_mappings: list[tuple[int, bool]] = []  # indent, and whether the line has a comment
    above = False
    for line in text.splitlines():
        is_commented = above or " #" in line
        above = line.lstrip().startswith("#")
        entry = re.match(r"( *)(?:- )?([\w.]+):( |$)", line)
        if entry is None:
            continue

        indent, key = len(entry.group(1)), entry.group(2)
        open_mappings = [mapping for mapping in open_mappings if mapping[0] < indent]
        is_commented_around = any(commented for _, commented in open_mappings)
        value = re.sub(r"(^| )#.*", "", line[entry.end() :]).strip()
        if not value:
            open_mappings.append((indent, is_commented))
        elif not (is_commented or is_commented_around or key == "_target_"):
            missing.append(key)
    return missing


COMMENTS = """# about a
a: 1
b: 2 # about b
c: 3
d:
  e: 4
  f: 5 # about f
g: # about g
  h: 6
_target_: x.Y
"""


def test_the_reader_of_comments_sees_what_a_person_sees() -> None:
    assert uncommented_keys(COMMENTS) == ["c", "e"]


@pytest.mark.parametrize("name", FILES)
def test_every_key_has_a_comment(name: str) -> None:
    assert uncommented_keys((CONF / name).read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("name", NAMED)
def test_a_file_bears_the_name_it_gives(name: str) -> None:
    assert yaml.safe_load((CONF / name).read_text(encoding="utf-8"))["name"] == Path(name).stem


@pytest.mark.parametrize("task", TASKS)
def test_every_task_names_a_datamodule_a_metric_and_a_known_group(task: str) -> None:
    settings = compose_cell([f"task={task}"]).task
    module, _, name = settings._target_.rpartition(".")
    assert issubclass(getattr(importlib.import_module(module), name), TaskDataModule)
    assert settings.select_by in METRICS
    assert settings.level in ("acoustic", "semantic", "comprehensive")
    assert settings.label


@pytest.mark.parametrize("model", MODELS)
def test_every_model_composes_and_says_its_licence(model: str) -> None:
    cell = compose_cell([f"model={model}"])
    assert cell.model_name == model
    assert cell.model["card"]["licence"]
    assert cell.model["_target_"].startswith("mirprobe.backbones.")


def test_the_settings_are_found_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert compose_cell([]).model_name == "fcpe"
    assert (conf_dir() / "config.yaml").is_file()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("group", GROUPS)
def test_known_names_are_the_files_of_the_group(group: str) -> None:
    assert known(group) == sorted(path.stem for path in (CONF / group).glob("*.yaml"))


# -- composing -------------------------------------------------------------------------------------


def test_defaults_are_those_of_the_paper_and_of_marble() -> None:
    cell = compose_cell([])
    assert (cell.model_name, cell.task.name, cell.seed) == ("fcpe", "nsynth_pitch", 0)
    protocol = cell.protocol
    assert (protocol.name, protocol.hidden, protocol.dropout) == ("mlp512", 512, 0.2)
    assert (protocol.lr, protocol.batch_size) == (1e-3, 64)
    assert (cell.is_demo, cell.baseline, cell.logger.mode) == (True, "fbank_chroma", "auto")


@pytest.mark.parametrize("name", ["paper", "marble_v1"])
def test_protocols_of_others_are_the_numbers_of_marble_v1(name: str) -> None:
    """MARBLE v1's base configs; what the paper leaves open is taken from them."""
    numbers = asdict(compose_cell([f"protocol={name}"]).protocol)
    assert numbers == {
        "name": name,
        "hidden": 512,
        "dropout": 0.2,
        "lr": 1e-3,
        "layer_weights_lr": 1e-3,
        "layer_weights_init": "normal",
        "standardize": False,
        "batch_size": 64,
        "frame_batch_size": 1024,
        "max_epochs": 100,
        "patience": 10,
        "track_score": "logits",
        "linear": True,
    }

    grid = ["protocol.lr=1e-4,5e-3", "seed=1234", "baseline=null", "task=gtzan_genre"]
    cells = compose_cells([f"protocol={name}", *grid])
    rates = [(cell.protocol.lr, cell.protocol.layer_weights_lr) for cell in cells]
    assert rates == [(1e-4, 1e-4), (5e-3, 5e-3)], "one Adam for all: no rate of its own"


def test_an_override_reaches_its_key_with_its_type() -> None:
    protocol = ["protocol.lr=3e-4", "protocol.hidden=64"]
    data = ["data.exclude=[jazz.00054,a-b]", "data.root=/d"]
    cell = compose_cell([*protocol, *data, "seed=7"])
    assert (cell.protocol.lr, cell.protocol.hidden, cell.seed) == (3e-4, 64, 7)
    assert cell.data.exclude == ["jazz.00054", "a-b"]
    assert (cell.data.root, cell.is_demo) == ("/d", False)


def test_ids_of_digits_stay_text() -> None:
    assert compose_cell(["data.exclude=[1224698,0123]"]).data.exclude == ["1224698", "0123"]


def test_folders_come_from_the_environment_where_it_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (compose_cell([]).paths.features, compose_cell([]).paths.runs) == ("features", "runs")
    monkeypatch.setenv("MIRPROBE_CACHE", "/scratch/features")
    assert compose_cell([]).paths.features == "/scratch/features"
    assert compose_cell(["paths.features=/mine"]).paths.features == "/mine"


def test_random_weights_are_a_model_of_their_own_name() -> None:
    assert compose_cell(["model.weights=random"]).model_name == "fcpe-random"


def test_comma_lists_are_multiplied() -> None:
    lists = ["seed=0,1", "protocol.lr=1e-3,3e-4"]
    cells = compose_cells([*lists, "task=nsynth_pitch", "baseline=null"])
    found = [(cell.seed, cell.protocol.lr) for cell in cells]
    assert found == [(0, 1e-3), (0, 3e-4), (1, 1e-3), (1, 3e-4)]


def test_a_comma_inside_brackets_is_no_comma_list() -> None:
    cells = compose_cells(["data.exclude=[a,b]", "task=nsynth_pitch", "baseline=null"])
    assert [cell.data.exclude for cell in cells] == [["a", "b"]]


def test_task_all_is_every_task_and_no_task_is_the_list_of_the_settings() -> None:
    everything = sorted(task for model, task, _ in names("task=all") if model == "fcpe")
    assert everything == [task for task in TASKS if task != "manifest"]
    small = [task for model, task, _ in names() if model == "fcpe"]
    assert small == ["nsynth_pitch", "nsynth_instrument", "giantsteps_key"]
    assert {task for _, task, _ in names("tasks=[gtzan_genre]")} == {"gtzan_genre"}


def test_the_baseline_goes_before_the_models_once_per_task_and_seed() -> None:
    cells = names("model=fcpe,musicfm", "task=nsynth_pitch", "seed=0,1")
    baseline = [cell for cell in cells if cell[0] == "fbank_chroma"]
    assert baseline == [("fbank_chroma", "nsynth_pitch", 0), ("fbank_chroma", "nsynth_pitch", 1)]
    for model, task, seed in cells:
        assert cells.index(("fbank_chroma", task, seed)) <= cells.index((model, task, seed))
    assert len(cells) == 6


def test_the_baseline_is_not_swept_twice_as_a_model_and_takes_no_settings_of_the_model() -> None:
    assert names("model=fbank_chroma", "task=nsynth_pitch") == [("fbank_chroma", "nsynth_pitch", 0)]
    cells = compose_cells(["model.weights=random,trained", "task=nsynth_pitch"])
    assert [cell.model_name for cell in cells] == ["fbank_chroma", "fcpe-random", "fcpe"]
    assert "weights" not in cells[0].model


def test_the_baseline_can_be_left_out() -> None:
    assert names("baseline=null", "task=gtzan_genre") == [("fcpe", "gtzan_genre", 0)]


def test_the_same_cell_asked_for_twice_is_one_cell() -> None:
    assert names("task=nsynth_pitch,nsynth_pitch", "seed=0,0", "baseline=null") == [
        ("fcpe", "nsynth_pitch", 0)
    ]


# -- what is wrong ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "pattern"),
    [
        (
            "model=fcp",
            r"unknown model 'fcp', did you mean 'fcpe'\?.*Known: fbank_chroma, fcpe, .*musicfm",
        ),
        (
            "task=nsynth_pich",
            r"unknown task 'nsynth_pich', did you mean 'nsynth_pitch'\?.*Known: .*gtzan_genre",
        ),
        ("task=nsynth_pitch,gtzan", r"unknown task 'gtzan', did you mean 'gtzan_genre'\?"),
        ("launcher=slrum", r"unknown launcher 'slrum'.*Known: .*local"),
        ("protocol=mlp", r"unknown protocol 'mlp', did you mean 'mlp512'\?"),
        ("model=", r"unknown model ''"),
        ("baseline=fbank_chrom", r"unknown baseline 'fbank_chrom', did you mean 'fbank_chroma'\?"),
        ("tasks=[gtzan_gendre]", r"unknown task 'gtzan_gendre', did you mean 'gtzan_genre'\?"),
        ("protocol.lrr=1", r"unknown setting 'protocol\.lrr', did you mean 'protocol\.lr'\?"),
        (
            "protocol.max_epoch=1",
            r"unknown setting 'protocol\.max_epoch', did you mean 'protocol\.max_epochs'\?",
        ),
        ("sead=1", r"unknown setting 'sead', did you mean 'seed'\?"),
        ("extract.batch=1", r"unknown setting 'extract\.batch'"),
        (
            "model.weigths=random",
            r"unknown setting 'model\.weigths', did you mean 'model\.weights'\?",
        ),
        ("+protocol.foo=1", r"'foo'.*protocol"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest_known_one(
    override: str, pattern: str
) -> None:
    assert re.search(pattern, refusal(override))


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("protocol.lr=fast", "protocol.lr"),
        ("protocol.hidden=3.5", "protocol.hidden"),
        ("protocol.standardize=maybe", "protocol.standardize"),
        ("seed=x", "seed"),
        ("seed=1.5", "seed"),
        ("seed=", "seed"),
        ("data.exclude=jazz.00054", "data.exclude"),
        ("tasks=gtzan_genre", "tasks"),
        ("~protocol.lr", "protocol.lr"),
    ],
)
def test_a_value_of_the_wrong_type_names_its_key(override: str, key: str) -> None:
    assert key in refusal(override, *(["task=nsynth_pitch"] if key != "tasks" else []))


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("protocol.max_epochs=0", "protocol.max_epochs"),
        ("protocol.patience=-1", "protocol.patience"),
        ("protocol.batch_size=0", "protocol.batch_size"),
        ("protocol.lr=-1e-3", "protocol.lr"),
        ("protocol.lr=nan", "protocol.lr"),
        ("protocol.dropout=1", "protocol.dropout"),
        ("protocol.dropout=-0.1", "protocol.dropout"),
        ("protocol.layer_weights_init=ones", "protocol.layer_weights_init"),
        ("protocol.track_score=votes", "protocol.track_score"),
        ("data.scale=0", "data.scale"),
        ("extract.shard_clips=0", "extract.shard_clips"),
        ("extract.n_workers=-1", "extract.n_workers"),
        ("task.clip.seconds=0", "task.clip.seconds"),
        ("task.clip.seconds=-3", "task.clip.seconds"),
        ("logger.mode=onlin", "logger.mode"),
    ],
)
def test_a_value_that_nothing_can_use_names_its_key_and_what_was_found(
    override: str, key: str
) -> None:
    text = refusal(override, "task=nsynth_pitch")
    assert key in text
    assert override.partition("=")[2].lstrip("-").split("e")[0][:3] in text


@pytest.mark.parametrize(
    "word", ["fcpe", "--model", "model", "=1", "protocol.lr='", "a=b=c", "seed=0,"]
)
def test_a_word_that_is_no_setting_is_refused(word: str) -> None:
    assert refusal(word)


@pytest.mark.parametrize(
    ("override", "pasted"),
    [
        ("data.root=/d (1)", 'data.root="/d (1)"'),
        ("data.root=/a=b", 'data.root="/a=b"'),
        ("data.root=/daten/höhe", 'data.root="/daten/höhe"'),
        ("data.root={a", 'data.root="{a"'),
    ],
)
def test_text_that_has_to_be_quoted_is_told_how_and_that_works(override: str, pasted: str) -> None:
    (said,) = shlex.split(refusal(override).rpartition(", ")[2])
    assert said == pasted
    assert compose_cell([pasted]).data.root == override.partition("=")[2]


@pytest.mark.parametrize("value", ["interval(0,1)", "glob(*)"])
def test_a_range_without_values_is_told_to_be_a_list(value: str) -> None:
    assert refusal(f"seed={value}") == f"'seed={value}' is not a list of values: write seed=A,B,C"


def test_endless_lists_are_refused_at_once() -> None:
    assert "10000" in refusal("seed=range(0,1000000000)", "task=nsynth_pitch")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("task.clip=30", "task.clip=30 is a whole section: set one of its keys"),
        ("data.root=", "data.root is empty"),
        ("tasks=[]", "tasks is empty"),
        ("~model", "nothing runs without a model"),
        ("model.card=null", "model.card must have the texts label, licence, note"),
        ("~model.card.note", "model.card must have the texts label, licence, note"),
        ("protocol.lr=1e30", "protocol.lr must be from 1e-12 to 100, found 1e+30"),
        ("logger.timeout_s=0", "logger.timeout_s must be more than 0, found 0"),
    ],
)
def test_what_no_schema_checks_names_its_key(override: str, message: str) -> None:
    assert message in refusal(override)


@pytest.mark.parametrize("text", ["name: [a", "name: a\n\tb: c\n", "- a\n", "7\n", "[" * 5000])
def test_an_own_file_of_settings_that_is_broken_is_named(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    conf = shutil.copytree(CONF, tmp_path / "conf")
    (conf / "model" / "own.yaml").write_text(text)
    monkeypatch.setattr("mirprobe.settings.conf_dir", lambda: conf)
    assert "conf/model/own.yaml is not a file of settings" in refusal("model=own")


def test_a_word_without_equals_is_told_how_to_write_it() -> None:
    assert refusal("fcpe") == "'fcpe' is not a setting: write key=value, such as model=fcpe"
