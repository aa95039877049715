"""The demo's Harmonix Set: songs whose sections differ in who plays, so that structure can be heard
and is known exactly.

Conventions: every song keeps its style, key and tempo; sections begin at bars. A verse has drums,
bass and chords; a chorus adds the melody and plays louder; a bridge has high chords and no drums;
an instrumental is melody without chords; intro and outro are sparse, and an outro fades. Chance
blurs this: any player may be missing from a section. Labels are of many spellings, as in the real
files; some songs start late, some with silence, some lack their `end`, some have two.
"""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from datamodules.audio.decode import wav_bytes
from datamodules.datasets.harmonix import N_FOLDS, URLS
from datamodules.demo.recipe import Plan, count
from datamodules.demo.sound.compose import Song, compose, render_song
from datamodules.demo.sound.soundfont import DRUMS, Note

FOLDER = "Harmonix"
SAMPLE_RATE = 22050

_SONGS = 64
_SEED = 6
_STYLES = ("country", "disco", "metal", "pop", "rock")  # of a quick beat: a section takes some 5 s
_FORM = (
    ("intro", 2),
    ("verse", 3),
    ("chorus", 3),
    ("middle", 2),
    ("chorus", 2),
    ("outro", 2),
)  # class and bars
_MIDDLES = ("bridge", "inst")
_SPELLINGS: Mapping[str, tuple[str, ...]] = {
    "silence": ("silence",),
    "intro": ("intro", "intro", "fadein", "opening", "instintro"),
    "verse": ("verse", "verse", "verse2", "prechorus", "introverse", "section"),
    "chorus": ("chorus", "chorus", "chorus2", "refrain", "postchorus", "instchorus"),
    "bridge": ("bridge", "bridge2", "instbridge", "transition2a"),
    "inst": ("inst", "instrumental", "solo", "break", "mainriff"),
    "outro": ("outro", "outro2", "coda", "ending"),
}
# Gains of drums, bass, chords and melody.
_PLAYERS: Mapping[str, tuple[float, float, float, float]] = {
    "silence": (0.0, 0.0, 0.0, 0.0),
    "intro": (0.0, 0.0, 0.8, 0.0),
    "verse": (0.8, 0.9, 0.7, 0.0),
    "chorus": (1.2, 1.0, 1.0, 1.2),
    "bridge": (0.0, 0.8, 1.0, 0.0),
    "inst": (0.9, 0.9, 0.0, 1.2),
    "outro": (0.0, 0.7, 0.8, 0.0),
}
_MISSING = 0.15  # chance that a player rests for a section
_BEFORE_S, _AFTER_S = 0.7, 1.0  # of a song that starts late, and after the end: without a label
_LEAD_FROM, _LEAD_VELOCITY = (
    64,
    90,
)  # what tells `compose`'s melody from its chords (velocity 80) and its bass (below 60)
_TWINS = {14: 5, 23: 9}  # songs with the URL of an earlier one, which is in another fold


@dataclass(frozen=True)
class Section:
    """Part of a song: `label` is the raw one, `name` its class."""

    start_s: float
    end_s: float
    label: str
    name: str


@dataclass(frozen=True)
class StructureTrack:
    """One song, counted from 1."""

    number: int

    @property
    def name(self) -> str:
        """The song's id."""
        return f"{self.number:04d}_demosong"

    @property
    def path(self) -> str:
        """Where the file goes."""
        return f"tracks/{self.name}.wav"

    def rng(self, purpose: int) -> np.random.Generator:
        """Random numbers of this song for one purpose."""
        return np.random.default_rng([_SEED, self.number, purpose])

    def score(self) -> Song:
        """More than the song needs, everybody playing throughout."""
        rng = self.rng(0)
        return compose(rng, str(rng.choice(_STYLES)), seconds=60.0)

    def sections(self) -> list[Section]:
        """The song's sections, in order, without gaps."""
        rng, bar_s = self.rng(1), 240 / self.score().tempo
        middle = str(rng.choice(_MIDDLES))
        names = [(middle if name == "middle" else name, bars * bar_s) for name, bars in _FORM]
        time = _BEFORE_S if rng.random() < 0.3 else 0.0
        if rng.random() < 0.4:
            names.insert(0, ("silence", 2.0))
        sections = []
        for name, seconds in names:
            sections.append(Section(time, time + seconds, str(rng.choice(_SPELLINGS[name])), name))
            time += seconds
        return sections

    def encode(self) -> bytes:
        """The song as a WAV file."""
        song, sections, rng = self.score(), self.sections(), self.rng(2)
        notes = [note for section in sections for note in _play(song, section, rng)]
        whole = replace(song, notes=tuple(notes), seconds=sections[-1].end_s + _AFTER_S)
        return wav_bytes(render_song(whole, SAMPLE_RATE), SAMPLE_RATE)

    def lines(self) -> list[str]:
        """The file of segments: some have no `end`, some have two."""
        sections, chance = self.sections(), self.rng(3).random()
        end = sections[-1].end_s
        ends = [] if chance < 0.1 else [end] if chance > 0.2 else [end, end + 0.5]
        return [f"{section.start_s:.6f} {section.label}" for section in sections] + [
            f"{time:.6f} end" for time in ends
        ]


def _play(song: Song, section: Section, rng: np.random.Generator) -> Iterator[Note]:
    """The notes of one section by those who play in it."""
    full = _PLAYERS[section.name]
    drawn = tuple(gain * (rng.random() >= _MISSING) for gain in full)
    gains = drawn if any(drawn) else full  # somebody plays, or it would be silence by another name
    for note in song.notes:
        gain = gains[_player(note)]
        if section.start_s <= note.onset_s < section.end_s and gain > 0:
            if section.name == "outro":
                gain *= 1.2 - (note.onset_s - section.start_s) / (section.end_s - section.start_s)
            higher = 12 if section.name == "bridge" and _player(note) == 2 else 0
            yield replace(note, gain=note.gain * gain, pitch=note.pitch + higher)


def _player(note: Note) -> int:
    """0 drums, 1 bass, 2 chords, 3 melody."""
    if note.program == DRUMS:
        return 0
    if note.velocity != _LEAD_VELOCITY:
        return 2
    return 3 if note.pitch >= _LEAD_FROM else 1


def plan(scale: float) -> Plan:
    """The first songs; never fewer than there are folds, so that no split is empty."""
    tracks = [StructureTrack(number) for number in range(1, max(N_FOLDS, count(_SONGS, scale)) + 1)]
    return Plan(tracks, partial(_labels, tracks))


def _labels(tracks: Sequence[StructureTrack], _folder: Path) -> dict[str, str]:
    urls = [
        (track.name, f"https://example.org/watch?v={_TWINS.get(track.number, track.number)}")
        for track in tracks
    ]
    titles = [(track.name, f"Song {track.number}, in sections", "The Demos") for track in tracks]
    return {
        **{f"segments/{track.name}.txt": "\n".join(track.lines()) + "\n" for track in tracks},
        URLS: _csv(("File", "URL"), urls),
        "metadata.csv": _csv(("File", "Title", "Artist"), titles),
    }


def _csv(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows([header, *rows])
    return file.getvalue()
