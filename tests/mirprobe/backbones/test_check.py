from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mirprobe.backbones.backbone import Backbone
from mirprobe.backbones.check import Finding, check, findings
from mirprobe.backbones.conformer_state import ConformerSize
from mirprobe.backbones.fbank_chroma import FbankChroma
from mirprobe.backbones.fcpe import FCPE
from mirprobe.backbones.muq import MuQ
from mirprobe.backbones.musicfm import MusicFM
from mirprobe.backbones.signals import music

REDUCED = ConformerSize(conv_dim=32, dim=128, n_layers=3, n_heads=4, ffn_dim=256)
MUSTS = [
    "parameters with gradient",
    "modules training after .train()",
    "tensors a forward pass changes",
    "two identical calls",
    "batch of 3 against 3 of 1",
    "batch of 3 in one pass",
    "frames as hop says",
    "first frame's centre",
    "shape and dtype of states",
    "states not finite",
    "largest time mean",
    "minimum input in samples",
]
INFOS = [
    "parameters",
    "fingerprint",
    "layers",
    "rate",
    "zeros appended, clip doubled",
    "audio at 2/3 of the rate",
    "error of bf16",
    "error of tf32",
    "error of fp16 autocast",
    "speed at 0.5 s",
    "peak memory at 0.5 s",
]


class SmallMusicFM(MusicFM):
    size = REDUCED


class SmallMuQ(MuQ):
    size = REDUCED


class Toy(Backbone):
    """Frames of 10 ms, projected; two blocks that see one frame each."""

    sample_rate = 8000
    hop = 0.01
    n_layers = 2
    dim = 8
    min_samples = 80

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(torch.randn(80, 8, generator=generator))
        self.register_buffer("mean", torch.zeros(()))

    def states(self, audio: Tensor) -> Tensor:
        x = self.spoil(audio.unfold(1, 80, 80) @ self.weight)
        return torch.stack([x, x.tanh(), x.tanh().tanh()], dim=1)

    def spoil(self, x: Tensor) -> Tensor:
        return x


class WithDropout(Toy):
    def spoil(self, x: Tensor) -> Tensor:
        return F.dropout(x, 0.1, training=True)


class NormalisedOverTheBatch(Toy):
    min_samples = 160  # batch statistics need two frames

    def spoil(self, x: Tensor) -> Tensor:
        return F.batch_norm(x.transpose(1, 2), None, None, training=True).transpose(1, 2)


class OtherHop(Toy):
    hop = 0.02


class FramesFromTheBatch(Toy):
    def spoil(self, x: Tensor) -> Tensor:
        return x if len(x) == 1 else x[:, :-1]


class OtherInTheBatch(Toy):
    """Three clips move by 4e-6: on a CPU, where it passes a batch at once, that is too much."""

    def spoil(self, x: Tensor) -> Tensor:
        return x * (1 + 2e-6 * (len(x) - 1))


class UsedOneByOne(OtherInTheBatch):
    """The same where the clips of a batch pass one by one, so that no features come of it."""

    one_by_one_on = ("cpu",)


class CentredOnTheStart(Toy):
    """Says that frame k is centred on k hops, as a Conformer does; its frames start there."""

    first_frame_s = 0.0


class HalfAHopLater(Toy):
    """Frames of the audio half a hop later than said."""

    def states(self, audio: Tensor) -> Tensor:
        return super().states(F.pad(audio[:, 40:], (0, 40)))


class TheSameInAllFrames(Toy):
    """A click moves all frames alike: where they lie cannot be seen."""

    def spoil(self, x: Tensor) -> Tensor:
        return x.mean(dim=1, keepdim=True).expand_as(x)


class OtherInOnePass(Toy):
    """Passes clips one by one on a CPU, as a Conformer does: what a GPU computes is not used."""

    one_by_one_on = ("cpu",)

    def spoil(self, x: Tensor) -> Tensor:
        return x * (1 + 2e-5 * (len(x) - 1))


class MovingStatistics(Toy):
    def spoil(self, x: Tensor) -> Tensor:
        self.mean.lerp_(x.mean(), 0.1)
        return x


class InfiniteLayer(Toy):
    def states(self, audio: Tensor) -> Tensor:
        states = super().states(audio)
        states[:, 1, 0] = torch.inf
        return states


class NaNOnSilence(Toy):
    def spoil(self, x: Tensor) -> Tensor:
        return x / x.norm(dim=2, keepdim=True)


class BeyondFloat16(Toy):
    def spoil(self, x: Tensor) -> Tensor:
        return x.abs() * 1e6


class OtherWidth(Toy):
    dim = 9


