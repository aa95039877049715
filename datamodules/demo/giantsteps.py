"""The demo's GiantSteps: ten-second songs in every key, laid out as both annotation repositories.

Conventions: the key set is the test set and spells keys with flats; the MTG set is train and val
and spells them with sharps. Style, tempo and instruments are drawn per song, so the key is all that
songs of one class share. The MTG set also has rows that the rules drop, and one chain of
collaborations that only the second pass of the artist rule brings wholly to val.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from datamodules.audio.decode import mp3_bytes
from datamodules.datasets.giantsteps import KEYS, TONICS, val_artists
from datamodules.demo.recipe import Recipe, count
from datamodules.demo.sound.compose import Mode, Song, compose, render_song
from datamodules.demo.sound.soundfont import DRUMS
from datamodules.demo.sound.styles import STYLES
from datamodules.demo.tables import table_text

FOLDER = "GS"
TEST_FOLDER = "giantsteps-key-dataset"
MTG_FOLDER = "giantsteps-mtg-key-dataset"
SAMPLE_RATE = 22050
SECONDS = 10.0

_PER_KEY = {"train": 4, "val": 1, "test": 2}
_FIRST_ID = {"train": 8_000_000, "val": 8_100_000, "dropped": 8_200_000, "test": 9_000_000}
_ID_STRIDE = 1000  # ids a key has to itself in each split
_SEED = 2
_SHARPS = {"Db": "C#", "Eb": "D#", "Gb": "F#", "Ab": "G#", "Bb": "A#"}
_TRAILING_BLANK = "B major"  # its first train track is `B major `, as some rows of the real file
_KEY_HEADER = ("ID", "MANUAL KEY", "C")
_METADATA_HEADER = ("ID", "ARTIST", "SONG TITLE", "MIX", "LABEL", "BP GENRE", "BP BPM", "BP KEY")

_FIRST_NAMES = (
    "Abri",
    "Calo",
    "Dorn",
    "Elgo",
    "Fenn",
    "Hask",
    "Ingo",
    "Jeppe",
    "Kersti",
    "Loma",
    "Mirel",
    "Odo",
    "Zoë",
)
_LAST_NAMES = (
    "Arkway",
    "Bellmoor",
    "Crail",
    "Dunvegan",
    "Ebbing",
    "Gantry",
    "Holm",
    "Nordlys",
    "Quill",
    "Ström",
    "Wex",
)

# By hash only "Quarter Tone" and "Tern & Plover" are in val. The others get there by working with
# them: "Mezzotint" in the second pass only, because its row with "Lanternfish" comes before the one
# that brings "Lanternfish" to val; "Oxbow" through a row that is dropped later, which the rule
# counts too.
_VAL_CHAIN: tuple[tuple[str, ...], ...] = (
    ("Lanternfish", "Mezzotint"),
    ("Quarter Tone", "Lanternfish"),
    ("Mezzotint",),
    ("Oxbow",),
)

# Rows that the rules drop: MANUAL KEY, C, artists, and what is heard: a class, or None for drums
# alone.
_DROPPED: tuple[tuple[str, int, tuple[str, ...], int | None], ...] = (
    ("A minor", 1, ("Tern & Plover", "Oxbow"), KEYS.index("A minor")),
    ("-", 0, ("Fenn Quill",), None),
    ("F minor / G# major", 2, ("Odo Holm",), KEYS.index("F minor")),
    ("A-A# minor", 0, ("Loma Wex",), KEYS.index("A minor")),
    (" ", 0, ("Ingo Crail",), None),
)


@dataclass(frozen=True)
class KeyTrack:
    """One song of a known key; without one, only its drums are heard."""

    folder: str
    track_id: int
    key: int | None

    @property
    def name(self) -> str:
        """What its files are called: `9000000.LOFI`."""
        return f"{self.track_id}.LOFI"

    @property
    def path(self) -> str:
        """Where the file goes."""
        return f"{self.folder}/audio/{self.name}.mp3"

    def song(self) -> Song:
        """The song, its style drawn."""
        rng = np.random.default_rng([_SEED, self.track_id])
        genre = str(rng.choice(sorted(STYLES)))
        key = self.key or 0
        mode: Mode = "major" if key < len(TONICS) else "minor"
        return compose(rng, genre, seconds=SECONDS, tonic=key % len(TONICS), mode=mode, blur=1.0)

    def encode(self) -> bytes:
        """The song as an MP3 file."""
        song = self.song()
        if self.key is None:
            drums = tuple(note for note in song.notes if note.program == DRUMS)
            song = replace(song, notes=drums)
        return mp3_bytes(render_song(song, SAMPLE_RATE), SAMPLE_RATE)


@dataclass(frozen=True)
class MtgRow:
    """One row of the MTG set's tables."""

    track: KeyTrack
    manual_key: str
    confidence: int
    artists: tuple[str, ...]


