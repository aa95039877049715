"""GiantSteps key (Knees et al. 2015) with the MTG key set (Faraldo 2017): two-minute previews of
electronic dance music.

Conventions: test is the GiantSteps key set, 604 tracks; train and val come from the MTG set, 1486
rows of which those with confidence 2 and a single key remain (1159: 923 / 236). MARBLE's paper
speaks of 1077; the code that every later number relies on gives 1159. Val is chosen by artist: an
artist is in val by a hash of the name, and so is everybody who appears with such an artist, carried
on twice. Classes are the 12 major keys from C upwards, spelled with flats, then the 12 minor. A
track's group is its artists, separated by `|`; they are not known for test.
"""

import csv
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from datamodules.card import Card
from datamodules.errors import UserError
from datamodules.task import TaskDataModule
from datamodules.tracks import Split, Track

TONICS = ("C", "Db", "D", "Eb", "E", "F", "Gb", "G", "Ab", "A", "Bb", "B")
KEYS = tuple(f"{tonic} {mode}" for mode in ("major", "minor") for tonic in TONICS)
_FLATS = {"C#": "Db", "D#": "Eb", "F#": "Gb", "G#": "Ab", "A#": "Bb"}

CARD = Card(
    title="GiantSteps key (2015) and GiantSteps MTG key (2017)",
    licence="not stated",
    citation=(
        "P. Knees et al.: Two data sets for tempo estimation and key detection in electronic dance "
        "music annotated from user "
        "corrections, ISMIR 2015; Á. Faraldo, S. Jordà, P. Herrera: A multi-profile method for key "
        "estimation in EDM, AES "
        "Conference on Semantic Audio 2017"
    ),
    obtain="""\
Labels are two repositories, to be unpacked into GS:
  https://github.com/GiantSteps/giantsteps-key-dataset/archive/c8cb8aad2cb53f165be51ea099d0dc75c64a844f.zip
  https://github.com/GiantSteps/giantsteps-mtg-key-dataset/archive/fd7b8c584f7bd6d720d170c325a6d42c9bf75a6b.zip
Audio is single files, 604 and 1486, whose MD5 is in md5/ of each repository; the University of Linz keeps them at
  http://www.cp.jku.at/datasets/giantsteps/backup/<id>.LOFI.mp3 for GS/giantsteps-key-dataset-<commit>/audio
  http://www.cp.jku.at/datasets/giantsteps/mtg_key_backup/<id>.LOFI.mp3 for GS/giantsteps-mtg-key-dataset-<commit>/audio
GiantSteps+ (Zenodo 1095691) has other tracks and other labels: it does not serve.""",
)


def key_class(name: str) -> int:
    """Class of a key written with flats or sharps.

    >>> key_class("C major"), key_class("A# minor "), key_class("Db major")
    (0, 22, 1)

    Raises:
        ValueError: the name is not one tonic and `major` or `minor`.
    """
    tonic, mode = name.split()
    return KEYS.index(f"{_FLATS.get(tonic, tonic)} {mode}")


def val_artists(rows: list[list[str]]) -> set[str]:
    """Artists whose tracks are in val: by SHA-1 of the name, then everybody who shares a row with
    them, twice over.

    Args:
        rows: the artists of each row of the metadata, also of rows that are dropped later
            (jukemir's rule, MARBLE v1).
    """
    chosen = {artist for row in rows for artist in row if _hash(artist) % 116 >= 100}
    for _ in range(2):
        for row in rows:
            if chosen.intersection(row):
                chosen.update(row)
    return chosen


def _hash(artist: str) -> int:
    return int(hashlib.sha1(artist.lower().encode()).hexdigest(), 16)


class GiantStepsKey(TaskDataModule):
    """Global key of a track, 24 classes (paper 3.4)."""

    dataset = "giantsteps"
    classes = KEYS
    card = CARD
    expected: Mapping[Split, int] = {"train": 923, "val": 236, "test": 604}

    def read_tracks(self) -> list[Track]:
        """Tracks of both sets, from `giantsteps-key-dataset*/` and `giantsteps-mtg-key-dataset*/`
        under the root.
        """
        return [
            *_read_test(_folder(self.root, "giantsteps-key-dataset")),
            *_read_mtg(_folder(self.root, "giantsteps-mtg-key-dataset")),
        ]


def _folder(root: Path, name: str) -> Path:
    found = sorted(path for path in root.glob(f"{name}*") if path.is_dir())
    if len(found) != 1:
        raise UserError(
            f"{root} must hold one folder {name}[-<commit>], found {len(found)}: unpack the "
            "repository's archive there"
        )
    return found[0]


def _read_test(folder: Path) -> Iterator[Track]:
    for path in sorted((folder / "annotations" / "key").glob("[!.]*.LOFI.key")):
        name = path.name.removesuffix(".key")
        yield Track(
            name.removesuffix(".LOFI"),
            folder / "audio" / f"{name}.mp3",
            "test",
            _class(path.read_text(encoding="utf-8"), path),
        )


def _read_mtg(folder: Path) -> Iterator[Track]:
    metadata = _read_table(folder / "annotations" / "beatport_metadata.txt", ("ID", "ARTIST"))
    artists = {row["ID"]: _artists(row) for row in metadata}
    val = val_artists(list(artists.values()))
    annotations = folder / "annotations" / "annotations.txt"
    for row in _read_table(annotations, ("ID", "MANUAL KEY", "C")):
        if row["C"].strip() == "2" and "/" not in row["MANUAL KEY"]:
            names = artists.get(row["ID"], [])
            split: Split = "val" if val.intersection(names) else "train"
            path, group = (
                folder / "audio" / f"{row['ID']}.LOFI.mp3",
                "|".join(filter(None, names)) or None,
            )
            yield Track(row["ID"], path, split, _class(row["MANUAL KEY"], annotations), group)


def _read_table(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """Rows of a tab-separated table that has at least these columns, none of them cut short."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    except FileNotFoundError as error:
        raise UserError(
            f"no GiantSteps MTG labels: {path} does not exist. Unpack the repository's archive "
            "again"
        ) from error
    _check_table(path, rows, columns)
    return rows


def _check_table(
    path: Path, rows: Sequence[Mapping[str, str | None]], columns: Sequence[str]
) -> None:
    for number, row in enumerate(rows, start=2):
        missing = [column for column in columns if row.get(column) is None]
        if missing:
            raise UserError(
                f"line {number} of {path} has no {missing[0]}: expected tab-separated columns "
                f"{', '.join(columns)}"
            )


def _artists(row: Mapping[str, str]) -> list[str]:
    return [artist.strip() for artist in row["ARTIST"].split(",")]


def _class(key: str, source: Path) -> int:
    try:
        return key_class(key)
    except ValueError as error:
        raise UserError(
            f"{source} has the key {key.strip()!r}: expected one tonic and major or minor"
        ) from error
