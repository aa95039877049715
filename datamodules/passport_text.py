"""Passports in words: what a task's data is, in lines that can be pasted, compared and searched.

Conventions: a line is a fact and starts with its name; lists are cut after 20 entries, but what
stops a run is named in full.
"""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import groupby
from statistics import median

from datamodules.card import Card
from datamodules.duplicates import crosses_splits
from datamodules.excluding import DUPLICATES, exclude_remedy
from datamodules.passport import Passport, SplitFacts, Values
from datamodules.tracks import SPLITS, Split

_MOST_CLASSES = 20  # more of them are summarised
_MOST_LINES = 20
_INDENT = 15

_TableRow = tuple[str, list[str]]  # name, and a cell for each split


def card_lines(task: str, card: Card) -> Iterator[str]:
    """The lines that say how to obtain the data of a task that is not there."""
    yield f"{task}: no data to read"
    yield from _source_lines(card)
    yield from _fact("obtain", *card.obtain.splitlines())
    if card.archives:
        yield from _fact("or fetch", f"mirprobe fetch task={task} data.root=DIR")


def passport_lines(task: str, passport: Passport) -> Iterator[str]:
    """The lines of a passport."""
    yield _summary(task, passport)
    if passport.card is not None:
        yield from _source_lines(passport.card)
    yield from _table_lines(passport)
    yield from _class_lines(passport)
    yield from _audio_lines(passport)
    yield from _file_lines(passport)
    yield from _duplicate_lines(passport)
    yield from _group_lines(passport)
    what = f"SHA-256 over id, split and target of {passport.listed} tracks"
    yield from _fact("list hash", f"{passport.list_hash} ({what})")
    if passport.is_demo and passport.card is not None:
        yield from _fact("real data", *passport.card.obtain.splitlines())


def _summary(task: str, passport: Passport) -> str:
    found = ", ".join(f"{split} {_found(facts)}" for split, facts in passport.splits.items())
    classes = f"{len(passport.classes)} {_noun(passport)}"
    demo = " (demo data, rendered: not the dataset)" if passport.is_demo else ""
    return f"{task}: {found} tracks, {classes}, in {passport.root}{demo}"


def _fact(name: str, *lines: str) -> list[str]:
    """One fact: its name before the first line, `none` where there is no line."""
    first, *more = lines or ("none",)
    return [f"  {name:<{_INDENT - 2}}{first}", *(f"{'':{_INDENT}}{line}" for line in more)]


def _source_lines(card: Card) -> list[str]:
    return [
        *_fact("dataset", card.title),
        *_fact("licence", card.licence),
        *_fact("citation", card.citation),
    ]


def _found(facts: SplitFacts) -> str:
    """Number of tracks, and after a slash that of the complete dataset where it is known."""
    return f"{facts.found}" if facts.expected is None else f"{facts.found}/{facts.expected}"


def _noun(passport: Passport) -> str:
    """Plural of what the targets of this kind are."""
    return {"multilabel": "tags", "regression": "dimensions"}.get(passport.kind, "classes")


# -- labels ----------------------------------------------------------------------------------------


def _table_lines(passport: Passport) -> list[str]:
    """Splits side by side: tracks, hours, and what their labels are."""
    facts = [passport.splits[split] for split in SPLITS]
    rows: list[_TableRow] = [
        ("", list(SPLITS)),
        ("tracks", [_found(f) for f in facts]),
        ("hours", [f"{f.seconds / 3600:.2f}" for f in facts]),
        *_label_rows(passport, facts),
    ]

    # Names reach at least to where the other facts begin.
    name_width = max(_INDENT - 2, *(len(name) for name, _ in rows))
    cell_width = max(max(map(len, cells)) for _, cells in rows)
    lines = []
    for name, cells in rows:
        shown = "".join(f"  {cell:>{cell_width}}" for cell in cells)
        lines.append(f"  {name:<{name_width}}{shown}")
    return lines


