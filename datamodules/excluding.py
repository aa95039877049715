"""`data.exclude`: what its entries mean, and advice that can be pasted.

Conventions: an entry is the id of a track, `dataset:id` for one dataset only, a word (`MISSING`,
`DUPLICATES`) with or without a dataset, or `@FILE`, which stands for the lines of a file. What
stands before a colon is a dataset only where there is one of that name: ids may hold colons.
"""

import re
import shlex
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Protocol

from datamodules.tables import read_text

MISSING = "missing"  # every track without audio
DUPLICATES = "duplicates"  # tracks of train and val whose file another split has too
WORDS = frozenset((MISSING, DUPLICATES))
_FILE = "@"

# What Hydra takes for text as it stands; `12_3`, `1e5`, `true` and `null` are something else to it.
_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_.\-]*:[A-Za-z0-9_./\-]+")


class Excluding(Protocol):
    """What leaves tracks out: a task."""

    def is_ours(self, entry: str) -> bool:
        """Whether an entry may be meant for its dataset."""


def read_exclude(entries: object) -> object:
    """Entries with the lines of a file in place of each `@FILE`; a single `@FILE` needs no list.

    What is no list of entries comes back as it is, for the schema to refuse.

    Raises:
        UserError: a file cannot be read, or is not UTF-8.
    """
    if isinstance(entries, str) and entries.startswith(_FILE):
        entries = [entries]
    if not isinstance(entries, list):
        return entries

    found: list[object] = []
    for entry in entries:
        if not isinstance(entry, str) or not entry.startswith(_FILE):
            found.append(entry)
            continue
        # Not splitlines(): names may hold what it takes for the end of a line.
        remedy = "write one id a line, in UTF-8"
        lines = read_text(Path(entry.removeprefix(_FILE)), remedy).split("\n")
        found += [line.removesuffix("\r") for line in lines if line.strip()]
    return found


def exclude_remedy(dataset: str, ids: Iterable[str], already: Collection[str] = ()) -> str:
    """A setting that leaves out these tracks too, quoted so that a shell can be given it.

    Args:
        dataset: whose tracks they are.
        ids: of the tracks, or one of the words.
        already: entries of `data.exclude`, which the advice must not forget.

    >>> print(exclude_remedy("gtzan", ["jazz.00054"]))
    'data.exclude=[gtzan:jazz.00054]'
    >>> print(exclude_remedy("mine", ["1e5 (live).wav"], already=["a,b"]))
    'data.exclude=["a,b","mine:1e5 (live).wav"]'
    """
    entries = dict.fromkeys([*sorted(already), *(f"{dataset}:{name}" for name in sorted(ids))])
    return shlex.quote(f"data.exclude=[{','.join(map(_quoted, entries))}]")


def _quoted(entry: str) -> str:
    """An entry as Hydra's grammar has it: in double quotes unless it is plain."""
    if _PLAIN.fullmatch(entry):
        return entry
    # Backslashes count only before a quotation mark, also before the one that ends the text.
    escaped = re.sub(r'(\\*)"', r'\1\1\\"', entry)
    return '"' + re.sub(r"(\\+)$", r"\1\1", escaped) + '"'


def ignored_entries(entries: Iterable[str], tasks: Sequence[Excluding]) -> list[str]:
    """Entries that none of some tasks takes for its own, such as those for another dataset."""
    return [entry for entry in sorted(entries) if not any(task.is_ours(entry) for task in tasks)]


def ignored_line(entries: Sequence[str], datasets: Iterable[str]) -> str:
    """What is said of them.

    >>> print(ignored_line(["gtzan:x"], ["nsynth"]))
    data.exclude: gtzan:x ignored, it is neither of the dataset nsynth nor an id of its tracks
    """
    names = " or ".join(dict.fromkeys(datasets))
    return (
        f"data.exclude: {', '.join(entries)} ignored, it is neither of the dataset {names} nor an "
        "id of its tracks"
    )
