"""Settings: composed by Hydra from `conf/`, checked here once, trusted everywhere else.

Conventions: the command line speaks Hydra's override syntax, through the compose API only (no
working directory is changed, no argument is taken from Hydra). One composed `Cell` is one cell: one
model, one task, one protocol, one seed. A comma list in an override stands for one cell per value.
"""

import itertools
import json
import math
import os
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import OmegaConf

from datamodules.errors import UserError, nearest
from datamodules.excluding import read_exclude
from mirprobe.cell import GROUPS, UNREADABLE, Cell, read_yaml, to_cell

MOST_CELLS = 10_000  # of one command: more is a slip, such as range(0,1e9)


def conf_dir() -> Path:
    """The folder `conf`: inside the package when installed, beside it in a checkout."""
    package = Path(__file__).resolve().parent
    places = (package / "conf", package.parent / "conf")
    return next(path for path in places if path.is_dir())


def own_dir() -> Path:
    """The folder of somebody's own settings, with the same groups; it need not exist."""
    return Path(os.environ.get("MIRPROBE_CONF") or "own_conf")


def known(group: str) -> list[str]:
    """Names in a config group, such as all models; own ones among them."""
    return sorted({path.stem for path in _files(group, conf_dir(), own_dir())})


def _files(group: str, *folders: Path) -> list[Path]:
    return [path for folder in folders for path in (folder / group).glob("*.yaml")]


def _compose(overrides: Sequence[str]) -> Any:
    """Hydra's answer to overrides; own files are looked for behind ours."""
    own = own_dir()
    places = []
    if own.is_dir():
        place = json.dumps(f"file://{own.absolute()}", ensure_ascii=False)
        places = [f"hydra.searchpath=[{place}]"]
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return compose("config", overrides=[*places, *overrides])


def all_tasks() -> list[str]:
    """The tasks of `task=all`: every task file of ours but `manifest`, which is the user's data."""
    names = sorted(path.stem for path in _files("task", conf_dir()))
    return [name for name in names if name != "manifest"]


def compose_cell(overrides: Sequence[str]) -> Cell:
    """Composes one cell from Hydra overrides without comma lists.

    Raises:
        UserError: an unknown key, group or name (the nearest known one is given), or a value of the
            wrong type.
    """
    for override in overrides:
        _check_name(override)
    try:
        settings: Any = OmegaConf.to_container(_compose(overrides), resolve=True)
        # Here and not later: a cell is known by what it leaves out, not by the name of a list.
        settings["data"]["exclude"] = read_exclude(settings["data"]["exclude"])
        return to_cell(settings)
    except (HydraException, RecursionError, *UNREADABLE) as error:
        _check_files()  # what Hydra answers to a broken file names neither it nor the line
        raise UserError(_explain(error, overrides)) from error


def _check_files() -> None:
    """Reads every file of settings by itself, and raises what is wrong with the first."""
    for path in [*sorted(conf_dir().rglob("*.yaml")), *sorted(own_dir().rglob("*.yaml"))]:
        try:
            read_yaml(path)
        except UNREADABLE as error:
            raise UserError(
                f"{path} is not a file of settings ({' '.join(str(error).split())}): put it right"
            ) from error


def compose_cells(arguments: Sequence[str]) -> list[Cell]:
    """Composes every cell that a command line asks for: the product of its comma lists.

    The baseline goes before each model, under the same settings of everything but the model.

    Args:
        arguments: Hydra overrides; `task=all` stands for all tasks, no `task=` for the list `tasks`
            of the configuration.

    Raises:
        UserError: as `compose_cell`.
    """
    every_task = f"task={','.join(all_tasks())}"
    overrides = [every_task if argument == "task=all" else argument for argument in arguments]
    for override in overrides:
        _check_name(override)

    # The tasks and the baseline that nothing on the command line names stand in the settings.
    first = compose_cell([values[0] for values in _split_lists(overrides)])
    if not any(_key(override) == "task" for override in overrides):
        if not first.tasks:
            raise UserError("tasks is empty: name one, or write task=NAME")
        overrides.append(f"task={','.join(first.tasks)}")

    split = _split_lists(overrides)
    n_cells = math.prod(len(values) for values in split)
    if n_cells > MOST_CELLS:
        raise UserError(f"these lists make {n_cells} cells, more than {MOST_CELLS}: split them")
    if first.baseline is not None and first.baseline not in known("model"):
        raise UserError(
            f"unknown baseline {first.baseline!r}{nearest(first.baseline, known('model'))}. "
            f"Known: null, {', '.join(known('model'))}"
        )

    cells: dict[tuple[str, ...], Cell] = {}  # what is asked for twice is computed once
    for choice in itertools.product(*split):
        if first.baseline is not None:
            others = [override for override in choice if not _is_model(override)]
            baseline = compose_cell([*others, f"model={first.baseline}"])
            cells.setdefault(baseline.key, replace(baseline, is_baseline=True))
        cell = compose_cell(choice)
        cells.setdefault(cell.key, cell)
    return list(cells.values())


