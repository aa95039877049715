"""Decoding and resampling: what comes out of good files, and what is said of bad ones."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from datamodules.audio.decode import AudioError, duration_s, load_audio

RATE = 44100


def tone(frequency: float, seconds: float, rate: int = RATE, amplitude: float = 0.5) -> np.ndarray:
    return (
        amplitude * np.sin(2 * np.pi * frequency * np.arange(round(rate * seconds)) / rate)
    ).astype(np.float32)


def spectrum_peak(audio: np.ndarray, rate: int) -> tuple[float, float]:
    """Frequency in Hz and amplitude of the strongest partial, from the middle half, by a Hann
    window.
    """
    middle = audio[len(audio) // 4 : -len(audio) // 4]
    window = np.hanning(len(middle))
    spectrum = np.abs(np.fft.rfft(middle * window)) / window.sum() * 2
    peak = int(spectrum.argmax())
    return peak * rate / len(middle), float(spectrum[peak])


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.aiff", "a.au"])
def test_lossless_files_come_back_as_they_were_written(tmp_path: Path, name: str) -> None:
    samples = np.array([0, 1, -1, 12345, -32768, 32767], dtype=np.int16)
    soundfile.write(tmp_path / name, samples, 16000, subtype="PCM_16")
    audio = load_audio(tmp_path / name, 16000)
    assert audio.dtype == np.float32
    np.testing.assert_array_equal(audio, samples / np.float32(32768))


@pytest.mark.parametrize(
    ("name", "tolerance"), [("a.ogg", 0.02), ("a.mp3", 0.02), ("a.flac", 0.001)]
)
def test_compressed_files_keep_the_tone(tmp_path: Path, name: str, tolerance: float) -> None:
    soundfile.write(tmp_path / name, tone(1000, 2.0), RATE)
    audio = load_audio(tmp_path / name, RATE)
    frequency, amplitude = spectrum_peak(audio, RATE)
    assert len(audio) == pytest.approx(2 * RATE, abs=2400)  # mp3 pads by up to two frames
    assert frequency == pytest.approx(1000, abs=1.0)
    assert amplitude == pytest.approx(0.5, rel=tolerance)


def test_stereo_becomes_the_mean_of_its_channels(tmp_path: Path) -> None:
    left, right = np.array([0.5, 0.5, -0.25], np.float32), np.array([0.25, -0.5, 0.25], np.float32)
    soundfile.write(tmp_path / "a.wav", np.stack([left, right], axis=1), 16000, subtype="FLOAT")
    np.testing.assert_array_equal(
        load_audio(tmp_path / "a.wav", 16000), np.array([0.375, 0.0, 0.0], np.float32)
    )


@pytest.mark.parametrize(
    ("file_rate", "rate"),
    [(44100, 16000), (22050, 24000), (16000, 24000), (48000, 44100), (11025, 16000)],
)
def test_resampling_keeps_frequency_amplitude_and_length(
    tmp_path: Path, file_rate: int, rate: int
) -> None:
    soundfile.write(tmp_path / "a.wav", tone(1000, 1.5, file_rate), file_rate, subtype="FLOAT")
    audio = load_audio(tmp_path / "a.wav", rate)
    frequency, amplitude = spectrum_peak(audio, rate)
    assert audio.dtype == np.float32
    assert len(audio) == pytest.approx(1.5 * rate, abs=1)
    assert frequency == pytest.approx(1000, abs=2.0)
    assert amplitude == pytest.approx(0.5, rel=0.01)


def test_resampling_starts_at_the_same_moment(tmp_path: Path) -> None:
    click = np.zeros(44100, np.float32)
    click[22050] = 1.0
    soundfile.write(tmp_path / "a.wav", click, 44100, subtype="FLOAT")
    assert abs(int(np.abs(load_audio(tmp_path / "a.wav", 16000)).argmax()) - 8000) <= 1


def test_what_a_lower_rate_cannot_hold_is_removed_and_not_folded(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", tone(10000, 1.0), RATE, subtype="FLOAT")
    assert np.abs(load_audio(tmp_path / "a.wav", 16000)[1000:-1000]).max() < 1e-3


def test_an_mp3_named_wav_is_decoded_for_what_it_is(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.mp3", tone(1000, 1.0), RATE)
    (tmp_path / "a.mp3").rename(tmp_path / "a.wav")
    assert spectrum_peak(load_audio(tmp_path / "a.wav", RATE), RATE)[0] == pytest.approx(
        1000, abs=2
    )


def test_a_truncated_mp3_is_what_can_be_decoded_not_what_its_header_says(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "whole.mp3", tone(1000, 10.0), RATE)
    content = (tmp_path / "whole.mp3").read_bytes()
    (tmp_path / "half.mp3").write_bytes(content[: len(content) // 2])
    audio = load_audio(tmp_path / "half.mp3", RATE)
    assert 4.0 < len(audio) / RATE < 5.5
    frequency, amplitude = spectrum_peak(audio, RATE)
    assert (frequency, amplitude) == (pytest.approx(1000, abs=1), pytest.approx(0.5, rel=0.02))
    assert np.abs(audio[-RATE // 2 :]).max() > 0.4  # no silence where the rest should be


def test_a_truncated_wav_is_what_can_be_decoded_not_what_its_header_says(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "whole.wav", tone(1000, 1.0, 16000), 16000, subtype="PCM_16")
    content = (tmp_path / "whole.wav").read_bytes()
    (tmp_path / "half.wav").write_bytes(content[: 44 + 2 * 8000])
    audio = load_audio(tmp_path / "half.wav", 16000)
    np.testing.assert_array_equal(audio, load_audio(tmp_path / "whole.wav", 16000)[:8000])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("channels", [1, 2])
def test_nan_and_infinite_samples_are_refused(tmp_path: Path, value: float, channels: int) -> None:
    samples = np.tile(tone(1000, 0.1)[:, None], (1, channels))
    samples[17, -1] = value
    soundfile.write(tmp_path / "a.wav", samples, RATE, subtype="FLOAT")
    with pytest.raises(AudioError, match="holds NaN or infinite samples"):
        load_audio(tmp_path / "a.wav", 16000)


def test_a_missing_file_is_called_missing(tmp_path: Path) -> None:
    for read in (lambda path: load_audio(path, 16000), duration_s):
        with pytest.raises(AudioError, match="does not exist"):
            read(tmp_path / "nothing.wav")


@pytest.mark.parametrize("name", ["a.wav", "a.mp3", "a.flac"])
def test_an_empty_file_is_called_empty(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    for read in (lambda path: load_audio(path, 16000), duration_s):
        with pytest.raises(AudioError, match=r"is empty \(0 bytes\)"):
            read(tmp_path / name)


def test_an_empty_au_file_which_libsndfile_opens_is_refused_too(tmp_path: Path) -> None:
    (tmp_path / "a.au").touch()
    with pytest.raises(AudioError, match=r"is empty|holds no samples"):
        load_audio(tmp_path / "a.au", 16000)


def test_a_header_without_samples_is_refused(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(0, np.float32), RATE)
    with pytest.raises(AudioError, match="holds no samples"):
        load_audio(tmp_path / "a.wav", 16000)


@pytest.mark.parametrize(
    "content", [b"RIFF\x00\x00", b"this is a web page, not audio\n" * 100, b"\x00" * 211]
)
def test_what_is_no_audio_cannot_be_decoded_and_is_said_in_one_line(
    tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "jazz.00054.wav").write_bytes(content)
    with pytest.raises(AudioError, match="cannot be decoded") as problem:
        load_audio(tmp_path / "jazz.00054.wav", 16000)
    assert "\n" not in str(problem.value)


def test_a_folder_in_place_of_a_file_is_a_problem_of_that_file(tmp_path: Path) -> None:
    (tmp_path / "a.wav").mkdir()
    with pytest.raises(AudioError):
        load_audio(tmp_path / "a.wav", 16000)


def test_duration_is_in_seconds_whatever_the_rate(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros((33075, 2), np.float32), 22050)
    assert duration_s(tmp_path / "a.wav") == pytest.approx(1.5)
