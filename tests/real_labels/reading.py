"""Real label files, independent readings of them, and trees in the datasets' layouts made of them.

Conventions: none of these files belongs to the repository, and no list derived from one does: what
tests expect is counted from the readings when they run. They lie in the folder that
`MIRPROBE_REAL_LABELS` names, else in `../shared/real-labels` beside the checkout; its README says
what each file is and where it comes from. Audio is a stand-in of 50 ms, of other samples for each
number, so that only files of one number are equal.
"""

import csv
import gzip
import hashlib
import math
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from datamodules.audio.decode import wav_bytes
from datamodules.passport import Passport
from datamodules.task import TaskDataModule
from datamodules.tracks import SPLITS, Split, Track
from mirprobe.assembly import make_data
from mirprobe.settings import compose_cell

_BESIDE = Path(__file__).resolve().parents[3] / "shared" / "real-labels"
FOLDER = Path(os.environ.get("MIRPROBE_REAL_LABELS") or _BESIDE)
_RATE = 8000
_HEADER_BYTES = 44  # of a WAV file
_SILENCE = wav_bytes(np.zeros(_RATE // 20, dtype=np.float32), _RATE)

Labels = Mapping[str, tuple[Split, Sequence[str]]]  # track -> its split, its class or tags


def read(name: str) -> str:
    """Text of a file, unpacked."""
    content = (FOLDER / name).read_bytes()
    if name.endswith(".gz"):
        content = gzip.decompress(content)
    return content.decode("utf-8")


def rows(name: str, delimiter: str = "\t") -> list[list[str]]:
    """Cells of a table without quotes, line by line; a header is a line like any other."""
    return [line.split(delimiter) for line in read(name).splitlines()]


def csv_rows(name: str) -> list[dict[str, str]]:
    """Rows of a CSV file with a header and perhaps quotes; cells stand without the blanks around
    them.
    """
    found = csv.DictReader(read(name).splitlines())
    return [{column.strip(): cell.strip() for column, cell in row.items()} for row in found]


# -- trees -----------------------------------------------------------------------------------------


def write(path: Path, content: str | bytes) -> None:
    """Writes a file and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


def audio(number: int) -> bytes:
    """A WAV file that no other number has."""
    told = number.to_bytes(4, "little")
    return _SILENCE[:_HEADER_BYTES] + told + _SILENCE[_HEADER_BYTES + len(told) :]


def write_long(path: Path, number: int, seconds: float) -> None:
    """Writes a WAV file of some minutes that takes no room on the disk: zeros need not be there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    n_bytes = 2 * math.ceil(seconds * _RATE)
    header = bytearray(_SILENCE[:_HEADER_BYTES])
    header[4:8] = (n_bytes + _HEADER_BYTES - 8).to_bytes(4, "little")
    header[40:44] = n_bytes.to_bytes(4, "little")
    with path.open("wb") as file:
        file.write(header + number.to_bytes(4, "little"))
        file.truncate(_HEADER_BYTES + n_bytes)


def write_audio(paths: Iterable[Path]) -> None:
    """Writes unequal audio files; folders are made once."""
    paths = list(paths)
    for folder in {path.parent for path in paths}:
        folder.mkdir(parents=True, exist_ok=True)
    for number, path in enumerate(paths):
        path.write_bytes(audio(number))


def task_data(root: Path, task: str, *options: str) -> TaskDataModule:
    """A task as the command line makes it, with its settings of `conf/task`."""
    return make_data(compose_cell([f"task={task}", f"data.root={root}", *options]))


# -- comparisons -----------------------------------------------------------------------------------


def labels_of(data: TaskDataModule) -> dict[str, tuple[Split, Sequence[str]]]:
    """Split and names of the class or tags of every track that a task lists."""
    return {track.track_id: (track.split, _names(data, track)) for track in data.listed()}


def _names(data: TaskDataModule, track: Track) -> list[str]:
    if isinstance(track.target, int):
        return [data.classes[track.target]]
    return [name for name, value in zip(data.classes, track.target, strict=True) if value]


def assert_counts(passport: Passport, labels: Labels) -> None:
    """A passport counts what an independent list gives: tracks, classes, and nothing amiss."""
    assert passport.listed == len(labels)
    assert passport.missing == passport.unreadable == ()
    for split in SPLITS:
        of_split = [names for in_split, names in labels.values() if in_split == split]
        n = Counter(name for names in of_split for name in names)

        facts = passport.splits[split]
        found = dict(zip(passport.classes, facts.per_class, strict=True))
        assert facts.found == len(of_split)
        assert found == {name: n[name] for name in passport.classes}


def list_hash(targets: Mapping[str, tuple[Split, int | Sequence[float]]]) -> str:
    """What `mirprobe data` prints for people to compare: a hash of track, split and target."""
    lines = []
    for track, (split, target) in targets.items():
        numbers = [str(target)] if isinstance(target, int) else [f"{x:.6f}" for x in target]
        lines.append(f"{track}\t{split}\t{' '.join(numbers)}\n")
    return hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()[:16]
