"""What data there is, what is missing, and how to get it: the verbs `data` and `fetch`."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.text import Text

from datamodules.download import fetch_archives, is_fetched
from datamodules.errors import UserError
from datamodules.excluding import ignored_entries, ignored_line
from mirprobe.assembly import backbone_class, card_of, make_demo_data
from mirprobe.cell import Cell
from mirprobe.progress import ProgressReport, console


def fetch_weights(cell: Cell) -> Path | None:
    """Downloads the published weights of the cell's backbone; None where there is nothing to
    download.

    Raises:
        UserError: they cannot be downloaded, or are not the published ones.
    """
    return backbone_class(cell).fetch(cell.model)


def fetch_data(cell: Cell) -> Path:
    """Downloads the public archives of the cell's dataset into its folder under data.root; returns
    the folder.

    Raises:
        UserError: data.root is not set, or as `datamodules.download.fetch_archives`.
    """
    if cell.data.root is None:
        raise UserError(
            "datasets need a place: add data.root=DIR, the folder in which each has a folder of "
            "its own"
        )
    folder, archives = Path(cell.data.root) / cell.task.folder, card_of(cell).archives
    if is_fetched(archives, folder):
        return folder
    with ProgressReport(f"downloading {cell.task.folder}", 0, "MB") as progress:
        fetch_archives(
            archives,
            folder,
            progress=lambda done, total: progress.update(done // 10**6, total // 10**6),
            say=lambda text: print(text, flush=True),
        )
    return folder


def fetch_datasets(cells: Sequence[Cell]) -> None:
    """Downloads the dataset of every cell, each once, and says how to get those that no public
    archive keeps.

    Raises:
        UserError: as `fetch_data`, or a dataset has to be got by hand; when the others are there.
    """
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
        raise UserError(
            f"no public archive to download for {', '.join(by_hand)}: how to get it by hand is "
            "said above"
        )


def show_data(cells: Sequence[Cell]) -> None:
    """Prints the passport of every task's data, or how to obtain it where it is not there.

    Raises:
        UserError: data is missing or cannot be used; when everything has been printed.
    """
    make_demo_data(cells)
    tasks = {cell.task.name: cell for cell in cells}
    problems = {task: problem for task, cell in tasks.items() if (problem := _show_task(cell))}
    if len(tasks) == 1 and problems:
        raise UserError(problems.popitem()[1])
    if problems:
        said = "; ".join(f"{task}: {problem}" for task, problem in problems.items())
        raise UserError(
            f"data of {len(problems)} of {len(tasks)} tasks cannot be used as it is. {said}"
        )


def _show_task(cell: Cell) -> str | None:
    """Prints what there is to say of a task's data, and returns what makes it unusable."""
    from datamodules.passport import read_passport
    from datamodules.passport_text import card_lines, passport_lines
    from mirprobe.assembly import UnfitMetricError, make_data

    try:
        data = make_data(cell)
        with ProgressReport(
            f"reading data of {cell.task.name}", 0, "files", passing=True
        ) as progress:
            passport = read_passport(data, progress.update)
    except UnfitMetricError as problem:
        return str(problem)  # the data may well be there
    except UserError as problem:
        print_lines(card_lines(cell.task.name, card_of(cell)))
        return str(problem)
    print_lines(passport_lines(cell.task.name, passport))
    ignored = ignored_entries(data.exclude, [data])
    if ignored:
        print_lines([f"  {ignored_line(ignored, [data.dataset])}"])
    problems = [] if passport.complaint is None else [passport.complaint]
    try:
        data.tracks()
    except UserError as problem:
        problems.append(str(problem))
    return ". ".join(problems) or None


def print_lines(lines: Iterable[str]) -> None:
    """Prints text as it is: names from outside are no markup, and lines are not broken."""
    out = console()
    for line in lines:
        out.print(Text(line), soft_wrap=True)
