"""Short songs by rule, with a genre and a key that are exact because the song is made from them.

Conventions: a tonic is a pitch class, 0 = C; times are seconds; a song is a list of notes for
`SoundFont.render`. Every random choice comes from the generator that the caller passes. Velocities
and lengths take few values on purpose: equal notes are rendered once. The scale is the major or the
natural minor one, with the leading tone raised over the dominant in minor, so that a minor key does
not sound like its relative major.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from datamodules.demo.sound.soundfont import DRUMS, Audio, Note, packaged_font
from datamodules.demo.sound.styles import STYLES, Style

Mode = Literal["major", "minor"]
Part = Literal["drums", "bass", "chords", "lead"]

_SCALES = {"major": (0, 2, 4, 5, 7, 9, 11), "minor": (0, 2, 3, 5, 7, 8, 10)}
_HARMONIC_MINOR = (0, 2, 3, 5, 7, 8, 11)
_DOMINANT = 4
_STEPS = 16
_DRUM_KEYS = (
    ("kick", 36, 100),
    ("snare", 38, 90),
    ("hat", 42, 60),
    ("open_hat", 46, 60),
    ("ride", 51, 70),
)
_GAINS = {"drums": 0.3, "chords": 0.4, "bass": 0.45, "lead": 0.5}

# A part is told from the others by these: chords are softer than bass and lead, and the bass stays
# below the lead.
_CHORD_VELOCITY = 80
_MELODY_VELOCITY = 90
_LEAD_RANGE = (64, 84)

# Of the lead's notes: tones of the chord, of the tonic chord, of the scale.
_LEAD_SHARES = (0.5, 0.25, 0.25)
_PEAK = 0.8


@dataclass(frozen=True)
class Song:
    """A score and what is true of it."""

    notes: tuple[Note, ...]
    seconds: float
    genre: str
    tonic: int
    mode: Mode
    tempo: float


@dataclass(frozen=True)
class _Band:
    """What stays the same through a song: one program per part, and the style."""

    style: Style
    chord_program: int
    bass_program: int
    lead_program: int


@dataclass(frozen=True)
class _Bar:
    """One bar: onset of each step in s; chord and scale are pitch classes, the root first."""

    onsets: tuple[float, ...]
    step_s: float
    chord: tuple[int, ...]
    scale: tuple[int, ...]


def compose(
    rng: np.random.Generator,
    genre: str,
    *,
    seconds: float,
    tonic: int | None = None,
    mode: Mode | None = None,
    blur: float = 0.0,
) -> Song:
    """Composes a song of one genre.

    Args:
        rng: makes every choice.
        genre: a key of `STYLES`.
        seconds: length of the song.
        tonic: 0 .. 11; drawn if None.
        mode: drawn if None, with the style's share of minor.
        blur: chance of each of tempo, drums and the programs of the three parts to come from any
            genre instead of this one; at 0 a genre is told by its instruments alone, at 1 only
            rhythm and harmony are left.
    """
    style = _blurred(rng, STYLES[genre], blur)
    tonic = int(rng.integers(12)) if tonic is None else tonic
    drawn: Mode = "minor" if rng.random() < style.minor_share else "major"
    mode = mode or drawn
    band = _Band(
        style,
        chord_program=int(rng.choice(style.chord_programs)),
        bass_program=int(rng.choice(style.bass_programs)),
        lead_program=int(rng.choice(style.lead_programs)),
    )
    tempo = round(float(rng.uniform(*style.tempo)))
    progressions = style.major if mode == "major" else style.minor
    progression = progressions[int(rng.integers(len(progressions)))]

    notes: list[Note] = []
    lead_pitch = _LEAD_RANGE[0] + tonic
    for index in range(int(np.ceil(seconds * tempo / 240))):  # bars of four beats
        degree = progression[index % len(progression)]
        bar = _make_bar(index, degree, tempo=tempo, swing=style.swing, tonic=tonic, mode=mode)
        lead = list(_lead(rng, band, bar, lead_pitch))
        if lead:
            lead_pitch = lead[-1].pitch  # the melody goes on from bar to bar
        notes += [*_drums(style, bar), *_chords(band, bar), *_bass(rng, band, bar), *lead]

    heard = tuple(note for note in notes if note.onset_s < seconds)
    return Song(heard, seconds, genre, tonic, mode, tempo)


def part_of(note: Note) -> Part:
    """Part of a composed song that a note belongs to."""
    if note.program == DRUMS:
        return "drums"
    if note.velocity == _CHORD_VELOCITY:
        return "chords"
    return "lead" if note.pitch >= _LEAD_RANGE[0] else "bass"


def render_song(song: Song, sample_rate: int) -> Audio:
    """The song's audio, (S,) float32 at `sample_rate` Hz, its peak at 0.8."""
    audio = packaged_font().render(song.notes, song.seconds, sample_rate)
    return audio * np.float32(_PEAK / max(float(np.abs(audio).max()), 1e-6))


