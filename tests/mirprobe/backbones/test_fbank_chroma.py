"""The baseline feature against golden numbers of torchaudio 2.11 and librosa 0.11."""

import threading
from collections.abc import Iterator
from pathlib import Path

import librosa
import numpy as np
import pytest
import torch
from golden_recipe import waveform

from datamodules.errors import UserError
from mirprobe.backbones.fbank_chroma import FbankChroma, FrameShift

GOLDEN = np.load(Path(__file__).parents[2] / "data" / "baseline.npz")


@pytest.mark.parametrize(("name", "n_frames"), [("w1s", 100), ("odd", 300)])
def test_golden_numbers(name: str, n_frames: int) -> None:
    states = FbankChroma()(waveform(name))
    assert states.shape == (1, 1, n_frames, 92)

    fbank, chroma = states[0, 0, :, :80].numpy(), states[0, 0, :, 80:].numpy()
    np.testing.assert_allclose(fbank, GOLDEN[f"{name}/fbank_nosnip"], atol=3e-4, rtol=0)
    np.testing.assert_allclose(chroma, GOLDEN[f"{name}/chroma"][:n_frames], atol=1e-5, rtol=0)


def test_batch_of_two_equals_two_batches_of_one() -> None:
    backbone, audio = FbankChroma(), torch.cat([waveform("w1s"), waveform("w1s").flip(1)])
    both = backbone(audio)
    for clip in range(2):
        alone = backbone(audio[clip : clip + 1])[0]
        torch.testing.assert_close(alone, both[clip], atol=1e-6, rtol=0)


@pytest.mark.parametrize("shift", [10, 15])
def test_chroma_is_that_of_librosa_to_the_last_bit(shift: FrameShift) -> None:
    audio = torch.cat([waveform("w1s"), waveform("w1s").flip(1)])
    states = FbankChroma(frame_shift_ms=shift)(audio)
    expected = librosa.feature.chroma_stft(
        y=audio.numpy(), sr=24000, n_fft=2048, hop_length=24 * shift, n_chroma=12, tuning=0.0
    )
    expected = expected[:, :, : states.shape[2]].transpose(0, 2, 1)
    assert np.array_equal(states[:, 0, :, 80:].numpy(), expected)


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_clips_are_worked_on_side_by_side_with_the_same_result(
    two_threads: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On one core all else waited for librosa: each of two clips waits here for the other."""
    audio = torch.cat([waveform("w1s"), waveform("w1s").flip(1)])
    alone = torch.cat([FbankChroma()(clip) for clip in torch.split(audio, 1)])

    both, stft = threading.Barrier(2, timeout=30), librosa.stft
    monkeypatch.setattr(librosa, "stft", lambda y, **rest: both.wait() >= 0 and stft(y, **rest))
    torch.testing.assert_close(FbankChroma()(audio), alone, atol=1e-6, rtol=0)


def test_autocast_around_its_states_changes_nothing() -> None:
    """It does not reach into threads: what it did would hang on their number."""
    backbone, audio = FbankChroma(), waveform("w1s")
    with torch.autocast("cpu", torch.bfloat16):
        inside = backbone.states(audio)
    assert torch.equal(inside, backbone(audio))


def test_literal_overlap_of_the_paper_is_a_shift_of_15_ms() -> None:
    backbone = FbankChroma(frame_shift_ms=15)
    assert backbone.hop == 0.015
    assert backbone(waveform("w1s")).shape == (1, 1, 67, 92)
    assert backbone.fingerprint() != FbankChroma().fingerprint()


@pytest.mark.parametrize("shift", [0, 20, -5, 12.3, "10", None])
def test_any_other_shift_is_refused(shift: object) -> None:
    with pytest.raises(UserError) as caught:
        FbankChroma(frame_shift_ms=shift)  # type: ignore[arg-type]
    assert str(caught.value) == f"unknown model.frame_shift_ms={shift}: set it to one of 10, 15"


def test_silence_is_finite() -> None:
    states = FbankChroma()(torch.zeros(1, 24000))
    assert bool(torch.isfinite(states).all())
    assert states[..., 80:].abs().max() == 0
