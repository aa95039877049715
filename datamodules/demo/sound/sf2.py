"""SoundFont-2 files, read: samples, presets and instruments, and what their zones say.

Conventions: section numbers are those of the SoundFont Technical Specification 2.04. A zone holds
what one sample, or one instrument, is played with: amounts by the number of their generator.
"""

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from datamodules.errors import UserError

Zone = dict[int, int]


class Gen(IntEnum):
    """Generators (8.1.2) that the renderer obeys: what a zone sets."""

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
    Gen.FILTER_CENTS: 13500,
    Gen.DELAY: -12000,
    Gen.ATTACK: -12000,
    Gen.HOLD: -12000,
    Gen.DECAY: -12000,
    Gen.RELEASE: -12000,
    Gen.SCALE_TUNING: 100,
    Gen.ROOT_KEY: -1,
}

# 8.5: what a preset zone holds is added to the instrument zone, except these.
_NOT_ADDED = frozenset(
    {
        Gen.INSTRUMENT,
        Gen.KEY_RANGE,
        Gen.VELOCITY_RANGE,
        Gen.SAMPLE,
        Gen.SAMPLE_MODES,
        Gen.ROOT_KEY,
        Gen.FIXED_KEY,
        Gen.FIXED_VELOCITY,
    }
)

# Records of the file (7.2 to 7.10).
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


@dataclass(frozen=True)
class FontFile:
    """Content of one file.

    Attributes:
        samples: (S,) float32 in [-1, 1], all samples one after the other.
        headers: where each sample is, its rate, loop and pitch, by its number.
        presets: zones of each preset, by bank and program; they name an instrument.
        instruments: zones of each instrument, by its number; they name a sample.
    """

    samples: NDArray[np.float32]
    headers: NDArray[np.void]
    presets: Mapping[tuple[int, int], list[Zone]]
    instruments: list[list[Zone]]


def read_font_file(path: Path) -> FontFile:
    """Reads a font.

    Raises:
        UserError: the file is not a SoundFont.
    """
    chunks = dict(_read_chunks(path))
    samples = np.frombuffer(chunks["smpl"], "<i2").astype(np.float32) / np.float32(32768)

    instruments = np.frombuffer(chunks["inst"], _INSTRUMENT)
    instrument_zones = _read_zones(instruments["bag"], chunks["ibag"], chunks["igen"], Gen.SAMPLE)

    # The last preset, like the last instrument, only says where the zones end.
    presets = np.frombuffer(chunks["phdr"], _PRESET)
    preset_zones = _read_zones(presets["bag"], chunks["pbag"], chunks["pgen"], Gen.INSTRUMENT)
    names = [(int(preset["bank"]), int(preset["program"])) for preset in presets[:-1]]
    return FontFile(
        samples=samples,
        headers=np.frombuffer(chunks["shdr"], _SAMPLE),
        presets=dict(zip(names, preset_zones, strict=True)),
        instruments=instrument_zones,
    )


def _read_chunks(path: Path) -> Iterator[tuple[str, bytes]]:
    """Name and content of every leaf chunk of the file (4)."""
    data = path.read_bytes()
    if data[:4] != b"RIFF" or data[8:12] != b"sfbk":
        raise UserError(
            f"{path} is not a SoundFont-2 file: it does not start with RIFF and sfbk. "
            "Reinstall the package that it belongs to"
        )

    position = 12
    while position + 8 <= len(data):
        name, size = struct.unpack_from("<4sI", data, position)
        if name == b"LIST":
            # Chunk header and the list's own name; its members follow as if they stood alone.
            position += 12
            continue
        yield name.decode("ascii"), data[position + 8 : position + 8 + size]
        position += 8 + size + size % 2


def _read_zones(
    bags: NDArray[np.uint16], bag_chunk: bytes, generator_chunk: bytes, terminal: Gen
) -> list[list[Zone]]:
    """Zones of each preset or instrument, with what its global zone sets for all (7.3, 7.7).

    Args:
        bags: number of the first zone of each owner, and at last that of all zones.
        bag_chunk: number of the first generator of each zone.
        generator_chunk: numbers and amounts of the generators.
        terminal: what every zone ends with, but for a global one.
    """
    limits = np.frombuffer(bag_chunk, _BAG)["generator"]
    generators = np.frombuffer(generator_chunk, _GENERATOR)

    owners = []
    for first, last in pairwise(bags):
        shared: Zone = {}
        zones = []
        for index in range(int(first), int(last)):
            of_zone = generators[limits[index] : limits[index + 1]]
            zone = {int(each["number"]): int(each["amount"]) for each in of_zone}
            if terminal in zone:
                zones.append({**shared, **zone})
            elif index == first:
                shared = zone
        owners.append(zones)
    return owners


def covers(zone: Zone, pitch: int, velocity: int) -> bool:
    """Whether a zone is for this key and this velocity."""
    in_keys = _in_range(zone.get(Gen.KEY_RANGE), pitch)
    return in_keys and _in_range(zone.get(Gen.VELOCITY_RANGE), velocity)


def _in_range(packed: int | None, value: int) -> bool:
    """Whether a value is in a range: the lowest in the low byte, the highest in the high one."""
    return packed is None or packed & 255 <= value <= packed >> 8 & 255


def combine(preset_zone: Zone, zone: Zone) -> Zone:
    """The zone of an instrument in that of a preset, with defaults for what neither sets."""
    combined = {**_DEFAULTS, **zone}
    for number, amount in preset_zone.items():
        if number not in _NOT_ADDED:
            combined[number] = combined.get(number, 0) + amount
    return combined
