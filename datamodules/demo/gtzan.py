"""The demo's GTZAN: songs of ten styles, named as the real clips, so that the real splits apply.

Conventions: 22 050 Hz, mono, 16 bit, 661 794 samples like most of the real clips. Tempo, drums and
instruments are blurred across genres; unblurred, a spectrum alone tells the genre.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from datamodules.audio.decode import wav_bytes
from datamodules.datasets.gtzan import GENRES, read_split
from datamodules.demo.recipe import Recipe, count
from datamodules.demo.sound.compose import compose, render_song
from datamodules.tracks import Split

FOLDER = "GTZAN"
SAMPLE_RATE = 22050
N_SAMPLES = 661_794
_BLUR = 0.8
_PER_GENRE: dict[Split, int] = {"train": 8, "val": 4, "test": 6}
_SEED = 3


@dataclass(frozen=True)
class GenreTrack:
    """One clip: `genres/blues/blues.00029.wav`."""

    genre: str
    number: int

    @property
    def path(self) -> str:
        """Where the file goes."""
        return f"genres/{self.genre}/{self.genre}.{self.number:05d}.wav"

    def encode(self) -> bytes:
        """The clip as a WAV file."""
        rng = np.random.default_rng([_SEED, GENRES.index(self.genre), self.number])
        song = compose(rng, self.genre, seconds=N_SAMPLES / SAMPLE_RATE, blur=_BLUR)
        return wav_bytes(render_song(song, SAMPLE_RATE), SAMPLE_RATE)


def recipe(scale: float) -> Recipe:
    """The first clips of every genre and split; there are never more than the real split has."""
    numbers: dict[tuple[str, Split], list[int]] = {}
    for name, split in read_split().items():
        genre, number = name.split(".")
        numbers.setdefault((genre, split), []).append(int(number))

    tracks = []
    for (genre, split), of_split in numbers.items():
        first_numbers = sorted(of_split)[: count(_PER_GENRE[split], scale)]
        tracks += [GenreTrack(genre, number) for number in first_numbers]
    return Recipe(tracks, _no_labels)


def _no_labels(_folder: Path) -> dict[str, str]:
    """GTZAN's labels are its folders."""
    return {}
