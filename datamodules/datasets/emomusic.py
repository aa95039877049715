"""EmoMusic (Soleymani et al. 2013, "1000 songs for emotional analysis of music"): 744 clips of 45
s, rated as a whole.

Conventions: a target is (arousal, valence) in this order, as in MARBLE v1, v2 and jukemir. Ratings
are means over raters on a scale of 1 to 9; each dimension is standardised by mean and population
standard deviation over all development songs (train and val), excluded ones too, so that leaving
out a song moves no target. Test is MediaEval's evaluation set; the development songs go to train or
val by a hash of the artist (jukemir). Train and val share no artist; test shares some with both.
"""

import csv
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from datamodules.card import Archive, Card
from datamodules.errors import UserError
from datamodules.task import TaskDataModule
from datamodules.tracks import Split, Track

AUDIO_FOLDER = "clips_45seconds"
SONGS, RATINGS = "songs_info.csv", "static_annotations.csv"
DIMENSIONS = ("arousal", "valence")
_SONG_COLUMNS = ("song_id", "Artist", "Mediaeval 2013 set")
_RATING_COLUMNS = ("song_id", *(f"mean_{dimension}" for dimension in DIMENSIONS))
_TABLE_FOLDERS = (".", "annotations")
_SCALE = (1.0, 9.0)

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


def development_split(artist: str) -> Split:
    """Split of a development song: SHA-1 of the artist's ASCII letters mod 10, 0-7 train and 8-9
    val (jukemir, MARBLE v1).

    The name is lower-cased first; what is then neither an ASCII letter nor ASCII whitespace is
    dropped, and runs of whitespace become one blank.

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

    def read_tracks(self) -> list[Track]:
        """All songs with their standardised ratings.

        Raises:
            UserError: a table is missing or lacks a column, the tables disagree, or a rating is no
                number from 1 to 9.
        """
        songs, rows = (
            _read_rows(self.root, name, columns)
            for name, columns in ((SONGS, _SONG_COLUMNS), (RATINGS, _RATING_COLUMNS))
        )
        _check_same_songs(songs, rows)
        splits = {song: _split(song, row) for song, row in songs.items()}
        targets = _standardised({song: _ratings(song, rows[song]) for song in songs}, splits)
        return [
            Track(song, _audio(self.root, song), splits[song], targets[song], _artist(row))
            for song, row in songs.items()
        ]


def _artist(row: Mapping[str, str]) -> str | None:
    return " ".join(row["Artist"].casefold().split()) or None


def _audio(root: Path, song: str) -> Path:
    path = root / AUDIO_FOLDER / f"{song}.mp3"
    converted = path.with_suffix(".wav")
    return converted if not path.exists() and converted.exists() else path


def _standardised(
    ratings: Mapping[str, tuple[float, ...]], splits: Mapping[str, Split]
) -> dict[str, tuple[float, ...]]:
    """Ratings with mean 0 and population standard deviation 1 over the songs that are not in test."""
    development = np.array([ratings[song] for song in ratings if splits[song] != "test"])
    if len(development) == 0 or not development.std(axis=0).all():
        raise UserError(
            f"{len(development)} development songs in {SONGS}, and their ratings in {RATINGS} do "
            "not vary: targets cannot be "
            "standardised. Unpack annotations.tar.gz again"
        )
    scaled = (np.array(list(ratings.values())) - development.mean(axis=0)) / development.std(axis=0)
    return {song: tuple(map(float, values)) for song, values in zip(ratings, scaled, strict=True)}


def _split(song: str, row: Mapping[str, str]) -> Split:
    match row["Mediaeval 2013 set"]:
        case "evaluation":
            return "test"
        case "development":
            return development_split(row["Artist"])
        case other:
            raise UserError(
                f"song {song} in {SONGS} is of the set {other!r}: expected development or "
                "evaluation"
            )


def _ratings(song: str, row: Mapping[str, str]) -> tuple[float, ...]:
    low, high = _SCALE
    values = {column: _number(row[column]) for column in _RATING_COLUMNS[1:]}
    wrong = [column for column, value in values.items() if not low <= value <= high]
    if wrong:
        raise UserError(
            f"song {song} in {RATINGS} has the {wrong[0]} {row[wrong[0]]!r}: expected a number "
            f"from {low:g} to {high:g}"
        )
    return tuple(values.values())


def _number(text: str) -> float:
    """The number that a text is, NaN for anything else."""
    try:
        return float(text)
    except ValueError:
        return float("nan")


def _check_same_songs(songs: Mapping[str, object], rows: Mapping[str, object]) -> None:
    for there, missing in (
        (SONGS, songs.keys() - rows.keys()),
        (RATINGS, rows.keys() - songs.keys()),
    ):
        if missing:
            other = RATINGS if there == SONGS else SONGS
            raise UserError(
                f"{len(missing)} songs of {there} are not in {other} (first: "
                f"{min(missing, key=int)}): the tables are not of the "
                "same release. Unpack annotations.tar.gz again"
            )


def _read_rows(root: Path, name: str, columns: Sequence[str]) -> dict[str, dict[str, str]]:
    """Rows of a table by song id, stripped, with these columns and perhaps others."""
    path = next(
        (path for folder in _TABLE_FOLDERS if (path := root / folder / name).is_file()), None
    )
    if path is None:
        raise UserError(
            f"no EmoMusic labels: {root} has no {name} and no annotations/{name}. Unpack "
            "annotations.tar.gz there"
        )
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header, *lines = [[value.strip() for value in line] for line in csv.reader(file)] or [
                []
            ]
    except UnicodeDecodeError as error:  # the split rule needs the artists' letters as they were
        raise UserError(
            f"{path} is not UTF-8 ({error.reason}): it was saved anew, unpack annotations.tar.gz "
            "again"
        ) from error
    missing = [column for column in columns if column not in header]
    if missing:
        raise UserError(
            f"{path} has no column {missing[0]}: expected a comma-separated table with "
            f"{', '.join(columns)}"
        )
    return _by_song(
        path,
        [
            (number, dict(zip(header, line, strict=False)))
            for number, line in enumerate(lines, 2)
            if any(line)
        ],
    )


def _by_song(path: Path, rows: Sequence[tuple[int, dict[str, str]]]) -> dict[str, dict[str, str]]:
    by_song: dict[str, dict[str, str]] = {}
    for number, row in rows:
        if not row["song_id"].isdecimal() or len(row) < len(rows[0][1]):
            raise UserError(
                f"row {number} of {path} is cut short or has no whole number as its song_id: "
                f"{list(row.values())[:3]}"
            )
        song = str(int(row["song_id"]))
        if song in by_song:
            raise UserError(f"{path} has song {song} twice: unpack annotations.tar.gz again")
        by_song[song] = row
    return by_song
