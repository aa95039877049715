"""Notes rendered from a SoundFont: a mono synthesiser in numpy.

Conventions: section numbers are those of the SoundFont Technical Specification 2.04. Audio is
float32 mono; pitches and velocities are MIDI numbers, times are seconds, `program` is a General
MIDI program counted from 0, or `DRUMS`. Rendered are presets and instruments with global zones, key
and velocity ranges, root key, tuning, loops, volume envelope, attenuation and a low-pass that
stands still. Left out: LFOs, moving filters, other modulators, effects, pan, the 24-bit extension.
The font is the one inside the installed `pretty_midi` wheel (GPL-2: used where it lies, never
copied); it is checked by SHA-256, because labels and audio are only reproducible with that very
file.
"""

import importlib.util
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter, resample_poly

from datamodules.demo.sound.sf2 import Gen, Zone, combine, covers, read_font_file
from datamodules.errors import UserError
from datamodules.files import sha256_of

FONT_SHA256 = "82475b91a76de15cb28a104707d3247ba932e228bada3f47bba63c6b31aaf7a1"
_INSTALL = "pip install 'mirprobe[demo]'"
DRUMS = 128  # pseudo program: the standard kit, preset 0 of bank 128

Audio = NDArray[np.float32]

# Linear interpolation of 44.1 kHz samples at 16 kHz would fold the treble into the band.
_OVERSAMPLING = 2
_MAX_RELEASE_S = 1.0
_MIN_RELEASE_S = 0.01

# Fonts are made by ear on hardware that applies 0.4 of the attenuation they write.
_EMU_ATTENUATION = 0.4
_OPEN_FILTER_CENTS = 13400  # about 18.8 kHz, 8.1.3: 13500 is the default and means no filter
_ROM_SAMPLE = 0x8000


@dataclass(frozen=True)
class Note:
    """One event of a score.

    Attributes:
        onset_s: when it starts, in s.
        hold_s: how long the key is down, in s.
        program: 0 .. 127, or `DRUMS`.
        pitch: MIDI key number.
        velocity: 1 .. 127.
        gain: linear, on top of the velocity.
    """

    onset_s: float
    hold_s: float
    program: int
    pitch: int
    velocity: int
    gain: float = 1.0


@dataclass(frozen=True)
class _Region:
    """One sample as one key plays it.

    Positions are in samples of the font, times in s, levels in dB, `rate` in Hz: that at which the
    sample has the wanted pitch.
    """

    start: int
    end: int
    loop: tuple[int, int] | None
    rate: float
    delay_s: float
    attack_s: float
    hold_s: float
    decay_s: float
    sustain_db: float
    release_s: float
    attenuation_db: float
    cutoff_hz: float | None
    resonance_db: float


