"""Decoding, resampling and encoding: the one home of the audio libraries.

Conventions: audio is float32 in [-1, 1], mono (the mean of the channels), at the rate that the
caller asks for. A header is checked against what is there: a file with fewer samples than it
announces breaks off and is not used, and none can announce more than its bytes may hold. Whatever
the libraries raise over a damaged file is an `AudioError`. Encoders return bytes, so that whoever
writes them sees a full disk as the error it is (libsndfile does not tell).
"""

import io
import wave
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from datamodules.audio.headers import cut_share, mp3_has_length, mp3_samples, ogg_ends

# part of a store's name: features of two resamplers differ by -40 dB and must not be mixed
RESAMPLER = "soxr-HQ"

_PIECE_SAMPLES = 2**22  # decoded at a time: memory follows what is there, not what a header says
_MOST_FRAMES_PER_BYTE = 8192  # silence as FLAC comes near 5500, nothing comes nearer
_RATES = (1000, 1_000_000)  # Hz; resampling what claims 1 Hz would fill any memory
_MOST_CHANNELS = 64  # of samples in memory: more are a batch, or a spectrogram
_LOUDEST = 1000.0  # 60 dB above full scale; squares of what damaged floats hold are infinite

# Encoders put up to three frames of silence around the music, 0.11 s, and count them or do not.
_MP3_SLACK_S = 0.2
# A frame of MP3 needs bits of those before it, and its filters their output.
_MP3_RUN_UP_S = 0.5
# A seek into the last page of Ogg lands beside its place; a page holds 255 packets, some 6 s.
_OGG_END_S = 30.0
_SLACK_AT_END_S = 0.1  # that a part may ask for beyond the end: labels are rounded

# Also MemoryError, which is a false length's, and what soundfile asserts.
_DAMAGE = (
    ArithmeticError,
    AssertionError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    SystemError,
    TypeError,
    ValueError,
)


class AudioError(Exception):
    """Why one file cannot be used, in a few words."""


@dataclass(frozen=True)
class AudioInfo:
    """What a file's header announces: length in s, rate in Hz, number of channels."""

    duration_s: float
    sample_rate: int
    channels: int


def load_audio(
    path: Path, sample_rate: int, *, start_s: float = 0.0, end_s: float | None = None
) -> NDArray[np.float32]:
    """Decodes a file, or its part from `start_s` to `end_s` seconds, to mono float32 (S,) at
    `sample_rate` Hz.

    Of a part, nothing but the part is decoded: the samples are those of the same stretch of the
    whole, in an MP3 to within the rounding of float32.

    Raises:
        AudioError: the file is missing, unreadable or empty, breaks off before the end that it
            announces or before `end_s`, or holds samples that are no audio.
    """
    with _opened(path) as file:
        return _finish(_decode(path, file, start_s, end_s), file.samplerate, sample_rate)


def convert_audio(samples: NDArray[Any], rate: int, sample_rate: int) -> NDArray[np.float32]:
    """Samples in memory as `load_audio` gives those of a file: mono float32 (S,) at `sample_rate`.

    Args:
        samples: (S,), (S, channels) or (channels, S), the shorter side being the channels; floats
            in [-1, 1], or whole numbers as files hold them: int16, int32 or uint8.
        rate: theirs, in Hz.
        sample_rate: that is wanted, in Hz.

    Raises:
        AudioError: they are no audio, or it is not clear which.
    """
    low, high = _RATES
    if not low <= rate <= high:
        raise AudioError(f"is said to have {rate} Hz, which is no rate of audio")
    return _finish(_mix(_scale(_samples_first(samples))), rate, sample_rate)


def duration_s(path: Path) -> float:
    """Length in s that a file's header announces; only good enough for batch sizes and progress
    bars.

    Raises:
        AudioError: the header cannot be read, or cannot be true.
    """
    return audio_info(path).duration_s


def audio_info(path: Path) -> AudioInfo:
    """What a file's header announces; no sample is decoded.

    Raises:
        AudioError: the header cannot be read, or cannot be true.
    """
    with _opened(path) as file:
        return AudioInfo(file.frames / file.samplerate, file.samplerate, file.channels)


