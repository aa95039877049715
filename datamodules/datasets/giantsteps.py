"""GiantSteps key (Knees et al. 2015) with the MTG key set (Faraldo 2017): previews of dance music.

Conventions: tracks are two-minute previews of electronic dance music. Test is the GiantSteps key
set, 604 tracks; train and val come from the MTG set, 1486 rows of which those with confidence 2 and
a single key remain (1159: 923 / 236). MARBLE's paper speaks of 1077; the code that every later
number relies on gives 1159. Val is chosen by artist: an artist is in val by a hash of the name, and
so is everybody who appears with such an artist, carried on twice. Classes are the 12 major keys
from C upwards, spelled with flats, then the 12 minor. A track's group is its artists, separated by
`|`. They are not in the release for test; of 243 of its 604 songs they are public elsewhere, and
12 of those songs are by artists of train, which the passport cannot show.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from textwrap import shorten

from datamodules.card import Card
from datamodules.errors import BrokenLabelsError, MissingFilesError, UserError
from datamodules.tables import Cells, Table, read_csv, read_text
from datamodules.task import TaskDataModule
from datamodules.tracks import Split, Track

TONICS = ("C", "Db", "D", "Eb", "E", "F", "Gb", "G", "Ab", "A", "Bb", "B")
KEYS = tuple(f"{tonic} {mode}" for mode in ("major", "minor") for tonic in TONICS)
_FLATS = {"C#": "Db", "D#": "Eb", "F#": "Gb", "G#": "Ab", "A#": "Bb"}
_A_KEY = "expected one tonic and major or minor"

CARD = Card(
    title="GiantSteps key (2015) and GiantSteps MTG key (2017)",
    licence="not stated",
    citation=(
        "P. Knees et al.: Two data sets for tempo estimation and key detection in electronic dance "
        "music annotated from user corrections, ISMIR 2015; "
        "Á. Faraldo, S. Jordà, P. Herrera: A multi-profile method for key estimation in EDM, "
        "AES Conference on Semantic Audio 2017"
    ),
    obtain="""\
Labels are two repositories, to be unpacked into GS:
  https://github.com/GiantSteps/giantsteps-key-dataset/archive/c8cb8aad2cb53f165be51ea099d0dc75c64a844f.zip
  https://github.com/GiantSteps/giantsteps-mtg-key-dataset/archive/fd7b8c584f7bd6d720d170c325a6d42c9bf75a6b.zip
Audio is single files, 604 and 1486, whose MD5 is in md5/ of each repository; \
the University of Linz keeps them at
  http://www.cp.jku.at/datasets/giantsteps/backup/<id>.LOFI.mp3 \
for GS/giantsteps-key-dataset-<commit>/audio
  http://www.cp.jku.at/datasets/giantsteps/mtg_key_backup/<id>.LOFI.mp3 \
for GS/giantsteps-mtg-key-dataset-<commit>/audio
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


def val_artists(rows: Sequence[Sequence[str]]) -> set[str]:
    """Artists whose tracks are in val (jukemir's rule, MARBLE v1).

    They are chosen by SHA-1 of the name; then everybody joins who shares a row with them, twice
    over. A row sees what the rows before it have changed.

    Args:
        rows: the artists of each row of the metadata, also of rows that are dropped later.
    """
    chosen = {artist for row in rows for artist in row if _sha1(artist) % 116 >= 100}
    for _ in range(2):
        for row in rows:
            if chosen.intersection(row):
                chosen.update(row)
    return chosen


def _sha1(artist: str) -> int:
    return int(hashlib.sha1(artist.lower().encode()).hexdigest(), 16)


class GiantStepsKey(TaskDataModule):
    """Global key of a track, 24 classes (paper 3.4)."""

    dataset = "giantsteps"
    classes = KEYS
    card = CARD
    expected: Mapping[Split, int] = {"train": 923, "val": 236, "test": 604}

    def read_tracks(self) -> list[Track]:
        """Tracks of `giantsteps-key-dataset*/` and `giantsteps-mtg-key-dataset*/` under the root.

        Raises:
            UserError: there is not one of each folder, a table is missing or broken, or a key is
                none.
        """
        return [
            *_read_test(_repository(self.root, "giantsteps-key-dataset")),
            *_read_mtg(_repository(self.root, "giantsteps-mtg-key-dataset")),
        ]


def _repository(root: Path, name: str) -> Path:
    """The folder of a repository, with or without the commit that archives add to its name."""
    found = sorted(path for path in root.glob(f"{name}*") if path.is_dir())
    if len(found) != 1:
        raise UserError(
            f"{root} must hold one folder {name}[-<commit>], found {len(found)}: "
            "unpack the repository's archive there"
        )
    return found[0]


def _audio(repository: Path, track_id: str) -> Path:
    return repository / "audio" / f"{track_id}.LOFI.mp3"


# -- test: a file for every track ------------------------------------------------------------------


def _read_test(repository: Path) -> Iterator[Track]:
    for path in sorted((repository / "annotations" / "key").glob("[!.]*.LOFI.key")):
        track_id = path.name.removesuffix(".LOFI.key")
        yield Track(track_id, _audio(repository, track_id), "test", _key_in(path))


def _key_in(path: Path) -> int:
    """Class of the key that a file holds, and nothing else."""
    key = shorten(read_text(path, "unpack the repository's archive again").strip(), 40)
    try:
        return key_class(key)
    except ValueError as error:
        raise BrokenLabelsError(path, f"has the key {key!r}", _A_KEY) from error


# -- train and val: two tables ---------------------------------------------------------------------


def _read_mtg(repository: Path) -> Iterator[Track]:
    metadata = _read_table(repository, "beatport_metadata.txt", ("ID", "ARTIST"))
    artists = {row["ID"]: _artists(row["ARTIST"]) for row in metadata.rows}
    val = val_artists(list(artists.values()))

    annotations = _read_table(repository, "annotations.txt", ("ID", "MANUAL KEY", "C"))
    for row, key in zip(annotations.rows, annotations.parse(_certain_key), strict=True):
        if key is None:
            continue
        names = artists.get(row["ID"], [])
        split: Split = "val" if val.intersection(names) else "train"
        group = "|".join(filter(None, names)) or None
        yield Track(row["ID"], _audio(repository, row["ID"]), split, key, group)


def _read_table(repository: Path, name: str, columns: Sequence[str]) -> Table:
    folder = repository / "annotations"
    if not (folder / name).is_file():
        remedy = "Unpack the repository's archive again"
        raise MissingFilesError("GiantSteps MTG labels", folder, name, remedy)

    return read_csv(
        folder / name,
        required=columns,
        delimiter="\t",
        quotes=False,  # a title may have one quotation mark, which would swallow the rows below it
        remedy="unpack the repository's archive again",
    )


def _artists(names: str) -> list[str]:
    return [artist.strip() for artist in names.split(",")]


def _certain_key(row: Cells) -> int | None:
    """Class of an annotation; None where its author was not sure, or heard several keys."""
    key = row["MANUAL KEY"]
    if row["C"] != "2" or "/" in key:
        return None
    try:
        return key_class(key)
    except ValueError as error:
        raise ValueError(f"has the key {key!r}, {_A_KEY}") from error
