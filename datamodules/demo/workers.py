"""Files made by several processes that never outlive the one which started them.

Conventions: a worker makes one file at a time and writes it atomically, so whatever is killed when,
a file is whole or absent.
"""

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path

from datamodules.demo.recipe import Item
from datamodules.errors import UserError
from datamodules.files import atomic
from datamodules.workers import end_with_parent


def write_items(
    folder: Path, items: Sequence[Item], n_jobs: int, on_done: Callable[[], None]
) -> None:
    """Writes every item under `folder` with `n_jobs` processes; `on_done` is called here after
    each.

    An error or Ctrl-C ends it when the files in work are finished.

    Raises:
        UserError: a file could not be written, or a worker was killed.
    """
    fork = multiprocessing.get_context(
        "fork"
    )  # hands on the loaded font, and needs no importable __main__
    executor = ProcessPoolExecutor(
        n_jobs, fork, initializer=end_with_parent, initargs=(os.getpid(),)
    )
    try:
        with (
            _without_interrupts()
        ):  # the first submit forks all workers, which keep the blocked mask: Ctrl-C is ours alone
            futures = [executor.submit(_write_item, folder, item) for item in items]
        for future in as_completed(futures):
            future.result()
            on_done()
    except BrokenProcessPool as error:
        problem = "a process that renders the demo corpus was killed, perhaps for want of memory"
        raise UserError(
            f"{problem}: run the same command again with fewer jobs; it goes on where it stopped"
        ) from error
    finally:
        executor.shutdown(cancel_futures=True)


def _write_item(folder: Path, item: Item) -> None:
    content = item.encode()
    with atomic(folder / item.path) as temporary:
        temporary.write_bytes(content)


@contextmanager
def _without_interrupts() -> Iterator[None]:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
