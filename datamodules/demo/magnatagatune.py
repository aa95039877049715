"""The demo's MagnaTagATune: eight-second clips whose tags say what they are made of.

Conventions: the table is laid out as the real one, with all 188 columns, sorted by name: the real
50 tags, those that the demo uses beside them, and fillers. A tag is set by a rule on the song (a
program that plays, drums, tempo, loudness, style), never drawn; 25 of the 50 tags have no clip, as
happens in small parts of the real set. Every ninth clip is a bass alone, which only rare tags
describe: unless it is fast or slow it is untagged. One of the release's corrupt clips is there too,
with its row and a file of 0 bytes.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np

from datamodules.audio.decode import mp3_bytes
from datamodules.datasets.magnatagatune import ANNOTATIONS, AUDIO_FOLDER, TAGS
from datamodules.demo.recipe import Recipe, count
from datamodules.demo.sound.compose import Song, compose, render_song
from datamodules.demo.sound.soundfont import DRUMS
from datamodules.demo.sound.styles import STYLES
from datamodules.demo.tables import table_text
from datamodules.tracks import Split

FOLDER = "MagnaTagATune"
SAMPLE_RATE = 16000
SECONDS = 8.0
N_TAGS = 188

_PER_SPLIT: Mapping[Split, int] = {"train": 78, "val": 18, "test": 24}
_FOLDERS: Mapping[Split, str] = {"train": "0123456789ab", "val": "c", "test": "def"}
_FIRST_ID: Mapping[Split, int] = {"train": 2, "val": 10_001, "test": 20_001}
_ID_STRIDE = 9_000  # below the ids of the corrupt clips
_SEED = 5
_BLUR = 0.4
_DRUMS_SHARE = 0.7
_LEVELS_DB: Mapping[str, float] = {"loud": 0.0, "middle": -10.0, "quiet": -20.0}
_SOLO_EVERY = 9  # clips, of which one is a bass alone
_SOLO_STYLES = ("blues", "hiphop", "jazz", "reggae")

# Beats per minute above and below which a song is tagged.
_FAST = 125
_SLOW = 85

_PROGRAM_TAGS: Mapping[str, tuple[int, ...]] = {
    "piano": (0,),
    "harpsichord": (6,),
    "guitar": (24, 25, 26, 27, 29, 30),
    "violin": (40,),
    "cello": (42,),
    "strings": (40, 42, 43, 48),
    "choir": (53, 54),
    "voice": (53, 54),
    "flute": (73,),
    "synth": (80, 81, 88, 89),
    "bass": tuple(range(32, 40)),
    "organ": (16, 18),
    "brass": (56, 57, 61),
    "sax": (65, 66),
}
_STYLE_TAGS: Mapping[str, tuple[str, ...]] = {
    "blues": ("blues",),
    "classical": ("classical", "classic"),
    "country": ("country",),
    "disco": ("dance", "electronic", "techno"),
    "hiphop": ("hip hop",),
    "jazz": ("jazz",),
    "metal": ("metal", "rock"),
    "pop": ("pop",),
    "reggae": ("reggae",),
    "rock": ("rock",),
}
_RARE_TAGS = {*_PROGRAM_TAGS, *chain.from_iterable(_STYLE_TAGS.values())}.difference(TAGS)
_FILLERS = [f"rare tag {number:03d}" for number in range(N_TAGS - len(TAGS) - len(_RARE_TAGS))]
COLUMNS: tuple[str, ...] = tuple(sorted([*TAGS, *_RARE_TAGS, *_FILLERS]))


@dataclass(frozen=True)
class TaggedClip:
    """One clip: `mp3/0/mirprobe-demo-00002-clip-0-8.mp3`."""

    clip_id: int
    folder: str

    @property
    def mp3_path(self) -> str:
        """Its path in the table."""
        return f"{self.folder}/mirprobe-demo-{self.clip_id:05d}-clip-0-{SECONDS:g}.mp3"

    @property
    def path(self) -> str:
        """Where the file goes."""
        return f"{AUDIO_FOLDER}/{self.mp3_path}"

    def level(self) -> str:
        """How loud it is: a key of `_LEVELS_DB`."""
        if self._is_solo:
            return "middle"
        rng = np.random.default_rng([_SEED, self.clip_id, 0])
        return str(rng.choice(sorted(_LEVELS_DB)))

    def song(self) -> Song:
        """The song, its style drawn."""
        rng = np.random.default_rng([_SEED, self.clip_id, 1])
        genre = str(rng.choice(_SOLO_STYLES if self._is_solo else sorted(STYLES)))
        song = compose(rng, genre, seconds=SECONDS, blur=_BLUR)

        heard = {note.program for note in song.notes}
        if self._is_solo:
            heard = heard.intersection(_PROGRAM_TAGS["bass"])
        elif rng.random() >= _DRUMS_SHARE:
            heard = heard - {DRUMS}
        notes = tuple(note for note in song.notes if note.program in heard)
        return replace(song, notes=notes)

    @property
    def _is_solo(self) -> bool:
        return self.clip_id % _SOLO_EVERY == 0

    def tags(self) -> set[str]:
        """Everything that is true of it."""
        return set(_true_of(self.song(), self.level()))

    def encode(self) -> bytes:
        """The clip as an MP3 file."""
        gain = np.float32(10 ** (_LEVELS_DB[self.level()] / 20))
        return mp3_bytes(render_song(self.song(), SAMPLE_RATE) * gain, SAMPLE_RATE)


@dataclass(frozen=True)
class CorruptClip:
    """A clip of the real release whose file holds nothing; the loader leaves it out by its id."""

    clip_id: int = 35644
    mp3_path: str = "6/norine_braun-now_and_zen-08-gently-117-146.mp3"

    @property
    def path(self) -> str:
        """Where the file goes."""
        return f"{AUDIO_FOLDER}/{self.mp3_path}"

    def tags(self) -> set[str]:
        """The tags in its row."""
        return {"guitar", "slow"}

    def encode(self) -> bytes:
        """No bytes."""
        return b""


def recipe(scale: float) -> Recipe:
    """Clips of each split, and the corrupt one."""
    clips: list[TaggedClip | CorruptClip] = []
    for split, at_scale_1 in _PER_SPLIT.items():
        folders = _FOLDERS[split]
        for index in range(min(count(at_scale_1, scale), _ID_STRIDE)):
            clips.append(TaggedClip(_FIRST_ID[split] + index, folders[index % len(folders)]))
    clips.append(CorruptClip())
    return Recipe(clips, partial(_labels, clips))


def _true_of(song: Song, level: str) -> Iterator[str]:
    """Tags of a song, by the rules; one may come twice."""
    programs = {note.program for note in song.notes}
    yield from (tag for tag, of_tag in _PROGRAM_TAGS.items() if programs.intersection(of_tag))
    yield from _STYLE_TAGS[song.genre]
    if DRUMS in programs:
        yield from ("drums", "beat")
    if song.tempo > _FAST:
        yield "fast"
    if song.tempo < _SLOW:
        yield "slow"
    if level != "middle":
        yield level


def _labels(clips: Sequence[TaggedClip | CorruptClip], _folder: Path) -> dict[str, str]:
    rows = []
    for clip in clips:
        tags = clip.tags()
        rows.append((clip.clip_id, *(int(tag in tags) for tag in COLUMNS), clip.mp3_path))
    header = ("clip_id", *COLUMNS, "mp3_path")
    return {ANNOTATIONS: table_text(header, rows, delimiter="\t", quote_all=True)}