# -- files -----------------------------------------------------------------------------------------


@contextmanager
def _opened(path: Path) -> Iterator[soundfile.SoundFile]:
    """A file whose header may be true; an AudioError of all that goes wrong while it is open."""
    try:
        with soundfile.SoundFile(path) as file:
            _check_header(path, file)
            yield file
    except _DAMAGE as error:
        raise AudioError(_why_unreadable(path, error)) from error


def _check_header(path: Path, file: soundfile.SoundFile) -> None:
    low, high = _RATES
    if not low <= file.samplerate <= high:
        raise AudioError(f"announces {file.samplerate} Hz, which is no rate of audio")

    n_bytes = path.stat().st_size
    if file.frames > n_bytes * _MOST_FRAMES_PER_BYTE:
        raise AudioError(
            f"announces {file.frames} samples, which {n_bytes} bytes cannot hold: it is damaged"
        )

    seconds = file.frames / file.samplerate
    share = cut_share(file.extra_info)
    if share is not None:
        whole = f"{seconds / share:.2f}" if share > 0 else "some"
        raise AudioError(f"breaks off after {seconds:.2f} of {whole} s")
    if file.format == "OGG" and not ogg_ends(path):
        raise AudioError(f"breaks off after {seconds:.2f} s, without the mark of its end")


def _why_unreadable(path: Path, error: Exception) -> str:
    try:
        n_bytes = path.stat().st_size
    except FileNotFoundError:
        return "does not exist"
    except OSError as refusal:  # a folder that may not be entered
        return f"cannot be read ({refusal.strerror})"
    if n_bytes == 0:
        return "is empty (0 bytes)"
    reason = " ".join(str(error).split()).split(": ")[-1].strip().rstrip(".")
    return f"cannot be decoded ({reason or type(error).__name__})"


# -- samples ---------------------------------------------------------------------------------------


def _finish(mono: NDArray[np.float32], rate: int, sample_rate: int) -> NDArray[np.float32]:
    """Mono samples at the rate that is wanted, when they were looked at."""
    if len(mono) == 0:
        raise AudioError("holds no samples")

    loudest = float(np.abs(mono).max())
    if not np.isfinite(loudest):
        raise AudioError("holds NaN or infinite samples")
    if loudest > _LOUDEST:
        raise AudioError(f"holds samples up to {loudest:.1e}, expected -1 to 1")

    if rate != sample_rate:
        mono = soxr.resample(mono, rate, sample_rate, quality="HQ")
    return np.ascontiguousarray(mono, dtype=np.float32)


def _samples_first(samples: NDArray[Any]) -> NDArray[Any]:
    """(S, channels) of either order, or of one channel without a side of its own."""
    if samples.ndim == 1:
        return samples[:, None]
    shape = samples.shape
    if samples.ndim != 2 or shape[0] == shape[1] or min(shape) > _MOST_CHANNELS:
        raise AudioError(
            f"has the shape {shape}, expected (samples,), (samples, channels) or (channels, "
            "samples)"
        )
    # In memory too: numpy adds up many channels in another order where they lie apart.
    return np.ascontiguousarray(samples if shape[0] > shape[1] else samples.T)


def _scale(samples: NDArray[Any]) -> NDArray[np.float32]:
    """Floats in [-1, 1] of what files hold, as libsndfile makes them."""
    if samples.dtype in (np.int16, np.int32):
        return samples.astype(np.float32) / np.float32(-float(np.iinfo(samples.dtype).min))
    if samples.dtype == np.uint8:
        return (samples.astype(np.float32) - 128) / np.float32(128)
    if not np.issubdtype(samples.dtype, np.floating):
        raise AudioError(
            f"holds {samples.dtype}, of which the loudest is not known: give floats in [-1, 1], "
            "int16, int32 or uint8"
        )
    with np.errstate(over="ignore"):  # said by who looks at the samples
        return samples.astype(np.float32)


