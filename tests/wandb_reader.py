"""Reads what an offline W&B run holds, with no server, from `offline-run-*/run-ID.wandb`.

Format of this transaction log: 7 bytes (`:W&B`, 0xBEE1, version), then LevelDB's log framing:
blocks of 32 KiB with records of a 7-byte header (checksum, length, kind: 1 whole, 2 first,
3 middle, 4 last part); each whole record is one protobuf message `Record`.
"""

import json
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_BLOCK, _HEADER = 32768, 7
_WHOLE, _LAST = 1, 4


@dataclass
class OfflineRun:
    """What one run says of itself; `steps` maps a metric's name or glob to its step metric."""

    run_id: str = ""
    name: str = ""
    project: str = ""
    group: str = ""
    job_type: str = ""
    tags: list[str] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    steps: dict[str, str] = field(default_factory=dict)
    exit_code: int | None = None

    def series(self, name: str) -> dict[float, Any]:
        """A series over `layer`."""
        return {point["layer"]: point[name] for point in self.history if name in point}


def read_offline_runs(folder: Path) -> list[OfflineRun]:
    """Every offline run below `folder`, in the order of their names and ids."""
    runs = [read_offline_run(path) for path in folder.rglob("offline-run-*/*.wandb")]
    return sorted(runs, key=lambda run: (run.name, run.run_id))


def read_offline_run(path: Path) -> OfflineRun:
    """One run from its transaction log."""
    from wandb.proto.wandb_internal_pb2 import Record

    run = OfflineRun()
    for message in _messages(path.read_bytes()):
        record = Record()
        record.ParseFromString(message)
        kind = record.WhichOneof("record_type")
        if kind == "run":
            run.run_id = record.run.run_id
            run.name = record.run.display_name
            run.project = record.run.project
            run.group = record.run.run_group
            run.job_type = record.run.job_type
            run.tags = list(record.run.tags)
            _update(run.config, record.run.config.update)
        elif kind == "config":
            _update(run.config, record.config.update)
        elif kind == "summary":
            _update(run.summary, record.summary.update)
        elif kind == "history":
            point: dict[str, Any] = {}
            _update(point, record.history.item)
            run.history.append(point)
        elif kind == "metric":
            run.steps[record.metric.name or record.metric.glob_name] = record.metric.step_metric
        elif kind == "exit":
            run.exit_code = record.exit.exit_code
    run.config.pop("_wandb", None)
    return run


def _messages(content: bytes) -> Iterator[bytes]:
    """Whole records, joined of their parts."""
    mark, magic, _version = struct.unpack("<4sHB", content[:_HEADER])
    assert (mark, magic) == (b":W&B", 0xBEE1), "not a .wandb file"
    position, parts = _HEADER, b""
    while position + _HEADER <= len(content):
        left = _BLOCK - position % _BLOCK
        if left < _HEADER:  # too little for a header: padding up to the next block
            position += left
            continue
        _checksum, length, kind = struct.unpack("<IHB", content[position : position + _HEADER])
        position += _HEADER
        parts += content[position : position + length]
        position += length
        if kind in (_WHOLE, _LAST):
            yield parts
            parts = b""


def _update(target: dict[str, Any], items: Iterable[Any]) -> None:
    """Sets JSON values, whose keys may be nested."""
    for item in items:
        *outer, last = list(item.nested_key) or [item.key]
        place = target
        for key in outer:
            place = place.setdefault(key, {})
        place[last] = json.loads(item.value_json)
