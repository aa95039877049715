"""The demo's Music Taste: songs that are made pleasant or not, rapped or not, clean or not.

Conventions: every combination of the three classes has equally many songs, so that no question can
be answered by another. An unpleasant song has its accompaniment a quarter tone flat and is
ring-modulated to roughness; rap is noise shaped by two moving formants in the rhythm of syllables
and has no melody, a mix takes turns with one; a bad recording is low-passed and hisses. The raters
differ, yet their mean is always on the right side of the paper's thresholds.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.signal import butter, iirpeak, lfilter

from datamodules.audio.decode import wav_bytes
from datamodules.datasets.musictaste import COLUMNS, SCALES, Question
from datamodules.demo.recipe import Recipe, count
from datamodules.demo.sound.compose import Song, compose, part_of
from datamodules.demo.sound.soundfont import packaged_font
from datamodules.demo.sound.styles import STYLES
from datamodules.demo.tables import table_text

FOLDER = "MusicTaste"
SAMPLE_RATE = 22050
SECONDS = 8.0
RATERS = tuple(f"rater{number}" for number in range(1, 6))

_FIRST_NAMES = ("Ansa", "Brim", "Coro", "Dusk", "Elve")
_LAST_NAMES = ("Field", "Gate", "Hale", "Isle")
ARTISTS = tuple(f"{first} {last}" for first, last in product(_FIRST_NAMES, _LAST_NAMES))

_PER_COMBINATION = 5
_SEED = 5
_PEAK = 0.7

# Of (preferred, good), in the order in which artists take their turns.
_QUALITIES = ((0, 0), (1, 1), (0, 1), (1, 0))

# Score that the raters scatter around, by class: far enough from the thresholds 1, 0.67 and 1.34,
# and 0.5.
_CENTRES: dict[Question, tuple[float, ...]] = {
    "mpc": (0.4, 1.6),
    "rd": (0.3, 1.0, 1.7),
    "sqc": (0.2, 0.8),
}
_LARGEST_DEVIATION = 0.25  # of the raters' mean from it

_FLAT = 2 ** (-0.5 / 12)  # speed that sounds a quarter tone lower
_SYLLABLES_PER_S = (4.5, 6.0)
_FORMANTS_HZ = ((300.0, 900.0), (900.0, 2600.0))  # ranges of the first and the second formant
_ROUGHNESS_HZ = (60.0, 90.0)
_LOW_PASS_HZ = 1800.0
_HISS = 0.03  # deviation of the noise, in peaks of the song
_TURN_S = 2.0  # in a mix, voice and melody take turns of this length


@dataclass(frozen=True)
class TasteTrack:
    """One song with its classes: `preferred` and `good` 0 or 1, `rap` 0 rap, 1 mix, 2 non-rap."""

    preferred: int
    rap: int
    good: int
    number: int

    @property
    def name(self) -> str:
        """The track's id, classes first.

        `song-12003` is preferred, not rapped, bad, and the fourth of these.
        """
        return f"song-{self.preferred}{self.rap}{self.good}{self.number:02d}"

    @property
    def path(self) -> str:
        """Where the file goes."""
        return f"audio/{self.name}.wav"

    def rng(self, purpose: int) -> np.random.Generator:
        """Random numbers of this song for one purpose."""
        seed = [_SEED, self.preferred, self.rap, self.good, self.number, purpose]
        return np.random.default_rng(seed)

    @property
    def artist(self) -> str:
        """One of twenty invented names.

        Each has all of rap, mix and non-rap, and good and bad songs of both kinds.
        """
        turn = (_QUALITIES.index((self.preferred, self.good)) - self.rap) % len(_QUALITIES)
        return ARTISTS[(len(_QUALITIES) * self.number + turn) % len(ARTISTS)]

    def encode(self) -> bytes:
        """The song as a WAV file."""
        rng = self.rng(0)
        song = compose(rng, str(rng.choice(sorted(STYLES))), seconds=SECONDS, blur=1.0)
        audio = _perform(song, rng, rap=self.rap, preferred=bool(self.preferred))
        if not self.good:
            audio = _degrade(audio, rng)

        scaled = _PEAK * audio / np.abs(audio).max()
        return wav_bytes(scaled.astype(np.float32), SAMPLE_RATE)

    def scores(self) -> dict[Question, list[int]]:
        """Each rater's score for each question, in the order of `RATERS`."""
        rng = self.rng(1)
        wanted: dict[Question, int] = {"mpc": self.preferred, "rd": self.rap, "sqc": self.good}
        return {
            question: _ratings(rng, _CENTRES[question][wanted[question]], SCALES[question])
            for question in SCALES
        }


