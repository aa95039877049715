"""Where work runs. Local: this process for one device, one process per device for several.

Conventions: several processes are started on one immutable file, the cell's `config.yaml`, as
`mirprobe extract --cell FILE`; Lightning starts the other ranks with the same command. They form a
process group of their own, and a signal to this process goes to all of them.
"""

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from types import FrameType

from datamodules.errors import UserError

IS_CHILD = "MIRPROBE_IS_CHILD"  # set for processes that must not outlive the one which started them


def run_on_all_devices(cell_file: Path) -> None:
    """Runs `mirprobe extract --cell FILE` and waits for it.

    Raises:
        UserError: it failed; its own message stands above.
    """
    command = [sys.executable, "-m", "mirprobe", "extract", "--cell", str(cell_file)]
    child = subprocess.Popen(command, start_new_session=True, env={**os.environ, IS_CHILD: "1"})

    forwarded: list[int] = []

    def forward(number: int, _frame: FrameType | None) -> None:
        forwarded.append(number)
        with suppress(ProcessLookupError):  # it has just ended
            os.killpg(child.pid, number)

    before = {number: signal.signal(number, forward) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        code = child.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if forwarded:
        sys.exit(128 + forwarded[0])
    if code != 0:
        raise UserError(f"extraction ended with exit code {code}: see its message above")
