"""Recipes: what a part of the demo corpus consists of, before any of it is rendered.

Conventions: paths are relative to the dataset's folder, with `/`. An item depends on nothing but
its own fields, so its audio is the same at every scale and whatever else is rendered beside it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

RECIPE_VERSION = 1  # a change of any byte that is rendered or written raises it


class Item(Protocol):
    """One audio file to be; a frozen dataclass, for it travels to a worker process."""

    @property
    def path(self) -> str:
        """Where the file goes."""

    def encode(self) -> bytes:
        """The file's content, always the same."""


@dataclass(frozen=True)
class Recipe:
    """All files of one dataset.

    Attributes:
        items: the audio files.
        labels: makes the text files, by path, from the dataset's folder once all audio is there.
    """

    items: Sequence[Item]
    labels: Callable[[Path], Mapping[str, str]]


def count(at_scale_1: int, scale: float) -> int:
    """Number of items of a class at `scale`, at least one.

    >>> count(8, 1.0), count(8, 2.5), count(8, 0.01)
    (8, 20, 1)
    """
    return max(1, round(at_scale_1 * scale))


def demo_root(data_root: Path, scale: float) -> Path:
    """Folder of the demo corpus of this recipe at `scale`.

    >>> demo_root(Path("data"), 1.0).as_posix(), demo_root(Path("data"), 0.25).name
    ('data/demo-v1-scale1', 'demo-v1-scale0.25')
    """
    return data_root / f"demo-v{RECIPE_VERSION}-scale{scale:g}"
