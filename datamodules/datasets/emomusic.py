"""EmoMusic (Soleymani et al. 2013): 744 clips of 45 s, each rated as a whole.

Conventions: the dataset is also called "1000 songs for emotional analysis of music". A target is
(arousal, valence) in this order, as in MARBLE v1, v2 and jukemir; DEAM, the later release, gives
the same ratings with the two names exchanged, which may be how the paper's rows came about. Ratings
are means over raters on a scale of 1 to 9; each dimension is standardised by mean and population
standard deviation over all development songs (train and val), excluded ones too, so that leaving
out a song moves no target.
Test is MediaEval's evaluation set; the development songs go to train or val by a hash of the artist
(jukemir). Train and val share no artist; test shares some with both.
"""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from datamodules.card import Archive, Card
from datamodules.errors import BrokenLabelsError, MissingFilesError, UserError
from datamodules.tables import Cells, Table, read_csv, to_number
from datamodules.task import TaskDataModule
from datamodules.tracks import Split, Track

AUDIO_FOLDER = "clips_45seconds"
SONGS, RATINGS = "songs_info.csv", "static_annotations.csv"
DIMENSIONS = ("arousal", "valence")
_SONG_COLUMNS = ("song_id", "Artist", "Mediaeval 2013 set")
_RATING_COLUMNS = ("song_id", *(f"mean_{dimension}" for dimension in DIMENSIONS))
_TABLE_FOLDERS = (".", "annotations")
_SCALE = (1.0, 9.0)
_REMEDY = "unpack annotations.tar.gz again"

CARD = Card(
    title="EmoMusic, 1000 songs for emotional analysis of music (2013)",
    licence="not stated (songs of the Free Music Archive)",
    citation=(
        "M. Soleymani, M. N. Caro, E. M. Schmidt, C.-Y. Sha, Y.-H. Yang: 1000 songs for emotional "
        "analysis of music, CrowdMM 2013"
    ),
    obtain="""\
From the University of Geneva, whose page may ask who you are: http://cvml.unige.ch/databases/emoMusic/
Unpack clips_45sec.tar.gz and annotations.tar.gz into EmoMusic:
  EmoMusic/clips_45seconds/<song_id>.mp3 (or .wav), 744 songs
  EmoMusic/songs_info.csv and EmoMusic/static_annotations.csv (or both in EmoMusic/annotations)""",
    archives=(
        Archive(
            url="http://cvml.unige.ch/databases/emoMusic/clips_45sec.tar.gz",
            path="clips_45sec.tar.gz",
            sha256="3994a5d5fefc27f9540d1a69cd7f1294c68e6cb311ce49765021e2e9c7a1057b",
        ),
        Archive(
            url="http://cvml.unige.ch/databases/emoMusic/annotations.tar.gz",
            path="annotations.tar.gz",
            sha256="e0cb0b06e1b0ce7f04b1572fc410937699b7fad9dae67ddaa745f06cda4b0b33",
        ),
    ),
)


@dataclass(frozen=True)
class Song:
    """One row of songs_info.csv; without an artist, `group` is None."""

    song_id: str
    split: Split
    group: str | None


def development_split(artist: str) -> Split:
    """Split of a development song, by SHA-1 of the artist's ASCII letters (jukemir, MARBLE v1).

    The name is lower-cased first; what is then neither an ASCII letter nor ASCII whitespace is
    dropped, and runs of whitespace become one blank. Of the hash mod 10, 0-7 are train and 8-9 val.

    >>> development_split("Tom Waits"), development_split(" TOM  Waits. ")
    ('train', 'train')
    """
    kept = "".join(c for c in artist.lower() if c.isascii() and (c.isalpha() or c.isspace()))
    digest = hashlib.sha1(" ".join(kept.split()).encode()).hexdigest()
    return "train" if int(digest, 16) % 10 < 8 else "val"


class EmoMusicEmotion(TaskDataModule):
    """Arousal and valence of a song (paper 3.4, MARBLE v1 EMO)."""

    dataset = "emomusic"
    kind = "regression"
    classes = DIMENSIONS
    card = CARD
    expected: Mapping[Split, int] = {"train": 504, "val": 115, "test": 125}
    lasts_s = (44.6, 45.1)

    def read_tracks(self) -> list[Track]:
        """All songs with their standardised ratings.

        Raises:
            UserError: a table is missing or lacks a column, the tables disagree, or a rating is no
                number from 1 to 9.
        """
        songs = read_songs(_read_table(self.root, SONGS, _SONG_COLUMNS))
        ratings = read_ratings(_read_table(self.root, RATINGS, _RATING_COLUMNS))
        _check_same_songs(songs.keys(), ratings.keys())

        development = [song for song in songs if songs[song].split != "test"]
        targets = standardise(ratings, development)
        return [
            Track(name, _audio(self.root, name), song.split, targets[name], song.group)
            for name, song in songs.items()
        ]


