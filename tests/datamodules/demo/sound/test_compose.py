"""Songs are what their labels say: in key and genre, by what is heard and by their notes."""

import librosa
import numpy as np
import pytest

from datamodules.datasets.gtzan import GENRES
from datamodules.demo.sound.compose import Song, compose, part_of, render_song
from datamodules.demo.sound.soundfont import DRUMS
from datamodules.demo.sound.styles import STYLES

# Krumhansl & Kessler 1982, as printed in Krumhansl 1990, table 2.1.
MAJOR = (6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88)
MINOR = (6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17)
RATE = 22050


def song(seed: int, genre: str = "pop", **how: object) -> Song:
    return compose(np.random.default_rng(seed), genre, **{"seconds": 10.0, **how})


def heard_key(audio: np.ndarray) -> int:
    """Class of the best correlated profile: 0-11 the major keys from C, 12-23 the minor ones."""
    chroma = librosa.feature.chroma_cqt(y=audio, sr=RATE, hop_length=1024).mean(axis=1)
    profiles = [np.roll(profile, tonic) for profile in (MAJOR, MINOR) for tonic in range(12)]
    return int(np.argmax([np.corrcoef(profile, chroma)[0, 1] for profile in profiles]))


@pytest.mark.trial
def test_key_is_heard_in_most_songs() -> None:
    genres = sorted(STYLES)
    agreed = 0
    for key in range(0, 24, 2):
        mode = "major" if key < 12 else "minor"
        audio = render_song(song(key, genres[key % 10], tonic=key % 12, mode=mode, blur=1.0), RATE)
        agreed += heard_key(audio) == key
    assert agreed >= 9


@pytest.mark.parametrize("genre", GENRES)
@pytest.mark.parametrize(("tonic", "mode"), [(2, "major"), (9, "minor")])
def test_every_pitched_note_belongs_to_the_key(genre: str, tonic: int, mode: str) -> None:
    # With the leading tone in minor.
    allowed = {"major": {0, 2, 4, 5, 7, 9, 11}, "minor": {0, 2, 3, 5, 7, 8, 10, 11}}
    notes = song(1, genre, tonic=tonic, mode=mode, seconds=30.0).notes
    steps = {(note.pitch - tonic) % 12 for note in notes if note.program != DRUMS}
    assert steps <= allowed[mode]


@pytest.mark.parametrize("genre", GENRES)
def test_every_note_is_of_the_part_whose_program_plays_it(genre: str) -> None:
    style = STYLES[genre]
    programs = {
        "drums": (DRUMS,),
        "bass": style.bass_programs,
        "chords": style.chord_programs,
        "lead": style.lead_programs,
    }
    for note in song(1, genre, seconds=30.0).notes:
        assert note.program in programs[part_of(note)]


@pytest.mark.parametrize("genre", GENRES)
def test_song_starts_on_its_tonic_and_fits_its_length(genre: str) -> None:
    made = song(2, genre, tonic=5)
    bass = [note for note in made.notes if note.program in STYLES[genre].bass_programs]
    first = min(bass, key=lambda note: note.onset_s)
    assert first.pitch % 12 == 5
    assert max(note.onset_s for note in made.notes) < made.seconds


def test_same_seed_gives_the_same_song_and_another_another() -> None:
    assert song(7) == song(7)
    assert song(7).notes != song(8).notes


def test_there_is_a_style_for_every_gtzan_genre() -> None:
    assert set(STYLES) == set(GENRES)


@pytest.mark.parametrize("genre", GENRES)
def test_patterns_fill_a_bar_and_progressions_start_on_the_tonic(genre: str) -> None:
    style = STYLES[genre]
    patterns = [style.chords, style.bass, *filter(None, vars(style.drums).values())]
    assert all(len(pattern) == 16 for pattern in patterns)
    assert set(style.chords) <= set("x.")
    assert set(style.bass) <= set("rfow.")
    assert all(progression[0] == 0 for progression in (*style.major, *style.minor))


def test_without_blur_a_genre_keeps_to_its_style() -> None:
    style = STYLES["jazz"]
    own = {*style.chord_programs, *style.bass_programs, *style.lead_programs, DRUMS}
    for seed in range(10):
        made = song(seed, "jazz")
        assert {note.program for note in made.notes} <= own
        assert style.tempo[0] <= made.tempo <= style.tempo[1]


def test_blur_brings_instruments_of_other_genres() -> None:
    style = STYLES["metal"]
    own = {*style.chord_programs, *style.bass_programs, *style.lead_programs, DRUMS}

    def foreign_share(blur: float) -> float:
        songs = [song(seed, "metal", blur=blur) for seed in range(40)]
        heard = [{note.program for note in made.notes} for made in songs]
        return float(np.mean([not programs <= own for programs in heard]))

    assert foreign_share(0.0) == 0
    assert foreign_share(0.8) > 0.8


def test_given_key_wins_over_the_styles_own() -> None:
    assert {song(seed, "metal").mode for seed in range(10)} == {"minor"}
    assert song(0, "metal", mode="major").mode == "major"
    assert len({song(seed).tonic for seed in range(60)}) == 12


def test_rendered_song_has_its_length_and_peak() -> None:
    audio = render_song(song(3, seconds=2.5), RATE)
    assert audio.shape == (round(2.5 * RATE),)
    assert audio.dtype == np.float32
    assert float(np.abs(audio).max()) == pytest.approx(0.8, abs=1e-6)
