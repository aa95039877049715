"""The demo's GiantSteps: ten-second songs in every key, in the layout of both annotation
repositories.

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
from datamodules.demo.recipe import Plan, count
from datamodules.demo.sound.compose import Mode, Song, compose, render_song
from datamodules.demo.sound.soundfont import DRUMS
from datamodules.demo.sound.styles import STYLES

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
_TRAILING_BLANK = KEYS.index(
    "B major"
)  # its first train track is written `B major `, as some rows of the real file
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
# (MANUAL KEY, C, artists, what is heard: a class, or None for drums alone)
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
        mode: Mode = "major" if self.key is None or self.key < len(TONICS) else "minor"
        return compose(
            rng, genre, seconds=SECONDS, tonic=(self.key or 0) % len(TONICS), mode=mode, blur=1.0
        )

    def encode(self) -> bytes:
        """The song as an MP3 file."""
        song = self.song()
        if self.key is None:
            song = replace(song, notes=tuple(note for note in song.notes if note.program == DRUMS))
        return mp3_bytes(render_song(song, SAMPLE_RATE), SAMPLE_RATE)


@dataclass(frozen=True)
class MtgRow:
    """One row of the MTG set's tables."""

    track: KeyTrack
    manual_key: str
    confidence: int
    artists: tuple[str, ...]


def plan(scale: float) -> Plan:
    """Tracks of every key in each split, and the dropped rows, which are the same at every scale."""
    tests = [KeyTrack(TEST_FOLDER, track_id, key) for key, track_id in _ids("test", scale)]
    rows = [_row("train", key, track_id) for key, track_id in _ids("train", scale)]
    rows += [_row("val", key, track_id) for key, track_id in _ids("val", scale)]
    for index, (manual_key, confidence, artists, key) in enumerate(_DROPPED):
        rows.append(
            MtgRow(
                KeyTrack(MTG_FOLDER, _FIRST_ID["dropped"] + index, key),
                manual_key,
                confidence,
                artists,
            )
        )
    return Plan([*tests, *(row.track for row in rows)], partial(_labels, tests, rows))


def _ids(split: str, scale: float) -> list[tuple[int, int]]:
    n_tracks = min(count(_PER_KEY[split], scale), _ID_STRIDE)
    return [
        (key, _FIRST_ID[split] + key * _ID_STRIDE + i)
        for key in range(len(KEYS))
        for i in range(n_tracks)
    ]


def _row(split: str, key: int, track_id: int) -> MtgRow:
    index = track_id % _ID_STRIDE
    tonic, mode = KEYS[key].split()
    manual_key = f"{_SHARPS.get(tonic, tonic)} {mode}"
    if split == "train" and key == _TRAILING_BLANK and index == 0:
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
    files = {f"{track.folder}/md5/{track.name}.md5": _md5(folder / track.path) for track in tests}
    for track in tests:
        annotations = f"{TEST_FOLDER}/annotations"
        files[f"{annotations}/key/{track.name}.key"] = KEYS[track.key or 0]
        files[f"{annotations}/genre/{track.name}.genre"] = track.song().genre
    for row in rows:
        files[f"{MTG_FOLDER}/md5/{row.track.name}.md5"] = _md5(folder / row.track.path)
        files[f"{MTG_FOLDER}/annotations/key/{row.track.name}.key"] = (
            f"{row.manual_key.lower()}\t{row.confidence}\t"
        )
    header = ("ID", "MANUAL KEY", "C")
    keys = [(str(row.track.track_id), row.manual_key, str(row.confidence)) for row in rows]
    files[f"{MTG_FOLDER}/annotations/annotations.txt"] = _table([header, *keys])
    files[f"{MTG_FOLDER}/annotations/beatport_metadata.txt"] = _table(
        [_METADATA_HEADER, *map(_metadata, rows)]
    )
    return files


def _metadata(row: MtgRow) -> tuple[str, ...]:
    song = row.track.song()
    title = f"Demo {row.track.track_id}"
    texts = (
        ", ".join(row.artists),
        title,
        "Original Mix",
        "mirprobe demo",
        song.genre,
        f"{song.tempo:g}",
        row.manual_key.strip(),
    )
    return (str(row.track.track_id), *texts)


def _table(rows: Sequence[tuple[str, ...]]) -> str:
    return "".join("\t".join(row) + "\n" for row in rows)


def _md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()
