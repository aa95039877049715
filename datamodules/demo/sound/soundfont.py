"""Notes rendered from a SoundFont-2 file: a reader and a mono synthesiser in numpy.

Conventions: section numbers are those of the SoundFont Technical Specification 2.04. Audio is
float32 mono; pitches and velocities are MIDI numbers, times are seconds, `program` is a General
MIDI program counted from 0, or `DRUMS`. Rendered are presets and instruments with global zones, key
and velocity ranges, root key, tuning, loops, volume envelope, attenuation and a
low-pass that stands still. Left out: LFOs, moving filters, other modulators, effects, pan, the
24-bit extension. The font is the one inside the installed `pretty_midi` wheel (GPL-2: used where it
lies, never copied); it is checked by SHA-256, because labels and audio are only reproducible with
that very file.
"""

import hashlib
import importlib.util
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cache, lru_cache
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter, resample_poly

from datamodules.errors import UserError

FONT_SHA256 = "82475b91a76de15cb28a104707d3247ba932e228bada3f47bba63c6b31aaf7a1"
_INSTALL = "pip install 'mirprobe[demo]'"
DRUMS = 128  # pseudo program: the standard kit, preset 0 of bank 128

Audio = NDArray[np.float32]
Zone = dict[int, int]

_OVERSAMPLING = (
    2  # linear interpolation of 44.1 kHz samples at 16 kHz would fold the treble into the band
)
_MAX_RELEASE_S = 1.0
_MIN_RELEASE_S = 0.01
_EMU_ATTENUATION = (
    0.4  # fonts are made by ear on hardware that applies 0.4 of the attenuation they write
)
_OPEN_FILTER_CENTS = 13400  # about 18.8 kHz, 8.1.3: 13500 is the default and means no filter


class _Gen(IntEnum):
    """Generator numbers (8.1.2) that the renderer obeys."""

    START = 0
    END = 1
    LOOP_START = 2
    LOOP_END = 3
    START_COARSE = 4
    FILTER_CENTS = 8
    FILTER_Q = 9
    MOD_ENV_TO_FILTER = 11
    END_COARSE = 12
    MOD_ENV_SUSTAIN = 29
    DELAY = 33
    ATTACK = 34
    HOLD = 35
    DECAY = 36
    SUSTAIN = 37
    RELEASE = 38
    INSTRUMENT = 41
    KEY_RANGE = 43
    VELOCITY_RANGE = 44
    LOOP_START_COARSE = 45
    FIXED_KEY = 46
    FIXED_VELOCITY = 47
    ATTENUATION = 48
    LOOP_END_COARSE = 50
    COARSE_TUNE = 51
    FINE_TUNE = 52
    SAMPLE = 53
    SAMPLE_MODES = 54
    SCALE_TUNING = 56
    ROOT_KEY = 58


_DEFAULTS: Mapping[int, int] = {
    _Gen.FILTER_CENTS: 13500,
    _Gen.DELAY: -12000,
    _Gen.ATTACK: -12000,
    _Gen.HOLD: -12000,
    _Gen.DECAY: -12000,
    _Gen.RELEASE: -12000,
    _Gen.SCALE_TUNING: 100,
    _Gen.ROOT_KEY: -1,
}
# 8.5: what a preset zone holds is added to the instrument zone, except these.
_NOT_ADDED = frozenset(
    {
        _Gen.INSTRUMENT,
        _Gen.KEY_RANGE,
        _Gen.VELOCITY_RANGE,
        _Gen.SAMPLE,
        _Gen.SAMPLE_MODES,
        _Gen.ROOT_KEY,
        _Gen.FIXED_KEY,
        _Gen.FIXED_VELOCITY,
    }
)

