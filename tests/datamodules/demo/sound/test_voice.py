"""Voices in which singer and technique can be heard."""

import numpy as np
import pytest

from datamodules.datasets.vocalset import TECHNIQUES
from datamodules.demo.sound.voice import MANNERS, MELODIES, VOWELS, Voice, draw_voice, sing

RATE = 16000


@pytest.fixture(scope="module")
def voice() -> Voice:
    return draw_voice(np.random.default_rng(0), female=False)


def recording(
    voice: Voice, technique: str, context: str = "long_tones", vowel: str = "a", seed: int = 1
) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return sing(rng, voice, technique, context=context, vowel=vowel, seconds=2.0, sample_rate=RATE)


def test_there_is_a_manner_for_each_technique() -> None:
    assert tuple(MANNERS) == TECHNIQUES


@pytest.mark.parametrize("technique", TECHNIQUES)
def test_every_technique_can_be_sung_in_every_context_and_vowel(
    voice: Voice, technique: str
) -> None:
    for context, vowel in zip([*MELODIES, "scales"], VOWELS, strict=True):
        audio = recording(voice, technique, context, vowel)
        assert audio.shape == (2 * RATE,)
        assert audio.dtype == np.float32
        assert np.isfinite(audio).all()
        assert 0.39 < np.abs(audio).max() < 0.92


def spectrum(audio: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Frequencies in Hz, and the power at each."""
    power = np.abs(np.fft.rfft(audio * np.hanning(len(audio)))) ** 2
    return np.fft.rfftfreq(len(audio), 1 / RATE), power


def brightness(audio: np.ndarray) -> float:
    frequencies, power = spectrum(audio)
    return float((frequencies * power).sum() / power.sum())


def harmonicity(audio: np.ndarray) -> float:
    """Highest autocorrelation at a lag of 2.5 to 12.5 ms, over 40 ms in the middle."""
    piece = audio[RATE : RATE + 640]
    moved = [audio[RATE + lag : RATE + lag + 640] for lag in range(40, 200)]
    return max(float(np.corrcoef(piece, other)[0, 1]) for other in moved)


def modulation(audio: np.ndarray, low: float, high: float) -> float:
    """Share of the envelope's variation at `low` .. `high` Hz."""
    envelope = np.sqrt(np.convolve(audio**2, np.ones(160) / 160, "same"))[1600:-1600]
    frequencies, power = spectrum(envelope - envelope.mean())
    return float(power[(low < frequencies) & (frequencies < high)].sum() / power.sum())


def test_a_straight_tone_is_at_the_pitch_of_the_voice(voice: Voice) -> None:
    """The long tone is 5 semitones above the lowest note, which moves up by 0 to 5."""
    audio = recording(voice, "straight", vowel="i")
    frequencies, power = spectrum(audio)

    # Below the second harmonic of the lowest note, and above the first one of the highest.
    low = frequencies < 330
    pitch = 69 + 12 * np.log2(frequencies[low][power[low].argmax()] / 440)
    assert abs(pitch - round(pitch)) < 0.3
    assert voice.lowest + 4.5 < pitch < voice.lowest + 10.5


def test_techniques_sound_as_they_should(voice: Voice) -> None:
    sung = {technique: recording(voice, technique) for technique in TECHNIQUES}
    breathy = harmonicity(sung["breathy"])
    assert harmonicity(sung["straight"]) > 0.95
    assert harmonicity(sung["inhaled"]) < breathy < harmonicity(sung["straight"])
    assert brightness(sung["lip_trill"]) < brightness(sung["straight"]) < brightness(sung["belt"])
    assert modulation(sung["trillo"], 6, 11) > 2 * modulation(sung["straight"], 6, 11)
    assert modulation(sung["lip_trill"], 18, 28) > 2 * modulation(sung["straight"], 18, 28)


def test_women_have_higher_voices_and_shorter_tracts() -> None:
    women = [draw_voice(np.random.default_rng(seed), female=True) for seed in range(20)]
    men = [draw_voice(np.random.default_rng(seed), female=False) for seed in range(20)]
    assert min(voice.lowest for voice in women) > max(voice.lowest for voice in men)
    assert np.mean([voice.tract for voice in women]) > 1.1 * np.mean([voice.tract for voice in men])
