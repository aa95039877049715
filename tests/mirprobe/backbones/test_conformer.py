import hashlib
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import lightning
import pytest
import torch
from devices import tf32
from golden_recipe import (
    SmallMuQ,
    SmallMusicFM,
    SmallMusicFMFma,
    golden_input,
    golden_states,
    three_clips,
    waveform,
)
from torch import Tensor
from torch.utils.data import DataLoader

from datamodules.errors import UserError
from mirprobe.backbones import conformer, layers
from mirprobe.backbones.conformer import Conformer
from mirprobe.backbones.conformer_state import published_shapes
from mirprobe.backbones.random_weights import draw_state

SMALL = {"musicfm": SmallMusicFM, "muq": SmallMuQ}
GOLDEN = [
    *[("musicfm", case) for case in ("w1s", "w3s", "w1s_pad3s", "w1s_fmastats")],
    *[("muq", case) for case in ("w1s", "w3s", "w1s_pad3s")],
]
OTHER_ORDER = 1e-5  # of the largest: what sums in another order may move; 7e-7 measured here


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module", params=list(SMALL))
def backbone(request) -> Conformer:
    return SMALL[request.param](weights="random").freeze()


def hash_of(module: torch.nn.Module) -> str:
    digest = hashlib.sha256()
    for tensor in (*module.parameters(), *module.buffers()):
        digest.update(tensor.detach().contiguous().numpy().tobytes())
    return digest.hexdigest()


def build(tag: str, case: str) -> Conformer:
    own_statistics = SmallMusicFMFma if case.endswith("fmastats") else SMALL[tag]
    return own_statistics(weights="random").freeze()


def in_one_pass(backbone: Conformer, audio: Tensor) -> Tensor:
    """States of a batch as a GPU computes them; on a CPU `forward` passes the clips one by one."""
    with torch.no_grad():
        return backbone.states(audio)


def assert_same_states(states: Tensor, expected: Tensor) -> None:
    """The same in every layer, up to sums in another order."""
    assert states.shape == expected.shape
    for layer in range(expected.shape[1]):
        largest = expected[:, layer].abs().max()
        assert (states[:, layer] - expected[:, layer]).abs().max() <= OTHER_ORDER * largest


@pytest.mark.parametrize(("tag", "case"), GOLDEN)
def test_states_are_those_of_the_published_code(tag, case):
    states = build(tag, case)(golden_input(case))
    torch.testing.assert_close(states, golden_states(tag, case), rtol=0, atol=2e-5)


@pytest.mark.parametrize("tag", list(SMALL))
def test_states_of_a_batch_in_one_pass_are_those_of_the_published_code(tag):
    states = in_one_pass(build(tag, "w3s"), three_clips())
    for clip, case in enumerate(("w3s", "w1s_pad3s")):
        expected = golden_states(tag, case)[0]
        torch.testing.assert_close(states[clip], expected, rtol=0, atol=2e-5)


def test_states_without_onednn_are_those_of_the_published_code(monkeypatch):
    monkeypatch.setattr(layers, "ONEDNN", False)
    states = build("muq", "w1s")(golden_input("w1s"))
    torch.testing.assert_close(states, golden_states("muq", "w1s"), rtol=0, atol=2e-5)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize(("tag", "case"), GOLDEN)
def test_states_on_a_gpu_are_those_of_the_published_code(tag, case):
    with tf32(allowed=False):
        states = build(tag, case).cuda()(golden_input(case).cuda()).cpu()
    torch.testing.assert_close(states, golden_states(tag, case), rtol=0, atol=5e-5)


MEL_PROGRAM = """
import sys; sys.path[:0] = sys.argv[1:]
import numpy as np, torch
from golden_recipe import DATA, SmallMuQ, SmallMusicFM, waveform
for backbone in (SmallMusicFM(weights="random"), SmallMuQ(weights="random")):
    with np.load(DATA / f"{backbone.tag}_reduced.npz") as arrays:
        golden = torch.from_numpy(arrays["w1s/mel"])
    print((backbone.mel(waveform("w1s"))[0] - golden).abs().max().item())
"""


def test_mel_is_that_of_the_published_code():
    """MKL's Fourier transform differs by 4e-6 between processors, unless told to take one way."""
    everywhere = {**os.environ, "MKL_CBWR": "COMPATIBLE"}
    command = [sys.executable, "-c", MEL_PROGRAM, *sys.path]
    ran = subprocess.run(command, env=everywhere, capture_output=True, text=True, check=True)
    errors = [float(line) for line in ran.stdout.split()]
    assert len(errors) == 2 and max(errors) <= 1e-6


@pytest.mark.parametrize(
    ("n_samples", "n_frames"),
    [
        (1025, 1),
        (24_000, 25),
        (23_999, 25),
        (24_239, 25),
        (24_240, 26),
        (71_999, 75),
        (72_000, 75),
        (72_001, 75),
        (96_000, 100),
        (240_000, 250),
        (724_800, 755),
    ],
)
def test_number_of_frames(backbone, n_samples, n_frames):
    states = backbone(torch.zeros(1, n_samples))
    assert states.shape == (1, 4, n_frames, 128)
    assert states.dtype == torch.float32


def test_facts_of_the_published_size():
    assert SmallMusicFM.sample_rate == 24_000
    assert SmallMusicFM.hop == 0.04
    assert SmallMusicFM.min_samples == 1025
    small = SmallMuQ(weights="random")
    assert (small.n_layers, small.dim) == (3, 128)


