"""A task of one's own from a table: the verb `task new`.

Conventions: the task is a file of settings like those of `conf/task`, in the folder of own settings
(`MIRPROBE_CONF`, by default `own_conf` where mirprobe is started). It names the table by its
absolute path, so that it can be used from anywhere. Nothing is written before the task could be
read with these settings, and no file is ever written over.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from datamodules.audio.clips import ClipRule
from datamodules.datasets.giantsteps import KEYS
from datamodules.datasets.manifest import Manifest
from datamodules.datasets.own_table import read_table
from datamodules.datasets.proposal import Proposal, files_there, propose
from datamodules.errors import UserError
from datamodules.files import write_text
from datamodules.tracks import SPLITS, count_scored
from mirprobe.settings import known, own_dir

_METRICS = {
    "classification": ["accuracy"],
    "multilabel": ["roc_auc", "average_precision"],
    "regression": ["r2"],
    "frames": ["frame_accuracy", "frame_accuracy_macro"],
}
_NAME = re.compile(r"\w[\w.+-]{0,47}")


def new_task(table: Path, name: str | None, say: Callable[[str], None]) -> Path:
    """Looks at a table, says what it found, and writes the settings of a task.

    Args:
        table: .csv or .jsonl.
        name: of the task; None calls it like the table.
        say: takes a line of what was found.

    Raises:
        UserError: the table cannot be used or named in settings, or the name of the task is taken
            or cannot be one.
    """
    task = name or re.sub(r"[^\w.+-]", "_", table.stem).lstrip(".+-")
    if not _NAME.fullmatch(task):
        raise UserError(
            f"a task cannot be called {task!r}: give a name of at most 48 letters, digits, - _ . "
            "or +, --name NAME"
        )
    path = own_dir().absolute() / "task" / f"{task}.yaml"
    if task in known("task"):
        raise UserError(f"there is a task {task} already: give another name, --name NAME")

    if "${" in str(table.absolute()):
        raise UserError(f"{table.absolute()} has ${{, which settings look up: rename it")

    read = read_table(table)
    say(f"{table}: {len(read.lines)} rows, columns {', '.join(read.columns)}")
    proposal = propose(read)
    for line in proposal.lines:
        say(line)

    options = _options(table, proposal)
    data = Manifest(Path(), ClipRule(), **options)
    metrics = _METRICS[data.kind] if data.classes != KEYS else ["key_weighted"]
    counts = count_scored(data.listed())
    shares = "/".join(str(counts[split]) for split in SPLITS)
    say(f"kind: {data.kind}, {len(data.classes)} outputs, by {metrics[0]}; train/val/test {shares}")
    if not {"split", "fold"} & set(proposal.columns):
        say("split: none is written, 3:1:1 is drawn (task.options.split_seed), of groups as wholes")

    n_there, n_files = files_there(read, proposal.columns["path"], [table.parent, Path()])
    if n_there < n_files:
        say(
            f"audio: {n_there} of {n_files} files are beside the table or here: add data.root=DIR, "
            "the folder that the paths start from"
        )
    write_text(path, _yaml(task, options, metrics))
    say(f"written: {path}. Look at it, then: mirprobe data task={task}, mirprobe sweep task={task}")
    return path


def _options(table: Path, proposal: Proposal) -> dict[str, Any]:
    """Options of the data module: what differs from what it would do by itself."""
    columns = {role: name for role, name in proposal.columns.items() if role != name}
    if columns.get("path") == "audio_path":
        del columns["path"]
    options: dict[str, Any] = {"file": str(table.absolute())}
    if columns:
        options["columns"] = columns
    if proposal.targets:
        options["targets"] = list(proposal.targets)
    if "fold" in proposal.columns:
        folds = {str(row[proposal.columns["fold"]]) for row in read_table(table).rows}
        options["fold"] = min(folds, key=lambda name: (len(name), name))
    return options


def _yaml(task: str, options: dict[str, Any], metrics: list[str]) -> str:
    """The file of settings; JSON's way to write a value is one of YAML's."""
    lines = [
        "# Made by `mirprobe task new`; what each key means stands in conf/task/manifest.yaml.",
        f"name: {_value(task)}",
        f"label: {_value(task)} # row of the table",
        "level: comprehensive # acoustic | semantic | comprehensive",
        f"_target_: {Manifest.__module__}.{Manifest.__qualname__}",
        "folder: . # data.root itself: where files are that are not beside the table",
        "demo: null",
        f"select_by: {metrics[0]} # chooses epochs",
        f"metrics: {_value(metrics)} # what is reported",
        "clip: # how a track is cut, in s",
        "  seconds: 30.0",
        "  tail_seconds: 5.0",
        "options:",
    ]
    for key in ("file", "train", "val", "test", "targets", "columns", "split_seed", "fold"):
        lines.append(f"  {key}: {_value(options.get(key, 0 if key == 'split_seed' else None))}")
    lines += ["  frame_rate: 8.0", "  folds: 5"]
    return "\n".join(lines) + "\n"


def _value(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
