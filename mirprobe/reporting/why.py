"""What a number was made of: the verb `why`.

Conventions: everything is read from what lies beside the number (settings, rows, notes, stamps) and
looked up on the disk; nothing is computed anew. A line is a subject and what there is to say of it.
"""

import gzip
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datamodules.errors import UserError
from datamodules.tracks import SPLITS
from mirprobe.cell import SETTINGS, Cell, read_cell
from mirprobe.provenance import LISTS, MADE_OF, Inputs, Stamps
from mirprobe.reporting.text import counts_text, interval_text, score_text
from mirprobe.results import FILE, Row, read_rows
from mirprobe.scoring.selection import best_layer, by_metric

_WEIGHTS = (".pt", ".pth", ".ckpt", ".bin", ".safetensors")  # endings of files of weights
_SHORTEST = 4  # digits of a hash that are taken for one


@dataclass(frozen=True)
class Made:
    """A result and all that lies beside it.

    Attributes:
        folder: of the result.
        cell: with the settings that lie in the folder above.
        rows: of the result.
        chosen: the rows that are asked about.
        note: hashes of weights, labelled list and store.
        stamps: for each place that the data was read from, its note.
    """

    folder: Path
    cell: Cell
    rows: Sequence[Row]
    chosen: Sequence[Row]
    note: Mapping[str, str]
    stamps: Sequence[Mapping[str, Any]]


def why(what: str, runs: Path) -> list[str]:
    """Lines that say what a number was made of.

    Args:
        what: the folder of a cell or of a result, its `rows.jsonl` or, after a colon, a line of it;
            or the first digits of the hash of a cell or of a result.
        runs: folder of all results, where hashes are looked for.

    Raises:
        UserError: there is no such result, or several; or its files are broken.
    """
    folder, line = find_result(what, runs)
    return why_lines(read_made(folder, line))


# -- finding it ------------------------------------------------------------------------------------


def find_result(what: str, runs: Path) -> tuple[Path, int | None]:
    """The folder of a result, and the line of its rows that is meant, from 1; None for no line.

    Args:
        what: as in `why`.
        runs: folder of all results, where hashes are looked for.

    Raises:
        UserError: there is no such result, or several.
    """
    path, line = Path(what), None
    numbered = re.fullmatch(r"(.+):(\d+)", what)
    if numbered and not path.exists():
        path, line = Path(numbered[1]), int(numbered[2])
    if path.name == FILE:
        path = path.parent
    if line is None and re.fullmatch(rf"[0-9a-f]{{{_SHORTEST},}}", what) and not path.exists():
        return _by_hash(what, runs), None

    if (path / MADE_OF).is_file():
        return path, line
    results = _newest_first(path.glob(f"*/{MADE_OF}"))
    if not results:
        raise UserError(
            f"{what} is no result: it is neither the folder of a cell or of a result, nor its "
            f"{FILE}, nor the first {_SHORTEST} or more digits of a hash. They lie under {runs}"
        )
    return results[0], line


def _by_hash(digits: str, runs: Path) -> Path:
    """The result whose hash, or the newest one of the cell whose hash, begins so."""
    results = _newest_first(runs.glob(f"*/*/*/*/{MADE_OF}"))
    found = [folder for folder in results if folder.name.startswith(digits)]
    if not found:
        of_cells = [
            folder for folder in results if folder.parent.name.split("-")[-1].startswith(digits)
        ]
        cells = dict.fromkeys(folder.parent for folder in of_cells)
        found = of_cells[:1] if len(cells) == 1 else of_cells
    if not found:
        raise UserError(
            f"no result of the hash {digits} under {runs}: set paths.runs to the folder of results"
        )
    if len(found) > 1:
        names = ", ".join(str(folder) for folder in found[:3])
        raise UserError(f"{len(found)} results of the hash {digits} ({names}): give more digits")
    return found[0]


def _newest_first(notes: Any) -> list[Path]:
    """The folders of some notes."""
    paths: list[Path] = sorted(notes, key=lambda path: path.stat().st_mtime, reverse=True)
    return [path.parent for path in paths]


def read_made(folder: Path, line: int | None = None) -> Made:
    """Reads a result and what lies beside it.

    Args:
        folder: of the result.
        line: of its rows that is asked about, from 1; None for the layers chosen on val.

    Raises:
        UserError: a file is missing or broken, or the rows have no such line.
    """
    cell = read_cell(folder.parent / SETTINGS)
    # As it was: a table that an option names may have changed since, and the hash with it.
    config_hash = folder.parent.name.rpartition("-")[2]
    rows = read_rows(folder, config_hash, cell.metrics)
    if not rows:
        raise UserError(f"{folder} has no {FILE}: run `mirprobe sweep` with the same settings")
    if line is None:
        best = [best_layer(scores, "val") for scores in by_metric(rows).values()]
        chosen = [row for row in best if row is not None]
    elif 1 <= line <= len(rows):
        chosen = [rows[line - 1]]
    else:
        raise UserError(f"{folder / FILE} has no line {line}: it has {len(rows)}")

    note = read_note(folder / MADE_OF).get("made_of")
    if not isinstance(note, Mapping):
        raise UserError(f"{folder / MADE_OF} does not say what the result was made of: delete it")
    stamps = [read_note(path) for path in sorted(folder.glob("stamp-*.json"))]
    return Made(folder, cell, rows, chosen, note, stamps)