@pytest.mark.parametrize(
    ("audio", "reason"),
    [
        (torch.zeros(1, 1024), "at least 1025 samples at 24000 Hz, got 1024"),
        (torch.zeros(1, 2, 24_000), r"shape \(batch, samples\), got \(1, 2, 24000\)"),
        (torch.zeros(24_000), r"shape \(batch, samples\)"),
        (torch.full((1, 24_000), torch.nan), "NaN or infinite"),
    ],
)
def test_unfit_audio_is_refused_with_the_reason(backbone, audio, reason):
    with pytest.raises(UserError, match=reason):
        backbone(audio)


def test_on_a_cpu_a_batch_gives_exactly_what_its_clips_give_alone(backbone):
    clips = three_clips()
    alone = torch.cat([backbone(clip[None]) for clip in clips])
    assert torch.equal(backbone(clips), alone)


def test_a_batch_in_one_pass_gives_what_its_clips_give_alone(backbone):
    clips = three_clips()
    alone = torch.cat([backbone(clip[None]) for clip in clips])
    assert_same_states(in_one_pass(backbone, clips), alone)


def test_front_end_in_parts_gives_the_same(backbone, monkeypatch):
    clips, n_at_once = three_clips(), []
    embed = backbone.embed
    monkeypatch.setattr(backbone, "embed", lambda part: n_at_once.append(len(part)) or embed(part))

    whole = in_one_pass(backbone, clips)
    monkeypatch.setattr(conformer, "FRONT_END_SAMPLES", 2 * clips.shape[1])
    in_parts = in_one_pass(backbone, clips)

    assert n_at_once == [3, 2, 1]
    assert_same_states(in_parts, whole)


def test_two_calls_are_identical_and_change_no_state(backbone):
    before, audio = hash_of(backbone), waveform("w1s")
    assert torch.equal(backbone(audio), backbone(audio))
    assert hash_of(backbone) == before


def test_autocast_around_it_changes_nothing(backbone):
    audio = waveform("w1s")
    with torch.autocast("cpu", torch.bfloat16):
        inside = backbone(audio)
    assert torch.equal(inside, backbone(audio))


class Probe(lightning.LightningModule):
    def __init__(self, backbone: Conformer) -> None:
        super().__init__()
        self.backbone, self.head = backbone, torch.nn.Linear(backbone.dim, 1)

    def training_step(self, audio: Tensor) -> Tensor:
        assert not any(module.training for module in self.backbone.modules())
        states = self.backbone(audio)
        assert not states.requires_grad
        return self.head(states.mean(dim=(1, 2))).square().mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=1.0)


def test_it_stays_frozen_inside_fit():
    backbone = SmallMusicFM(weights="random").freeze()
    probe, before = Probe(backbone), hash_of(backbone)
    head = hash_of(probe.head)

    trainer = lightning.Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(probe, DataLoader(waveform("w1s").repeat(4, 1), batch_size=2))

    assert hash_of(probe.head) != head
    assert hash_of(backbone) == before
    assert all(parameter.grad is None for parameter in backbone.parameters())


def test_folded_weights_compute_what_the_published_layout_computes_in_float64(backbone):
    path = Path(__file__).parents[2] / "bench" / "bench_conformer.py"
    spec = importlib.util.spec_from_file_location("bench_conformer", path)
    bench = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(bench)

    published = draw_state(backbone.tag, published_shapes(backbone.size))
    plain = bench.Rival(backbone.size, published).double()
    expected = plain(waveform("w1s").double())
    states = backbone(waveform("w1s")).double()
    torch.testing.assert_close(states, expected, rtol=0, atol=1e-5)


def test_bf16_is_close_and_the_way_back_exact(backbone):
    other = type(backbone)(weights="random").freeze()
    fingerprint, exact = other.fingerprint(), backbone(waveform("w3s"))
    states = other.at("bf16")(waveform("w3s"))
    assert states.dtype == torch.float32
    assert other.project.weight.dtype == torch.bfloat16
    assert other.mel.mel_scale.fb.dtype == torch.float32
    error = (states - exact).square().mean().sqrt() / exact.square().mean().sqrt()
    assert 1e-4 < error < 0.015
    assert other.at("bf16").fingerprint() == fingerprint, "of the weights as they were read"

    assert torch.equal(other.at("float32")(waveform("w3s")), exact)
    assert not any(parameter.requires_grad for parameter in other.parameters())


def test_fingerprint_knows_weights_seed_and_statistics():
    different = [
        build("musicfm", "w1s"),
        build("musicfm", "w1s_fmastats"),
        build("muq", "w1s"),
        SmallMusicFM(weights="random", seed=1),
    ]
    assert len({backbone.fingerprint() for backbone in different}) == 4
    assert build("musicfm", "w1s").fingerprint() == different[0].fingerprint()


def test_fingerprint_knows_statistics_whatever_the_class_is_called():
    """The same weights hear something else behind other statistics of the mel."""
    variants = SmallMusicFMFma.variants
    namesake = type("SmallMusicFM", (SmallMusicFM,), {"variants": variants})(weights="random")
    other = SmallMusicFM(weights="random")
    assert type(namesake).__name__ == type(other).__name__
    assert namesake.fingerprint() != other.fingerprint()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"weights": "mdsd"}, "unknown model.weights=mdsd: set it to one of msd, fma, random"),
        (
            {"weights": "random", "checkpoint": "x.pt"},
            "model.weights=random reads no file, found model.checkpoint=x.pt",
        ),
    ],
)
def test_unknown_names_are_refused_with_the_known_ones(arguments, text):
    with pytest.raises(UserError, match=text):
        SmallMusicFM(**arguments)
