"""The demo's VocalSet: synthesised singers in the layout of version 1.1.

Conventions: a recording is about as long as a clip. A singer is one voice for all recordings;
context, vowel and key vary, so that none of them tells the singer or the technique. Only the ten
techniques that are classes are sung. As in the real set, speech is found in the excerpts only, and
the vibrato arpeggios of female2 are in a misspelt folder.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np

from datamodules.audio.decode import wav_bytes
from datamodules.datasets.vocalset import (
    SINGER_FOLDERS,
    SINGERS,
    TECHNIQUES,
    TEST_LIST,
    TEST_SINGERS,
)
from datamodules.demo.recipe import Recipe, count
from datamodules.demo.sound.voice import VOWELS, draw_voice, sing

FOLDER = "VocalSet"
TRAIN_LIST = "train_singers_technique.txt"
SAMPLE_RATE = 22050  # half of the real one: the voices have nothing above 11 kHz

_PER_CLASS = 2  # recordings of each singer with each technique
_SECONDS = (3.0, 3.2)  # a clip is 2.993 s
_SEED = 4

# Folders of what is sung, and the same in names of files.
_CONTEXTS: Mapping[str, str] = {"arpeggios": "arpeggios", "scales": "scales", "long_tones": "long"}

_SONGS = ("row", "caro", "dona")
_MISSPELT_FOLDER = ("female2", "arpeggios", "vibrato")


@dataclass(frozen=True)
class VoiceRecording:
    """One recording; `index` counts those of one singer with one technique."""

    singer: str
    technique: str
    index: int

    @property
    def _turn(self) -> int:
        """Step in the round of contexts and vowels; not all classes begin with the same one."""
        return self.index + SINGER_FOLDERS.index(self.singer) + TECHNIQUES.index(self.technique)

    @property
    def context(self) -> str:
        """Folder: what is sung."""
        if self.technique == "spoken":
            return "excerpts"
        return list(_CONTEXTS)[self._turn % len(_CONTEXTS)]

    @property
    def vowel(self) -> str:
        """The vowel that is sung."""
        return list(VOWELS)[self._turn % len(VOWELS)]

    @property
    def path(self) -> str:
        """Where the file goes: `FULL/female1/long_tones/trill/f1_long_trill_u.wav`."""
        short = SINGERS[SINGER_FOLDERS.index(self.singer)]
        if self.context == "excerpts":
            stem = f"{short}_{_SONGS[self._turn % len(_SONGS)]}_{self.technique}"
        else:
            stem = f"{short}_{_CONTEXTS[self.context]}_{self.technique}_{self.vowel}"

        is_misspelt = (self.singer, self.context, self.technique) == _MISSPELT_FOLDER
        folder = "vibrado" if is_misspelt else self.technique
        return f"FULL/{self.singer}/{self.context}/{folder}/{stem}.wav"

    def encode(self) -> bytes:
        """The recording as a WAV file."""
        # The voice is drawn from the singer alone, so that it is one for all recordings.
        singer = SINGER_FOLDERS.index(self.singer)
        is_female = self.singer.startswith("female")
        voice = draw_voice(np.random.default_rng([_SEED, singer]), female=is_female)

        rng = np.random.default_rng([_SEED, singer, TECHNIQUES.index(self.technique), self.index])
        audio = sing(
            rng,
            voice,
            self.technique,
            context=self.context,
            vowel=self.vowel,
            seconds=rng.uniform(*_SECONDS),
            sample_rate=SAMPLE_RATE,
        )
        return wav_bytes(audio, SAMPLE_RATE)


def recipe(scale: float) -> Recipe:
    """Recordings of every singer with every technique, at most one for each name there is."""
    recordings = []
    for singer, technique in product(SINGER_FOLDERS, TECHNIQUES):
        n_recordings = min(count(_PER_CLASS, scale), _n_names(technique))
        recordings += [VoiceRecording(singer, technique, index) for index in range(n_recordings)]
    return Recipe(recordings, _labels)


def _n_names(technique: str) -> int:
    """Number of names of files that a singer's recordings with one technique can have."""
    return len(_SONGS) if technique == "spoken" else len(_CONTEXTS) * len(VOWELS)


def _labels(_folder: Path) -> dict[str, str]:
    train = [singer for singer in SINGER_FOLDERS if singer not in TEST_SINGERS]
    return {
        TRAIN_LIST: "".join(f"{singer}\n" for singer in train),
        TEST_LIST: "".join(f"{singer}\n" for singer in TEST_SINGERS),
    }