class Trainable(Toy):
    def freeze(self) -> "Trainable":
        super().freeze()
        self.weight.requires_grad_(True)
        return self


class Wakeable(Toy):
    def train(self, mode: bool = True) -> "Wakeable":
        nn.Module.train(self, mode)
        return self


class OptimisticMinimum(Toy):
    min_samples = 79


class NoAutocast(Toy):
    def states(self, audio: Tensor) -> Tensor:
        if torch.is_autocast_enabled(audio.device.type):
            raise RuntimeError("expected Float\nbut got BFloat16")
        return super().states(audio)


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def find(backbone: Backbone) -> dict[str, Finding]:
    """Findings on a backbone by name, after freezing it as `make_backbone` does."""
    return {finding.what: finding for finding in findings(backbone.freeze(), 0.5)}


def failed(backbone: Backbone) -> list[str]:
    return [finding.what for finding in find(backbone).values() if finding.verdict == "FAILED"]


@pytest.mark.parametrize(
    "make",
    [
        lambda: FCPE("random"),
        FbankChroma,
        lambda: SmallMusicFM("random"),
        lambda: SmallMuQ("random"),
        Toy,
    ],
)
def test_every_must_holds_for_our_backbones(make: Callable[[], Backbone]) -> None:
    found = find(make())
    assert sorted(found) == sorted(MUSTS + INFOS)
    assert {what for what, one in found.items() if one.bound} == set(MUSTS)
    assert [one for one in found.values() if one.verdict == "FAILED"] == []
    assert all(one.verdict == "info" for one in found.values() if not one.bound)


def test_on_a_cpu_a_batch_is_its_clips_and_one_pass_is_not() -> None:
    """Else the two rows would look at the same thing."""
    found = find(SmallMusicFM("random"))
    used, at_once = found["batch of 3 against 3 of 1"], found["batch of 3 in one pass"]
    assert (used.value, used.bound) == ("0", "<= 0 of largest")
    assert 0 < max(at_once.numbers) < 5e-6
    assert at_once.bound == "<= 1e-05 of largest"


@pytest.mark.parametrize("make", [lambda: FCPE("random"), lambda: SmallMuQ("random")])
def test_features_on_a_cpu_are_the_same_whatever_the_batch(make: Callable[[], Backbone]) -> None:
    used = find(make())["batch of 3 against 3 of 1"]
    assert (used.value, used.bound) == ("0", "<= 0 of largest")


def test_a_pass_that_is_used_is_held_to_less_than_one_that_is_not() -> None:
    used = find(Toy())["batch of 3 in one pass"]
    assert used.bound == find(Toy())["batch of 3 against 3 of 1"].bound == "<= 1e-06 of largest"


def test_what_clicks_say_is_beside_what_the_backbone_says() -> None:
    found = find(CentredOnTheStart())["first frame's centre"]
    assert (found.value, found.bound) == ("5.0 ms measured, 0 ms said", "within 2.5 ms")

    nowhere = find(TheSameInAllFrames())["first frame's centre"]
    assert nowhere.value == "not measured: a click moves all frames; 5 ms said"
    assert nowhere.verdict == "info"


def test_reduced_precision_is_held_to_a_bound_of_its_own() -> None:
    found = find(SmallMusicFM("random").freeze().at("bf16"))
    assert found["batch of 3 against 3 of 1"].verdict == "ok"
    assert found["batch of 3 in one pass"].bound == "<= 0.031 of largest"
    assert found["error of bf16"].value == "not measured: the backbone itself is bf16"


@pytest.mark.parametrize(
    ("broken", "rows"),
    [
        (WithDropout, ["two identical calls"]),
        (NormalisedOverTheBatch, ["batch of 3 against 3 of 1", "batch of 3 in one pass"]),
        (OtherInOnePass, ["batch of 3 in one pass"]),
        (OtherInTheBatch, ["batch of 3 against 3 of 1", "batch of 3 in one pass"]),
        (UsedOneByOne, []),
        (CentredOnTheStart, ["first frame's centre"]),
        (HalfAHopLater, ["first frame's centre"]),
        (TheSameInAllFrames, []),
        (OtherHop, ["frames as hop says"]),
        (
            FramesFromTheBatch,
            ["batch of 3 against 3 of 1", "batch of 3 in one pass", "frames as hop says"],
        ),
        (MovingStatistics, ["tensors a forward pass changes"]),
        (InfiniteLayer, ["states not finite"]),
        (NaNOnSilence, ["states not finite"]),
        (BeyondFloat16, ["largest time mean"]),
        (OtherWidth, ["shape and dtype of states"]),
        (Trainable, ["parameters with gradient"]),
        (Wakeable, ["modules training after .train()"]),
        (OptimisticMinimum, ["minimum input in samples"]),
    ],
)
def test_each_broken_promise_fails_its_rows_and_no_other(
    broken: type[Toy], rows: list[str]
) -> None:
    assert failed(broken()) == rows


