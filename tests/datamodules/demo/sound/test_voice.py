"""The demo's VocalSet: whole for both tasks, the real layout, and voices in which singer and
technique can be heard.
"""

import io
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile

from datamodules.audio.clips import ClipRule
from datamodules.datasets.vocalset import (
    SINGER_FOLDERS,
    TECHNIQUES,
    VocalSetSinger,
    VocalSetTechnique,
)
from datamodules.demo import build as demo
from datamodules.demo.sound.voice import MANNERS, MELODIES, VOWELS, Voice, draw_voice, sing
from datamodules.demo.vocalset import SAMPLE_RATE, VoiceRecording, plan
from datamodules.task import TaskDataModule
from datamodules.tracks import SPLITS

TINY = 0.02
RATE = 16000


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("demo")
    demo.build(root, "vocalset", scale=TINY, n_jobs=1)
    return demo.dataset_root(root, "vocalset")


@pytest.fixture(scope="module")
def voice() -> Voice:
    return draw_voice(np.random.default_rng(0), female=False)


def recording(
    voice: Voice, technique: str, context: str = "long_tones", vowel: str = "a", seed: int = 1
) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return sing(rng, voice, technique, context=context, vowel=vowel, seconds=2.0, sample_rate=RATE)


# -- the corpus ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("data", "n_tracks"), [(VocalSetSinger, 200), (VocalSetTechnique, 200)])
def test_both_tasks_read_the_demo_with_every_class_in_every_split(
    corpus: Path, data: type[TaskDataModule], n_tracks: int
) -> None:
    tracks = data(corpus, ClipRule()).tracks()
    assert len(tracks) == n_tracks
    assert {(track.split, track.target) for track in tracks} == {
        (s, c) for s in SPLITS for c in range(len(data.classes))
    }


@pytest.mark.parametrize(
    ("data", "counts"),
    [
        (VocalSetSinger, {"train": 200, "val": 120, "test": 80}),
        (VocalSetTechnique, {"train": 180, "val": 120, "test": 100}),
    ],
)
def test_scale_1_has_the_promised_counts(
    tmp_path: Path, data: type[TaskDataModule], counts: dict[str, int]
) -> None:
    items = plan(1.0).items
    assert len(items) == 20 * 10 * 2
    for item in items:
        (tmp_path / item.path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / item.path).touch()
    assert Counter(track.split for track in data(tmp_path, ClipRule()).tracks()) == counts


def test_files_are_named_as_in_version_1_1(corpus: Path) -> None:
    pattern = (
        r"FULL/((?:fe)?male\d+)/(arpeggios|scales|long_tones)/(\w+)/[fm]\d+_(arpeggios|scales|long)_\w+_[aeiou]\.wav"
        r"|FULL/((?:fe)?male\d+)/excerpts/spoken/[fm]\d+_(row|caro|dona)_spoken\.wav"
    )
    paths = [path.relative_to(corpus).as_posix() for path in corpus.rglob("*.wav")]
    assert [path for path in paths if not re.fullmatch(pattern, path)] == []
    everything = plan(100.0).items
    assert len({item.path for item in everything}) == len(everything) == 20 * (9 * 15 + 3)
    assert [item.path for item in everything if "/vibrado/" in item.path] == [
        f"FULL/female2/arpeggios/vibrado/f2_arpeggios_vibrato_{vowel}.wav"
        for vowel in (item.vowel for item in everything if "/vibrado/" in item.path)
    ]
    assert sum("/vibrado/" in item.path for item in everything) == 5


def test_lists_are_those_of_the_dataset(corpus: Path) -> None:
    test = (corpus / "test_singers_technique.txt").read_text().split()
    train = (corpus / "train_singers_technique.txt").read_text().split()
    assert test == ["female2", "female8", "male3", "male5", "male10"]
    assert sorted(test + train) == sorted(SINGER_FOLDERS)


def test_recordings_are_one_clip_long_and_neither_clipped_nor_silent(corpus: Path) -> None:
    for path in sorted(corpus.rglob("*.wav"))[::7]:
        audio, rate = soundfile.read(path)
        assert rate == SAMPLE_RATE
        assert soundfile.info(path).subtype == "PCM_16"
        assert 2.9933 < len(audio) / rate <= 3.2
        assert 0.35 < np.abs(audio).max() < 0.95
        assert np.sqrt((audio**2).mean()) > 0.008