def _label_rows(passport: Passport, facts: Sequence[SplitFacts]) -> list[_TableRow]:
    """Values of each dimension, or counts of each class; of many classes only their spread."""
    rows: list[_TableRow] = []
    if passport.kind == "regression":
        for index, name in enumerate(passport.classes):
            rows += _value_rows(name, [f.values[index : index + 1] for f in facts])
        return rows

    unit = ", s" if passport.kind == "frames" else ""
    if len(passport.classes) <= _MOST_CLASSES:
        for index, name in enumerate(passport.classes):
            rows.append((f"{name}{unit}", [f"{f.per_class[index]:.0f}" for f in facts]))
        return rows

    noun = "tag" if passport.kind == "multilabel" else "class"
    return [
        (f"fewest per {noun}{unit}", [f"{min(f.per_class):.0f}" for f in facts]),
        (f"median per {noun}{unit}", [f"{median(f.per_class):g}" for f in facts]),
        (f"most per {noun}{unit}", [f"{max(f.per_class):.0f}" for f in facts]),
    ]


def _value_rows(name: str, values: Sequence[Sequence[Values]]) -> list[_TableRow]:
    """Rows of one dimension, from its values in each split, which a split without tracks lacks."""
    means = []
    ranges = []
    for of_split in values:
        means.append("".join(f"{v.mean:.2f} ({v.sd:.2f})" for v in of_split) or "-")
        ranges.append("".join(f"{v.low:.2f} to {v.high:.2f}" for v in of_split) or "-")
    return [(f"{name}, mean (sd)", means), (f"{name}, range", ranges)]


def _class_lines(passport: Passport) -> Iterator[str]:
    if passport.kind == "regression":
        return

    # A class that no split has is named once, not in each of them.
    without = {split: set(passport.classes_without(split)) for split in SPLITS}
    nowhere = set.intersection(*without.values())
    empty = []
    for split in SPLITS:
        if without[split] - nowhere:
            empty.append(f"{split} {_runs(without[split] - nowhere, passport.classes)}")
    if nowhere:
        empty.append(f"all splits {_runs(nowhere, passport.classes)}")
    yield from _fact("empty", "; ".join(empty) or "none")

    lacking = ", ".join(passport.classes_train_lacks) or "none"
    yield from _fact("train lacks", f"{lacking} of the {_noun(passport)} of val and test")


def _runs(names: Collection[str], classes: Sequence[str]) -> str:
    """Names in the order of the classes, three or more neighbours taken together.

    >>> _runs(["b", "c", "d", "f", "g"], "abcdefg")
    'b .. d, f, g'
    """
    shown = []
    for is_wanted, run in groupby(classes, key=lambda name: name in names):
        members = list(run)
        if is_wanted and len(members) > 2:
            shown.append(f"{members[0]} .. {members[-1]}")
        elif is_wanted:
            shown += members
    return ", ".join(shown)


# -- audio -----------------------------------------------------------------------------------------


def _audio_lines(passport: Passport) -> Iterator[str]:
    hours = sum(facts.seconds for facts in passport.splits.values()) / 3600
    length = ""
    if passport.durations_s is not None:
        low, middle, high = passport.durations_s
        length = f"; a track lasts {low:.2f} to {high:.2f} s, median {middle:.2f} s"
    yield from _fact("audio", f"{hours:.2f} h{length} (as the headers say: no sample was decoded)")
    if passport.lasts_s is not None:
        yield from _length_lines(passport, passport.lasts_s)
    yield from _fact("rates", _file_counts(passport.sample_rates, " Hz"))
    yield from _fact("channels", _file_counts(passport.channels, ""))


def _length_lines(passport: Passport, lasts_s: tuple[float, float]) -> list[str]:
    """Tracks that are shorter or longer than those of the dataset are: most often cut files."""
    low, high = lasts_s
    odd = [f"{name} ({seconds:.2f} s)" for name, seconds in passport.odd_lengths]
    if not odd:
        return _fact("lengths", f"every track lasts {low:g} to {high:g} s, as it should")
    return _fact("lengths", f"{len(odd)} tracks do not last {low:g} to {high:g} s: {_some(odd)}")


