"""Pytest in a tree of its own, in a process that has imported the large packages already.

Conventions: importing torch and Lightning takes longer than most of the tests that are run here, so
processes are forked from a server that has done so, before it has seen any code of ours.
"""

import multiprocessing
import os
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PRELOADED = (
    "pytest",
    "torch",
    "torchaudio",
    "lightning",
    "torchmetrics",
    "h5py",
    "soundfile",
    "librosa",
    "hydra",
    "matplotlib.figure",
    "sklearn.metrics",
    "mir_eval",
)
NEVER_ENDED = -2
_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(list(PRELOADED))


def run_tests(tree: Path, tests: Sequence[str], *options: str, longest_s: float) -> tuple[int, str]:
    """Exit code of pytest in a tree, and the end of what it printed.

    The code is `NEVER_ENDED` where it had to be stopped.
    """
    output = tree / "output.txt"
    process = _FORKS.Process(target=_run, args=(tree, [*options, *tests], output))
    process.start()
    process.join(longest_s)
    code = process.exitcode
    if code is None:
        process.kill()
        process.join()
        code = NEVER_ENDED
    return code, output.read_text(encoding="utf-8", errors="replace")[-3000:]


def _run(tree: Path, arguments: Sequence[str], output: Path) -> None:
    with output.open("wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)

    # Workers of the tests start as everywhere, not by the server that started this process.
    multiprocessing.set_start_method(None, force=True)

    # Nothing of the tree that was copied, neither here nor in processes that tests start.
    os.chdir(tree)
    sys.path[:] = [str(tree), *(path for path in sys.path if not _is_ours(Path(path)))]
    os.environ["PYTHONPATH"] = str(tree)

    import pytest

    quiet = ["-n", "0", "-q", "-p", "no:cacheprovider", f"--basetemp={tree / 'tmp'}"]
    sys.exit(int(pytest.main([*quiet, *arguments])))


def _is_ours(path: Path) -> bool:
    """Whether code of the tree that was copied is imported from there; its packages are not."""
    return path.is_relative_to(ROOT) and not path.is_relative_to(sys.prefix)
