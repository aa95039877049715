"""Worker processes that never outlive the one which started them.

Conventions: Ctrl-C and an orderly end are the parent's business; a worker ends when its parent is
gone, however that ended. (torch's own watchdog is not enough: an orphan that waits for room in its
queue waits for ever.)
"""

import os
import signal
import threading
import time

_LOOK_FOR_PARENT_S = 0.25


def end_with_parent(parent: int) -> None:
    """Makes this process end soon after process `parent`, and at once by SIGTERM."""
    # The parent's handler, if it has one, is not for its workers.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)

    threading.Thread(target=_watch_parent, args=(parent,), daemon=True).start()


def _watch_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_LOOK_FOR_PARENT_S)
    os._exit(1)