def _perform(
    song: Song, rng: np.random.Generator, *, rap: int, preferred: bool
) -> NDArray[np.float64]:
    """The song with a rapping voice, a melody, or both in turns."""
    time = np.arange(round(SECONDS * SAMPLE_RATE)) / SAMPLE_RATE
    band = _render_part(song, melody=False)
    if not preferred:
        # The band alone is flat, so that it is out of tune with the melody.
        positions = np.arange(len(band))
        band = np.interp(positions * _FLAT, positions, band)

    sung = _sung_share(time, rap)
    melody = _render_part(song, melody=True)
    audio = 0.6 * band + sung * melody + (1 - sung) * _rap(rng, len(time))
    if not preferred:
        audio = audio * np.sin(2 * np.pi * rng.uniform(*_ROUGHNESS_HZ) * time)
    return np.asarray(audio, dtype=np.float64)


def _sung_share(time: NDArray[np.float64], rap: int) -> NDArray[np.float64]:
    """Level of the melody at each time in s: 0 in rap, 1 in non-rap, one after the other in a mix.

    The rapping voice has the rest.
    """
    if rap == 1:
        return time // _TURN_S % 2
    return np.full_like(time, 0.0 if rap == 0 else 1.0)


def _render_part(song: Song, *, melody: bool) -> NDArray[np.float64]:
    """The melody alone, or all but the melody, its peak at 1."""
    notes = tuple(note for note in song.notes if (part_of(note) == "lead") == melody)
    audio = packaged_font().render(notes, song.seconds, SAMPLE_RATE).astype(np.float64)
    return np.asarray(audio / max(float(np.abs(audio).max()), 1e-6))


def _rap(rng: np.random.Generator, n_samples: int) -> NDArray[np.float64]:
    """Syllables of noise, each with formants of its own, the peak at 1."""
    voice = np.zeros(n_samples)
    step = round(SAMPLE_RATE / rng.uniform(*_SYLLABLES_PER_S))
    for start in range(0, n_samples, step):
        noise = rng.standard_normal(min(round(0.7 * step), n_samples - start))
        envelope = np.sin(np.linspace(0, np.pi, len(noise))) ** 0.5
        syllable = voice[start : start + len(noise)]  # a view: what is added to it is heard
        for formant_hz in _FORMANTS_HZ:
            numerator, denominator = iirpeak(rng.uniform(*formant_hz), 5.0, fs=SAMPLE_RATE)
            syllable += envelope * lfilter(numerator, denominator, noise)
    return np.asarray(voice / np.abs(voice).max())


def _degrade(audio: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """A dull recording that hisses."""
    dull = lfilter(*butter(4, _LOW_PASS_HZ, fs=SAMPLE_RATE), audio)
    return np.asarray(dull + _HISS * np.abs(dull).max() * rng.standard_normal(len(dull)))


def _ratings(rng: np.random.Generator, centre: float, top: int) -> list[int]:
    """Whole scores from 0 to `top` that scatter around `centre`, their mean close to it."""
    while True:  # until they are, which is after a few draws
        scores = np.clip(np.rint(centre + 0.6 * rng.standard_normal(len(RATERS))), 0, top)
        if abs(scores.mean() - centre) <= _LARGEST_DEVIATION:
            return [int(score) for score in scores]


def recipe(scale: float) -> Recipe:
    """Equally many songs of all twelve combinations of classes.

    They are two at least: fewer artists would leave a split empty.
    """
    n_songs = max(2, count(_PER_COMBINATION, scale))
    tracks = [
        TasteTrack(preferred, rap, good, number)
        for preferred, rap, good, number in product(range(2), range(3), range(2), range(n_songs))
    ]
    return Recipe(tracks, partial(_labels, tracks))


def _labels(tracks: Sequence[TasteTrack], _folder: Path) -> dict[str, str]:
    rows = []
    for track in tracks:
        scores = track.scores()
        for index, rater in enumerate(RATERS):
            of_rater = [scores[question][index] for question in SCALES]
            rows.append((track.name, rater, *of_rater, track.artist))
    return {"ratings.csv": table_text((*COLUMNS, "artist"), rows)}