def recipe(scale: float) -> Recipe:
    """Tracks of every key in each split, and the dropped rows, the same at every scale."""
    tests = [KeyTrack(TEST_FOLDER, track_id, key) for key, track_id in _keys_and_ids("test", scale)]
    rows = [
        *(_mtg_row("train", key, track_id) for key, track_id in _keys_and_ids("train", scale)),
        *(_mtg_row("val", key, track_id) for key, track_id in _keys_and_ids("val", scale)),
        *_dropped_rows(),
    ]
    return Recipe([*tests, *(row.track for row in rows)], partial(_labels, tests, rows))


def _keys_and_ids(split: str, scale: float) -> list[tuple[int, int]]:
    """Class and track id of every track of a split, those of one key together."""
    n_tracks = min(count(_PER_KEY[split], scale), _ID_STRIDE)
    pairs = []
    for key in range(len(KEYS)):
        first = _FIRST_ID[split] + key * _ID_STRIDE
        pairs += [(key, first + index) for index in range(n_tracks)]
    return pairs


def _dropped_rows() -> list[MtgRow]:
    rows = []
    for index, (manual_key, confidence, artists, key) in enumerate(_DROPPED):
        track = KeyTrack(MTG_FOLDER, _FIRST_ID["dropped"] + index, key)
        rows.append(MtgRow(track, manual_key, confidence, artists))
    return rows


def _mtg_row(split: str, key: int, track_id: int) -> MtgRow:
    index = track_id % _ID_STRIDE  # of the track among those of its key
    tonic, mode = KEYS[key].split()
    manual_key = f"{_SHARPS.get(tonic, tonic)} {mode}"
    if split == "train" and KEYS[key] == _TRAILING_BLANK and index == 0:
        manual_key += " "

    if split == "val" and index == 0 and key < len(_VAL_CHAIN):
        artists = _VAL_CHAIN[key]
    else:
        artists = _draw_artists(track_id, in_val=split == "val")
    return MtgRow(KeyTrack(MTG_FOLDER, track_id, key), manual_key, 2, artists)


def _draw_artists(track_id: int, *, in_val: bool) -> tuple[str, ...]:
    """One or two invented names whose hashes put them in the wanted split."""
    rng = np.random.default_rng([_SEED, track_id, 1])
    names: set[str] = set()
    n_names = 1 + int(rng.random() < 0.3)
    while len(names) < n_names:
        name = f"{rng.choice(_FIRST_NAMES)} {rng.choice(_LAST_NAMES)}"
        if bool(val_artists([[name]])) == in_val:
            names.add(name)
    return tuple(sorted(names))


def _labels(tests: Sequence[KeyTrack], rows: Sequence[MtgRow], folder: Path) -> dict[str, str]:
    return {**_test_labels(tests, folder), **_mtg_labels(rows, folder)}


def _test_labels(tracks: Sequence[KeyTrack], folder: Path) -> dict[str, str]:
    """Three small files for each track of the key set."""
    annotations = f"{TEST_FOLDER}/annotations"
    files = {}
    for track in tracks:
        files[f"{TEST_FOLDER}/md5/{track.name}.md5"] = _md5(folder / track.path)
        files[f"{annotations}/key/{track.name}.key"] = KEYS[track.key or 0]
        files[f"{annotations}/genre/{track.name}.genre"] = track.song().genre
    return files


def _mtg_labels(rows: Sequence[MtgRow], folder: Path) -> dict[str, str]:
    """Two small files for each track of the MTG set, and its two tables."""
    annotations = f"{MTG_FOLDER}/annotations"
    files = {}
    for row in rows:
        key_line = f"{row.manual_key.lower()}\t{row.confidence}\t"
        files[f"{MTG_FOLDER}/md5/{row.track.name}.md5"] = _md5(folder / row.track.path)
        files[f"{annotations}/key/{row.track.name}.key"] = key_line

    keys = [(row.track.track_id, row.manual_key, row.confidence) for row in rows]
    metadata = [_metadata(row) for row in rows]
    files[f"{annotations}/annotations.txt"] = table_text(_KEY_HEADER, keys, delimiter="\t")
    files[f"{annotations}/beatport_metadata.txt"] = table_text(
        _METADATA_HEADER, metadata, delimiter="\t"
    )
    return files


def _metadata(row: MtgRow) -> tuple[str, ...]:
    song = row.track.song()
    return (
        str(row.track.track_id),
        ", ".join(row.artists),
        f"Demo {row.track.track_id}",
        "Original Mix",
        "mirprobe demo",
        song.genre,
        f"{song.tempo:g}",
        row.manual_key.strip(),
    )


def _md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()