def _split_lists(overrides: Sequence[str]) -> list[list[str]]:
    """For each override those that it stands for: one for every value of a comma list."""
    parser = OverridesParser.create()
    split: list[list[str]] = []
    for override in overrides:
        try:
            parsed = parser.parse_override(override)
            if not parsed.is_sweep_override():
                split.append([override])
                continue
            # A list has at most so many values: range(0,1e9) would take hours to write out.
            texts = itertools.islice(parsed.sweep_string_iterator(), MOST_CELLS + 1)
            values = [f"{parsed.get_key_element()}={text}" for text in texts]
        except HydraException as error:
            raise UserError(_explain_override(override)) from error
        split.append(values)
    return split


def _explain_override(override: str) -> str:
    """What to write instead of an override that Hydra cannot read."""
    key, _, value = override.partition("=")
    if re.match(r"(interval|glob|range|shuffle|sort|choice)\(", value):
        return f"{override!r} is not a list of values: write {key}=A,B,C"
    if value.startswith("["):
        example = shlex.quote(f'{key}=["A","B"]')
        return f"{override!r} cannot be read: a list is written {example}"

    quoted = f'{key}="{value}"'
    try:
        OverridesParser.create().parse_override(quoted)
    except HydraException:
        quoted = f'{key}="text"'
    return (
        f"{override!r} cannot be read: text with any of ( ) [ ] {{ }} = , ' $ or letters beyond "
        f"ASCII is written in quotes, {shlex.quote(quoted)}"
    )


def _key(override: str) -> str:
    """The key that an override sets: of `+model@extra=fcpe` it is `model`."""
    return re.split(r"[=@]", override.lstrip("+~"), maxsplit=1)[0]


def _is_model(override: str) -> bool:
    return _key(override) == "model" or _key(override).startswith("model.")


def _check_name(override: str) -> None:
    """Refuses what Hydra would answer with several lines: a word without `=`, an unknown name."""
    key = _key(override)
    is_setting = "=" in override or override.startswith("~")  # `~key` takes a key away
    if not key or key.startswith("hydra") or not is_setting:
        raise UserError(f"{override!r} is not a setting: write key=value, such as model=fcpe")
    if key not in GROUPS:
        return
    if override.startswith("~"):
        raise UserError(f"{override}: nothing runs without a {key}, write {key}=NAME")

    names = known(key)
    for name in override.partition("=")[2].split(","):
        if name not in names:
            raise UserError(
                f"unknown {key} {name!r}{nearest(name, names)}. Known: {', '.join(names)}"
            )


def _explain(error: Exception, overrides: Sequence[str] = ()) -> str:
    """Puts what Hydra and OmegaConf raise into one line of our words."""
    text = " ".join(str(error).split())
    unknown = re.search(r"Could not override '([^']+)'", text)
    if unknown:
        key = unknown.group(1)
        guess = nearest(key, _known_keys(overrides))
        return f"unknown setting {key!r}{guess}. See conf/config.yaml, or `mirprobe list`"
    section = re.search(r"Merge error: \w+ is not a subclass of (\w+)\. value: (\S+)", text)
    if section:
        names = [override for override in overrides if override.endswith(f"={section.group(2)}")]
        found = names[0] if names else section.group(2)
        return f"{found} is a whole section: set one of its keys, such as task.clip.seconds=30"

    # Of their last lines only the key is of use, the rest are class names and addresses of pages.
    text = re.sub(r" See https.*", "", text)
    text = re.sub(r" full_key: (\S+).*", r" (\1)", text)
    return f"the settings do not fit: {text}. See the comments in conf/"


def _known_keys(overrides: Sequence[str]) -> list[str]:
    """All keys that there are with the models, tasks and protocols that were asked for."""
    groups = [override for override in overrides if override.partition("=")[0] in GROUPS]
    container = OmegaConf.to_container(_compose(groups), resolve=False)
    return _flatten(container) if isinstance(container, Mapping) else []


def _flatten(tree: Mapping[Any, Any], prefix: str = "") -> list[str]:
    """Dotted names of all keys, of sections too."""
    keys = []
    for key, value in tree.items():
        keys.append(f"{prefix}{key}")
        if isinstance(value, Mapping):
            keys += _flatten(value, f"{prefix}{key}.")
    return keys