def _blurred(rng: np.random.Generator, style: Style, blur: float) -> Style:
    """The style, each of five surface traits taken from a random genre with probability `blur`."""
    genres = sorted(STYLES)
    for trait in ("tempo", "drums", "chord_programs", "bass_programs", "lead_programs"):
        other = STYLES[genres[int(rng.integers(len(genres)))]]
        if rng.random() < blur:
            style = replace(style, **{trait: getattr(other, trait)})
    return style


def _make_bar(
    index: int, degree: int, *, tempo: float, swing: float, tonic: int, mode: Mode
) -> _Bar:
    """The bar of a song that is `index` bars from its start, on the chord of `degree`."""
    beat_s = 60 / tempo
    within = (0.0, swing / 2, swing, (1 + swing) / 2)  # where the steps of a beat fall
    onsets = tuple((4 * index + step // 4 + within[step % 4]) * beat_s for step in range(_STEPS))

    steps = _HARMONIC_MINOR if mode == "minor" and degree == _DOMINANT else _SCALES[mode]
    scale = tuple((tonic + step) % 12 for step in steps)
    chord = tuple(scale[(degree + third) % 7] for third in (0, 2, 4, 6))
    return _Bar(onsets, beat_s / 4, chord, scale)


def _strokes(pattern: str) -> Iterator[tuple[int, str]]:
    """Step and sign of everything in a pattern that is not a rest."""
    return ((step, stroke) for step, stroke in enumerate(pattern) if stroke != ".")


def _drums(style: Style, bar: _Bar) -> Iterator[Note]:
    for instrument, key, velocity in _DRUM_KEYS:
        for step, _ in _strokes(getattr(style.drums, instrument)):
            yield Note(bar.onsets[step], 0.2, DRUMS, key, velocity, _GAINS["drums"])


def _chords(band: _Band, bar: _Bar) -> Iterator[Note]:
    root = 48 + bar.chord[0]
    above = [(pitch_class - bar.chord[0]) % 12 for pitch_class in bar.chord]
    voicings = {"triad": above[:3], "seventh": above, "power": [0, above[2], 12]}
    pitches = [root + interval for interval in voicings[band.style.voicing]]

    # A chord is held up to the next one, but for half a bar at most.
    steps = [step for step, _ in _strokes(band.style.chords)]
    for step, following in zip(steps, [*steps[1:], steps[0] + _STEPS], strict=True):
        onset_s = bar.onsets[step]
        hold_s = min(following - step, 8) * bar.step_s * band.style.chord_length
        for pitch in pitches:
            yield Note(
                onset_s, hold_s, band.chord_program, pitch, _CHORD_VELOCITY, _GAINS["chords"]
            )


def _bass(rng: np.random.Generator, band: _Band, bar: _Bar) -> Iterator[Note]:
    root = 36 + bar.chord[0] - (12 if bar.chord[0] > 7 else 0)
    fifth = (bar.chord[2] - bar.chord[0]) % 12
    third = (bar.chord[1] - bar.chord[0]) % 12
    hold_s = band.style.bass_steps * bar.step_s

    for step, stroke in _strokes(band.style.bass):
        # Drawn for every stroke, used or not: the order of draws is part of every song.
        walked = 0 if step == 0 else int(rng.choice([0, third, fifth, 12]))
        pitch = root + {"r": 0, "f": fifth, "o": 12, "w": walked}[stroke]
        yield Note(
            bar.onsets[step], hold_s, band.bass_program, pitch, _MELODY_VELOCITY, _GAINS["bass"]
        )


def _lead(rng: np.random.Generator, band: _Band, bar: _Bar, pitch: int) -> Iterator[Note]:
    """A melody in eighths that wanders from `pitch`, mostly over chord tones."""
    tones = (bar.chord[:3], bar.scale[:5:2], bar.scale)
    hold_s = 1.8 * bar.step_s
    for step in range(0, _STEPS, 2):
        if rng.random() >= band.style.lead_density:
            continue

        allowed = tones[int(rng.choice(len(tones), p=_LEAD_SHARES))]
        aim = pitch + int(rng.integers(-5, 6))
        pitch = _nearest_pitch(aim, allowed)
        yield Note(
            bar.onsets[step], hold_s, band.lead_program, pitch, _MELODY_VELOCITY, _GAINS["lead"]
        )


def _nearest_pitch(aim: int, pitch_classes: tuple[int, ...]) -> int:
    """The lead's pitch of these classes that is nearest to `aim`, of two the lower one."""
    pitches = [pitch for pitch in range(*_LEAD_RANGE) if pitch % 12 in pitch_classes]
    return min(pitches, key=lambda pitch: abs(pitch - aim))
