"""The command `mirprobe`: where it starts.

Conventions: Ctrl-C may come at any moment, so what takes time to import is imported where that is
caught.
"""

import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a verb and returns the exit code."""
    try:
        from mirprobe.command import run

        return run(arguments)
    except KeyboardInterrupt:
        print("\nmirprobe: stopped by SIGINT before any work", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