def _mix(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """The mean of the channels: (S, channels) -> (S,)."""
    with np.errstate(over="ignore", invalid="ignore"):  # said by who looks at the samples
        mono: NDArray[np.float32] = samples.mean(axis=1, dtype=np.float32)
    return mono


def _decode(
    path: Path, file: soundfile.SoundFile, start_s: float, end_s: float | None
) -> NDArray[np.float32]:
    """Mono samples of the file, or of its part, at its own rate; as many as there should be."""
    rate = file.samplerate
    first = round(start_s * rate)
    last = file.frames if end_s is None else round(end_s * rate)

    is_mp3 = file.format == "MP3"
    has_length = not is_mp3 or mp3_has_length(path)
    if not has_length:
        _check_guess(path, file)
    if first > 0 and first >= file.frames:
        raise AudioError(_too_short(file.frames / rate, start_s, end_s))

    begin = _safe_place(file, first)
    file.seek(begin)  # also to 0, which `soundfile.read` does: an MP3 then differs by 3e-7
    mono = _read(file, last - begin)[first - begin :]

    end = first + len(mono)
    if end_s is not None:
        if end < last - _SLACK_AT_END_S * rate:
            raise AudioError(_too_short(end / rate, start_s, end_s))
        return mono

    slack = _MP3_SLACK_S * rate if is_mp3 else 0
    if has_length and end < last - slack:
        raise AudioError(f"breaks off after {end / rate:.2f} of {last / rate:.2f} s")
    return mono


def _safe_place(file: soundfile.SoundFile, first: int) -> int:
    """The last frame at or before `first` from which decoding gives the samples of the whole."""
    rate: int = file.samplerate
    place = first
    if file.format == "MP3":
        place -= round(_MP3_RUN_UP_S * rate)
    elif file.format == "OGG":
        place = min(place, file.frames - round(_OGG_END_S * rate))
    return max(0, place)


def _read(file: soundfile.SoundFile, n_frames: int) -> NDArray[np.float32]:
    """The next frames, mono: as many as there are, if there are fewer."""
    most = max(1, _PIECE_SAMPLES // file.channels)
    pieces = [np.zeros(0, np.float32)]
    while n_frames > 0:
        piece = file.read(min(most, n_frames), dtype="float32", always_2d=True)
        if len(piece) == 0:
            break
        pieces.append(_mix(piece))
        n_frames -= len(piece)
    return np.concatenate(pieces)


def _check_guess(path: Path, file: soundfile.SoundFile) -> None:
    """Refuses an MP3 of which libsndfile would read a part, because it has guessed its length."""
    n_samples = mp3_samples(path)
    if n_samples > file.frames + _MP3_SLACK_S * file.samplerate:
        raise AudioError(
            f"does not say how long it is, and {file.frames / file.samplerate:.2f} of "
            f"{n_samples / file.samplerate:.2f} s would be read: `ffmpeg -i OLD -c copy NEW` "
            "writes its length"
        )


def _too_short(seconds: float, start_s: float, end_s: float | None) -> str:
    wanted = f"{start_s:g} s to " + ("its end" if end_s is None else f"{end_s:g} s")
    return f"lasts {seconds:.2f} s, {wanted} was asked for"


# -- encoding --------------------------------------------------------------------------------------


def wav_bytes(audio: NDArray[np.float32], sample_rate: int) -> bytes:
    """A 16-bit PCM WAV file."""
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(sample_rate)
        writer.writeframes(np.rint(np.clip(audio, -1, 1) * 32767).astype("<i2").tobytes())
    return file.getvalue()


def mp3_bytes(audio: NDArray[np.float32], sample_rate: int) -> bytes:
    """An MP3 file of variable rate, about 26 kbit/s at 22 050 Hz: the low-fidelity previews that
    GiantSteps consists of.
    """
    file = io.BytesIO()
    soundfile.write(
        file,
        audio,
        sample_rate,
        format="MP3",
        subtype="MPEG_LAYER_III",
        bitrate_mode="VARIABLE",
        compression_level=0.9,
    )
    return file.getvalue()
