"""The demo's Harmonix Set: songs whose sections are heard, because other players play in each.

Conventions: every song keeps its style, key and tempo; sections begin at bars. A verse has drums,
bass and chords; a chorus adds the melody and plays louder; a bridge has high chords and no drums;
an instrumental is melody without chords; intro and outro are sparse, and an outro fades. Chance
blurs this: any player may be missing from a section. Labels are of many spellings, as in the real
files; some songs start late, some with silence, some lack their `end`, some have two.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from datamodules.audio.decode import wav_bytes
from datamodules.datasets.harmonix import N_FOLDS, URLS
from datamodules.demo.recipe import Recipe, count
from datamodules.demo.sound.compose import Part, Song, compose, part_of, render_song
from datamodules.demo.sound.soundfont import Note
from datamodules.demo.tables import table_text

FOLDER = "Harmonix"
SAMPLE_RATE = 22050

_SONGS = 64
_SEED = 6
_STYLES = ("country", "disco", "metal", "pop", "rock")  # of a quick beat: a section takes some 5 s

# Class and bars of each section; the middle is one of two classes.
_FORM = (("intro", 2), ("verse", 3), ("chorus", 3), ("middle", 2), ("chorus", 2), ("outro", 2))
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

_PARTS: tuple[Part, ...] = ("drums", "bass", "chords", "lead")
_GAINS: Mapping[str, tuple[float, ...]] = {  # of the parts in each class
    "silence": (0.0, 0.0, 0.0, 0.0),
    "intro": (0.0, 0.0, 0.8, 0.0),
    "verse": (0.8, 0.9, 0.7, 0.0),
    "chorus": (1.2, 1.0, 1.0, 1.2),
    "bridge": (0.0, 0.8, 1.0, 0.0),
    "inst": (0.9, 0.9, 0.0, 1.2),
    "outro": (0.0, 0.7, 0.8, 0.0),
}
_MISSING = 0.15  # chance that a player rests for a section

# Without a label: before a song that starts late, and after the end of every song.
_BEFORE_S = 0.7
_AFTER_S = 1.0

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
        rng = self.rng(1)
        bar_s = 240 / self.score().tempo
        middle = str(rng.choice(_MIDDLES))
        form = [(middle if name == "middle" else name, bars * bar_s) for name, bars in _FORM]
        start_s = _BEFORE_S if rng.random() < 0.3 else 0.0
        if rng.random() < 0.4:
            form.insert(0, ("silence", 2.0))

        sections = []
        for name, seconds in form:
            label = str(rng.choice(_SPELLINGS[name]))
            sections.append(Section(start_s, start_s + seconds, label, name))
            start_s += seconds
        return sections

    def encode(self) -> bytes:
        """The song as a WAV file."""
        score = self.score()
        sections = self.sections()
        rng = self.rng(2)
        notes: list[Note] = []
        for section in sections:
            notes += _play(score, section, rng)

        song = replace(score, notes=tuple(notes), seconds=sections[-1].end_s + _AFTER_S)
        return wav_bytes(render_song(song, SAMPLE_RATE), SAMPLE_RATE)

    def lines(self) -> list[str]:
        """The file of segments: some have no `end`, some have two."""
        sections = self.sections()
        chance = self.rng(3).random()
        ends = [sections[-1].end_s]
        if chance < 0.1:
            ends = []
        elif chance <= 0.2:
            ends.append(ends[0] + 0.5)

        starts = [f"{section.start_s:.6f} {section.label}" for section in sections]
        return [*starts, *(f"{time:.6f} end" for time in ends)]


def _play(song: Song, section: Section, rng: np.random.Generator) -> Iterator[Note]:
    """The notes of one section by those who play in it."""
    gains = _draw_gains(section.name, rng)
    for note in song.notes:
        part = part_of(note)
        gain = gains[part]
        if not section.start_s <= note.onset_s < section.end_s or gain <= 0:
            continue

        if section.name == "outro":
            gain *= 1.2 - (note.onset_s - section.start_s) / (section.end_s - section.start_s)
        higher = 12 if section.name == "bridge" and part == "chords" else 0
        yield replace(note, gain=note.gain * gain, pitch=note.pitch + higher)


def _draw_gains(name: str, rng: np.random.Generator) -> Mapping[Part, float]:
    """Gain of each part in a section of one class, 0 for players who rest."""
    all_play = _GAINS[name]
    drawn = [gain * (rng.random() >= _MISSING) for gain in all_play]

    # Somebody plays, or it would be silence by another name.
    gains = drawn if any(drawn) else all_play
    return dict(zip(_PARTS, gains, strict=True))


def recipe(scale: float) -> Recipe:
    """The first songs; never fewer than there are folds, so that no split is empty."""
    n_songs = max(N_FOLDS, count(_SONGS, scale))
    tracks = [StructureTrack(number) for number in range(1, n_songs + 1)]
    return Recipe(tracks, partial(_labels, tracks))


def _labels(tracks: Sequence[StructureTrack], _folder: Path) -> dict[str, str]:
    files = {}
    for track in tracks:
        files[f"segments/{track.name}.txt"] = "".join(f"{line}\n" for line in track.lines())

    urls = [(track.name, _url(track)) for track in tracks]
    titles = [(track.name, f"Song {track.number}, in sections", "The Demos") for track in tracks]
    files[URLS] = table_text(("File", "URL"), urls)
    files["metadata.csv"] = table_text(("File", "Title", "Artist"), titles)
    return files


def _url(track: StructureTrack) -> str:
    return f"https://example.org/watch?v={_TWINS.get(track.number, track.number)}"
