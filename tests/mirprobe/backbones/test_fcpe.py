"""FCPE against the published package's own modules, and its loading."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from datamodules.errors import UserError
from mirprobe.backbones.fcpe import FCPE, find_weights


@pytest.fixture(scope="module")
def fcpe() -> FCPE:
    return FCPE().freeze()


@pytest.fixture(scope="module")
def package() -> Any:
    """The published package's front end and model."""
    package = pytest.importorskip("torchfcpe").spawn_bundled_infer_model("cpu")
    package.model.requires_grad_(False)
    return package


def chirp(n_samples: int) -> torch.Tensor:
    time = torch.arange(n_samples) / 16000
    noise = torch.randn(2, n_samples, generator=torch.Generator().manual_seed(0))
    return 0.4 * torch.sin(2 * torch.pi * (200 * time + 300 * time**2)) + 0.02 * noise


def test_front_end_and_stem_are_those_of_the_package(fcpe: FCPE, package: Any) -> None:
    audio = chirp(2 * 16000)
    states = fcpe(audio)
    mel = package.wav2mel(audio[..., None], 16000)
    mel = mel[:, : states.shape[2]]  # the package pads one frame more
    torch.testing.assert_close(fcpe.log_mel(audio).transpose(1, 2), mel, atol=1e-5, rtol=0)

    x = package.model.input_stack(mel.transpose(1, 2)).transpose(1, 2)
    torch.testing.assert_close(states[:, 0], x, atol=1e-5, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_block_is_that_of_the_package(fcpe: FCPE, package: Any, dtype: torch.dtype) -> None:
    """States reach 700, where the float32 numbers lie 6e-5 apart: the bound is relative.

    Measured: 6.6e-7 from the package in float32, 5.3e-7 from it in float64, which is no more than
    the 6.0e-7 between the package's own float32 and float64.
    """
    states = fcpe(chirp(2 * 16000)).to(dtype)
    x = states[:, 0]
    for layer, block in enumerate(package.model.net.encoder_layers, start=1):
        x = copy.deepcopy(block).to(dtype)(x)
        assert (states[:, layer] - x).abs().max() <= 9e-7 * x.abs().max()


def test_blocks_run_in_the_form_that_is_fast(fcpe: FCPE) -> None:
    """90 % of the time went into conv1d, which runs at half the speed."""
    assert not [module for module in fcpe.blocks.modules() if isinstance(module, nn.Conv1d)]


def test_shape_and_frame_rate(fcpe: FCPE) -> None:
    assert (fcpe.sample_rate, fcpe.hop, fcpe.n_layers, fcpe.dim) == (16000, 0.01, 6, 512)
    assert fcpe(chirp(16000)).shape == (2, 7, 100, 512)
    assert fcpe(chirp(fcpe.min_samples)).shape[2] == 6


def test_on_a_cpu_a_batch_gives_exactly_what_its_clips_give_alone(fcpe: FCPE) -> None:
    audio = chirp(8000)
    alone = torch.cat([fcpe(clip) for clip in torch.split(audio, 1)])
    assert torch.equal(fcpe(audio), alone)


def test_a_batch_in_one_pass_gives_what_its_clips_give_alone(fcpe: FCPE) -> None:
    audio = chirp(8000)
    alone = torch.cat([fcpe(clip) for clip in torch.split(audio, 1)])
    with torch.no_grad():
        at_once = fcpe.states(audio)  # as a GPU computes them
    for layer in range(7):
        largest = alone[:, layer].abs().max()
        assert (at_once[:, layer] - alone[:, layer]).abs().max() <= 1e-6 * largest


def test_random_weights_are_seeded_and_another_backbone(fcpe: FCPE) -> None:
    first, second, other = FCPE("random"), FCPE("random"), FCPE("random", seed=1)
    assert first.fingerprint() == second.fingerprint()
    assert len({fcpe.fingerprint(), first.fingerprint(), other.fingerprint()}) == 3


def test_wrong_weight_files_are_refused_in_one_line(tmp_path: Path) -> None:
    truncated = tmp_path / "fcpe_c_v001.pt"
    truncated.write_bytes(find_weights().read_bytes()[:1000])
    with pytest.raises(UserError) as caught:
        FCPE(checkpoint=str(truncated))
    assert str(caught.value) == (
        f"{truncated} is not the published file: it has 1,000 bytes instead of 43,363,260. "
        "Reinstall it: pip install --force-reinstall torchfcpe==0.0.4"
    )

    changed = tmp_path / "other.pt"
    changed.write_bytes(bytes(43363260))
    with pytest.raises(UserError, match=r"its SHA-256 is not b9aeaeb67343\.\.\. Reinstall it: pip"):
        FCPE(checkpoint=str(changed))

    with pytest.raises(UserError, match="does not exist"):
        FCPE(checkpoint=str(tmp_path / "none.pt"))


def test_frozen_in_eval_mode_for_good(fcpe: FCPE) -> None:
    assert not fcpe.train().training
    assert not any(parameter.requires_grad for parameter in fcpe.parameters())

    before = {key: tensor.clone() for key, tensor in fcpe.state_dict().items()}
    fcpe(chirp(8000))
    assert all(torch.equal(tensor, before[key]) for key, tensor in fcpe.state_dict().items())


@pytest.mark.parametrize(
    ("audio", "reason"),
    [
        (torch.zeros(16000), r"shape \(batch, samples\)"),
        (torch.zeros(1, 2, 16000), r"shape \(batch, samples\)"),
        (torch.zeros(1, 1023), "at least 1024 samples"),
        (torch.full((1, 2000), torch.nan), "NaN or infinite"),
    ],
)
def test_unusable_audio_is_refused_with_the_reason(
    fcpe: FCPE, audio: torch.Tensor, reason: str
) -> None:
    with pytest.raises(UserError, match=reason):
        fcpe(audio)