_PRESET = np.dtype(
    [("name", "S20"), ("program", "<u2"), ("bank", "<u2"), ("bag", "<u2"), ("reserved", "<u4", 3)]
)
_INSTRUMENT = np.dtype([("name", "S20"), ("bag", "<u2")])
_BAG = np.dtype([("generator", "<u2"), ("modulator", "<u2")])
_GENERATOR = np.dtype([("number", "<u2"), ("amount", "<i2")])
_SAMPLE = np.dtype(
    [
        ("name", "S20"),
        ("start", "<u4"),
        ("end", "<u4"),
        ("loop_start", "<u4"),
        ("loop_end", "<u4"),
        ("rate", "<u4"),
        ("root", "u1"),
        ("correction", "i1"),
        ("link", "<u2"),
        ("type", "<u2"),
    ]
)
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
    """One sample as one key plays it: positions in samples of the font, times in s, levels in dB."""

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
    """The presets and samples of one SF2 file."""

    def __init__(self, path: Path) -> None:
        """Reads the file.

        Raises:
            UserError: the file is not a SoundFont.
        """
        chunks = dict(_read_chunks(path))
        self._samples: Audio = np.frombuffer(chunks["smpl"], "<i2").astype(np.float32) / np.float32(
            32768
        )
        self._headers = np.frombuffer(chunks["shdr"], _SAMPLE)
        instruments = np.frombuffer(chunks["inst"], _INSTRUMENT)
        presets = np.frombuffer(chunks["phdr"], _PRESET)
        self._instruments = _read_zones(
            instruments["bag"], chunks["ibag"], chunks["igen"], _Gen.SAMPLE
        )
        preset_zones = _read_zones(presets["bag"], chunks["pbag"], chunks["pgen"], _Gen.INSTRUMENT)
        self._presets = {
            (int(p["bank"]), int(p["program"])): z
            for p, z in zip(presets[:-1], preset_zones, strict=True)
        }

    @lru_cache(maxsize=300)  # noqa: B019 - the one font lives as long as the process
    def render_note(
        self, program: int, pitch: int, velocity: int, hold_s: float, sample_rate: int
    ) -> Audio:
        """A note with its release, (S,) float32 at `sample_rate` Hz; read-only, for it is kept for
        the next equal note.
        """
        rate = sample_rate * _OVERSAMPLING
        voices = [
            self._render_region(region, hold_s, rate)
            for region in self._regions(program, pitch, velocity)
        ]
        audio = np.zeros(max(map(len, voices), default=0), np.float32)
        for voice in voices:
            audio[: len(voice)] += voice
        if len(audio):
            audio = np.asarray(resample_poly(audio, 1, _OVERSAMPLING), dtype=np.float32)
        audio.setflags(write=False)
        return audio

    def render(self, notes: Sequence[Note], seconds: float, sample_rate: int) -> Audio:
        """A score, (S,) float32 at `sample_rate` Hz, cut or filled with silence to `seconds`; not
        normalised.
        """
        audio = np.zeros(round(seconds * sample_rate), np.float32)
        for note in notes:
            start = round(note.onset_s * sample_rate)
            voice = self.render_note(
                note.program, note.pitch, note.velocity, round(note.hold_s, 2), sample_rate
            )
            voice = voice[: max(0, len(audio) - start)]
            audio[start : start + len(voice)] += np.float32(note.gain) * voice
        return audio

    def _regions(self, program: int, pitch: int, velocity: int) -> Iterator[_Region]:
        key = (128, 0) if program == DRUMS else (0, program)
        for preset_zone in self._presets[key]:
            if not _covers(preset_zone, pitch, velocity):
                continue
            for zone in self._instruments[preset_zone[_Gen.INSTRUMENT]]:
                if (
                    _covers(zone, pitch, velocity)
                    and not self._headers[zone[_Gen.SAMPLE]]["type"] & _ROM_SAMPLE
                ):
                    yield self._region(_combine(preset_zone, zone), pitch, velocity)

    def _region(self, zone: Zone, pitch: int, velocity: int) -> _Region:
        header = self._headers[zone[_Gen.SAMPLE]]
        start = int(header["start"]) + _offset(zone, _Gen.START, _Gen.START_COARSE)
        end = int(header["end"]) + _offset(zone, _Gen.END, _Gen.END_COARSE)
        loop_start = int(header["loop_start"]) + _offset(
            zone, _Gen.LOOP_START, _Gen.LOOP_START_COARSE
        )
        loop_end = int(header["loop_end"]) + _offset(zone, _Gen.LOOP_END, _Gen.LOOP_END_COARSE)
        looped = (
            zone.get(_Gen.SAMPLE_MODES, 0) & 1 == 1 and loop_end > loop_start
        )  # mode 3 (leave on release) is played as 1
        root = zone[_Gen.ROOT_KEY] if zone[_Gen.ROOT_KEY] >= 0 else int(header["root"])
        cents = (zone.get(_Gen.FIXED_KEY, pitch) - root) * zone[_Gen.SCALE_TUNING] + int(
            header["correction"]
        )
        cents += 100 * zone.get(_Gen.COARSE_TUNE, 0) + zone.get(_Gen.FINE_TUNE, 0)
        loudness = zone.get(_Gen.FIXED_VELOCITY, velocity)
        return _Region(
            start=start,
            end=end,
            loop=(loop_start, loop_end) if looped else None,
            rate=int(header["rate"]) * 2.0 ** (cents / 1200),
            delay_s=_seconds(zone[_Gen.DELAY]),
            attack_s=_seconds(zone[_Gen.ATTACK]),
            hold_s=_seconds(zone[_Gen.HOLD]),
            decay_s=_seconds(zone[_Gen.DECAY]),
            sustain_db=min(max(zone.get(_Gen.SUSTAIN, 0), 0), 1000) / 10,
            release_s=min(max(_seconds(zone[_Gen.RELEASE]), _MIN_RELEASE_S), _MAX_RELEASE_S),
            # 8.4.1: a velocity attenuates by 40 log10(127 / velocity) dB.
            attenuation_db=_EMU_ATTENUATION * zone.get(_Gen.ATTENUATION, 0) / 10
            + 40 * float(np.log10(127 / loudness)),
            cutoff_hz=_cutoff_hz(zone),
            resonance_db=zone.get(_Gen.FILTER_Q, 0) / 10,
        )

    def _render_region(self, region: _Region, hold_s: float, rate: int) -> Audio:
        n_samples = int((hold_s + region.release_s) * rate)
        position = region.start + region.rate / rate * np.arange(n_samples)
        if region.loop is None:
            position = position[: np.searchsorted(position, region.end - 1)]
        else:
            loop_start, loop_end = region.loop
            beyond = position >= loop_end
            position[beyond] = loop_start + np.mod(
                position[beyond] - loop_start, loop_end - loop_start
            )
        left = position.astype(np.int64)
        fraction = (position - left).astype(np.float32)
        # 6.2: the samples after a loop's end equal those after its start, so `left + 1` needs no
        # wrapping
        dry = self._samples[left] * (1 - fraction) + self._samples[left + 1] * fraction
        if (
            region.loop is not None
        ):  # short loops of synthetic sounds have a mean that would thump at every onset
            dry -= self._samples[slice(*region.loop)].mean()
        audio: Audio = dry * _envelope(region, hold_s, len(dry), rate)
        return (
            audio
            if region.cutoff_hz is None
            else _low_pass(audio, region.cutoff_hz, region.resonance_db, rate)
        )