def standardise(
    ratings: Mapping[str, Sequence[float]], development: Sequence[str]
) -> dict[str, tuple[float, ...]]:
    """Ratings with mean 0 and population standard deviation 1 over the development songs.

    Raises:
        UserError: there are no such songs, or all are rated alike.
    """
    known = np.array([ratings[song] for song in development])
    if len(known) == 0 or not known.std(axis=0).all():
        raise UserError(
            f"{len(known)} development songs in {SONGS}, and their ratings in {RATINGS} do not "
            "vary: targets cannot be standardised. Unpack annotations.tar.gz again"
        )
    scaled = (np.array(list(ratings.values())) - known.mean(axis=0)) / known.std(axis=0)
    return {song: tuple(map(float, row)) for song, row in zip(ratings, scaled, strict=True)}


def _audio(root: Path, song: str) -> Path:
    """The mp3 of a song as it is distributed, or a wav that was made of it."""
    path = root / AUDIO_FOLDER / f"{song}.mp3"
    converted = path.with_suffix(".wav")
    return converted if not path.exists() and converted.exists() else path


# -- tables ----------------------------------------------------------------------------------------


def _read_table(root: Path, name: str, columns: Sequence[str]) -> Table:
    for folder in _TABLE_FOLDERS:
        path = root / folder / name
        if path.is_file():
            # Never to be saved anew: the split rule needs the artists' letters as they were.
            return read_csv(path, required=columns, remedy=_REMEDY)

    places = f"{name} and no annotations/{name}"
    raise MissingFilesError("EmoMusic labels", root, places, "Unpack annotations.tar.gz there")


def read_songs(table: Table) -> dict[str, Song]:
    """Rows of songs_info.csv by song.

    Raises:
        UserError: a row has no number of a song, or an unknown set, or a song comes twice.
    """
    songs = table.parse(_song)
    _check_unique(table.path, [song.song_id for song in songs])
    return {song.song_id: song for song in songs}


def _song(row: Cells) -> Song:
    song_id = _song_id(row)
    group = " ".join(row["Artist"].casefold().split()) or None
    match row["Mediaeval 2013 set"]:
        case "evaluation":
            return Song(song_id, "test", group)
        case "development":
            return Song(song_id, development_split(row["Artist"]), group)
        case other:
            raise ValueError(
                f"(song {song_id}) is of the set {other!r}, expected development or evaluation"
            )


def read_ratings(table: Table) -> dict[str, tuple[float, ...]]:
    """Rows of static_annotations.csv by song: its rating on each dimension, from 1 to 9.

    Raises:
        UserError: a row has no number of a song, or a rating is off the scale, or a song comes
            twice.
    """
    ratings = table.parse(_song_ratings)
    _check_unique(table.path, [song for song, _ in ratings])
    return dict(ratings)


def _song_ratings(row: Cells) -> tuple[str, tuple[float, ...]]:
    song_id = _song_id(row)
    low, high = _SCALE
    ratings = {column: to_number(row[column]) for column in _RATING_COLUMNS[1:]}
    for column, rating in ratings.items():
        if not low <= rating <= high:
            raise ValueError(
                f"(song {song_id}) has the {column} {row[column]!r}, "
                f"expected a number from {low:g} to {high:g}"
            )
    return song_id, tuple(ratings.values())


def _song_id(row: Cells) -> str:
    """Number of a song without leading zeros, as files are named."""
    if not row["song_id"].isdecimal():
        raise ValueError(f"has the song_id {row['song_id']!r}, expected a whole number")
    return str(int(row["song_id"]))


def _check_unique(path: Path, songs: Sequence[str]) -> None:
    seen: set[str] = set()
    for song in songs:
        if song in seen:
            raise BrokenLabelsError(path, f"has song {song} twice", _REMEDY)
        seen.add(song)


def _check_same_songs(songs: Collection[str], rated: Collection[str]) -> None:
    for table, other, lacking in (
        (SONGS, RATINGS, set(songs) - set(rated)),
        (RATINGS, SONGS, set(rated) - set(songs)),
    ):
        if lacking:
            raise UserError(
                f"{len(lacking)} songs of {table} are not in {other} "
                f"(first: {min(lacking, key=int)}): the tables are not of the same release. "
                "Unpack annotations.tar.gz again"
            )
