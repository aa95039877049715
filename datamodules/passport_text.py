"""Passports in words: what a task's data is, in lines that can be pasted, compared and searched.

Conventions: a line is a fact and starts with its name; lists are cut after 20 entries, but what
stops a run is named in full.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from statistics import median

from datamodules.card import Card
from datamodules.passport import Passport, SplitFacts, Values, crosses_splits
from datamodules.tracks import SPLITS, Split

_MOST_CLASSES = 20  # more of them are summarised
_MOST_LINES = 20
_INDENT = 15

_TableRow = tuple[str, list[str]]  # name, and a cell for each split


def card_lines(task: str, card: Card) -> Iterator[str]:
    """How to obtain the data of a task that is not there."""
    yield f"{task}: no data to read"
    yield from _card_lines(card)
    yield from _fact("obtain", *card.obtain.splitlines())
    if card.archives:
        yield from _fact("or fetch", f"mirprobe fetch task={task} data.root=DIR")


def passport_lines(task: str, passport: Passport) -> Iterator[str]:
    """The lines of a passport."""
    found = ", ".join(f"{split} {_found(facts)}" for split, facts in passport.splits.items())
    demo = " (demo data, rendered: not the dataset)" if passport.is_demo else ""
    yield f"{task}: {found} tracks, {len(passport.classes)} {_noun(passport)}, in {passport.root}{demo}"
    if passport.card is not None:
        yield from _card_lines(passport.card)
    yield from _table(passport)
    yield from _class_lines(passport)
    yield from _audio_lines(passport)
    yield from _file_lines(passport)
    yield from _duplicate_lines(passport)
    yield from _group_lines(passport)
    yield from _fact(
        "list hash",
        f"{passport.list_hash} (SHA-256 over id, split and target of {passport.listed} tracks)",
    )
    if passport.is_demo and passport.card is not None:
        yield from _fact("real data", *passport.card.obtain.splitlines())


def _fact(name: str, *lines: str) -> list[str]:
    first, *more = lines or ("none",)
    return [f"  {name:<{_INDENT - 2}}{first}", *(f"{'':{_INDENT}}{line}" for line in more)]


def _card_lines(card: Card) -> list[str]:
    return [
        *_fact("dataset", card.title),
        *_fact("licence", card.licence),
        *_fact("citation", card.citation),
    ]


def _found(facts: SplitFacts) -> str:
    return f"{facts.found}" if facts.expected is None else f"{facts.found}/{facts.expected}"


def _noun(passport: Passport) -> str:
    return {"multilabel": "tags", "regression": "dimensions"}.get(passport.kind, "classes")


# -- labels ----------------------------------------------------------------------------------------


def _table(passport: Passport) -> list[str]:
    """Splits side by side: tracks, hours, and what their labels are."""
    facts = [passport.splits[split] for split in SPLITS]
    rows: list[_TableRow] = [("", list(SPLITS)), ("tracks", [_found(f) for f in facts])]
    rows += [("hours", [f"{f.seconds / 3600:.2f}" for f in facts]), *_label_rows(passport, facts)]
    names = max(_INDENT - 2, *(len(name) for name, _ in rows))
    cells = max(len(cell) for _, row in rows for cell in row)
    return [
        f"  {name:<{names}}" + "".join(f"  {cell:>{cells}}" for cell in row) for name, row in rows
    ]


def _label_rows(passport: Passport, facts: Sequence[SplitFacts]) -> list[_TableRow]:
    if passport.kind == "regression":
        return [
            row
            for index, name in enumerate(passport.classes)
            for row in _value_rows(name, [f.values[index : index + 1] for f in facts])
        ]
    unit = ", s" if passport.kind == "frames" else ""
    if len(passport.classes) <= _MOST_CLASSES:
        return [
            (f"{name}{unit}", [f"{f.per_class[index]:.0f}" for f in facts])
            for index, name in enumerate(passport.classes)
        ]
    noun = "tag" if passport.kind == "multilabel" else "class"
    return [
        (f"fewest per {noun}{unit}", [f"{min(f.per_class):.0f}" for f in facts]),
        (f"median per {noun}{unit}", [f"{median(f.per_class):g}" for f in facts]),
        (f"most per {noun}{unit}", [f"{max(f.per_class):.0f}" for f in facts]),
    ]


def _value_rows(name: str, values: Sequence[Sequence[Values]]) -> list[_TableRow]:
    """Rows of one dimension; a split without tracks has no values."""
    return [
        (
            f"{name}, mean (sd)",
            ["".join(f"{v.mean:.2f} ({v.sd:.2f})" for v in split) or "-" for split in values],
        ),
        (
            f"{name}, range",
            ["".join(f"{v.low:.2f} to {v.high:.2f}" for v in split) or "-" for split in values],
        ),
    ]


def _class_lines(passport: Passport) -> Iterator[str]:
    if passport.kind == "regression":
        return
    noun = _noun(passport)
    without = {split: passport.classes_without(split) for split in SPLITS}
    nowhere = [
        name for name in without["train"] if name in without["val"] and name in without["test"]
    ]
    empty = [
        f"{split} {_runs(rest, passport.classes)}"
        for split in SPLITS
        if (rest := _less(without[split], nowhere))
    ]
    empty += [f"all splits {_runs(nowhere, passport.classes)}"] if nowhere else []
    yield from _fact("empty", "; ".join(empty) or "none")
    lacking = passport.classes_train_lacks
    yield from _fact("train lacks", f"{', '.join(lacking) or 'none'} of the {noun} of val and test")


def _less(names: Sequence[str], others: Sequence[str]) -> list[str]:
    return [name for name in names if name not in set(others)]


def _runs(names: Sequence[str], classes: Sequence[str]) -> str:
    """Names in the order of the classes, neighbours taken together.

    >>> _runs(["b", "c", "d", "f", "g"], "abcdefg")
    'b .. d, f, g'
    """
    runs: list[list[str]] = []
    wanted, before = set(names), False
    for name in classes:
        if name in wanted and before:
            runs[-1].append(name)
        elif name in wanted:
            runs.append([name])
        before = name in wanted
    return ", ".join(f"{run[0]} .. {run[-1]}" if len(run) > 2 else ", ".join(run) for run in runs)


# -- audio -----------------------------------------------------------------------------------------


def _audio_lines(passport: Passport) -> Iterator[str]:
    hours = sum(facts.seconds for facts in passport.splits.values()) / 3600
    length = ""
    if passport.durations_s is not None:
        low, middle, high = passport.durations_s
        length = f"; a track lasts {low:.2f} to {high:.2f} s, median {middle:.2f} s"
    yield from _fact("audio", f"{hours:.2f} h{length} (as the headers say: no sample was decoded)")
    yield from _fact("rates", *filter(None, [_counts(passport.sample_rates, "{} Hz")]))
    yield from _fact("channels", *filter(None, [_counts(passport.channels, "{}")]))


def _counts(numbers: Mapping[int, int], name: str) -> str:
    return ", ".join(f"{name.format(value)}: {n} files" for value, n in sorted(numbers.items()))


def _file_lines(passport: Passport) -> Iterator[str]:
    missing = [track.track_id for track in passport.missing]
    yield from _fact("missing", f"{len(missing)} tracks: {_some(missing)}" if missing else "none")
    reasons: dict[str, list[str]] = {}
    for item in passport.unreadable:
        reasons.setdefault(item.reason, []).append(item.track_id)
    yield from _fact(
        "unreadable",
        *(f"{len(ids)} files, {why}: {', '.join(ids)}" for why, ids in reasons.items()),
    )
    yield from _fact(
        "left out",
        *(f"{item.name}: {item.reason} (listed {item.listed})" for item in passport.left_out),
    )
    yield from _fact("excluded", *(f"{item} (data.exclude)" for item in passport.excluded))


def _some(names: Sequence[str]) -> str:
    more = len(names) - _MOST_LINES
    return ", ".join(names[:_MOST_LINES]) + (f" and {more} more" if more > 0 else "")


# -- leaks -----------------------------------------------------------------------------------------


def _duplicate_lines(passport: Passport) -> list[str]:
    crossing = sum(map(crosses_splits, passport.duplicates))
    if not passport.duplicates:
        return _fact("duplicates", "no two files have the same bytes")
    lines = []
    for same in passport.duplicates:
        where = "across splits" if crosses_splits(same) else f"in {same[0].split}"
        labels = ", with different targets" if len({track.target for track in same}) > 1 else ""
        lines.append(
            f"{where}{labels}: {_some([f'{track.track_id} ({track.split})' for track in same])}"
        )
    summary = f"{len(lines)} sets of files with the same bytes, {crossing} of them across splits"
    return _fact("duplicates", summary, *_first(lines))


def _group_lines(passport: Passport) -> list[str]:
    if not passport.groups:
        return _fact("groups", "not known")
    known = ", ".join(f"{split} {passport.grouped.get(split, 0)}" for split in SPLITS)
    counted = f"{len(passport.groups)}, known of {known} tracks"
    leaks = passport.group_leaks
    if not leaks:
        return _fact("groups", f"{counted}; none is in more than one split")
    places = Counter(_places(counts) for counts in leaks.values())
    shown = ", ".join(f"{where} {n}" for where, n in sorted(places.items()))
    lines = [
        f"in {_places(counts)}: {name} ("
        + ", ".join(f"{split} {counts[split]}" for split in SPLITS if counts.get(split))
        + ")"
        for name, counts in leaks.items()
    ]
    return _fact("groups", f"{counted}; in more than one split: {shown}", *_first(lines))


def _places(counts: Mapping[Split, int]) -> str:
    return "+".join(split for split in SPLITS if split in counts)


def _first(lines: Sequence[str]) -> list[str]:
    more = len(lines) - _MOST_LINES
    return [*lines[:_MOST_LINES], *([f"and {more} more"] if more > 0 else [])]