@cache
def packaged_font() -> SoundFont:
    """The SoundFont inside the installed `pretty_midi` package, read and checked once per process.

    Raises:
        UserError: the package is not installed, or carries another font than the one that the demo
            corpus is defined by.
    """
    spec = importlib.util.find_spec("pretty_midi")
    path = Path(spec.origin).with_name("TimGM6mb.sf2") if spec and spec.origin else None
    if path is None or not path.exists():
        missing = "the demo corpus needs the SoundFont inside the package pretty_midi, which is not installed"
        raise UserError(f"{missing}: {_INSTALL}")
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != FONT_SHA256:
        other = f"{path} is another SoundFont than the demo corpus is made of (SHA-256 {found[:12]}, expected {FONT_SHA256[:12]})"
        raise UserError(f"{other}: {_INSTALL}")
    return SoundFont(path)


def _read_chunks(path: Path) -> Iterator[tuple[str, bytes]]:
    """Name and content of every leaf chunk of the file (4)."""
    data = path.read_bytes()
    if data[:4] != b"RIFF" or data[8:12] != b"sfbk":
        raise UserError(
            f"{path} is not a SoundFont-2 file: it does not start with RIFF and sfbk. Reinstall "
            "the package that it belongs to"
        )
    position = 12
    while position + 8 <= len(data):
        name, size = struct.unpack_from("<4sI", data, position)
        if name == b"LIST":
            # chunk header and the list's own name; its members follow as if they stood alone
            position += 12
            continue
        yield name.decode("ascii"), data[position + 8 : position + 8 + size]
        position += 8 + size + size % 2


