"""A singing voice by rule: a pulsing glottis and breath, through a vocal tract of five resonances.

Conventions: pitches are MIDI numbers, frequencies Hz, times s. A `Voice` is what a singer cannot
change, a `Manner` what a technique changes of it; all else (melody, drift, pulse rates) is drawn
from the generator that the caller passes. The source is one period of the derivative of Rosenberg's
glottal flow (1971), read at a varying speed and limited to harmonics below the Nyquist frequency of
the highest note; the vowels are the formants that Peterson & Barney (1952) measured on men.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.signal import sosfilt

Curve = NDArray[np.float64]  # one value per sample

VOWELS: Mapping[str, tuple[float, ...]] = {
    "a": (730, 1090, 2440, 3400, 4200),
    "e": (530, 1840, 2480, 3500, 4300),
    "i": (280, 2250, 2950, 3600, 4400),
    "o": (500, 880, 2450, 3300, 4200),
    "u": (320, 870, 2250, 3300, 4200),
}
MELODIES: Mapping[str, tuple[int, ...]] = {  # semitones above the lowest note
    "scales": (0, 2, 4, 5, 7, 5, 4, 2, 0),
    "arpeggios": (0, 4, 7, 12, 7, 4, 0),
    "long_tones": (5,),
    "excerpts": (0, 0, 2, 4, 2, 7, 5, 4),
}
_BANDWIDTHS = (60, 80, 120, 160, 220)  # Hz
_SINGERS_FORMANT = (2, 3)  # resonances that a trained voice sharpens
_FEMALE_SCALE = 1.17  # shorter tract
_TABLE = 2048  # samples of one period of the source
_FRY_HZ = (32.0, 52.0)
_SYLLABLES_PER_S = 5
_FLOOR = 3e-4  # noise of the room; digital silence would be a class of its own
_FADE_S = (0.04, 0.08)


@dataclass(frozen=True)
class Voice:
    """What a singer brings to every technique.

    Attributes:
        tract: 5 factors of the formants.
        bandwidth: factor of the resonances' bandwidths.
        ring: 0 .. 1, how sharp the singer's formant is.
        brightness: harmonic at which the source's spectrum has fallen to half.
        open_quotient: share of a period in which the glottis is open.
        breath: level of the breath against the source.
        jitter: relative deviation of the frequency.
        vibrato_hz: rate of the vibrato.
        vibrato_depth: semitones up and down.
        lowest: lowest note.
        speech_hz: frequency of speech.
    """

    tract: tuple[float, ...]
    bandwidth: float
    ring: float
    brightness: float
    open_quotient: float
    breath: float
    jitter: float
    vibrato_hz: float
    vibrato_depth: float
    lowest: float
    speech_hz: float


def draw_voice(rng: np.random.Generator, *, female: bool) -> Voice:
    """Draws a voice of one sex."""
    scale = (_FEMALE_SCALE if female else 1.0) * rng.uniform(0.88, 1.12)
    return Voice(
        tract=tuple(float(scale * factor) for factor in rng.uniform(0.88, 1.12, len(_BANDWIDTHS))),
        bandwidth=rng.uniform(0.6, 1.6),
        ring=rng.uniform(0.0, 0.8),
        brightness=rng.uniform(10, 40),
        open_quotient=rng.uniform(0.5, 0.75),
        breath=rng.uniform(0.004, 0.03),
        jitter=rng.uniform(0.001, 0.004),
        vibrato_hz=rng.uniform(4.8, 6.4),
        vibrato_depth=rng.uniform(0.35, 0.75),
        lowest=(57 if female else 45) + float(rng.integers(0, 6)),
        speech_hz=rng.uniform(175, 230) if female else rng.uniform(95, 140),
    )


@dataclass(frozen=True)
class Manner:
    """What a technique does to a voice.

    Attributes:
        pitch: a sung melody, the fall of speech, or the creak of vocal fry.
        shift: semitones above the melody.
        vibrato: factor of the voice's depth.
        trill: semitones between the two notes of a trill.
        trill_hz: slowest and fastest rate of a trill.
        brightness: factor of the voice's.
        open_quotient: factor of the voice's.
        voiced: level of the glottal source.
        breath: level of breath that is added.
        unsteady: semitones by which the pitch staggers.
        pulse_hz: slowest and fastest rate of interruptions, if there are any.
        pulse_floor: level in an interruption.
    """

    pitch: Literal["sung", "spoken", "fry"] = "sung"
    shift: float = 0.0
    vibrato: float = 0.0
    trill: float = 0.0
    trill_hz: tuple[float, float] = (5.0, 6.5)
    brightness: float = 1.0
    open_quotient: float = 1.0
    voiced: float = 1.0
    breath: float = 0.0
    unsteady: float = 0.0
    pulse_hz: tuple[float, float] | None = None
    pulse_floor: float = 0.0


MANNERS: Mapping[str, Manner] = {
    "belt": Manner(shift=5.0, vibrato=0.25, brightness=1.9, open_quotient=0.75),
    "breathy": Manner(brightness=0.35, open_quotient=1.25, breath=0.25),
    "inhaled": Manner(brightness=0.4, voiced=0.25, breath=0.5, unsteady=0.4),
    "lip_trill": Manner(brightness=0.3, pulse_hz=(19.0, 27.0), pulse_floor=0.25),
    "spoken": Manner(pitch="spoken"),
    "straight": Manner(),
    "trill": Manner(trill=1.8),
    "trillo": Manner(pulse_hz=(7.0, 10.0), pulse_floor=0.1),
    "vibrato": Manner(vibrato=1.0),
    "vocal_fry": Manner(pitch="fry", open_quotient=0.5),
}


def sing(
    rng: np.random.Generator,
    voice: Voice,
    technique: str,
    *,
    context: str,
    vowel: str,
    seconds: float,
    sample_rate: int,
) -> NDArray[np.float32]:
    """Sings one recording, (S,) float32 in [-1, 1] at `sample_rate` Hz.

    Args:
        rng: makes every choice.
        voice: who sings.
        technique: a key of `MANNERS`.
        context: a key of `MELODIES`.
        vowel: a key of `VOWELS`; speech changes it with every syllable.
        seconds: length.
        sample_rate: in Hz.
    """
    manner = MANNERS[technique]
    time = np.arange(round(seconds * sample_rate)) / sample_rate
    frequency = _frequency(rng, voice, manner, MELODIES[context], time)
    source = _source(rng, voice, manner, frequency, sample_rate)
    vowels = [vowel]
    if manner.pitch == "spoken":
        vowels = list(rng.choice(list(VOWELS), round(seconds * _SYLLABLES_PER_S)))

    audio = _through_tract(source * _loudness(rng, manner, time), voice, vowels, sample_rate)
    audio *= rng.uniform(0.4, 0.9) / np.abs(audio).max()
    return (audio + _FLOOR * rng.standard_normal(len(time))).astype(np.float32)


def _wander(rng: np.random.Generator, time: Curve, rate_hz: float) -> Curve:
    """Normal noise that takes a new value `rate_hz` times a second, and straight lines between."""
    n_values = int(time[-1] * rate_hz) + 2
    return np.interp(time * rate_hz, np.arange(n_values), rng.standard_normal(n_values))


def _frequency(
    rng: np.random.Generator, voice: Voice, manner: Manner, melody: tuple[int, ...], time: Curve
) -> Curve:
    """Frequency of the glottis, in Hz."""
    if manner.pitch == "fry":
        creak_hz = rng.uniform(*_FRY_HZ)
        return np.asarray(creak_hz * np.clip(1 + 0.2 * _wander(rng, time, 25), 0.5, 1.7))
    if manner.pitch == "spoken":
        phrase_s = rng.uniform(1.2, 1.9)
        fall = 1.15 - 0.3 * (time % phrase_s) / phrase_s
        return np.asarray(voice.speech_hz * fall * (1 + 0.06 * _wander(rng, time, 8)))

    pitch = voice.lowest + manner.shift + rng.integers(0, 6) + _melody(melody, time)

    # A vibrato needs some time to begin; a trill jumps where a vibrato swings.
    vibrato = manner.vibrato * voice.vibrato_depth * _wave(rng, time, voice.vibrato_hz)
    pitch += vibrato * np.clip(time / 0.4, 0, 1)
    trill_hz = rng.uniform(*manner.trill_hz)
    pitch += manner.trill / 2 * np.tanh(4 * _wave(rng, time, trill_hz))

    # Nobody holds a tone exactly: a slow drift, what the technique adds, and jitter.
    pitch += 0.04 * _wander(rng, time, 2) + manner.unsteady * _wander(rng, time, 40)
    return np.asarray(440 * 2 ** ((pitch - 69) / 12) * (1 + voice.jitter * _wander(rng, time, 100)))


def _melody(steps: tuple[int, ...], time: Curve) -> Curve:
    """The steps one after the other, 40 ms from one to the next."""
    if len(steps) == 1:
        return np.full(len(time), float(steps[0]))
    starts = np.arange(1, len(steps)) * (time[-1] / len(steps))
    edges = np.repeat(starts, 2) + np.tile([-0.02, 0.02], len(starts))
    return np.asarray(np.interp(time, edges, np.repeat(steps, 2)[1:-1]))


def _wave(rng: np.random.Generator, time: Curve, rate_hz: float) -> Curve:
    """A sine that starts anywhere."""
    return np.sin(2 * np.pi * (rate_hz * time + rng.random()))


def _loudness(rng: np.random.Generator, manner: Manner, time: Curve) -> Curve:
    """Level of the source: fades, syllables, and the interruptions of a technique."""
    fade_in_s, fade_out_s = _FADE_S
    loudness = np.clip(np.minimum(time / fade_in_s, (time[-1] - time) / fade_out_s), 0, 1)
    if manner.pitch == "spoken":
        syllables = 0.45 + 0.4 * _wander(rng, time, 2 * _SYLLABLES_PER_S)
        loudness = loudness * np.clip(syllables, 0.02, 1)
    if manner.pulse_hz:
        pulse_hz = rng.uniform(*manner.pulse_hz)
        gate = 0.5 + 0.5 * np.tanh(3 * _wave(rng, time, pulse_hz))
        loudness = loudness * (manner.pulse_floor + (1 - manner.pulse_floor) * gate)
    return np.asarray(loudness)


def _source(
    rng: np.random.Generator, voice: Voice, manner: Manner, frequency: Curve, sample_rate: int
) -> Curve:
    """Glottal pulses, and breath that is louder while the glottis is open."""
    open_quotient = min(voice.open_quotient * manner.open_quotient, 0.9)
    n_harmonics = int(0.5 * sample_rate / frequency.max())
    period = _glottal_pulse(open_quotient, voice.brightness * manner.brightness, n_harmonics)

    phase = np.cumsum(frequency / sample_rate) % 1
    pulses = period[(phase * _TABLE).astype(int)]
    breath = rng.standard_normal(len(phase)) * np.where(phase < open_quotient, 1.0, 0.4)
    return np.asarray(manner.voiced * pulses + (voice.breath + manner.breath) * breath)


def _glottal_pulse(open_quotient: float, brightness: float, n_harmonics: int) -> Curve:
    """One period of the source, its peak at 1.

    The flow rises for two thirds of the open time and falls for the last; its derivative is heard.
    """
    phase = np.arange(_TABLE) / _TABLE
    turn = open_quotient * 2 / 3
    rising = 0.5 * (1 - np.cos(np.pi * phase / turn))
    falling = np.cos(0.5 * np.pi * (phase - turn) / (open_quotient - turn))
    flow = np.where(phase < turn, rising, np.where(phase < open_quotient, falling, 0.0))

    # What is above the Nyquist frequency would fold back as a second, false tone.
    spectrum = np.fft.rfft(np.diff(flow, prepend=flow[-1]))
    harmonic = np.arange(len(spectrum))
    spectrum *= (harmonic <= n_harmonics) / (1 + (harmonic / brightness) ** 2)
    pulse = np.fft.irfft(spectrum, _TABLE)
    return np.asarray(pulse / np.abs(pulse).max())


def _through_tract(source: Curve, voice: Voice, vowels: list[str], sample_rate: int) -> Curve:
    """The source through the resonances of one vowel after the other, all equally long."""
    state = np.zeros((len(_BANDWIDTHS), 2))  # handed on, so that there is no click between vowels
    pieces = []
    for vowel, piece in zip(vowels, np.array_split(source, len(vowels)), strict=True):
        filters = np.array(list(_resonances(voice, vowel, sample_rate)))
        filtered, state = sosfilt(filters, piece, zi=state)
        pieces.append(filtered)
    return np.concatenate(pieces)


def _resonances(voice: Voice, vowel: str, sample_rate: int) -> Iterator[tuple[float, ...]]:
    """Second-order sections with gain 1 at 0 Hz, one per formant."""
    for index, (formant, width) in enumerate(zip(VOWELS[vowel], _BANDWIDTHS, strict=True)):
        sharp = 1 - 0.5 * voice.ring if index in _SINGERS_FORMANT else 1.0
        radius = np.exp(-np.pi * width * voice.bandwidth * sharp / sample_rate)
        centre_hz = min(formant * voice.tract[index], 0.45 * sample_rate)
        centre = 2 * np.pi * centre_hz / sample_rate
        poles = (1.0, -2 * radius * np.cos(centre), radius**2)
        yield (sum(poles), 0.0, 0.0, *poles)
