"""Names of what is compared: what tells cells apart that would be called the same.

Conventions: a setting is written as on the command line, `key=value`, and of its key only the last
part where no other key ends so. Seeds tell nothing apart: they are what figures average over.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mirprobe.cell import Cell


@dataclass(frozen=True)
class Differences:
    """Settings that tell a cell apart, as `key=value`.

    Attributes:
        task: settings of task and data that differ among cells whose task has one label.
        model: settings, of its features too, that differ among cells whose model has one name.
        protocol: settings that differ among all cells.
    """

    task: tuple[str, ...] = ()
    model: tuple[str, ...] = ()
    protocol: tuple[str, ...] = ()


def find_differences(cells: Sequence[Cell]) -> dict[tuple[str, ...], Differences]:
    """Finds, for the key of every cell, in what it differs from the others beside its names."""
    task = _among_namesakes(cells, [cell.task.label for cell in cells], ("task", "data"))
    names = [cell.model_name for cell in cells]
    model = _among_namesakes(cells, names, ("model", "extract"))
    protocol = _differing_settings(cells, ("protocol",))
    return {
        cell.key: Differences(task[number], model[number], protocol[number])
        for number, cell in enumerate(cells)
    }


def _among_namesakes(
    cells: Sequence[Cell], names: Sequence[str], sections: Sequence[str]
) -> list[tuple[str, ...]]:
    """For each cell, in order, what is not the same in all cells of its name."""
    found: list[tuple[str, ...]] = [()] * len(cells)
    for name in dict.fromkeys(names):
        places = [place for place, other in enumerate(names) if other == name]
        settings = _differing_settings([cells[place] for place in places], sections)
        for place, differing in zip(places, settings, strict=True):
            found[place] = differing
    return found


def _differing_settings(cells: Sequence[Cell], sections: Sequence[str]) -> list[tuple[str, ...]]:
    """For each cell, in order, what it has set in every key in which the cells differ."""
    everything = [_flat_settings(cell) for cell in cells]
    keys: dict[str, None] = {}  # in the order of the settings
    for settings in everything:
        keys |= dict.fromkeys(settings)

    differing: dict[str, list[str]] = {}
    for key in keys:
        texts = [_as_text(settings.get(key)) for settings in everything]
        if _section(key) in sections and len(set(texts)) > 1:
            differing[key] = texts

    short = _short_keys(keys)
    shown = [
        [f"{short[key]}={text}" for text in _without_folders(texts)]
        for key, texts in differing.items()
        if not _is_settled(key, differing)
    ]
    return list(zip(*shown, strict=True)) if shown else [()] * len(cells)


def _flat_settings(cell: Cell) -> dict[str, Any]:
    """Dotted key -> value; places as they are named, though no hash has them."""
    options = {"options": dict(cell.task.options)}
    identity = cell.identity()
    # As they are written on the command line, where the hash says what they mean.
    for name in ("precision", "row_rate"):
        identity.pop(name, None)
    identity["extract"] = {"precision": cell.extract.precision, "pooling": cell.extract.pooling}
    identity["task"] = identity["task"] | options
    identity["data"] = {
        "root": cell.data.root,
        "labels": cell.data.labels,
        **identity["data"],
    }
    identity["model"] = identity["model"] | {"checkpoint": cell.model.get("checkpoint")}
    return _flatten(identity)


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _section(key: str) -> str:
    return key.partition(".")[0]


def _is_settled(key: str, differing: Mapping[str, Sequence[str]]) -> bool:
    """Whether the name of a file in `conf/` tells the key's value: `protocol=mlp512` is enough."""
    name = f"{_section(key)}.name"
    if key == name or name not in differing:
        return False
    pairs = set(zip(differing[name], differing[key], strict=True))
    return len(pairs) == len(set(differing[name]))


def _short_keys(keys: Mapping[str, None]) -> dict[str, str]:
    """The last part of each key, or the whole where several end so; of `task.name` just `task`."""
    uses = Counter(key.split(".")[-1] for key in keys)
    short: dict[str, str] = {}
    for key in keys:
        last = key.split(".")[-1]
        if last == "name":
            short[key] = _section(key)
        else:
            short[key] = last if uses[last] == 1 else key
    return short


def _as_text(value: Any) -> str:
    """A value as it is written on the command line."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return "[" + ",".join(_as_text(item) for item in value) + "]"
    if isinstance(value, float):
        return repr(value).removesuffix(".0")
    return str(value)


def _without_folders(texts: Sequence[str]) -> Sequence[str]:
    """The names of files or folders, where these differ too; other texts as they are."""
    if any(text.startswith("[") for text in texts):
        return texts
    names = [Path(text).name or text for text in texts]
    return names if len(set(names)) == len(set(texts)) else texts
