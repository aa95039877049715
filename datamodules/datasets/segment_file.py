"""Labelled stretches of one file of audio, as .lab (or .txt) and .jams files hold them.

Conventions: times are in s from the start of the file of audio; stretches come in order of time and
do not overlap; what lies between them has no label. A line of a .lab file is start, end and label,
apart by blanks or tabs (as Isophonics', Audacity's and mir_eval's are). Of a .jams file counts the
first annotation of a namespace `segment_*`, or else the only one.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from datamodules.tables import to_number

LAB, JAMS = (".lab", ".txt"), (".jams",)
_TOUCHING_S = 1e-3  # by which rounded times may overlap

Stretch = tuple[float, float, str]


def read_segments(path: Path) -> tuple[Stretch, ...]:
    """Start, end and label of every stretch in a file, in order of time.

    Raises:
        ValueError: the file cannot be read, or does not hold what it should; the text names it.
    """
    if path.suffix.lower() not in (*LAB, *JAMS):
        raise ValueError(f"names {path}, which is neither .lab, .txt nor .jams")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ValueError(f"names {path}, which cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"names {path}, which is not UTF-8 text") from error

    try:
        found = _parse_jams(text) if path.suffix.lower() in JAMS else _parse_lab(text)
        return _in_order(found)
    except (ValueError, RecursionError) as problem:
        reason = " ".join(str(problem).split())
        raise ValueError(f"names {path}, which cannot be used ({reason})") from problem


def _parse_lab(text: str) -> list[Stretch]:
    found = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        parts = line.split(maxsplit=2)
        if len(parts) < 3:
            raise ValueError(f"line {number} is not start, end and label: {line.strip()[:40]!r}")
        found.append(_stretch(parts[0], parts[1], parts[2].strip(), f"line {number}"))
    return found


def _parse_jams(text: str) -> list[Stretch]:
    annotation = _annotation(json.loads(text))
    observations = annotation.get("data")
    if not isinstance(observations, list):
        raise ValueError("its annotation has no list of data")

    found = []
    for number, entry in enumerate(observations, start=1):
        what = f"observation {number}"
        if not isinstance(entry, Mapping) or not {"time", "duration", "value"} <= set(entry):
            raise ValueError(f"{what} has no time, duration and value")
        start, duration = to_number(entry["time"]), to_number(entry["duration"])
        found.append(_stretch(start, start + duration, entry["value"], what))
    return found


def _annotation(content: Any) -> Mapping[str, Any]:
    annotations = content.get("annotations") if isinstance(content, Mapping) else None
    if not isinstance(annotations, list) or not all(isinstance(a, Mapping) for a in annotations):
        raise ValueError("it has no list of annotations")

    spaces = [str(annotation.get("namespace")) for annotation in annotations]
    segments = [place for place, name in enumerate(spaces) if name.startswith("segment_")]
    if segments:
        return annotations[segments[0]]  # type: ignore[no-any-return]
    if len(annotations) == 1:
        return annotations[0]  # type: ignore[no-any-return]
    raise ValueError(f"none of its annotations is of segments: {', '.join(spaces) or 'none'}")


def _stretch(start: object, end: object, label: object, what: str) -> Stretch:
    start_s, end_s = to_number(start), to_number(end)
    if not (0 <= start_s < end_s and math.isfinite(end_s)):
        raise ValueError(f"{what} lasts from {start} to {end} s")
    if not isinstance(label, str) or not label.strip():
        raise ValueError(f"{what} has the label {label!r}, expected text")
    return start_s, end_s, label.strip()


def _in_order(found: list[Stretch]) -> tuple[Stretch, ...]:
    """The stretches by time; the start of one gives way to the end of the one before it."""
    if not found:
        raise ValueError("it has no stretch")
    ordered: list[Stretch] = []
    for start_s, end_s, label in sorted(found):
        last_s = ordered[-1][1] if ordered else 0.0
        if start_s < last_s - _TOUCHING_S:
            raise ValueError(f"two stretches overlap at {start_s:g} s")
        ordered.append((max(start_s, last_s), end_s, label))
    return tuple(ordered)
