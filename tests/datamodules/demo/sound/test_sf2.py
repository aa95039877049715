"""SoundFont files are read exactly: zones, what is in their ranges, and what adds to what."""

from pathlib import Path

import pytest

from datamodules.demo.sound.sf2 import Gen, combine, covers, read_font_file
from datamodules.errors import UserError


def test_file_that_is_no_soundfont_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.sf2"
    path.write_bytes(b"RIFF\0\0\0\0WAVE")
    with pytest.raises(UserError, match=r"x\.sf2 is not a SoundFont-2 file"):
        read_font_file(path)


@pytest.mark.parametrize(
    ("pitch", "velocity", "expected"),
    [(60, 100, True), (72, 127, True), (59, 100, False), (73, 100, False), (60, 99, False)],
)
def test_a_zone_covers_its_ranges_with_both_ends(pitch: int, velocity: int, expected: bool) -> None:
    zone = {Gen.KEY_RANGE: 60 | 72 << 8, Gen.VELOCITY_RANGE: 100 | 127 << 8}
    assert covers(zone, pitch, velocity) == expected
    assert covers({}, pitch, velocity)


def test_a_preset_adds_to_its_instrument_but_not_what_names_or_chooses() -> None:
    preset_zone = {Gen.ATTENUATION: 20, Gen.COARSE_TUNE: -12, Gen.KEY_RANGE: 0, Gen.INSTRUMENT: 7}
    zone = combine(preset_zone, {Gen.ATTENUATION: 100, Gen.SAMPLE: 3})
    assert zone[Gen.ATTENUATION] == 120
    assert zone[Gen.COARSE_TUNE] == -12
    assert zone[Gen.FILTER_CENTS] == 13500  # the default
    assert zone[Gen.SAMPLE] == 3
    assert not {Gen.KEY_RANGE, Gen.INSTRUMENT} & zone.keys()
