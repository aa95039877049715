"""The command line: `mirprobe VERB [key=value ...]`, one call per verb.

Conventions: settings are Hydra overrides (README, conf/). Exit code 0 only if all that was asked
for exists afterwards; 1 if a self-test fails, or if a part of the work failed and the rest was
done; 2 for what a user can put right at once, told in one line; 128 + n after signal n, such as 130
after Ctrl-C and 143 after SIGTERM. A traceback is a bug.
"""

import argparse
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn

from datamodules.errors import UserError, printable
from datamodules.workers import STOP_SIGNALS
from mirprobe import verbs
from mirprobe.streams import patient_streams
from mirprobe.sweep.local import ERROR, be_alone, is_one_of_several

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
DRY_RUN_HELP = "compute and submit nothing: print the plan, or with launcher=slurm the scripts"
DELETE_HELP = "delete the store of this name, or of these first digits of its hash; asks first"
LAYER_HELP = "this layer alone, 0 is the input of the first block; may be given several times"
FORMS = ("npy", "parquet")
FORM_HELP = "of the files; parquet needs pandas and pyarrow"
VERBS: dict[str, Callable[[argparse.Namespace], int | None]] = {
    "sweep": verbs.sweep,
    "extract": verbs.extract,
    "similarity": verbs.similarity,
    "probe": verbs.probe,
    "report": verbs.report,
    "study": verbs.study,
    "plan": verbs.plan,
    "status": verbs.status,
    "data": verbs.data,
    "check": verbs.check,
    "fetch": verbs.fetch,
    "features": verbs.features,
    "export": verbs.export,
    "push": verbs.push,
    "dashboard": verbs.dashboard,
    "why": verbs.why,
    "task": verbs.task,
    "diff": verbs.diff,
    "list": verbs.list_names,
}


def run(arguments: Sequence[str] | None = None) -> int:
    """Runs a verb and returns the exit code."""
    with patient_streams() as lost, _obeying_signals():
        code = _run(arguments)
    if lost and code == 0:
        print(f"{ERROR}all is done, but {' and '.join(lost)}", file=sys.stderr)
        return 1
    return code


def _run(arguments: Sequence[str] | None) -> int:
    options = _parser().parse_args(arguments)
    try:
        if not _may_be_rank(options):
            be_alone()
        return options.function(options) or 0
    except UserError as error:
        print(f"{ERROR}{printable(str(error))}", file=sys.stderr)
        return 2
    except OSError as error:  # permissions, a name that is too long, a folder for a file
        if error.filename is None:
            raise
        text = f"{error.filename}: {error.strerror}. Put that right and run the same command again"
        print(f"{ERROR}{printable(text)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:  # of a notebook or a test, which keep their own handlers
        return _stopped(signal.SIGINT)
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else 1


def _may_be_rank(options: argparse.Namespace) -> bool:
    """Whether a command is that of SLURM's scripts, which the verb looks at itself."""
    return options.verb == "extract" and options.cell is not None


@contextmanager
def _obeying_signals() -> Iterator[None]:
    """Makes every signal that asks for the end one thing: an orderly end with 128 + its number.

    What somebody has chosen to ignore, as `nohup` does, stays ignored. Our own ranks end at once
    where they hold no open shard, without a word: the process that started them says it.
    """

    def obey(number: int, _frame: FrameType | None) -> None:
        raise SystemExit(_stopped(number))

    handler = signal.SIG_DFL if is_one_of_several() else obey
    heard = [number for number in STOP_SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, handler) for number in heard}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


def _stopped(number: int) -> int:
    name = signal.Signals(number).name
    # Not by print, which may be at work just now.
    text = f"\n{ERROR}stopped by {name}; run the same command to go on\n"
    os.write(sys.stderr.fileno(), text.encode())
    return 128 + number


class _Parser(argparse.ArgumentParser):
    """Says what is wrong with a command in one line, as everything else does."""

    def error(self, message: str) -> NoReturn:
        """Ends the process; the usage is a part of the help."""
        self.exit(2, f"{ERROR}{printable(message)}. See {self.prog} --help\n")


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
        _add_own_arguments(name, verb)
        if name not in ("list", "task"):
            _add_settings(verb)
    return parser


def _add_own_arguments(name: str, verb: argparse.ArgumentParser) -> None:
    """What a verb takes beside settings."""
    if name == "why":
        verb.add_argument("what", metavar="CELL|ROW", help=WHAT)
    if name == "diff":
        verb.add_argument("one", metavar="A", help=WHAT)
        verb.add_argument("other", metavar="B", help="the same for the other result")
    if name == "study":
        verb.add_argument("what", choices=["weights"], help="what is studied")
    if name in ("sweep", "extract", "probe", "study"):
        verb.add_argument("--dry-run", action="store_true", help=DRY_RUN_HELP)
    if name == "status":
        verb.add_argument("--json", action="store_true", help="one JSON list of the cells")

    if name == "task":
        verb.add_argument("action", choices=("new",), help="make one of a table")
        verb.add_argument("table", type=Path, metavar="TABLE", help="CSV or JSONL")
        verb.add_argument("--name", help="of the task; by default that of the table")
    if name == "export":
        verb.add_argument("--layer", type=int, action="append", metavar="K", help=LAYER_HELP)
        verb.add_argument("--form", choices=FORMS, default=FORMS[0], help=FORM_HELP)

    if name == "features":
        verb.add_argument("--delete", metavar="STORE", help=DELETE_HELP)
        verb.add_argument("--yes", action="store_true", help="delete without asking")


def _add_settings(verb: argparse.ArgumentParser) -> None:
    cell_help = "a cell's config.yaml instead of settings; more than one may be given"
    verb.add_argument("--cell", type=Path, action="append", metavar="FILE", help=cell_help)
    settings_help = "Hydra overrides; every key: conf/"
    verb.add_argument("settings", nargs="*", metavar="key=value", help=settings_help)
