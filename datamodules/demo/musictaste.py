"""The demo's Music Taste: songs whose ratings are known because they are made pleasant or not,
rapped or not, clean or not.

Conventions: every combination of the three classes has equally many songs, so that no question can
be answered by another. An unpleasant song has its accompaniment a quarter tone flat and is
ring-modulated to roughness; rap is noise shaped by two moving formants in the rhythm of syllables
and has no melody, a mix takes turns with one; a bad recording is low-passed and hisses. The raters
differ, yet their mean is always on the right side of the paper's thresholds.
"""

import csv
import io
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
from datamodules.demo.recipe import Plan, count
from datamodules.demo.sound.compose import Song, compose
from datamodules.demo.sound.soundfont import packaged_font
from datamodules.demo.sound.styles import STYLES

FOLDER = "MusicTaste"
SAMPLE_RATE = 22050
SECONDS = 8.0
RATERS = tuple(f"rater{number}" for number in range(1, 6))
ARTISTS = tuple(
    " ".join(name)
    for name in product(("Ansa", "Brim", "Coro", "Dusk", "Elve"), ("Field", "Gate", "Hale", "Isle"))
)

_PER_COMBINATION = 5
_QUALITIES = (
    (0, 0),
    (1, 1),
    (0, 1),
    (1, 0),
)  # of (preferred, good), in the order in which artists take their turns
_SEED = 5
_PEAK = 0.7
# Score that the raters scatter around, by class: far enough from the thresholds 1, 0.67 and 1.34,
# and 0.5.
_CENTRES: dict[Question, tuple[float, ...]] = {
    "mpc": (0.4, 1.6),
    "rd": (0.3, 1.0, 1.7),
    "sqc": (0.2, 0.8),
}
_LARGEST_DEVIATION = 0.25
_FLAT = 2 ** (-0.5 / 12)
_SYLLABLES_PER_S = (4.5, 6.0)
_FORMANTS_HZ = ((300.0, 900.0), (900.0, 2600.0))  # ranges of the first and the second formant
_ROUGHNESS_HZ = (60.0, 90.0)
_LOW_PASS_HZ = 1800.0
_HISS = 0.03  # deviation of the noise, in peaks of the song
_LEAD_FROM, _LEAD_VELOCITY = (
    64,
    90,
)  # what tells `compose`'s melody from its chords (velocity 80) and its bass (below 60)
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
        """The track's id, classes first: `song-12003` is preferred, not rapped, bad, and the fourth
        of these.
        """
        return f"song-{self.preferred}{self.rap}{self.good}{self.number:02d}"

    @property
    def path(self) -> str:
        """Where the file goes."""
        return f"audio/{self.name}.wav"

    def rng(self, purpose: int) -> np.random.Generator:
        """Random numbers of this song for one purpose."""
        return np.random.default_rng(
            [_SEED, self.preferred, self.rap, self.good, self.number, purpose]
        )

    @property
    def artist(self) -> str:
        """One of twenty invented names: each has all of rap, mix and non-rap, and good and bad
        songs of both kinds.
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
        return wav_bytes((_PEAK * audio / np.abs(audio).max()).astype(np.float32), SAMPLE_RATE)

    def scores(self) -> dict[Question, list[int]]:
        """What each rater says to each question."""
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
    seconds = np.arange(round(SECONDS * SAMPLE_RATE)) / SAMPLE_RATE
    band = _part(song, melody=False)
    if not preferred:
        band = np.interp(np.arange(len(band)) * _FLAT, np.arange(len(band)), band)
    sung = (np.zeros_like(seconds), seconds // _TURN_S % 2, np.ones_like(seconds))[rap]
    audio = 0.6 * band + sung * _part(song, melody=True) + (1 - sung) * _voice(rng, len(seconds))
    roughness = 1.0 if preferred else np.sin(2 * np.pi * rng.uniform(*_ROUGHNESS_HZ) * seconds)
    return np.asarray(audio * roughness, dtype=np.float64)


def _part(song: Song, *, melody: bool) -> NDArray[np.float64]:
    """The melody alone, or all but the melody, its peak at 1."""
    notes = tuple(
        note
        for note in song.notes
        if (note.pitch >= _LEAD_FROM and note.velocity == _LEAD_VELOCITY) == melody
    )
    audio = packaged_font().render(notes, song.seconds, SAMPLE_RATE).astype(np.float64)
    return np.asarray(audio / max(float(np.abs(audio).max()), 1e-6))


def _voice(rng: np.random.Generator, n_samples: int) -> NDArray[np.float64]:
    """Syllables of noise, each with formants of its own, the peak at 1."""
    voice = np.zeros(n_samples)
    step = round(SAMPLE_RATE / rng.uniform(*_SYLLABLES_PER_S))
    for start in range(0, n_samples, step):
        noise = rng.standard_normal(min(round(0.7 * step), n_samples - start))
        envelope = np.sin(np.linspace(0, np.pi, len(noise))) ** 0.5
        for formant_hz in _FORMANTS_HZ:
            numerator, denominator = iirpeak(rng.uniform(*formant_hz), 5.0, fs=SAMPLE_RATE)
            voice[start : start + len(noise)] += envelope * lfilter(numerator, denominator, noise)
    return np.asarray(voice / np.abs(voice).max())


def _degrade(audio: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """A dull recording that hisses."""
    dull = lfilter(*butter(4, _LOW_PASS_HZ, fs=SAMPLE_RATE), audio)
    return np.asarray(dull + _HISS * np.abs(dull).max() * rng.standard_normal(len(dull)))


def _ratings(rng: np.random.Generator, centre: float, top: int) -> list[int]:
    """Whole scores from 0 to `top` that scatter around `centre`, their mean close to it."""
    while True:
        scores = np.clip(np.rint(centre + 0.6 * rng.standard_normal(len(RATERS))), 0, top)
        if abs(scores.mean() - centre) <= _LARGEST_DEVIATION:
            return [int(score) for score in scores]


def plan(scale: float) -> Plan:
    """Equally many songs of all twelve combinations of classes, two at least: fewer artists would
    leave a split empty.
    """
    tracks = [
        TasteTrack(preferred, rap, good, number)
        for preferred, rap, good in product(range(2), range(3), range(2))
        for number in range(max(2, count(_PER_COMBINATION, scale)))
    ]
    return Plan(tracks, partial(_labels, tracks))


def _labels(tracks: Sequence[TasteTrack], _folder: Path) -> dict[str, str]:
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow((*COLUMNS, "artist"))
    for track in tracks:
        scores = track.scores()
        for index, rater in enumerate(RATERS):
            writer.writerow(
                (track.name, rater, *(scores[question][index] for question in SCALES), track.artist)
            )
    return {"ratings.csv": file.getvalue()}
