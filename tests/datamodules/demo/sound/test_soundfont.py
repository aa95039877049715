"""Rendered notes have the pitch, the loudness and the length that were asked for."""

import struct
from pathlib import Path

import librosa
import numpy as np
import pytest

from datamodules.demo.sound import soundfont
from datamodules.demo.sound.soundfont import DRUMS, Note, SoundFont, packaged_font
from datamodules.errors import UserError

RATE = 16000


def rms_db(audio: np.ndarray) -> float:
    return float(20 * np.log10(np.sqrt(np.mean(np.square(audio, dtype=np.float64))) + 1e-12))


@pytest.mark.parametrize(
    ("program", "pitch"),
    [
        (0, 60),
        (4, 48),
        (24, 52),
        (33, 40),
        (40, 69),
        (52, 60),
        (56, 65),
        (66, 55),
        (73, 79),
        (80, 57),
        (81, 84),
    ],
)
def test_note_has_its_pitch_within_half_a_semitone(program: int, pitch: int) -> None:
    audio = packaged_font().render_note(program, pitch, 100, 1.0, RATE)[RATE // 10 : RATE]
    f0 = librosa.yin(audio, fmin=50, fmax=2000, sr=RATE)
    assert abs(float(np.median(12 * np.log2(f0 / 440) + 69)) - pitch) < 0.5


@pytest.mark.parametrize("program", [0, 24, 40, 73])
def test_loudness_rises_with_velocity_by_the_specified_curve(program: int) -> None:
    levels = [
        rms_db(packaged_font().render_note(program, 60, velocity, 1.0, RATE)[:RATE])
        for velocity in (25, 50, 100)
    ]
    assert np.all(np.diff(levels) > 6)

    # Less exact where the font changes its sample with the velocity.
    assert levels[2] - levels[0] == pytest.approx(40 * np.log10(4), abs=3)


def test_piano_decays_and_organ_does_not() -> None:
    def loss_db(program: int) -> float:
        audio = packaged_font().render_note(program, 60, 100, 3.0, RATE)
        return rms_db(audio[RATE // 2 : RATE]) - rms_db(audio[2 * RATE : 5 * RATE // 2])

    assert loss_db(0) > 6
    assert abs(loss_db(19)) < 2


def test_note_is_silent_after_its_release() -> None:
    audio = packaged_font().render_note(48, 60, 100, 0.5, RATE)
    assert 0.5 * RATE < len(audio) <= 1.5 * RATE + 1
    assert rms_db(audio[-RATE // 50 :]) < rms_db(audio[RATE // 4 : RATE // 2]) - 40


def test_treble_does_not_fold_into_the_band() -> None:
    audio = packaged_font().render_note(81, 84, 100, 1.0, RATE)[RATE // 5 : RATE]
    spectrum = np.abs(np.fft.rfft(audio * np.hanning(len(audio)))) ** 2
    below_the_tone = spectrum[: int(0.9 * 1046.5 * len(audio) / RATE)].sum()
    level_db = 10 * np.log10(below_the_tone / spectrum.sum())
    assert level_db < -42  # -34 dB if rendered at the final rate


def test_score_adds_notes_at_their_onsets_with_their_gains() -> None:
    font = packaged_font()
    note = font.render_note(0, 60, 100, 0.3, RATE)
    soft = Note(0.25, 0.3, 0, 60, 100, 0.5)
    cut_off = Note(1.9, 0.3, 0, 60, 100)
    too_late = Note(5.0, 0.3, DRUMS, 38, 100)
    score = font.render([soft, cut_off, too_late], 2.0, RATE)
    assert len(score) == 2 * RATE

    start = RATE // 4
    assert not score[:start].any()
    np.testing.assert_array_equal(score[start : start + 4800], np.float32(0.5) * note[:4800])
    rest = score[round(1.9 * RATE) :]
    np.testing.assert_array_equal(rest, note[: len(rest)])


def test_rendered_note_is_kept_and_cannot_be_changed() -> None:
    note = packaged_font().render_note(DRUMS, 38, 90, 0.2, RATE)
    assert note is packaged_font().render_note(DRUMS, 38, 90, 0.2, RATE)
    with pytest.raises(ValueError, match="read-only"):
        note[0] = 1


def chunk(name: bytes, content: bytes) -> bytes:
    return name + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)


def records(layout: str, *rows: tuple[object, ...]) -> bytes:
    return b"".join(struct.pack("<" + layout, *row) for row in rows)


def sine_font(path: Path, zone: dict[int, int], shared: dict[int, int]) -> SoundFont:
    """A font of one looped 441 Hz sine: 100 samples at 44.1 kHz, root key 69.

    `shared` is its instrument's global zone.
    """
    sine = np.rint(16384 * np.sin(2 * np.pi * np.arange(250) / 100)).astype("<i2").tobytes()
    generators = [*shared.items(), *zone.items(), (54, 1), (53, 0)]
    presets = ((b"sine", 0, 0, 0, 0, 0, 0), (b"EOP", 0, 0, 1, 0, 0, 0))
    samples = ((b"sine", 0, 250, 100, 200, 44100, 69, 0, 0, 1), (b"EOS", *[0] * 9))
    hydra = (
        chunk(b"phdr", records("20sHHHIII", *presets))
        + chunk(b"pbag", records("HH", (0, 0), (1, 0)))
        + chunk(b"pmod", bytes(10))
        + chunk(b"pgen", records("Hh", (41, 0), (0, 0)))
        + chunk(b"inst", records("20sH", (b"sine", 0), (b"EOI", 2)))
        + chunk(b"ibag", records("HH", (0, 0), (len(shared), 0), (len(generators), 0)))
        + chunk(b"imod", bytes(10))
        + chunk(b"igen", records("Hh", *generators, (0, 0)))
        + chunk(b"shdr", records("20sIIIIIBbHH", *samples))
    )
    sound = chunk(b"LIST", b"sdta" + chunk(b"smpl", sine))
    body = b"sfbk" + sound + chunk(b"LIST", b"pdta" + hydra)
    path.write_bytes(chunk(b"RIFF", body))
    return SoundFont(path)


def tone(font: SoundFont, pitch: int, velocity: int = 127) -> tuple[float, float]:
    """Frequency in Hz and amplitude of a held note."""
    audio = font.render_note(0, pitch, velocity, 1.2, RATE)[RATE // 10 : RATE // 10 + RATE]
    spectrum = np.abs(np.fft.rfft(audio * np.hanning(RATE), 16 * RATE))
    return float(np.argmax(spectrum) / 16), float(audio.max())


@pytest.mark.parametrize(
    ("zone", "shared", "cents", "loss_db"),
    [
        ({}, {}, 0, 0),
        ({52: 50}, {}, 50, 0),  # fine tuning
        ({51: -12}, {}, -1200, 0),  # coarse tuning
        ({58: 57}, {}, 1200, 0),  # another root key than the sample's
        ({}, {48: 100}, 0, 4),  # 10 dB of attenuation, of which 0.4 count; from the global zone
        ({48: 50}, {48: 100}, 0, 2),  # the zone's own value wins over the global one
        ({37: 60, 36: -8000}, {}, 0, 6),  # sustain at 6 dB, reached within 10 ms
    ],
)
def test_generators_do_what_the_specification_says(
    tmp_path: Path, zone: dict[int, int], shared: dict[int, int], cents: float, loss_db: float
) -> None:
    frequency, amplitude = tone(sine_font(tmp_path / "sine.sf2", zone, shared), 69)
    assert 1200 * np.log2(frequency / 441) == pytest.approx(cents, abs=2)
    assert 20 * np.log10(amplitude / 0.5) == pytest.approx(-loss_db, abs=0.1)


def test_key_and_velocity_move_pitch_and_level(tmp_path: Path) -> None:
    font = sine_font(tmp_path / "sine.sf2", {}, {})
    frequency, amplitude = tone(font, 76, velocity=64)
    assert 1200 * np.log2(frequency / 441) == pytest.approx(700, abs=2)
    assert 20 * np.log10(amplitude / 0.5) == pytest.approx(-40 * np.log10(127 / 64), abs=0.1)


def test_note_outside_a_zones_key_range_has_no_sound(tmp_path: Path) -> None:
    font = sine_font(tmp_path / "sine.sf2", {43: 60 | 72 << 8}, {})
    assert len(font.render_note(0, 60, 100, 0.1, RATE)) > 0
    assert len(font.render_note(0, 59, 100, 0.1, RATE)) == 0


def test_missing_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(soundfont.importlib.util, "find_spec", lambda name: None)
    text = r"pretty_midi, which is not installed: pip install 'mirprobe\[demo\]'"
    with pytest.raises(UserError, match=text):
        packaged_font.__wrapped__()


def test_another_font_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(soundfont, "FONT_SHA256", "0" * 64)
    with pytest.raises(UserError, match="another SoundFont than the demo corpus is made of"):
        packaged_font.__wrapped__()
