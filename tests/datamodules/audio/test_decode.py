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


# -- files that break off --------------------------------------------------------------------------


def truncated(path: Path, share: float) -> Path:
    content = path.read_bytes()
    path.write_bytes(content[: round(len(content) * share)])
    return path


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.mp3", "a.ogg", "a.aiff", "a.au", "a.w64"])
@pytest.mark.parametrize("share", [0.33, 0.6, 0.9])
def test_a_file_that_breaks_off_is_refused(tmp_path: Path, name: str, share: float) -> None:
    """A third of a download is no shorter track."""
    soundfile.write(tmp_path / name, tone(1000, 10.0, 16000), 16000)
    with pytest.raises(AudioError, match=r"breaks off after|cannot be decoded"):
        load_audio(truncated(tmp_path / name, share), 16000)


@pytest.mark.parametrize("name", ["a.wav", "a.flac"])
def test_one_missing_byte_is_enough_where_lengths_are_exact(tmp_path: Path, name: str) -> None:
    soundfile.write(tmp_path / name, tone(1000, 1.0, 16000), 16000)
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[:-1])
    with pytest.raises(AudioError, match=r"breaks off after|cannot be decoded"):
        load_audio(tmp_path / name, 16000)


def test_what_is_there_and_what_should_be_is_said(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", tone(1000, 30.0, 16000), 16000)
    truncated(tmp_path / "a.wav", 1 / 3)
    for read in (lambda path: load_audio(path, 16000), duration_s):
        with pytest.raises(AudioError, match=r"^breaks off after 10\.00 of 30\.00 s$"):
            read(tmp_path / "a.wav")


def test_an_mp3_may_lack_the_padding_that_its_encoder_counts(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.mp3", tone(1000, 10.0), RATE)
    assert len(load_audio(truncated(tmp_path / "a.mp3", 0.99), RATE)) > 9.8 * RATE


@pytest.mark.parametrize("announced", [0xFFFFFFFF, 0x7FFFF000])
def test_a_wav_written_to_a_pipe_announces_nothing(tmp_path: Path, announced: int) -> None:
    soundfile.write(tmp_path / "a.wav", tone(1000, 1.0, 16000), 16000)
    content = bytearray((tmp_path / "a.wav").read_bytes())
    place = content.index(b"data") + 4
    content[place : place + 4] = announced.to_bytes(4, "little")
    (tmp_path / "a.wav").write_bytes(content)
    assert len(load_audio(tmp_path / "a.wav", 16000)) == 16000


def without_length(path: Path) -> Path:
    """The MP3 without its first frame, which holds the tag with its length."""
    content = path.read_bytes()
    path.write_bytes(content[content.index(content[:2], content.index(b"Xing")) :])
    return path


def test_an_mp3_that_libsndfile_would_read_a_part_of_is_refused(tmp_path: Path) -> None:
    """Without a tag it guesses the length from the first frame, and reads no further."""
    noise = 0.1 * np.random.default_rng(0).standard_normal(20 * RATE)
    noise[2 * RATE :] *= 1e-5  # later frames are much smaller
    path = tmp_path / "a.mp3"
    soundfile.write(path, noise, RATE, bitrate_mode="VARIABLE", compression_level=0.3)
    assert len(load_audio(path, RATE)) == 20 * RATE
    with pytest.raises(AudioError, match=r"does not say how long it is, and .* of 20\.\d+ s would"):
        load_audio(without_length(path), RATE)


def test_an_mp3_without_a_length_is_read_to_its_end(tmp_path: Path) -> None:
    noise = 0.1 * np.random.default_rng(0).standard_normal(20 * RATE)
    noise[: 18 * RATE] *= 1e-5  # later frames are much larger
    path = tmp_path / "a.mp3"
    soundfile.write(path, noise, RATE, bitrate_mode="VARIABLE", compression_level=0.3)
    assert len(load_audio(without_length(path), RATE)) / RATE == pytest.approx(20.0, abs=0.1)


# -- parts -----------------------------------------------------------------------------------------

PARTS = [(0.0, 1.0), (0.25, 1.5), (3.7, 4.2), (9.0, 12.0), (17.123, None), (19.9, 20.05)]
KINDS = [
    ("a.wav", {}, 0.0),
    ("a.flac", {}, 0.0),
    ("a.ogg", {}, 0.0),
    ("a.mp3", {}, 1e-6),  # the rounding of float32
    ("a.mp3", {"bitrate_mode": "VARIABLE", "compression_level": 0.9}, 1e-6),
]


@pytest.mark.parametrize("rate", [16000, 22050, 44100])
@pytest.mark.parametrize(("name", "options", "tolerance"), KINDS)
def test_a_part_is_that_slice_of_the_whole(
    tmp_path: Path, name: str, options: dict[str, object], tolerance: float, rate: int
) -> None:
    """The first frames of an MP3 after a seek lack what they share with those before them."""
    noise = 0.1 * np.random.default_rng(0).standard_normal((20 * rate, 2))
    noise *= np.repeat(np.random.default_rng(1).random(20), rate)[:, None]
    soundfile.write(tmp_path / name, noise, rate, **options)

    whole = load_audio(tmp_path / name, rate)
    for start_s, end_s in PARTS:
        part = load_audio(tmp_path / name, rate, start_s=start_s, end_s=end_s)
        end = None if end_s is None else round(end_s * rate)
        expected = whole[round(start_s * rate) : end]
        assert len(part) == len(expected)
        assert np.abs(part - expected).max() <= tolerance


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg", "a.mp3"])
def test_a_part_of_a_long_file_is_all_that_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    n_read = []
    read = soundfile.SoundFile.read

    def counted(file: soundfile.SoundFile, *args: object, **options: object) -> np.ndarray:
        found = read(file, *args, **options)
        n_read.append(len(found))
        return found

    with soundfile.SoundFile(tmp_path / name, "w", 16000, 1) as file:
        for _ in range(300):  # libsndfile's Vorbis takes no minutes at once
            file.write(tone(1000, 1.0, 16000))
    monkeypatch.setattr(soundfile.SoundFile, "read", counted)
    assert len(load_audio(tmp_path / name, 16000, start_s=200.0, end_s=202.0)) == 2 * 16000
    assert 2.0 <= sum(n_read) / 16000 <= 2.5


def test_a_part_beyond_the_end_says_how_long_the_file_is(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", tone(1000, 2.0, 16000), 16000)
    for start_s, end_s, wanted in ((1.0, 3.0, "1 s to 3 s"), (5.0, None, "5 s to its end")):
        with pytest.raises(AudioError, match=f"^lasts 2.00 s, {wanted} was asked for$"):
            load_audio(tmp_path / "a.wav", 16000, start_s=start_s, end_s=end_s)


# -- files that are broken -------------------------------------------------------------------------


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


def test_samples_that_are_no_audio_are_refused(tmp_path: Path) -> None:
    """1e30 is finite, and its square, the power of a spectrum, is not."""
    samples = tone(1000, 0.1)
    samples[100] = 1e30
    soundfile.write(tmp_path / "a.wav", samples, RATE, subtype="FLOAT")
    with pytest.raises(AudioError, match=r"holds samples up to 1\.0e\+30, expected -1 to 1"):
        load_audio(tmp_path / "a.wav", 16000)


def test_loud_floats_are_audio(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", tone(1000, 0.1, amplitude=20.0), RATE, subtype="FLOAT")
    assert np.abs(load_audio(tmp_path / "a.wav", RATE)).max() > 19


def test_a_header_cannot_announce_more_than_its_file_holds(tmp_path: Path) -> None:
    """2^36 samples as FLAC: 256 GiB to be allocated before the first is decoded."""
    soundfile.write(tmp_path / "a.flac", tone(1000, 1.0), RATE)
    content = bytearray((tmp_path / "a.flac").read_bytes())
    content[21:26] = (int.from_bytes(content[21:26]) | 0xFFFFFFFFF).to_bytes(5)
    (tmp_path / "a.flac").write_bytes(content)
    assert soundfile.info(tmp_path / "a.flac").frames == 2**36 - 1
    for read in (lambda path: load_audio(path, 16000), duration_s):
        with pytest.raises(
            AudioError, match=r"announces 68719476735 samples, which .* cannot hold"
        ):
            read(tmp_path / "a.flac")


def test_an_hour_of_silence_is_audio(tmp_path: Path) -> None:
    """FLAC holds thousands of its samples in a byte: the bound on headers lies above that."""
    soundfile.write(tmp_path / "a.flac", np.zeros(3600 * 8000, np.int16), 8000)
    assert duration_s(tmp_path / "a.flac") == 3600
    assert len(load_audio(tmp_path / "a.flac", 8000)) == 3600 * 8000


@pytest.mark.parametrize("rate", [1, 100_000_000])
def test_a_rate_that_no_audio_has_is_refused(tmp_path: Path, rate: int) -> None:
    soundfile.write(tmp_path / "a.wav", tone(1000, 1.0), rate)
    with pytest.raises(AudioError, match=f"announces {rate} Hz"):
        load_audio(tmp_path / "a.wav", 16000)


N_DAMAGED = 75  # of each kind


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.mp3", "a.ogg"])
def test_a_damaged_file_is_audio_or_an_audio_error(tmp_path: Path, name: str) -> None:
    """Bytes changed anywhere, most often in the header, and files cut: nothing else comes out."""
    rng = np.random.default_rng(0)
    soundfile.write(tmp_path / name, 0.1 * rng.standard_normal((4000, 2)), 16000)
    whole = (tmp_path / name).read_bytes()

    n_refused = 0
    for number in range(N_DAMAGED):
        content = bytearray(whole)
        reach = (64, 512, len(whole))[number % 3]
        for place in rng.integers(0, min(reach, len(whole)), rng.integers(1, 12)):
            content[place] = rng.integers(256)
        if number % 4 == 0:
            del content[rng.integers(len(content)) :]
        (tmp_path / name).write_bytes(content)

        parts = {"start_s": 0.05, "end_s": 0.1} if number % 2 else {}
        try:
            assert duration_s(tmp_path / name) >= 0
            audio = load_audio(tmp_path / name, 24000, **parts)
        except AudioError as problem:
            assert len(str(problem).splitlines()) == 1
            n_refused += 1
        else:
            assert audio.dtype == np.float32 and audio.ndim == 1 and np.isfinite(audio).all()
    assert n_refused > 0
    assert n_refused < N_DAMAGED or name == "a.ogg"  # whose every page has a checksum
