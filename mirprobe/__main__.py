"""The command line: `mirprobe VERB [key=value ...]`, one call per verb.

Conventions: settings are Hydra overrides (README, conf/). Exit code 0 only if all that was asked
for exists afterwards; 1 if a self-test fails; 2 for what a user can put right, told in one line;
130 or 143 after Ctrl-C or SIGTERM. A traceback is a bug.
"""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from datamodules.errors import UserError, printable
from mirprobe import verbs

EXAMPLES = """examples:
  mirprobe sweep                                  the offline demo: pitch, instrument, key with \
FCPE and the baseline
  mirprobe sweep model=fcpe task=all              every task there is data for
  mirprobe sweep model=fcpe model.weights=random  the random-network control
  mirprobe sweep seed=0,1,2 protocol.lr=1e-3,3e-4 a comma list runs every value
  mirprobe sweep data.root=/datasets task=gtzan_genre data.exclude=[jazz.00054]
  mirprobe report task=all                        the table and figures of what is done
"""

WHAT = "folder of a cell or a result, its rows.jsonl[:LINE], or the first digits of a hash"
VERBS: dict[str, Callable[[argparse.Namespace], int | None]] = {
    "sweep": verbs.sweep,
    "extract": verbs.extract,
    "probe": verbs.probe,
    "report": verbs.report,
    "data": verbs.data,
    "check": verbs.check,
    "fetch": verbs.fetch,
    "push": verbs.push,
    "why": verbs.why,
    "list": verbs.list_names,
}


def _parser() -> argparse.ArgumentParser:
    shape = argparse.RawDescriptionHelpFormatter
    parser = _Parser(
        prog="mirprobe",
        formatter_class=shape,
        description="What does each layer of a frozen music model know? "
        "Layer-wise probes on MARBLE's tasks.",
        epilog=f"names for key=value:\n{verbs.names()}\n\n{EXAMPLES}",
    )
    subparsers = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    for name, function in VERBS.items():
        about = " ".join((function.__doc__ or "").split())
        verb = subparsers.add_parser(
            name, help=about, description=about, formatter_class=shape, epilog=EXAMPLES
        )
        verb.set_defaults(function=function)
        if name == "why":
            verb.add_argument("what", metavar="CELL|ROW", help=WHAT)
        if name != "list":
            _add_settings(verb)
    return parser


class _Parser(argparse.ArgumentParser):
    """Says what is wrong with a command in one line, as everything else does."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"mirprobe: {printable(message)}. See {self.prog} --help\n")


def _add_settings(verb: argparse.ArgumentParser) -> None:
    cell_help = "a cell's config.yaml instead of settings; more than one may be given"
    verb.add_argument("--cell", type=Path, action="append", metavar="FILE", help=cell_help)
    settings_help = "Hydra overrides; every key: conf/"
    verb.add_argument("settings", nargs="*", metavar="key=value", help=settings_help)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a verb and returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        return options.function(options) or 0
    except KeyboardInterrupt:
        return _stopped(130)
    except SystemExit as ended:  # Lightning ends with 1 after Ctrl-C, and with 0 after SIGTERM
        if isinstance(ended.__context__, KeyboardInterrupt):
            return _stopped(130)
        return _stopped(143) if ended.code in (None, 0) else int(ended.code)
    except BrokenPipeError:  # `mirprobe report | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (UserError, OSError) as error:
        if isinstance(error, OSError) and error.filename is None:
            raise
        print(f"mirprobe: {_one_line(error)}", file=sys.stderr)
        return 2
    return 0


def _one_line(error: UserError | OSError) -> str:
    """What was wrong; an OSError is of permissions, or of a folder where a file is meant."""
    if isinstance(error, UserError):
        return printable(str(error))
    reason = f"{error.filename}: {error.strerror}"
    return printable(f"{reason}. Put that right and run the same command again")


def _stopped(code: int) -> int:
    print("\nmirprobe: stopped; run the same command to go on", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
