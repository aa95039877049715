"""The command line: `mirprobe VERB [key=value ...]`, one call per verb.

Conventions: settings are Hydra overrides (README, conf/). Exit code 0 only if all that was asked for exists afterwards; 1 if
a self-test fails; 2 for what a user can put right, said in one line; 130 or 143 after Ctrl-C or SIGTERM. A traceback is a bug.
"""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from datamodules.errors import UserError

if TYPE_CHECKING:
    from mirprobe.cell import Cell

EXAMPLES = """examples:
  mirprobe sweep                                  the offline demo: pitch, instrument, key with FCPE and the baseline
  mirprobe sweep model=fcpe task=all              every task there is data for
  mirprobe sweep model=fcpe model.weights=random  the random-network control
  mirprobe sweep seed=0,1,2 protocol.lr=1e-3,3e-4 a comma list runs every value
  mirprobe sweep data.root=/datasets task=gtzan_genre data.exclude=[jazz.00054]
  mirprobe report task=all                        the table and figures of what is done
"""


def _cells(options: argparse.Namespace) -> list["Cell"]:
    from mirprobe.cell import read_cell
    from mirprobe.settings import compose_cells

    if options.cell is not None:
        if options.settings:
            raise UserError("--cell FILE already holds every setting: give either the file or key=value settings")
        return [read_cell(options.cell)]
    return compose_cells(options.settings)


def _sweep(options: argparse.Namespace) -> None:
    """Features, probes, W&B and report of every model, task and seed; goes on where it was stopped."""
    from mirprobe.report import report
    from mirprobe.sweep import sweep

    cells = _cells(options)
    sweep(cells)
    report(cells)


def _extract(options: argparse.Namespace) -> None:
    """Features only: every clip through the backbone once, into the feature store."""
    from mirprobe.sweep import extract_all, extract_cell

    cells = _cells(options)
    if options.cell is not None:
        extract_cell(cells[0])
    else:
        extract_all(cells)


def _probe(options: argparse.Namespace) -> None:
    """Probes on stored features, without W&B and report."""
    from mirprobe.sweep import probe_all

    probe_all(_cells(options))


def _report(options: argparse.Namespace) -> None:
    """Prints Table 1 and draws Figure 2 and the layer weights, from the rows of the cells asked for."""
    from mirprobe.report import report
    from mirprobe.sweep import check_done

    cells = _cells(options)
    report(cells)
    check_done(cells)


def _data(options: argparse.Namespace) -> None:
    """Prints a passport of each task's data: counts, audio, broken files, leaks, licence; or how to get the data."""
    from mirprobe.data import show_data

    show_data(_cells(options))


def _push(options: argparse.Namespace) -> None:
    """Writes the W&B runs of finished cells again, from their rows."""
    from mirprobe.sweep import check_done, track

    cells = _cells(options)
    check_done(cells)
    track(cells, again=True)


def _models(options: argparse.Namespace) -> list["Cell"]:
    """One cell for every model asked for; the baseline only if it is asked for alone."""
    by_model = {cell.model_name: cell for cell in _cells(options)}
    return [cell for cell in by_model.values() if not cell.is_baseline] or list(by_model.values())


def _fetch(options: argparse.Namespace) -> None:
    """Downloads, resumed and checked: weights of model=NAME into Hugging Face's cache, data of task=NAME below data.root=DIR."""
    from mirprobe.data import fetch_weights

    wants_data = any(setting.startswith("task=") for setting in options.settings)
    if not wants_data or any(setting.startswith(("model=", "model.")) for setting in options.settings):
        for cell in _models(options):
            print(f"{cell.model_name}: {fetch_weights(cell) or 'nothing to download'}")
    if wants_data:
        _fetch_datasets(_cells(options))


def _fetch_datasets(cells: Sequence["Cell"]) -> None:
    from mirprobe.assembly import card_of
    from mirprobe.data import fetch_data

    by_hand = []
    for cell in {cell.task.folder: cell for cell in cells}.values():
        card = card_of(cell)
        print(f"{card.title}. Licence: {card.licence}", flush=True)
        if card.archives:
            print(f"{cell.task.name}: {fetch_data(cell)}")
        else:
            print(card.obtain)
            by_hand.append(cell.task.name)
    if by_hand:
        raise UserError(f"no public archive to download for {', '.join(by_hand)}: how to get it by hand is said above")


def _check(options: argparse.Namespace) -> int:
    """Self-test of a backbone: determinism, batches, frame rate, sensitivities, precision, speed; exit code 1 if a must fails."""
    from mirprobe.check import check

    holds = [check(cell) for cell in _models(options)]
    return 0 if all(holds) else 1


def _list(_options: argparse.Namespace) -> None:
    """Names every model, task, protocol, launcher and logger."""
    print(_names())


VERBS: dict[str, Callable[[argparse.Namespace], int | None]] = {
    "sweep": _sweep, "extract": _extract, "probe": _probe, "report": _report, "data": _data,
    "check": _check, "fetch": _fetch, "push": _push, "list": _list,
}  # fmt: skip


def _names() -> str:
    from mirprobe.cell import GROUPS
    from mirprobe.settings import known

    return "\n".join(f"  {group:<9} {', '.join(known(group))}" for group in GROUPS)


def _parser() -> argparse.ArgumentParser:
    shape = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="mirprobe", formatter_class=shape, epilog=f"names for key=value:\n{_names()}\n\n{EXAMPLES}",
        description="What does each layer of a frozen music model know? Layer-wise probes on MARBLE's tasks.",
    )  # fmt: skip
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    for name, function in VERBS.items():
        about = " ".join((function.__doc__ or "").split())
        verb = verbs.add_parser(name, help=about, description=about, formatter_class=shape, epilog=EXAMPLES)
        verb.set_defaults(function=function)
        if name != "list":
            verb.add_argument("--cell", type=Path, metavar="FILE", help="a cell's config.yaml instead of settings")
            verb.add_argument("settings", nargs="*", metavar="key=value", help="Hydra overrides; every key: conf/")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a verb and returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        return options.function(options) or 0
    except UserError as error:
        print(f"mirprobe: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return _stopped(130)
    except SystemExit as ended:  # Lightning ends with 1 after Ctrl-C, and with 0 after SIGTERM
        if isinstance(ended.__context__, KeyboardInterrupt):
            return _stopped(130)
        return _stopped(143) if ended.code in (None, 0) else int(ended.code)
    except BrokenPipeError:  # `mirprobe report | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _stopped(code: int) -> int:
    print("\nmirprobe: stopped; run the same command to go on", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
