"""The demo's EmoMusic: ten-second songs that sound like a drawn arousal and valence.

Conventions: a mood is (arousal, valence), both in [-1, 1]; its rating is 5 + 3 times it, with the
noise that raters would add. Arousal is heard as tempo, loudness, velocity and drums, valence as
mode and register. Artists are invented; those of train and val are drawn until the real rule puts
them there, those of test are drawn freely, so that some of them are also elsewhere, as in the real
set. Some values carry stray blanks, as there. The four tables of continuous ratings are left out:
nothing reads them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from datamodules.audio.decode import mp3_bytes
from datamodules.datasets.emomusic import AUDIO_FOLDER, RATINGS, SONGS, development_split
from datamodules.demo.recipe import Recipe, count
from datamodules.demo.sound.compose import Mode, Song, compose, render_song
from datamodules.demo.sound.soundfont import DRUMS, Note
from datamodules.demo.tables import table_text
from datamodules.tracks import Split

FOLDER = "EmoMusic"
SAMPLE_RATE = 22050
SECONDS = 10.0

_PER_SPLIT: Mapping[Split, int] = {"train": 58, "val": 14, "test": 18}
_FIRST_ID: Mapping[Split, int] = {"train": 2, "val": 10_002, "test": 20_002}
_ID_STRIDE = 10_000
_SEED = 4

# Styles whose chords have a third, without which a mode is not heard; and what the dataset calls
# them.
_GENRES = {
    "blues": "Blues",
    "classical": "Classical",
    "country": "Country",
    "disco": "Electronic",
    "jazz": "Jazz",
    "pop": "Pop",
}
_BLUR = 0.5
_RATING_NOISE = 0.15

# Composed, before the tempo is set: the slowest style at the fastest mood still fills the song.
_DRAWN_SECONDS = 3 * SECONDS

_SONG_HEADER = (
    "song_id",
    "file_name",
    "Artist",
    "Song title",
    "start of the segment (min.sec)",
    "end of the segment (min.sec)",
    "Genre",
    "Mediaeval 2013 set",
)
_RATING_HEADER = ("song_id", "mean_arousal", "std_arousal", "mean_valence", "std_valence")
_FIRST_NAMES = (
    "Alda",
    "Björk-Inga",
    "Corin",
    "Dace",
    "Ezra",
    "Fjóla",
    "Gunda",
    "Håkon",
    "Ilse",
    "Jory",
    "Kaja",
)
_LAST_NAMES = (
    "Amsel",
    "Brandt & Co.",
    "Cwm",
    "Dürr",
    "Eskil",
    "Fabre",
    "Gómez",
    "Hallow",
    "Ives",
    "Jansson 5",
)


@dataclass(frozen=True)
class MoodSong:
    """One song of a drawn mood: `clips_45seconds/2.mp3`."""

    song_id: int
    split: Split

    @property
    def path(self) -> str:
        """Where the file goes."""
        return f"{AUDIO_FOLDER}/{self.song_id}.mp3"

    def mood(self) -> tuple[float, float]:
        """Arousal and valence, both in [-1, 1]."""
        arousal, valence = self._rng(0).uniform(-1, 1, 2)
        return float(arousal), float(valence)

    def ratings(self) -> tuple[float, float]:
        """Mean arousal and valence on the scale of 1 to 9."""
        noise = np.clip(self._rng(1).normal(0, _RATING_NOISE, 2), -0.9, 0.9)
        arousal, valence = 5 + 3 * np.array(self.mood()) + noise
        return round(float(arousal), 3), round(float(valence), 3)

    def song(self) -> Song:
        """The song, its style drawn."""
        arousal, valence = self.mood()
        rng = self._rng(2)
        is_major = rng.random() < 1 / (1 + np.exp(-6 * valence))
        mode: Mode = "major" if is_major else "minor"
        genre = str(rng.choice(sorted(_GENRES)))
        drawn = compose(rng, genre, seconds=_DRAWN_SECONDS, mode=mode, blur=_BLUR)

        # The mood sets the tempo, whatever the style: its notes are moved together or apart.
        tempo = round(110 + 50 * arousal)
        stretch = drawn.tempo / tempo
        has_drums = arousal > -0.3
        heard = [note for note in drawn.notes if has_drums or note.program != DRUMS]
        moved = [_with_mood(note, stretch, arousal, valence) for note in heard]

        notes = tuple(note for note in moved if note.onset_s < SECONDS)
        return replace(drawn, notes=notes, seconds=SECONDS, tempo=tempo)

    def encode(self) -> bytes:
        """The song as an MP3 file, up to 16 dB softer where arousal is low."""
        arousal, _ = self.mood()
        level_db = 8 * arousal - 8
        gain = np.float32(10 ** (level_db / 20))
        return mp3_bytes(render_song(self.song(), SAMPLE_RATE) * gain, SAMPLE_RATE)

    def artist(self) -> str:
        """An invented name that the split rule puts where the song is."""
        rng = self._rng(3)
        while True:
            artist = f"{rng.choice(_FIRST_NAMES)} {rng.choice(_LAST_NAMES)}"
            if self.split in ("test", development_split(artist)):
                return artist

    def _rng(self, purpose: int) -> np.random.Generator:
        return np.random.default_rng([_SEED, self.song_id, purpose])


def recipe(scale: float) -> Recipe:
    """Songs of each split."""
    songs = []
    for split, at_scale_1 in _PER_SPLIT.items():
        n_songs = min(count(at_scale_1, scale), _ID_STRIDE)
        songs += [MoodSong(_FIRST_ID[split] + index, split) for index in range(n_songs)]
    return Recipe(songs, partial(_labels, songs))


def _with_mood(note: Note, stretch: float, arousal: float, valence: float) -> Note:
    """The note in the song's tempo, harder for arousal and higher for valence."""
    # In tens, so that equal notes, which are rendered once, stay many.
    velocity = int(np.clip(round(note.velocity * (0.75 + 0.25 * arousal) / 10) * 10, 10, 120))
    pitch = note.pitch if note.program == DRUMS else note.pitch + round(6 * valence)
    return replace(
        note,
        onset_s=note.onset_s * stretch,
        hold_s=note.hold_s * stretch,
        pitch=pitch,
        velocity=velocity,
    )


def _labels(songs: Sequence[MoodSong], _folder: Path) -> dict[str, str]:
    return {
        SONGS: table_text(_SONG_HEADER, [_song_row(song) for song in songs]),
        RATINGS: table_text(_RATING_HEADER, [_rating_row(song) for song in songs]),
    }


def _rating_row(song: MoodSong) -> tuple[str, ...]:
    arousal, valence = song.ratings()
    return (str(song.song_id), f"{arousal:g}", "1.5", f"{valence:g}", "1.5")


def _song_row(song: MoodSong) -> tuple[str, ...]:
    start_s = 5 * (song.song_id % 24)
    blank = " " if song.song_id % 3 == 0 else ""
    return (
        str(song.song_id),
        f"{song.song_id}.mp3{blank}",
        song.artist() + blank,
        f"Demo, No. {song.song_id}",
        _minutes(start_s),
        _minutes(start_s + round(SECONDS)),
        _GENRES[song.song().genre],
        ("evaluation" if song.split == "test" else "development") + blank,
    )


def _minutes(seconds: int) -> str:
    """Minutes and seconds as the dataset writes them: with the seconds as decimals, 0.4 is 40 s.

    >>> _minutes(40), _minutes(65), _minutes(120)
    ('0.4', '1.05', '2')
    """
    return f"{seconds // 60 + seconds % 60 / 100:g}"
