"""Where work runs. Local: this process for one device, one process per device for several.

Conventions: several processes are started on immutable files, the cells' `config.yaml`, as
`mirprobe extract --cell FILE --cell ...`; Lightning starts the other ranks with the same command.
They form a process group of their own, and a signal to this process goes to all of them.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType

from datamodules.errors import UserError

IS_CHILD = "MIRPROBE_IS_CHILD"  # set for processes that must not outlive the one which started them


def run_on_all_devices(cell_files: Sequence[Path]) -> None:
    """Runs `mirprobe extract` on some cells and waits for it.

    Raises:
        UserError: it failed; its own message stands above.
    """
    files = [f"--cell={file}" for file in cell_files]
    command = [sys.executable, "-m", "mirprobe", "extract", *files]
    child = subprocess.Popen(command, start_new_session=True, env={**os.environ, IS_CHILD: "1"})

    forwarded: list[int] = []

    def forward(number: int, _frame: FrameType | None) -> None:
        forwarded.append(number)
        with suppress(ProcessLookupError):  # it has just ended
            os.killpg(child.pid, number)

    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, forward) for number in numbers}
    try:
        code = child.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

    if forwarded:
        sys.exit(128 + forwarded[0])
    if code != 0:
        raise UserError(f"extraction ended with exit code {code}: see its message above")
