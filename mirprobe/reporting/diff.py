"""What differs between two results: the verb `diff`.

Conventions: everything is read from what lies beside the results (settings, rows, notes, labelled
lists, stores); nothing is computed anew. The results are called A and B, in the order they were
named. Of each part it is said that it is the same, or what of it differs.
"""

import gzip
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from datamodules.errors import UserError
from datamodules.listing import differences, hash_text
from mirprobe.provenance import LISTS
from mirprobe.reporting.why import Made, find_result, flatten, number_text, read_made, read_note

ABSENT = "not set"


def diff(one: str, other: str, runs: Path) -> list[str]:
    """Lines that say what differs between two results.

    Args:
        one: A, named as in `why`: a folder, its `rows.jsonl[:LINE]` or the first digits of a hash.
        other: B.
        runs: folder of all results, where hashes are looked for.

    Raises:
        UserError: there is no such result, or several; or its files are broken.
    """
    a, b = (read_made(*find_result(what, runs)) for what in (one, other))
    return diff_lines(a, b)


def diff_lines(a: Made, b: Made) -> list[str]:
    """Lines on each part of two results: a subject and what there is to say of it."""
    lines = [
        *(("A", text) for text in _headline(a)),
        *(("B", text) for text in _headline(b)),
        *_settings(a, b),
        ("weights", _hashes(a, b, "weights")),
        ("labels", _labels(a, b)),
        ("store", _store(a, b)),
        ("places", _places(a, b)),
        ("versions", _changes(a.rows[0].versions, b.rows[0].versions)),
    ]
    width = max(len(subject) for subject, _ in lines)
    return [f"{subject:<{width}}  {text}" for subject, text in lines]


def _headline(made: Made) -> list[str]:
    """What a result is, and the numbers that are asked about."""
    cell = made.cell
    name = f"{cell.model_name} {cell.task.name} {cell.protocol.name} seed {cell.seed}"
    return [f"{name}, {made.folder}", *(number_text(row) for row in made.chosen)]


def _settings(a: Made, b: Made) -> list[tuple[str, str]]:
    """A line for each setting that changes results and differs."""
    first, second = flatten(a.cell.identity()), flatten(b.cell.identity())
    found = _differing(first, second)
    hashes = [made.folder.parent.name.rpartition("-")[2] for made in (a, b)]
    n_keys = len(first.keys() | second.keys())

    if found:
        lines = [("settings", f"{len(found)} of {n_keys} differ:")]
    elif hashes[0] == hashes[1]:
        lines = [("settings", f"the same, all {n_keys}")]
    else:
        # The cell's file names a table; the hash was taken of what the table held then.
        text = f"{hashes[0]}, {hashes[1]}: a table that task.options names was another then"
        lines = [("settings", f"no key differs, but the cells' hashes do: {text}")]
    return [*lines, *((f"  {key}", _pair(*values)) for key, values in found.items())]


def _differing(
    first: Mapping[str, Any], second: Mapping[str, Any]
) -> dict[str, tuple[object, object]]:
    """Both values of every key that has two."""
    keys = dict.fromkeys([*first, *second])
    pairs = {key: (first.get(key, ABSENT), second.get(key, ABSENT)) for key in keys}
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}


def _pair(first: object, second: object) -> str:
    return f"A {first}, B {second}"


def _changes(first: Mapping[str, Any], second: Mapping[str, Any]) -> str:
    """What differs between two records in one line."""
    found = _differing(first, second)
    return "; ".join(f"{key}: {_pair(*pair)}" for key, pair in found.items()) or "the same"


def _hashes(a: Made, b: Made, part: str) -> str:
    first, second = a.note.get(part, "?"), b.note.get(part, "?")
    return f"the same, {first}" if first == second else _pair(first, second)


def _labels(a: Made, b: Made) -> str:
    """The labelled lists, and how many tracks of them differ in what."""
    text = _hashes(a, b, "tracks")
    if a.note.get("tracks") == b.note.get("tracks"):
        return text
    if a.cell.task.name != b.cell.task.name:
        return f"{text}; of two tasks"

    lists = [_list_text(made) for made in (a, b)]
    if None in lists:
        return f"{text}; a list is lost or broken, so its tracks cannot be compared"
    counts = differences(*(str(one) for one in lists))
    return f"{text}; {', '.join(f'{what}: {n}' for what, n in counts.items() if n)}"


def _list_text(made: Made) -> str | None:
    """The labelled list of a result; None where it is lost or another than its name says."""
    tracks = made.note.get("tracks", "?")
    path = made.folder.parents[3] / LISTS / f"{tracks}.tsv.gz"
    try:
        text = gzip.decompress(path.read_bytes()).decode("utf-8", "surrogateescape")
    except (OSError, EOFError, zlib.error):
        return None
    return text if hash_text(text) == tracks else None


def _store(a: Made, b: Made) -> str:
    """The stores, and which fields of their ids differ."""
    text = _hashes(a, b, "store")
    if a.note.get("store") == b.note.get("store"):
        return text

    fields = [_store_fields(made) for made in (a, b)]
    if None in fields:
        return f"{text}; a store is gone, so what it was made of cannot be compared"
    return f"{text}; {_changes(*(one or {} for one in fields))}"


def _store_fields(made: Made) -> Mapping[str, Any] | None:
    """What the id of a store was made of; None where the store is gone or cannot be read."""
    store = made.note.get("store", "?")
    for folder in sorted(Path(made.cell.paths.features).glob(f"*-{store}")):
        try:
            return read_note(folder / "store.json")
        except UserError:
            return None
    return None


def _places(a: Made, b: Made) -> str:
    """Files and folders that the settings name, which are in no hash."""
    first, second = (", ".join(filter(None, made.cell.places)) for made in (a, b))
    return f"the same, {first}" if first == second else _pair(first, second)