def read_note(path: Path) -> Mapping[str, Any]:
    """The JSON object of a note that lies beside a result or in a store; empty if it holds another.

    Raises:
        UserError: the file cannot be read.
    """
    try:
        note = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read ({error}): run `mirprobe sweep` again") from error
    return note if isinstance(note, Mapping) else {}


# -- saying it -------------------------------------------------------------------------------------


def why_lines(made: Made) -> list[str]:
    """Lines on each part of what a result was made of."""
    cell, folder = made.cell, made.folder
    runs = folder.parents[3]
    lines = [
        *(("number", number_text(row)) for row in made.chosen),
        ("result", f"{folder}, {len(made.rows)} rows"),
        ("cell", f"{cell.model_name} {cell.task.name} {cell.protocol.name} seed {cell.seed}"),
        *_settings(cell),
        ("weights", _weights(made)),
        ("labels", _labels(runs, made.note.get("tracks", "?"))),
        ("store", _store(Path(cell.paths.features), made.note.get("store", "?"))),
        ("versions", ", ".join(f"{name} {one}" for name, one in made.rows[0].versions.items())),
        *(("read from", text) for text in _places(made.stamps)),
    ]
    width = max(len(subject) for subject, _ in lines)
    return [f"{subject:<{width}}  {text}" for subject, text in lines]


def number_text(row: Row) -> str:
    """A score with its interval, or why there is none, and how its epoch or penalty was chosen."""
    reasons = "".join(f", {reason}" for reason in (row.failed, row.no_interval) if reason)
    demo = ", demo data" if row.demo else ""
    epoch = {} if row.epoch is None else {"epoch": row.epoch}
    chosen = ", ".join(f"{name} {value:.3g}" for name, value in {**epoch, **row.chosen}.items())
    score = f"{score_text(row)} {interval_text(row)} %"
    return (
        f"{row.head_name} on {row.split}: {row.metric} {score} of {counts_text(row)} "
        f"tracks{reasons}, {chosen} chosen by {row.selected_by}{demo}"
    )


def _settings(cell: Cell) -> list[tuple[str, str]]:
    """Every setting that changes results, by section."""
    lines = []
    for section, value in cell.identity().items():
        if isinstance(value, Mapping):
            text = " ".join(f"{key}={one}" for key, one in flatten(value).items())
            lines.append((section, text or "-"))
        else:
            lines.append((section, str(value)))
    return lines


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Values by their dotted keys.

    >>> flatten({"clip": {"seconds": 5.0}, "name": "x"})
    {'clip.seconds': 5.0, 'name': 'x'}
    """
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        nested = flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else None
        flat |= {f"{prefix}{key}": value} if nested is None else nested
    return flat


def _weights(made: Made) -> str:
    """Their fingerprint, and the file, as far as one is named or was read."""
    read = {file for stamp in made.stamps for file in stamp.get("files", ())}
    files = sorted(file for file in read if Path(file).suffix in _WEIGHTS)
    named = made.cell.model.get("checkpoint")
    source = ", ".join([str(named)] if named else files) or "no file: drawn, or none are needed"
    return f"fingerprint {made.note.get('weights', '?')}, {source}"


def _labels(runs: Path, tracks: str) -> str:
    """The labelled list by its hash, with the tracks of each split."""
    path = runs / LISTS / f"{tracks}.tsv.gz"
    try:
        text = gzip.decompress(path.read_bytes()).decode("utf-8", "surrogateescape")
    except FileNotFoundError:
        return f"{tracks}, {path} is not there"
    except (OSError, EOFError, ValueError) as error:
        return f"{tracks}, {path} is broken ({error})"
    splits = Counter(line.rsplit("\t", 3)[-3] for line in text.splitlines() if "\t" in line)
    counts = " ".join(f"{split} {splits[split]}" for split in SPLITS)
    return f"{tracks}, {counts}, {path}"


def _store(features: Path, store: str) -> str:
    """The store by its hash, with the fields of its id."""
    found = sorted(features.glob(f"*-{store}"))
    if not found:
        return f"{store}, no folder of it under {features}"
    n_shards = len(list(found[0].glob("part-*.h5")))
    try:
        fields = read_note(found[0] / "store.json")
    except UserError:
        return f"{store}, {found[0]}, {n_shards} shards, its store.json cannot be read"
    text = " ".join(f"{key}={value}" for key, value in fields.items())
    return f"{store}, {found[0]}, {n_shards} shards, {text}"


def _places(notes: Sequence[Mapping[str, Any]]) -> list[str]:
    """For each place that the data was read from, whether it is as it was."""
    stamps = Stamps()
    lines = []
    for note in notes:
        inputs = Inputs(tuple(note.get("folders", ())), tuple(note.get("files", ())))
        there = [Path(path).exists() for path in (*inputs.folders, *inputs.files)]
        state = "current" if stamps.take(inputs) == note.get("stamp") else "files changed"
        if not any(there):
            state = "not there"
        lines.append(f"{', '.join((*inputs.folders, *inputs.files))}: {state}")
    return lines or ["no place that is known"]