class SoundFont:
    """The presets and samples of one SF2 file.

    Raises:
        UserError: the file is not a SoundFont.
    """

    def __init__(self, path: Path) -> None:
        self._file = read_font_file(path)

    @lru_cache(maxsize=300)  # noqa: B019 - the one font lives as long as the process
    def render_note(
        self, program: int, pitch: int, velocity: int, hold_s: float, sample_rate: int
    ) -> Audio:
        """Renders a note with its release, (S,) float32 at `sample_rate` Hz.

        It is read-only, for it is kept for the next equal note.
        """
        rate = sample_rate * _OVERSAMPLING
        regions = self._regions(program, pitch, velocity)
        voices = [self._render_region(region, hold_s, rate) for region in regions]

        audio = np.zeros(max(map(len, voices), default=0), np.float32)
        for voice in voices:
            audio[: len(voice)] += voice
        if len(audio):
            audio = np.asarray(resample_poly(audio, 1, _OVERSAMPLING), dtype=np.float32)
        audio.setflags(write=False)
        return audio

    def render(self, notes: Sequence[Note], seconds: float, sample_rate: int) -> Audio:
        """Renders a score, (S,) float32 at `sample_rate` Hz, not normalised.

        It is cut or filled with silence to `seconds`.
        """
        audio = np.zeros(round(seconds * sample_rate), np.float32)
        for note in notes:
            # A hundredth of a second is not heard, and makes more notes equal.
            hold_s = round(note.hold_s, 2)
            voice = self.render_note(note.program, note.pitch, note.velocity, hold_s, sample_rate)

            start = round(note.onset_s * sample_rate)
            voice = voice[: max(0, len(audio) - start)]
            audio[start : start + len(voice)] += np.float32(note.gain) * voice
        return audio

    def _regions(self, program: int, pitch: int, velocity: int) -> Iterator[_Region]:
        """Everything that sounds when a key is pressed."""
        bank_and_program = (128, 0) if program == DRUMS else (0, program)
        for preset_zone in self._file.presets[bank_and_program]:
            if not covers(preset_zone, pitch, velocity):
                continue
            for zone in self._file.instruments[preset_zone[Gen.INSTRUMENT]]:
                # The samples of a sound card's own memory are not in the file.
                is_rom = self._file.headers[zone[Gen.SAMPLE]]["type"] & _ROM_SAMPLE
                if covers(zone, pitch, velocity) and not is_rom:
                    yield self._region(combine(preset_zone, zone), pitch, velocity)

    def _region(self, zone: Zone, pitch: int, velocity: int) -> _Region:
        header = self._file.headers[zone[Gen.SAMPLE]]
        loudness = zone.get(Gen.FIXED_VELOCITY, velocity)
        release_s = _seconds(zone[Gen.RELEASE])
        return _Region(
            start=int(header["start"]) + _offset(zone, Gen.START, Gen.START_COARSE),
            end=int(header["end"]) + _offset(zone, Gen.END, Gen.END_COARSE),
            loop=_loop(zone, header),
            rate=int(header["rate"]) * 2.0 ** (_cents(zone, header, pitch) / 1200),
            delay_s=_seconds(zone[Gen.DELAY]),
            attack_s=_seconds(zone[Gen.ATTACK]),
            hold_s=_seconds(zone[Gen.HOLD]),
            decay_s=_seconds(zone[Gen.DECAY]),
            sustain_db=min(max(zone.get(Gen.SUSTAIN, 0), 0), 1000) / 10,
            release_s=min(max(release_s, _MIN_RELEASE_S), _MAX_RELEASE_S),
            # 8.4.1: a velocity attenuates by 40 log10(127 / velocity) dB.
            attenuation_db=_EMU_ATTENUATION * zone.get(Gen.ATTENUATION, 0) / 10
            + 40 * float(np.log10(127 / loudness)),
            cutoff_hz=_cutoff_hz(zone),
            resonance_db=zone.get(Gen.FILTER_Q, 0) / 10,
        )

    def _render_region(self, region: _Region, hold_s: float, rate: int) -> Audio:
        n_samples = int((hold_s + region.release_s) * rate)
        position = region.start + region.rate / rate * np.arange(n_samples)
        if region.loop is None:
            position = position[: np.searchsorted(position, region.end - 1)]
        else:
            loop_start, loop_end = region.loop
            beyond = position >= loop_end
            n_beyond = position[beyond] - loop_start
            position[beyond] = loop_start + np.mod(n_beyond, loop_end - loop_start)

        # 6.2: the samples after a loop's end equal those after its start, so `left + 1` needs no
        # wrapping.
        left = position.astype(np.int64)
        fraction = (position - left).astype(np.float32)
        samples = self._file.samples
        dry = samples[left] * (1 - fraction) + samples[left + 1] * fraction

        # Short loops of synthetic sounds have a mean that would thump at every onset.
        if region.loop is not None:
            dry -= samples[slice(*region.loop)].mean()

        audio: Audio = dry * _envelope(region, hold_s, len(dry), rate)
        if region.cutoff_hz is None:
            return audio
        return _low_pass(audio, region.cutoff_hz, region.resonance_db, rate)


@cache
def packaged_font() -> SoundFont:
    """The SoundFont inside the installed `pretty_midi`, read and checked once per process.

    Raises:
        UserError: the package is not installed, or carries another font than the one that the demo
            corpus is defined by.
    """
    spec = importlib.util.find_spec("pretty_midi")
    path = Path(spec.origin).with_name("TimGM6mb.sf2") if spec and spec.origin else None
    if path is None or not path.exists():
        raise UserError(
            "the demo corpus needs the SoundFont inside the package pretty_midi, "
            f"which is not installed: {_INSTALL}"
        )

    found = sha256_of(path)
    if found != FONT_SHA256:
        raise UserError(
            f"{path} is another SoundFont than the demo corpus is made of "
            f"(SHA-256 {found[:12]}, expected {FONT_SHA256[:12]}): {_INSTALL}"
        )
    return SoundFont(path)


