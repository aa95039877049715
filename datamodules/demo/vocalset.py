"""The demo's VocalSet: synthesised singers in the layout of version 1.1, one recording about as
long as a clip.

Conventions: a singer is one voice for all recordings; context, vowel and key vary, so that none of
them tells the singer or the technique. Only the ten techniques that are classes are sung. As in the
real set, speech is found in the excerpts only, and the vibrato arpeggios of female2 are in a
misspelt folder.
"""

from collections.abc import Mapping
from dataclasses import dataclass
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
from datamodules.demo.recipe import Plan, count
from datamodules.demo.sound.voice import VOWELS, draw_voice, sing

FOLDER = "VocalSet"
TRAIN_LIST = "train_singers_technique.txt"
SAMPLE_RATE = 22050  # half of the real one: the voices have nothing above 11 kHz

_PER_CLASS = 2  # recordings of each singer with each technique
_SECONDS = (3.0, 3.2)  # a clip is 2.993 s
_SEED = 4
_CONTEXTS: Mapping[str, str] = {
    "arpeggios": "arpeggios",
    "scales": "scales",
    "long_tones": "long",
}  # folder: in file names
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
        """Where the round of contexts and vowels stands, so that not all classes begin with the
        same.
        """
        return self.index + SINGER_FOLDERS.index(self.singer) + TECHNIQUES.index(self.technique)

    @property
    def context(self) -> str:
        """Folder: what is sung."""
        return (
            "excerpts"
            if self.technique == "spoken"
            else list(_CONTEXTS)[self._turn % len(_CONTEXTS)]
        )

    @property
    def vowel(self) -> str:
        """The vowel that is sung."""
        return list(VOWELS)[self._turn % len(VOWELS)]

    @property
    def path(self) -> str:
        """Where the file goes: `FULL/female1/long_tones/trill/f1_long_trill_u.wav`."""
        technique = (
            "vibrado"
            if (self.singer, self.context, self.technique) == _MISSPELT_FOLDER
            else self.technique
        )
        short = SINGERS[SINGER_FOLDERS.index(self.singer)]
        if self.context == "excerpts":
            stem = f"{short}_{_SONGS[self._turn % len(_SONGS)]}_{self.technique}"
        else:
            stem = f"{short}_{_CONTEXTS[self.context]}_{self.technique}_{self.vowel}"
        return f"FULL/{self.singer}/{self.context}/{technique}/{stem}.wav"

    def encode(self) -> bytes:
        """The recording as a WAV file."""
        singer = SINGER_FOLDERS.index(self.singer)
        voice = draw_voice(
            np.random.default_rng([_SEED, singer]), female=self.singer.startswith("female")
        )
        rng = np.random.default_rng([_SEED, singer, TECHNIQUES.index(self.technique), self.index])
        seconds = rng.uniform(*_SECONDS)
        audio = sing(
            rng,
            voice,
            self.technique,
            context=self.context,
            vowel=self.vowel,
            seconds=seconds,
            sample_rate=SAMPLE_RATE,
        )
        return wav_bytes(audio, SAMPLE_RATE)


def plan(scale: float) -> Plan:
    """Recordings of every singer with every technique; there are never more than distinct names of
    them.
    """
    recordings = [
        VoiceRecording(singer, technique, index)
        for singer in SINGER_FOLDERS
        for technique in TECHNIQUES
        for index in range(min(count(_PER_CLASS, scale), _n_names(technique)))
    ]
    return Plan(recordings, _labels)


def _n_names(technique: str) -> int:
    return len(_SONGS) if technique == "spoken" else len(_CONTEXTS) * len(VOWELS)


def _labels(_folder: Path) -> dict[str, str]:
    train = [singer for singer in SINGER_FOLDERS if singer not in TEST_SINGERS]
    return {
        name: "".join(f"{singer}\n" for singer in singers)
        for name, singers in ((TRAIN_LIST, train), (TEST_LIST, TEST_SINGERS))
    }