def test_recordings_are_the_same_every_time_and_differ_from_each_other() -> None:
    item = VoiceRecording("male3", "trillo", 1)
    assert item.encode() == VoiceRecording("male3", "trillo", 1).encode()
    others = [("male3", "trillo", 0), ("male3", "trill", 1), ("male4", "trillo", 1)]
    assert item.encode() not in [VoiceRecording(*other).encode() for other in others]


def test_contexts_and_vowels_are_spread_over_singers_and_techniques() -> None:
    items = [item for item in plan(1.0).items if item.technique != "spoken"]
    for name in ("singer", "technique"):
        seen = (
            {(getattr(item, name), item.context) for item in items},
            {(getattr(item, name), item.vowel) for item in items},
        )
        n_values = len({getattr(item, name) for item in items})
        assert (len(seen[0]), len(seen[1])) == (n_values * 3, n_values * 5)


# -- the voice -------------------------------------------------------------------------------------


def test_there_is_a_manner_for_each_technique() -> None:
    assert tuple(MANNERS) == TECHNIQUES


@pytest.mark.parametrize("technique", TECHNIQUES)
def test_every_technique_can_be_sung_in_every_context_and_vowel(
    voice: Voice, technique: str
) -> None:
    for context, vowel in zip([*MELODIES, "scales"], VOWELS, strict=True):
        audio = recording(voice, technique, context, vowel)
        assert audio.shape == (2 * RATE,)
        assert audio.dtype == np.float32
        assert np.isfinite(audio).all()
        assert 0.39 < np.abs(audio).max() < 0.92


def spectrum(audio: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.fft.rfftfreq(len(audio), 1 / RATE), np.abs(
        np.fft.rfft(audio * np.hanning(len(audio)))
    ) ** 2


def brightness(audio: np.ndarray) -> float:
    frequencies, power = spectrum(audio)
    return float((frequencies * power).sum() / power.sum())


def harmonicity(audio: np.ndarray) -> float:
    """Highest autocorrelation at a lag of 2.5 to 12.5 ms, over 40 ms in the middle."""
    piece = audio[RATE : RATE + 640]
    lags = range(40, 200)
    return max(
        float(np.corrcoef(piece, audio[RATE + lag : RATE + lag + 640])[0, 1]) for lag in lags
    )


def modulation(audio: np.ndarray, low: float, high: float) -> float:
    """Share of the envelope's variation at `low` .. `high` Hz."""
    envelope = np.sqrt(np.convolve(audio**2, np.ones(160) / 160, "same"))[1600:-1600]
    frequencies, power = spectrum(envelope - envelope.mean())
    return float(power[(low < frequencies) & (frequencies < high)].sum() / power.sum())


def test_a_straight_tone_is_at_the_pitch_of_the_voice(voice: Voice) -> None:
    """The long tone is 5 semitones above the lowest note, which moves up by 0 to 5."""
    audio = recording(voice, "straight", vowel="i")
    frequencies, power = spectrum(audio)
    low = (
        frequencies < 330
    )  # below the second harmonic of the lowest and above the highest first one
    pitch = 69 + 12 * np.log2(frequencies[low][power[low].argmax()] / 440)
    assert abs(pitch - round(pitch)) < 0.3
    assert voice.lowest + 4.5 < pitch < voice.lowest + 10.5


def test_techniques_sound_as_they_should(voice: Voice) -> None:
    sung = {technique: recording(voice, technique) for technique in TECHNIQUES}
    assert harmonicity(sung["straight"]) > 0.95
    assert (
        harmonicity(sung["inhaled"]) < harmonicity(sung["breathy"]) < harmonicity(sung["straight"])
    )
    assert brightness(sung["lip_trill"]) < brightness(sung["straight"]) < brightness(sung["belt"])
    assert modulation(sung["trillo"], 6, 11) > 2 * modulation(sung["straight"], 6, 11)
    assert modulation(sung["lip_trill"], 18, 28) > 2 * modulation(sung["straight"], 18, 28)


def test_women_have_higher_voices_and_shorter_tracts() -> None:
    women, men = (
        [draw_voice(np.random.default_rng(seed), female=female) for seed in range(20)]
        for female in (True, False)
    )
    assert min(voice.lowest for voice in women) > max(voice.lowest for voice in men)
    assert np.mean([voice.tract for voice in women]) > 1.1 * np.mean([voice.tract for voice in men])


def test_wav_files_hold_what_is_sung() -> None:
    audio, rate = soundfile.read(io.BytesIO(VoiceRecording("female1", "straight", 0).encode()))
    assert rate == SAMPLE_RATE
    assert np.abs(audio[: rate // 200]).max() < 0.2 * np.abs(audio).max()  # fades in
