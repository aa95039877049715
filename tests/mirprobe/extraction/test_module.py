"""Forward passes: which clips share one, what is kept of them, and what does not fit."""

import itertools

import numpy as np
import pytest
import torch
from conftest import RATE
from devices import DEVICES
from torch import Tensor
from toy_backbone import N_LAYERS, Statistics

from datamodules.audio.clips import Clip
from datamodules.audio.loader import ReadFile
from datamodules.errors import UserError
from datamodules.tracks import ClipPlace, UnusableFile
from mirprobe.extraction import module as module_under_test
from mirprobe.extraction.module import ExtractModule

UNUSABLE = UnusableFile("broken", None, "is empty (0 bytes)")  # type: ignore[arg-type]
BROKEN = ReadFile(1, unusable=[UNUSABLE])


def clip(name: str, n_samples: int, level: float = 0.5) -> Clip:
    audio = np.full(n_samples, level, dtype=np.float32)
    return Clip(ClipPlace(f"audio of {name}", 0, 1, 0.0), audio, name)


def file(name: str, n_samples: int, level: float = 0.5) -> ReadFile:
    """A file that is one clip."""
    return ReadFile(1, clips=[clip(name, n_samples, level)])


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Clips and samples of every forward pass."""
    states, seen = Statistics.states, []

    def watch(self: Statistics, audio: Tensor) -> Tensor:
        seen.append((audio.shape[0], audio.shape[1]))
        return states(self, audio)

    monkeypatch.setattr(Statistics, "states", watch)
    return seen


def test_only_clips_of_one_length_share_a_forward_pass(passes: list[tuple[int, int]]) -> None:
    batch = [file("a", 1600), file("b", 800), BROKEN, file("c", 1600), file("d", 1599)]
    features = ExtractModule(Statistics(), batch_seconds=60.0).predict_step(batch, 0)
    assert passes == [(1, 800), (1, 1599), (2, 1600)]

    lengths_s = {one.place.audio_id: float(one.values[0, 0, 1]) for one in features}
    expected = {"audio of a": 0.1, "audio of b": 0.05, "audio of c": 0.1, "audio of d": 1599 / RATE}
    assert lengths_s == pytest.approx(expected, rel=1e-3), "every clip keeps its own values"


def test_a_forward_pass_holds_no_more_audio_than_was_asked_for(
    passes: list[tuple[int, int]],
) -> None:
    batch = [file(f"{number}", 1600) for number in range(7)]
    ExtractModule(Statistics(), batch_seconds=0.3).predict_step(batch, 0)
    assert passes == [(3, 1600), (3, 1600), (1, 1600)]


def test_a_clip_longer_than_a_batch_still_passes(passes: list[tuple[int, int]]) -> None:
    ExtractModule(Statistics(), batch_seconds=0.01).predict_step([file("a", 1600)], 0)
    assert passes == [(1, 1600)]


def test_a_batch_of_broken_files_gives_nothing(passes: list[tuple[int, int]]) -> None:
    assert ExtractModule(Statistics(), batch_seconds=1.0).predict_step([BROKEN], 0) == []
    assert passes == []


@pytest.mark.parametrize(("frame_rate", "n_rows"), [(None, 1), (10.0, 5), (20.0, 10)])
def test_what_is_kept_is_float16_of_all_layers_without_audio(
    frame_rate: float | None, n_rows: int
) -> None:
    module = ExtractModule(Statistics(), batch_seconds=1.0, frame_rate=frame_rate)
    one = file("a", RATE // 2)
    (kept,) = module.predict_step([one], 0)
    assert kept.place == one.clips[0].place
    assert kept.values.shape == (N_LAYERS + 1, n_rows, 2)
    assert kept.values.dtype == np.float16
    assert set(vars(kept)) == {"place", "values", "last_row"}
    assert kept.values[:, 0, 0].tolist() == pytest.approx([0.25, 0.5, 0.75])


def test_the_first_track_whose_values_do_not_fit_is_named() -> None:
    """70000 is beyond float16, where 60000 is not; layer 2 holds the triple."""
    loud = ExtractModule(Statistics(gain=70000 / 3), batch_seconds=60.0)
    batch = [file("soft", 1600, level=0.9), file("loud", 1600, level=1.0)]
    with pytest.raises(UserError, match=r"not finite, or beyond 65504, for track loud: listen to"):
        loud.predict_step(batch, 0)
    ExtractModule(Statistics(gain=20000.0), batch_seconds=60.0).predict_step(batch, 0)


def test_the_size_found_after_a_failure_holds_for_the_rest_of_the_batch(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    states, sizes = Statistics.states, []

    def small(self: Statistics, audio: Tensor) -> Tensor:
        sizes.append(audio.shape[0])
        if audio.shape[0] > 2:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return states(self, audio)

    monkeypatch.setattr(Statistics, "states", small)
    module = ExtractModule(Statistics(), batch_seconds=60.0)
    batch = [file(f"s{n}", 800) for n in range(4)] + [file(f"l{n}", 1600) for n in range(4)]
    features = module.predict_step(batch, 0)
    assert len({one.place.audio_id for one in features}) == len(features) == 8
    assert sizes == [4, 2, 2, 1, 1, 1, 1], "0.1 s: two short clips, or one long one"
    assert capsys.readouterr().out.count("out of memory at ") == 1


@pytest.mark.parametrize("device", DEVICES)
def test_a_batch_is_halved_where_memory_really_ends(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], device: str
) -> None:
    """The errors are those of the allocators, which are asked for a pebibyte."""
    states, sizes = Statistics.states, []

    def greedy(self: Statistics, audio: Tensor) -> Tensor:
        sizes.append(len(audio))
        if len(audio) > 2:
            torch.empty(2**50, dtype=torch.uint8, device=audio.device)
        return states(self, audio)

    monkeypatch.setattr(Statistics, "states", greedy)
    module = ExtractModule(Statistics(), batch_seconds=60.0).to(device)
    features = module.predict_step([file(f"{number}", 1600) for number in range(8)], 0)
    assert len({one.place.audio_id for one in features}) == len(features) == 8
    assert sizes == [8, 4, 2, 2, 4, 2, 2]
    assert "out of memory at 8 clips a batch: going on with 0.4 s" in capsys.readouterr().out


NUMBERS = itertools.count()  # no two clips have the same audio, which would pass once


def batch_of(n_clips: int) -> list[ReadFile]:
    return [file(f"{next(NUMBERS)}", 1600) for _ in range(n_clips)]


class Small(Statistics):
    """A backbone for whose batches the memory is too small, as long as it is."""

    def __init__(self, error: Exception, most_clips: int = 2) -> None:
        super().__init__()
        self.error, self.most_clips = error, most_clips
        self.sizes: list[int] = []

    def states(self, audio: Tensor) -> Tensor:
        self.sizes.append(len(audio))
        if len(audio) > self.most_clips:
            raise self.error
        return super().states(audio)


OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total"),
    RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
    RuntimeError("cuFFT error: CUFFT_ALLOC_FAILED"),
    RuntimeError("MPS backend out of memory (MPS allocated: 17.00 GB, max allowed: 18.13 GB)"),
    RuntimeError(
        "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: "
        "you tried to allocate 1125899906842624 bytes. Error code 12 (Cannot allocate memory)"
    ),
    MemoryError("Unable to allocate 8.00 EiB for an array"),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=lambda error: str(error)[:40])
def test_memory_that_runs_out_is_known_whoever_says_so(
    error: Exception, capsys: pytest.CaptureFixture[str]
) -> None:
    small = Small(error)
    features = ExtractModule(small, batch_seconds=60.0).predict_step(batch_of(4), 0)
    assert len({one.place for one in features}) == len(features) == 4
    assert small.sizes == [4, 2, 2]
    printed = capsys.readouterr().out
    assert printed == "out of memory at 4 clips a batch: going on with 0.2 s of audio a batch\n"


class Wide(Statistics):
    """States of a terabyte a clip, which take no memory before they are pooled."""

    def states(self, audio: Tensor) -> Tensor:
        states = super().states(audio)
        return states[..., :1].expand(*states.shape[:3], 2**38) if len(audio) > 2 else states


@pytest.mark.parametrize("frame_rate", [None, 20.0])
def test_memory_that_runs_out_while_pooling_is_known(
    frame_rate: float | None, capsys: pytest.CaptureFixture[str]
) -> None:
    module = ExtractModule(Wide(), batch_seconds=60.0, frame_rate=frame_rate)
    assert len(module.predict_step(batch_of(4), 0)) == 4
    assert "out of memory at 4 clips a batch" in capsys.readouterr().out


def test_a_halved_size_is_tried_again_after_a_while(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module_under_test, "PASSES_UNTIL_MORE", 3)
    small = Small(OUT_OF_MEMORY[0])
    module = ExtractModule(small, batch_seconds=0.8)
    module.predict_step(batch_of(4), 0)
    small.most_clips = 8  # the other process is gone
    module.predict_step(batch_of(32), 0)

    # Three passes of 0.2 s, then six of 0.4 s, then all that was asked for.
    assert small.sizes[:3] == [4, 2, 2]
    assert small.sizes[3:] == [2, *[4] * 6, 6]
    assert capsys.readouterr().out.splitlines()[1:] == [
        "3 batches fitted into the memory: going on with 0.4 s of audio a batch",
        "6 batches fitted into the memory: going on with 0.8 s of audio a batch",
    ]


def test_a_size_that_was_never_halved_stays() -> None:
    module = ExtractModule(Statistics(), batch_seconds=0.1)
    for _ in range(2 * module_under_test.PASSES_UNTIL_MORE):
        module.predict_step(batch_of(1), 0)
    assert module.batch_seconds == 0.1


def test_other_errors_of_a_backbone_are_not_taken_for_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(self: Statistics, audio: Tensor) -> Tensor:
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(Statistics, "states", broken)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        ExtractModule(Statistics(), batch_seconds=1.0).predict_step([file("a", 1600)], 0)


def test_the_module_trains_nothing() -> None:
    module = ExtractModule(Statistics(), batch_seconds=1.0)
    assert not any(parameter.requires_grad for parameter in module.parameters())
    assert not module.backbone.training
