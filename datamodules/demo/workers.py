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
    """Writes every item under `folder` with several processes.

    An error or Ctrl-C ends it when the files in work are finished.

    Args:
        folder: the dataset's; the folders of the items exist.
        items: what to write.
        n_jobs: number of processes.
        on_done: called in this process after each file.

    Raises:
        UserError: a file could not be written, or a worker was killed.
    """
    # Forks share the loaded font, and need no __main__ that can be imported.
    fork = multiprocessing.get_context("fork")
    executor = ProcessPoolExecutor(
        n_jobs, fork, initializer=end_with_parent, initargs=(os.getpid(),)
    )

    try:
        # The first submit forks all workers, which keep the blocked mask: Ctrl-C is ours alone.
        with _without_interrupts():
            futures = [executor.submit(_write_item, folder, item) for item in items]

        for future in as_completed(futures):
            future.result()
            on_done()
    except BrokenProcessPool as error:
        raise UserError(
            "a process that renders the demo corpus was killed, perhaps for want of memory: "
            "run the same command again with fewer jobs; it goes on where it stopped"
        ) from error
    finally:
        executor.shutdown(cancel_futures=True)


def _write_item(folder: Path, item: Item) -> None:
    content = item.encode()
    with atomic(folder / item.path) as temporary:
        temporary.write_bytes(content)


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """Holds Ctrl-C back until the block has ended."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
