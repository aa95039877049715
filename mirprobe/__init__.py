"""Batches into numbers: backbones, probes, results and reports. Knows no dataset.

For Python there are four names, `load`, `features`, `probe` and `read_rows` (`mirprobe.api`). They
are imported when they are first used, since torch takes seconds.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mirprobe.api import features, load, probe, read_rows

__version__ = "0.1.0"
__all__ = ["features", "load", "probe", "read_rows"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from mirprobe import api

    return getattr(api, name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