def _read_zones(
    bags: NDArray[np.uint16], bag_chunk: bytes, generator_chunk: bytes, terminal: _Gen
) -> list[list[Zone]]:
    """Zones of each preset or instrument that end in the generator `terminal`, with the global zone
    merged in (7.3, 7.7).
    """
    limits = np.frombuffer(bag_chunk, _BAG)["generator"]
    generators = np.frombuffer(generator_chunk, _GENERATOR)
    owners = []
    for first, last in pairwise(bags):
        shared: Zone = {}
        zones = []
        for index in range(int(first), int(last)):
            zone = {
                int(g["number"]): int(g["amount"])
                for g in generators[limits[index] : limits[index + 1]]
            }
            if terminal in zone:
                zones.append({**shared, **zone})
            elif index == first:
                shared = zone
        owners.append(zones)
    return owners


def _covers(zone: Zone, pitch: int, velocity: int) -> bool:
    ranges = ((zone.get(_Gen.KEY_RANGE), pitch), (zone.get(_Gen.VELOCITY_RANGE), velocity))
    return all(
        packed is None or packed & 255 <= value <= packed >> 8 & 255 for packed, value in ranges
    )


def _combine(preset_zone: Zone, zone: Zone) -> Zone:
    combined = {**_DEFAULTS, **zone}
    for number, amount in preset_zone.items():
        if number not in _NOT_ADDED:
            combined[number] = combined.get(number, 0) + amount
    return combined


def _offset(zone: Zone, fine: _Gen, coarse: _Gen) -> int:
    return zone.get(fine, 0) + 32768 * zone.get(coarse, 0)


def _seconds(timecents: int) -> float:
    return 0.0 if timecents <= -12000 else 2.0 ** (timecents / 1200)


def _cutoff_hz(zone: Zone) -> float | None:
    """Cutoff of the low-pass, None when it is open.

    Half of this font's sounds open their filter with the modulation envelope; a low-pass that
    stands still takes the middle between the envelope's peak and its sustain level.
    """
    held = 1 - min(max(zone.get(_Gen.MOD_ENV_SUSTAIN, 0), 0), 1000) / 2000
    cents = zone[_Gen.FILTER_CENTS] + held * zone.get(_Gen.MOD_ENV_TO_FILTER, 0)
    return None if cents >= _OPEN_FILTER_CENTS else 8.176 * 2.0 ** (cents / 1200)


def _envelope(region: _Region, hold_s: float, n_samples: int, rate: int) -> Audio:
    """Volume envelope (8.1.2, generators 33-38) with attenuation, (S,) linear: attack linear in
    level, the rest in dB.
    """
    time = np.arange(n_samples, dtype=np.float32) / np.float32(rate)
    held = np.minimum(time, hold_s) - region.delay_s
    level = np.clip(held / max(region.attack_s, 1e-3), 0, 1)
    decay_db = np.clip(
        (held - region.attack_s - region.hold_s) * (100 / max(region.decay_s, 1e-3)),
        0,
        region.sustain_db,
    )
    release_db = np.maximum(time - hold_s, 0) * (100 / region.release_s)
    loss_db = decay_db + release_db + region.attenuation_db
    return np.asarray(level * np.exp(loss_db * (-np.log(10) / 20)), dtype=np.float32)


def _low_pass(audio: Audio, cutoff_hz: float, resonance_db: float, rate: int) -> Audio:
    """Two-pole low-pass with `resonance_db` above the flat response (R. Bristow-Johnson's cookbook
    form).
    """
    angle = 2 * np.pi * min(cutoff_hz, 0.45 * rate) / rate
    alpha = np.sin(angle) / (2 * 10 ** (resonance_db / 20) * np.sqrt(0.5))
    cosine = np.cos(angle)
    numerator = np.array([1 - cosine, 2 * (1 - cosine), 1 - cosine]) / 2
    filtered = lfilter(
        numerator / (1 + alpha), [1, -2 * cosine / (1 + alpha), (1 - alpha) / (1 + alpha)], audio
    )
    return np.asarray(filtered, dtype=np.float32)
