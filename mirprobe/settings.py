"""Settings: composed by Hydra from `conf/`, checked here once, trusted everywhere else.

Conventions: the command line speaks Hydra's override syntax, through the compose API only (no
working directory is changed, no argument is taken from Hydra). One composed `Cell` is one cell: one
model, one task, one protocol, one seed. A comma list in an override stands for one cell per value.
"""

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from datamodules.errors import UserError
from mirprobe.cell import GROUPS, Cell, to_cell


def conf_dir() -> Path:
    """The folder `conf`: inside the package when installed, beside it in a checkout."""
    package = Path(__file__).resolve().parent
    return next(path for path in (package / "conf", package.parent / "conf") if path.is_dir())


def known(group: str) -> list[str]:
    """Names in a config group, such as all models."""
    return sorted(path.stem for path in (conf_dir() / group).glob("*.yaml"))


def all_tasks() -> list[str]:
    """What `task=all` means: every task file but `manifest`, which is the user's own data."""
    return [name for name in known("task") if name != "manifest"]


def compose_cell(overrides: Sequence[str]) -> Cell:
    """One cell from Hydra overrides without comma lists.

    Raises:
        UserError: an unknown key, group or name (the nearest known one is given), or a value of the
            wrong type.
    """
    for override in overrides:
        _check_name(override)
    try:
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            composed = compose("config", overrides=list(overrides))
        return to_cell(OmegaConf.to_container(composed, resolve=True))
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(_explain(error)) from error


def compose_cells(arguments: Sequence[str]) -> list[Cell]:
    """Every cell that a command line asks for: the product of its comma lists, each model preceded
    by the baseline.

    Args:
        arguments: Hydra overrides; `task=all` stands for all tasks, no `task=` for the list `tasks`
            of the configuration.
    """
    overrides = [
        f"task={','.join(all_tasks())}" if argument == "task=all" else argument
        for argument in arguments
    ]
    for override in overrides:
        _check_name(override)
    first = compose_cell([choice[0] for choice in _choices(overrides)])
    if not any(_key(override) == "task" for override in overrides):
        overrides.append(f"task={','.join(first.tasks)}")
    cells: dict[tuple[str, ...], Cell] = {}
    for choice in _product(_choices(overrides)):
        if first.baseline is not None:
            cell = compose_cell(
                [*(o for o in choice if not _is_model(o)), f"model={first.baseline}"]
            )
            cells.setdefault(_place(cell), replace(cell, is_baseline=True))
        cell = compose_cell(choice)
        cells.setdefault(_place(cell), cell)
    return list(cells.values())


def _place(cell: Cell) -> tuple[str, ...]:
    """A cell's hash, and the places that are in no hash: two folders of data make two cells."""
    checkpoint = str(cell.model.get("checkpoint"))
    return (cell.hash, str(cell.data.root), checkpoint, *asdict(cell.paths).values())


def _choices(overrides: Sequence[str]) -> list[list[str]]:
    try:
        parsed = OverridesParser.create().parse_overrides(list(overrides))
    except HydraException as error:
        raise UserError(_explain(error)) from error
    return [
        [f"{one.get_key_element()}={value}" for value in one.sweep_string_iterator()]
        if one.is_sweep_override()
        else [override]
        for one, override in zip(parsed, overrides, strict=True)
    ]


def _product(choices: Sequence[Sequence[str]]) -> list[list[str]]:
    product: list[list[str]] = [[]]
    for options in choices:
        product = [[*chosen, option] for chosen in product for option in options]
    return product


def _key(override: str) -> str:
    return re.split(r"[=@]", override.lstrip("+~"), maxsplit=1)[0]


def _is_model(override: str) -> bool:
    return _key(override) == "model" or _key(override).startswith("model.")


def _check_name(override: str) -> None:
    """Refuses what Hydra would answer with several lines: a word without `=`, an unknown key or
    name.
    """
    if not _key(override) or _key(override).startswith("hydra"):
        raise UserError(f"{override!r} is not a setting: write key=value, such as model=fcpe")
    if "=" not in override and not override.startswith("~"):
        raise UserError(f"{override!r} is not a setting: write key=value, such as model=fcpe")
    key, value = _key(override), override.partition("=")[2]
    if key in GROUPS:
        for name in value.split(","):
            if name not in known(key):
                raise UserError(
                    f"unknown {key} {name!r}{_nearest(name, known(key))}. Known: "
                    f"{', '.join(known(key))}"
                )


def _explain(error: Exception) -> str:
    text = " ".join(str(error).split())
    unknown = re.search(r"Could not override '([^']+)'", text)
    if unknown:
        key = unknown.group(1)
        return f"unknown setting {key!r}{_nearest(key, _known_keys())}. See conf/config.yaml, or `mirprobe list`"
    text = re.sub(
        r" full_key: (\S+).*| See https.*",
        lambda match: f" ({match.group(1)})" if match.group(1) else "",
        text,
    )
    return f"the settings do not fit: {text}. See the comments in conf/"


def _known_keys() -> list[str]:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        container = OmegaConf.to_container(compose("config"), resolve=False)
    return _flatten(container) if isinstance(container, Mapping) else []


def _flatten(tree: Mapping[Any, Any], prefix: str = "") -> list[str]:
    keys = []
    for key, value in tree.items():
        keys.append(f"{prefix}{key}")
        if isinstance(value, Mapping):
            keys += _flatten(value, f"{prefix}{key}.")
    return keys


def _nearest(name: str, names: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, names, n=1)
    return f", did you mean {close[0]!r}?" if close else ""
