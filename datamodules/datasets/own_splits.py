"""Splits of somebody's own tracks: as written, drawn, or by folds.

Conventions: a *unit* is what must not be in two splits at once: a group, a song, or the parts of
one file. Of folds one is test, the next one val, and the others are train.
"""

from collections import Counter
from collections.abc import Sequence

from datamodules.datasets.own_table import SPLIT_NAMES, Entry
from datamodules.errors import UserError
from datamodules.splitting import fold_groups, split_groups
from datamodules.tracks import Split

FEWEST_FOLDS = 3  # test, val and train


def splits_of(
    entries: Sequence[Entry], source: str, seed: int, fold: int | str | None, n_folds: int
) -> list[Split]:
    """The split of every row.

    Args:
        entries: the rows.
        source: their table, for errors.
        seed: of what is drawn, where nothing is written.
        fold: that is test; None for splits that are written, or drawn 3:1:1.
        n_folds: how many are drawn where none are written.

    Raises:
        UserError: splits or folds are missing for some, tear a group, or are too few; or there is
            no such fold.
    """
    if fold is not None:
        return _by_fold(entries, source, seed, str(fold), n_folds)

    written = [entry.split for entry in entries if entry.split is not None]
    if not written:
        # MARBLE v2's lists call their splits folds, in files of their own.
        names = {entry.fold for entry in entries if entry.fold is not None} - set(SPLIT_NAMES)
        if names:
            first, *others = _in_order(names)
            raise UserError(
                f"{source} has folds and no splits: say which fold is test, "
                f"task.options.fold={first}, or all in turn, "
                f"task.options.fold={','.join([first, *others])}"
            )
        drawn = split_groups([entry.unit for entry in entries], seed, _classes_of(entries))
        return [drawn[entry.unit] for entry in entries]

    _check_all(entries, [entry.split for entry in entries], source, "split")
    _check_whole(entries, written, source, "split")
    return written


def _by_fold(
    entries: Sequence[Entry], source: str, seed: int, fold: str, n_folds: int
) -> list[Split]:
    """Splits of which one fold is test and the next one val."""
    folds = [entry.fold for entry in entries if entry.fold is not None]
    if folds:
        _check_all(entries, [entry.fold for entry in entries], source, "fold")
        _check_whole(entries, folds, source, "fold")
        names = _in_order(set(folds))
    else:
        if n_folds < FEWEST_FOLDS:
            raise UserError(
                f"task.options.folds must be at least {FEWEST_FOLDS} (test, val and train), found "
                f"{n_folds}"
            )
        units = [entry.unit for entry in entries]
        drawn = fold_groups(units, n_folds, seed, _classes_of(entries))
        folds = [str(drawn[unit]) for unit in units]
        names = [str(number) for number in range(n_folds)]

    if fold not in names:
        known = ", ".join(names)
        raise UserError(f"{source} has no fold {fold}: set task.options.fold to one of {known}")
    if len(names) < FEWEST_FOLDS:
        raise UserError(
            f"{source} has {len(names)} folds, and three are needed: test, val and train. Write "
            "more, or leave the column fold away with 'task.options.columns={fold: null}'"
        )
    val = names[(names.index(fold) + 1) % len(names)]
    of_fold: dict[str, Split] = {fold: "test", val: "val"}
    return [of_fold.get(name, "train") for name in folds]


def _classes_of(entries: Sequence[Entry]) -> list[object] | None:
    """The class of each row, where there are any that can be shared out evenly."""
    if entries[0].label.kind != "classification":
        return None
    return [entry.label for entry in entries]


def _in_order(names: set[str]) -> list[str]:
    """Names of folds, as numbers where all of them are."""
    all_numbers = all(name.isdecimal() for name in names)
    return sorted(names, key=int) if all_numbers else sorted(names)


def _check_all(
    entries: Sequence[Entry], written: Sequence[str | None], source: str, what: str
) -> None:
    """Raises UserError if some rows have a split, or a fold, and others none."""
    without = [entry.track_id for entry, name in zip(entries, written, strict=True) if name is None]
    if without:
        raise UserError(
            f"{len(without)} of {len(entries)} tracks in {source} have no {what} "
            f"(first: {without[0]}): write it for all or for none"
        )


def _check_whole(entries: Sequence[Entry], written: Sequence[str], source: str, what: str) -> None:
    """Raises UserError if a unit, or a song, is in several splits or folds."""
    pairs = list(zip(entries, written, strict=True))
    places = {(entry.unit, name) for entry, name in pairs}
    places |= {(f"group:{entry.song}", name) for entry, name in pairs if entry.song is not None}
    n_places = Counter(unit for unit, _ in places)
    torn = sorted(unit for unit, n in n_places.items() if n > 1)
    if torn:
        raise UserError(
            f"{len(torn)} groups of {source} are in more than one {what} "
            f"(first: {torn[0].removeprefix('group:')}): "
            f"correct the {what}s, or leave the column {what} or group away"
        )
