"""Seven tracks whose samples say which track and where they are, for the tests of datamodules."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import soundfile

from datamodules.audio.clips import ClipRule
from datamodules.tracks import Split, Track

RATE = 8000
PLAN: dict[str, tuple[Split, float]] = {  # track -> split, s of audio
    "t0": ("train", 0.35),
    "t1": ("test", 0.20),
    "t2": ("train", 0.10),
    "t3": ("val", 0.30),
    "t4": ("train", 0.25),
    "t5": ("test", 0.10),
    "t6": ("val", 0.15),
}
RULE = ClipRule(seconds=0.1)
N_CLIPS = {"t0": 3, "t1": 2, "t2": 1, "t3": 3, "t4": 2, "t5": 1, "t6": 1}
EVERY_CLIP = {(name, index) for name, n_clips in N_CLIPS.items() for index in range(n_clips)}
TARGETS = {name: number % 3 for number, name in enumerate(PLAN)}


def toy_tracks(root: Path) -> list[Track]:
    """The tracks by id; their audio is there after `write_audio`."""
    return [
        Track(name, root / f"{name}.wav", split, TARGETS[name]) for name, (split, _) in PLAN.items()
    ]


def audio_of(track_id: str) -> str:
    """Id of the audio of a toy track, whose content nobody asks for: not the track's own name."""
    return f"sound of {track_id}"


def with_audio(tracks: Iterable[Track]) -> list[Track]:
    """The tracks as they are when their files were read."""
    return [replace(track, audio_id=audio_of(track.track_id)) for track in tracks]


def write_audio(root: Path) -> Path:
    """Writes the audio of all tracks into `root`."""
    for name in PLAN:
        soundfile.write(root / f"{name}.wav", samples_of(name), RATE, subtype="FLOAT")
    return root


def samples_of(name: str) -> np.ndarray:
    """A ramp that starts elsewhere in each track."""
    ramp = np.arange(round(PLAN[name][1] * RATE), dtype=np.float32) / 8192
    return (ramp + int(name[1:])) / 10


def clips_of_split(split: str) -> set[tuple[str, int]]:
    """Track and place of every clip of a split."""
    return {clip for clip in EVERY_CLIP if PLAN[clip[0]][0] == split}
