"""Errors that a user can cause.

Conventions: the message is one line that says what was wrong, what was found and what to do, in
that order. The command line prints it without a traceback and ends with exit code 2; every other
exception is a bug and keeps its traceback. What many places say alike is a class that builds its
text; its arguments are kept as they are, so that it can be sent from one process to another.
"""

import difflib
from collections.abc import Sequence
from pathlib import Path


class UserError(Exception):
    """Something that the user can put right: a name, a path, a file, a full disk."""


def printable(text: str) -> str:
    """A text as one line that a terminal can show: line ends and other control characters of names
    from outside are escaped.

    >>> print(printable("a\\nb\\x1b[2J"))
    a\\nb\\x1b[2J
    """
    shown = (
        letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii")
        for letter in text
    )
    return "".join(shown)


def encodable(text: str) -> str:
    """A text that a file can hold in UTF-8: what is none in a name from outside is escaped.

    >>> encodable("caf\\udce9")
    'caf\\\\udce9'
    """
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def nearest(name: str, names: Sequence[str]) -> str:
    """A question for the known name that an unknown one resembles, to follow it; or nothing.

    >>> nearest("fcp", ["fcpe", "muq"]), nearest("x", ["fcpe"])
    (", did you mean 'fcpe'?", '')
    """
    close = difflib.get_close_matches(name, names, n=1)
    return f", did you mean {close[0]!r}?" if close else ""


class MissingFilesError(UserError):
    """Labels or audio of a dataset that are not where they should be.

    Args:
        what: the dataset, and what of it is missing.
        folder: where it was looked for.
        expected: what should be there.
        remedy: what to do, a sentence without its full stop.

    >>> print(MissingFilesError("GTZAN audio", Path("/data"), "genres folder", "Unpack it there"))
    no GTZAN audio: /data has no genres folder. Unpack it there
    """

    def __init__(self, what: str, folder: Path, expected: str, remedy: str) -> None:
        super().__init__(what, folder, expected, remedy)
        self.what, self.folder = what, folder
        self.expected, self.remedy = expected, remedy

    def __str__(self) -> str:
        return f"no {self.what}: {self.folder} has no {self.expected}. {self.remedy}"


class BrokenLabelsError(UserError):
    """A file of labels that does not hold what it should.

    Args:
        path: the file.
        problem: what is wrong with it, or with its line: `is empty`, `has the key 'H'`.
        remedy: what was expected, or what to do.
        line: the number of the line, counted from 1; None for the whole file.

    >>> print(BrokenLabelsError(Path("keys.txt"), "has the key 'H'", "expected C to B", line=3))
    line 3 of keys.txt has the key 'H': expected C to B
    """

    def __init__(self, path: Path, problem: str, remedy: str, line: int | None = None) -> None:
        super().__init__(path, problem, remedy, line)
        self.path, self.line = path, line
        self.problem, self.remedy = problem, remedy

    def __str__(self) -> str:
        place = f"{self.path}" if self.line is None else f"line {self.line} of {self.path}"
        return f"{place} {self.problem}: {self.remedy}"
