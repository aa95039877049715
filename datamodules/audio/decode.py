"""Decoding, resampling and encoding: the one home of the audio libraries.

Conventions: audio is float32 in [-1, 1], mono (the mean of the channels), at the rate that the
caller asks for. Headers are not believed (an mp3 header may announce samples that are not there): a
file is what can be decoded from it. Encoders return bytes, so that whoever writes them sees a full
disk as the error it is (libsndfile does not tell).
"""

import io
import wave
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

# part of a store's name: features of two resamplers differ by -40 dB and must not be mixed
RESAMPLER = "soxr-HQ"


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

    Raises:
        AudioError: the file is missing, unreadable, empty, holds NaN or infinite samples, or ends
            before `end_s`.
    """
    try:
        samples, file_rate = soundfile.read(path, dtype="float32", always_2d=True)
        if start_s > 0 or end_s is not None:
            samples = _cut(samples, file_rate, start_s, end_s)
    except (soundfile.LibsndfileError, RuntimeError, OSError) as error:
        raise AudioError(_why_unreadable(path, error)) from error
    if len(samples) == 0:
        raise AudioError("holds no samples")
    mono = samples.mean(axis=1, dtype=np.float32)
    if not np.isfinite(mono).all():
        raise AudioError("holds NaN or infinite samples")
    if file_rate != sample_rate:
        mono = soxr.resample(mono, file_rate, sample_rate, quality="HQ")
    return np.ascontiguousarray(mono, dtype=np.float32)


def duration_s(path: Path) -> float:
    """Length in s that a file's header announces; only good enough for batch sizes and progress
    bars.

    Raises:
        AudioError: the header cannot be read.
    """
    return audio_info(path).duration_s


def audio_info(path: Path) -> AudioInfo:
    """What a file's header announces; no sample is decoded.

    Raises:
        AudioError: the header cannot be read.
    """
    try:
        with soundfile.SoundFile(path) as file:
            return AudioInfo(file.frames / file.samplerate, file.samplerate, file.channels)
    except (soundfile.LibsndfileError, RuntimeError, OSError) as error:
        raise AudioError(_why_unreadable(path, error)) from error


def _cut(
    samples: NDArray[np.float32], rate: int, start_s: float, end_s: float | None
) -> NDArray[np.float32]:
    seconds = len(samples) / rate
    if start_s >= seconds or (end_s is not None and end_s > seconds + 0.1):
        wanted = f"{start_s:g} s to " + ("its end" if end_s is None else f"{end_s:g} s")
        raise AudioError(f"lasts {seconds:.2f} s, {wanted} was asked for")
    return samples[round(start_s * rate) : None if end_s is None else round(end_s * rate)]


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


def _why_unreadable(path: Path, error: Exception) -> str:
    if not path.exists():
        return "does not exist"
    if path.stat().st_size == 0:
        return "is empty (0 bytes)"
    return f"cannot be decoded ({str(error).split(': ')[-1].strip().rstrip('.')})"
