"""The demo's NSynth: single notes of General MIDI programs, laid out as the json/wav release.

Conventions: an instrument is one program, its number is the program counted from 0; train, valid
and test share no program (in the real set valid and test share instruments). Programs that miss
their pitch by more than a quarter tone, but for octaves, or have no sound for some key, are left
out. Keys and velocities are spread by rule, not drawn, so that few notes cover them all.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from datamodules.audio.decode import wav_bytes
from datamodules.datasets.nsynth import FAMILIES, FOLDERS
from datamodules.demo.recipe import Recipe, count
from datamodules.demo.sound.soundfont import packaged_font
from datamodules.tracks import Split

FOLDER = "NSynth"
SAMPLE_RATE = 16000
N_SAMPLES = 64000
VELOCITIES = (25, 50, 75, 100, 127)
PITCHES = range(36, 85)
SOURCES = ("acoustic", "electronic", "synthetic")

PROGRAMS: Mapping[str, Mapping[Split, tuple[int, ...]]] = {
    "bass": {"train": (32, 33, 36, 38), "val": (35,), "test": (34, 39)},
    "brass": {"train": (56, 58, 60, 62), "val": (61,), "test": (57, 63)},
    "flute": {"train": (73, 75, 76, 79), "val": (74,), "test": (72,)},
    "guitar": {"train": (24, 26, 27, 29), "val": (28,), "test": (25, 30)},
    "keyboard": {"train": (0, 3, 4, 6), "val": (2,), "test": (1, 5)},
    "mallet": {"train": (11, 13, 15, 108), "val": (10,), "test": (12, 114)},
    "organ": {"train": (16, 18, 20), "val": (19,), "test": (17, 21)},
    "reed": {"train": (64, 66, 68, 71), "val": (69,), "test": (65, 70)},
    "string": {"train": (40, 42, 44, 48), "val": (49,), "test": (41, 43)},
    # As in the real set: only in train.
    "synth_lead": {"train": (80, 81, 82, 83, 84, 87), "val": (), "test": ()},
    "vocal": {"train": (52, 54, 85), "val": (91,), "test": (53,)},
}
_ELECTRONIC = {4, 5, 16, 17, 18, 26, 27, 28, 29, 30, 33, 34, 35, 36}
_SYNTHETIC = {38, 39, 54, 62, 63, 80, 81, 82, 83, 84, 85, 87, 91}
_PER_FAMILY: Mapping[Split, int] = {"train": 36, "val": 10, "test": 14}

# Prime to the 49 pitches and far from a divisor: any few notes in a row are spread over all
# octaves.
_PITCH_STRIDE = 18

# Families and splits begin at different pitches.
_FAMILY_STRIDE = 4
_SPLIT_STRIDE = 17

_HOLD_S = 3.0
_GAIN = np.float32(0.6)  # the loudest program at velocity 127 stays below full scale


@dataclass(frozen=True)
class InstrumentNote:
    """One note of one instrument."""

    split: Split
    family: str
    program: int
    pitch: int
    velocity: int

    @property
    def source(self) -> str:
        """`acoustic`, `electronic` or `synthetic`."""
        if self.program in _SYNTHETIC:
            return "synthetic"
        return "electronic" if self.program in _ELECTRONIC else "acoustic"

    @property
    def instrument(self) -> str:
        """Name of the instrument: `synth_lead_synthetic_080`."""
        return f"{self.family}_{self.source}_{self.program:03d}"

    @property
    def name(self) -> str:
        """Name of the note: `synth_lead_synthetic_080-036-025`."""
        return f"{self.instrument}-{self.pitch:03d}-{self.velocity:03d}"

    @property
    def path(self) -> str:
        """Where the file goes."""
        return f"{FOLDERS[self.split]}/audio/{self.name}.wav"

    def encode(self) -> bytes:
        """The note as a WAV file: 3 s held, 1 s of release."""
        note = packaged_font().render_note(
            self.program, self.pitch, self.velocity, _HOLD_S, SAMPLE_RATE
        )
        note = note[:N_SAMPLES]
        audio = np.pad(note, (0, N_SAMPLES - len(note))) * _GAIN
        return wav_bytes(audio, SAMPLE_RATE)

    def entry(self) -> dict[str, object]:
        """The note's entry in examples.json, with all fields of the real one, but no qualities."""
        return {
            "note": (self.program * 128 + self.pitch) * 128 + self.velocity,
            "note_str": self.name,
            "instrument": self.program,
            "instrument_str": self.instrument,
            "pitch": self.pitch,
            "velocity": self.velocity,
            "sample_rate": SAMPLE_RATE,
            "qualities": [0] * 10,
            "qualities_str": [],
            "instrument_family": FAMILIES.index(self.family),
            "instrument_family_str": self.family,
            "instrument_source": SOURCES.index(self.source),
            "instrument_source_str": self.source,
        }


def recipe(scale: float) -> Recipe:
    """All notes at `scale`; there are never more than the distinct notes of a family's programs."""
    notes = []
    for family in FAMILIES:
        for split, programs in PROGRAMS[family].items():
            if programs:
                notes += _spread_notes(split, family, programs, count(_PER_FAMILY[split], scale))
    return Recipe(notes, partial(_labels, notes))


def _spread_notes(
    split: Split, family: str, programs: Sequence[int], n_notes: int
) -> list[InstrumentNote]:
    """Notes of one family in one split, all different, over all programs, pitches and velocities.

    Programs take turns, the pitch strides, the velocity moves on with every round of turns and
    every lap of all pairs.
    """
    first = FAMILIES.index(family) * _FAMILY_STRIDE + list(FOLDERS).index(split) * _SPLIT_STRIDE
    lap = len(programs) * len(PITCHES)

    notes = []
    for index in range(min(n_notes, lap * len(VELOCITIES))):
        program = programs[index % len(programs)]
        pitch = PITCHES[(first + index * _PITCH_STRIDE) % len(PITCHES)]
        n_rounds = index % lap // len(programs) + index // lap
        velocity = VELOCITIES[n_rounds % len(VELOCITIES)]
        notes.append(InstrumentNote(split, family, program, pitch, velocity))
    return notes


def _labels(notes: Sequence[InstrumentNote], _folder: Path) -> dict[str, str]:
    files = {}
    for split, folder in FOLDERS.items():
        entries = {note.name: note.entry() for note in notes if note.split == split}
        files[f"{folder}/examples.json"] = json.dumps(entries, indent=1)
    return files