def test_failed_rows_say_where() -> None:
    changed = find(MovingStatistics())["tensors a forward pass changes"]
    assert changed.value == "1 of 2 (first: mean)"

    infinite = find(InfiniteLayer())["states not finite"]
    assert infinite.value == "layer 1 on noise, layer 1 on silence, layer 1 on chirp"

    shortest = find(OptimisticMinimum())["minimum input in samples"]
    assert shortest.value == "79 refused, 78 refused"
    assert find(OtherHop())["frames as hop says"].numbers[:2] == (50.0, 150.0)

    found = find(WithDropout())
    for what in ("batch of 3 against 3 of 1", "batch of 3 in one pass"):
        assert found[what].value == "not compared: identical calls differ"

    first_frame = "first frame's centre"
    assert found[first_frame].value == "not measured: identical calls differ"
    assert find(OtherHop())[first_frame].value == "not measured: frames are not as hop says"


def test_what_is_not_frozen_fails() -> None:
    found = {finding.what: finding.verdict for finding in findings(Toy(), 0.5)}
    assert found["parameters with gradient"] == "FAILED"


def test_the_check_leaves_the_backbone_as_it_was() -> None:
    backbone = Wakeable()
    before = {key: tensor.clone() for key, tensor in backbone.state_dict().items()}
    tf32 = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    random_state = torch.get_rng_state()

    find(backbone)

    assert not backbone.training
    assert all(torch.equal(tensor, before[key]) for key, tensor in backbone.state_dict().items())
    assert (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32) == tf32
    assert torch.equal(torch.get_rng_state(), random_state)


def test_sensitivities_are_those_of_the_network() -> None:
    toy, small = find(Toy()), find(SmallMusicFM("random"))
    # A frame of the toy sees itself only.
    assert toy["zeros appended, clip doubled"].numbers == (0, 0, 0)
    assert all(0.01 < number < 3 for number in small["zeros appended, clip doubled"].numbers[1:])
    assert len(small["audio at 2/3 of the rate"].numbers) == REDUCED.n_layers + 1
    assert all(0.01 < number < 3 for number in small["audio at 2/3 of the rate"].numbers)


def test_padding_change_is_the_relative_rms_of_the_real_frames() -> None:
    backbone, clip = SmallMusicFM("random"), music(48_000, 24_000)[None]
    plain = backbone(clip)
    padded = backbone(torch.cat([clip, torch.zeros(1, 48_000)], dim=1))[:, :, :50]
    expected = [float((b - a).norm() / a.norm()) for a, b in zip(plain[0], padded[0], strict=True)]

    found = find(backbone)["zeros appended, clip doubled"].numbers
    assert found == pytest.approx(expected, rel=1e-4)


@pytest.mark.skipif(
    not torch.backends.cpu.get_cpu_capability().startswith("AVX512"),
    reason="no fast bf16 on this CPU",
)
def test_bf16_errors_are_small_but_not_zero() -> None:
    numbers = find(SmallMuQ("random"))["error of bf16"].numbers
    assert len(numbers) == 2 * (REDUCED.n_layers + 1)
    assert all(1e-4 < number < 0.1 for number in numbers)

    refused = find(NoAutocast())["error of bf16"].value
    assert refused == "not possible: expected Float but got BFloat16"


def test_speed_memory_and_keys() -> None:
    backbone = Toy()
    backbone.keys_matched, backbone.keys_ignored = 310, 34
    found = find(backbone)
    assert found["speed at 0.5 s"].numbers[0] > 1
    assert found["checkpoint keys matched"].value == "310"
    assert found["checkpoint keys ignored"].value == "34"
    if Path("/proc/self/clear_refs").exists():
        more, before = found["peak memory at 0.5 s"].numbers
        assert 0 <= more < before


def test_table_names_every_row(capsys: pytest.CaptureFixture[str]) -> None:
    assert check("fbank_chroma", FbankChroma().freeze(), None)
    printed = capsys.readouterr().out
    for what in (*MUSTS, *(info.replace("0.5", "10") for info in INFOS)):
        assert what in printed
    assert "check of fbank_chroma" in printed
    assert "Whole tracks: speed and memory are of 10 s." in printed
    assert "all 12 musts hold" in printed


def test_a_failed_must_is_named_below_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert not check("other", OtherHop().freeze(), 30.0)
    printed = capsys.readouterr().out
    assert "1 of 11 musts FAILED: frames as hop says" in printed
    assert "speed at 30 s" in printed