# -- what a zone says ------------------------------------------------------------------------------


def _offset(zone: Zone, fine: Gen, coarse: Gen) -> int:
    return zone.get(fine, 0) + 32768 * zone.get(coarse, 0)


def _loop(zone: Zone, header: np.void) -> tuple[int, int] | None:
    """Start and end of the loop; None where the sample is played once."""
    start = int(header["loop_start"]) + _offset(zone, Gen.LOOP_START, Gen.LOOP_START_COARSE)
    end = int(header["loop_end"]) + _offset(zone, Gen.LOOP_END, Gen.LOOP_END_COARSE)

    # Mode 3, which leaves the loop on release, is played as 1.
    is_looped = zone.get(Gen.SAMPLE_MODES, 0) & 1 == 1 and end > start
    return (start, end) if is_looped else None


def _cents(zone: Zone, header: np.void, pitch: int) -> int:
    """Cents by which a key raises the sample."""
    root = zone[Gen.ROOT_KEY] if zone[Gen.ROOT_KEY] >= 0 else int(header["root"])
    from_root = (zone.get(Gen.FIXED_KEY, pitch) - root) * zone[Gen.SCALE_TUNING]
    tuning = 100 * zone.get(Gen.COARSE_TUNE, 0) + zone.get(Gen.FINE_TUNE, 0)
    return from_root + int(header["correction"]) + tuning


def _seconds(timecents: int) -> float:
    """Seconds of a time in cents, counted from 1 s (8.1.2); 0 where it is the least."""
    return 0.0 if timecents <= -12000 else 2.0 ** (timecents / 1200)


def _cutoff_hz(zone: Zone) -> float | None:
    """Cutoff of the low-pass, None when it is open.

    Half of this font's sounds open their filter with the modulation envelope; a low-pass that
    stands still takes the middle between the envelope's peak and its sustain level.
    """
    held = 1 - min(max(zone.get(Gen.MOD_ENV_SUSTAIN, 0), 0), 1000) / 2000
    cents = zone[Gen.FILTER_CENTS] + held * zone.get(Gen.MOD_ENV_TO_FILTER, 0)
    return None if cents >= _OPEN_FILTER_CENTS else 8.176 * 2.0 ** (cents / 1200)


# -- filters ---------------------------------------------------------------------------------------


def _envelope(region: _Region, hold_s: float, n_samples: int, rate: int) -> Audio:
    """Volume envelope (8.1.2, generators 33-38) with attenuation, (S,) linear.

    The attack is linear in level, the rest in dB.
    """
    time = np.arange(n_samples, dtype=np.float32) / np.float32(rate)
    held = np.minimum(time, hold_s) - region.delay_s
    level = np.clip(held / max(region.attack_s, 1e-3), 0, 1)

    # Decay and release are times in which a sound falls by 100 dB.
    since_hold = held - region.attack_s - region.hold_s
    decay_db = np.clip(since_hold * (100 / max(region.decay_s, 1e-3)), 0, region.sustain_db)
    release_db = np.maximum(time - hold_s, 0) * (100 / region.release_s)
    loss_db = decay_db + release_db + region.attenuation_db
    return np.asarray(level * np.exp(loss_db * (-np.log(10) / 20)), dtype=np.float32)


def _low_pass(audio: Audio, cutoff_hz: float, resonance_db: float, rate: int) -> Audio:
    """Two-pole low-pass (R. Bristow-Johnson's cookbook form).

    Args:
        audio: (S,).
        cutoff_hz: of the low-pass.
        resonance_db: its peak above the flat response.
        rate: of the audio, in Hz.
    """
    angle = 2 * np.pi * min(cutoff_hz, 0.45 * rate) / rate
    alpha = np.sin(angle) / (2 * 10 ** (resonance_db / 20) * np.sqrt(0.5))
    cosine = np.cos(angle)
    numerator = np.array([1 - cosine, 2 * (1 - cosine), 1 - cosine]) / 2
    denominator = [1, -2 * cosine / (1 + alpha), (1 - alpha) / (1 + alpha)]
    filtered = lfilter(numerator / (1 + alpha), denominator, audio)
    return np.asarray(filtered, dtype=np.float32)