def _file_counts(n_files: Mapping[int, int], unit: str) -> str:
    """Number of files of each value."""
    counts = [f"{value}{unit}: {n} files" for value, n in sorted(n_files.items())]
    return ", ".join(counts) or "none"


def _file_lines(passport: Passport) -> Iterator[str]:
    """Files that are not used, and why; those that stop a run are named in full."""
    missing = [track.track_id for track in passport.missing]
    yield from _fact("missing", f"{len(missing)} tracks: {_some(missing)}" if missing else "none")

    ids_of_reason: dict[str, list[str]] = {}
    for item in passport.unreadable:
        ids_of_reason.setdefault(item.reason, []).append(item.track_id)
    unreadable = [
        f"{len(ids)} files, {reason}: {', '.join(ids)}" for reason, ids in ids_of_reason.items()
    ]
    yield from _fact("unreadable", *unreadable)

    left_out = [f"{item.name}: {item.reason} (listed {item.listed})" for item in passport.left_out]
    yield from _fact("left out", *left_out)
    excluded = [f"{item} (data.exclude)" for item in passport.excluded]
    yield from _fact("excluded", *_first_lines(excluded))


def _some(names: Sequence[str]) -> str:
    """The first names in one line."""
    n_more = len(names) - _MOST_LINES
    more = f" and {n_more} more" if n_more > 0 else ""
    return ", ".join(names[:_MOST_LINES]) + more


# -- leaks -----------------------------------------------------------------------------------------


def _duplicate_lines(passport: Passport) -> list[str]:
    if not passport.duplicates:
        return _fact("duplicates", "no two files have the same bytes")

    lines = []
    for same in passport.duplicates:
        where = "across splits" if crosses_splits(same) else f"in {same[0].split}"
        labels = ", with different targets" if len({track.target for track in same}) > 1 else ""
        names = [f"{track.track_id} ({track.split})" for track in same]
        lines.append(f"{where}{labels}: {_some(names)}")

    crossing = sum(map(crosses_splits, passport.duplicates))
    summary = f"{len(lines)} sets of files with the same bytes, {crossing} of them across splits"
    advice = []
    if crossing:
        remedy = exclude_remedy(passport.dataset, [DUPLICATES], passport.exclude)
        advice = [f"{remedy} keeps one copy: in test, else in val"]
    return _fact("duplicates", summary, *_first_lines(lines), *advice)


def _group_lines(passport: Passport) -> list[str]:
    if not passport.groups:
        return _fact("groups", "not known")
    known = ", ".join(f"{split} {passport.grouped.get(split, 0)}" for split in SPLITS)
    counted = f"{len(passport.groups)}, known of {known} tracks"
    leaks = passport.group_leaks
    if not leaks:
        return _fact("groups", f"{counted}; none is in more than one split")

    n_groups = Counter(_splits_of(counts) for counts in leaks.values())
    summary = ", ".join(f"{splits} {n}" for splits, n in sorted(n_groups.items()))
    lines = []
    for name, counts in leaks.items():
        tracks = ", ".join(f"{split} {counts[split]}" for split in SPLITS if split in counts)
        lines.append(f"in {_splits_of(counts)}: {name} ({tracks})")
    return _fact("groups", f"{counted}; in more than one split: {summary}", *_first_lines(lines))


def _splits_of(counts: Mapping[Split, int]) -> str:
    """Splits that a group is in: `train+test`."""
    return "+".join(split for split in SPLITS if split in counts)


def _first_lines(lines: Sequence[str]) -> list[str]:
    """The first lines, and one that says how many there are beside them."""
    n_more = len(lines) - _MOST_LINES
    if n_more <= 0:
        return list(lines)
    return [*lines[:_MOST_LINES], f"and {n_more} more"]
