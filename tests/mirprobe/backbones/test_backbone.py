"""What every backbone shares: how it is frozen, what identifies it, which weights it can have."""

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import lightning as L
import pytest
import torch
import yaml
from hydra.utils import get_class
from torch import Tensor, nn
from torch.utils.data import DataLoader

from datamodules.errors import UserError
from mirprobe.assembly import make_backbone
from mirprobe.backbones.backbone import Backbone, Variant
from mirprobe.backbones.measuring import measure_forward
from mirprobe.settings import compose_cell

CONF = Path(__file__).parents[3] / "conf" / "model"
MODELS = {path.stem: yaml.safe_load(path.read_text()) for path in sorted(CONF.glob("*.yaml"))}
WITH_WEIGHTS = [name for name, config in MODELS.items() if "weights" in config]


class Toy(Backbone):
    """A backbone that forgets nothing but to freeze itself; counts how often its state is read."""

    sample_rate = 100
    hop = 0.01
    n_layers = 0
    dim = 1
    min_samples = 1

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Linear(1, 1)
        self.dropout = nn.Dropout(0.5)
        self.n_reads = 0

    def states(self, audio: Tensor) -> Tensor:
        return self.dropout(self.gain(audio[:, None, :, None]))

    def state_dict(self, *args: object, **kwargs: object) -> dict[str, Tensor]:
        self.n_reads += 1
        return super().state_dict(*args, **kwargs)


class Choosy(Toy):
    variants: ClassVar[Mapping[str, Variant]] = {"good": Variant(None), "bad": Variant(None)}

    def __init__(self, weights: str) -> None:
        Backbone.__init__(self, weights)


def test_frozen_is_for_good() -> None:
    toy = Toy().freeze()
    assert toy.train() is toy
    assert not any(module.training for module in toy.modules())
    assert not any(parameter.requires_grad for parameter in toy.parameters())
    assert not toy(torch.ones(2, 5)).requires_grad


class TrainsEveryEpoch(L.LightningModule):
    """A probe every epoch of which begins with `train`, as Lightning's did before 2.2."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone, self.head = backbone, nn.Linear(1, 1)
        self.n_training: list[int] = []

    def on_train_epoch_start(self) -> None:
        self.train()

    def training_step(self, audio: Tensor) -> Tensor:
        self.n_training.append(sum(module.training for module in self.backbone.modules()))
        loss: Tensor = self.head(self.backbone(audio)).square().mean()
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_it_stays_in_eval_mode_where_every_epoch_calls_train() -> None:
    module = TrainsEveryEpoch(Toy().freeze())
    trainer = L.Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, DataLoader(torch.ones(2, 5), batch_size=2))
    assert module.head.training
    assert module.n_training == [0, 0]


def test_before_it_is_frozen_a_backbone_is_an_ordinary_module() -> None:
    toy = Toy().eval()
    assert not toy.dropout.training
    assert toy.train().dropout.training


@pytest.mark.parametrize("settings", [["model=fcpe", "model.weights=random"], ["model=fcpe"]])
def test_what_a_cell_names_is_built_frozen(settings: list[str]) -> None:
    backbone = make_backbone(compose_cell(settings))
    assert not any(module.training for module in backbone.train().modules())
    assert not any(parameter.requires_grad for parameter in backbone.parameters())


def test_fingerprint_of_a_frozen_backbone_is_taken_once() -> None:
    toy = Toy().freeze()
    first = toy.fingerprint()
    assert [toy.fingerprint() for _ in range(3)] == [first] * 3
    assert toy.n_reads == 1


def test_fingerprint_before_freezing_follows_the_weights() -> None:
    toy = Toy()
    before = toy.fingerprint()
    nn.init.constant_(toy.gain.bias, 2.0)
    after = toy.fingerprint()
    assert after != before
    assert toy.freeze().fingerprint() == after


def test_fingerprint_knows_where_frames_lie(monkeypatch: pytest.MonkeyPatch) -> None:
    """Features of a label grid follow from it."""
    toy = Toy()
    before = toy.fingerprint()
    monkeypatch.setattr(Toy, "first_frame_s", 0.0)
    assert toy.fingerprint() != before


def test_fingerprint_knows_the_front_end(monkeypatch: pytest.MonkeyPatch) -> None:
    toy = Toy()
    before = toy.fingerprint()
    monkeypatch.setattr(Toy, "front_end", {"window": "Hann"})
    assert toy.fingerprint() != before


@pytest.mark.parametrize("name", WITH_WEIGHTS)
def test_every_model_refuses_unknown_weights_and_names_the_known(name: str) -> None:
    cell = compose_cell([f"model={name}", "model.weights=traind"])
    with pytest.raises(UserError, match=r"^unknown model\.weights=traind: set it to one of ") as no:
        make_backbone(cell)
    assert MODELS[name]["weights"] in str(no.value)
    assert "random" in str(no.value)


def test_fcpe_names_its_two_weights() -> None:
    with pytest.raises(UserError) as caught:
        make_backbone(compose_cell(["model=fcpe", "model.weights=traind"]))
    assert str(caught.value) == "unknown model.weights=traind: set it to one of trained, random"


def refused(name: str, **settings: object) -> str:
    """What a model's class says of settings that are not among its choices."""
    backbone = get_class(MODELS[name]["_target_"])
    with pytest.raises(UserError) as caught:
        backbone(**settings)
    text = str(caught.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize("name", WITH_WEIGHTS)
def test_every_model_refuses_a_file_beside_random_weights(name: str) -> None:
    """FCPE ignored it, and gave random weights a file's name."""
    expected = "model.weights=random reads no file, found model.checkpoint=x.pt: drop one"
    assert refused(name, weights="random", checkpoint="x.pt") == expected


@pytest.mark.parametrize("name", WITH_WEIGHTS)
@pytest.mark.parametrize("checkpoint", [5, True, "", ["x.pt"]])
def test_every_model_refuses_a_checkpoint_that_is_no_path(name: str, checkpoint: object) -> None:
    expected = f"model.checkpoint must be the path of a file, or null, found {checkpoint!r}"
    weights = MODELS[name]["weights"]
    assert refused(name, weights=weights, checkpoint=checkpoint) == expected


@pytest.mark.parametrize("name", WITH_WEIGHTS)
@pytest.mark.parametrize("seed", ["abc", -1, 1.5, 2**32, True, None, [1]])
def test_every_model_refuses_a_seed_that_is_no_whole_number(name: str, seed: object) -> None:
    """Of the Conformers' some were taken as they are, into the recipe of the weights."""
    expected = f"model.seed must be a whole number from 0 to 4294967295, found {seed}"
    assert refused(name, weights="random", seed=seed) == expected


@pytest.mark.parametrize("shift", [0, -5, 12.3, "abc", 10.0, True, [10], None])
def test_the_baseline_refuses_an_unknown_frame_shift(shift: object) -> None:
    """10.0 is 10, but had a fingerprint of its own."""
    expected = f"unknown model.frame_shift_ms={shift}: set it to one of 10, 15"
    assert refused("fbank_chroma", frame_shift_ms=shift) == expected


@pytest.mark.parametrize("setting", ["frame_shift_ms=12.3", "seed=abc"])
def test_what_a_model_refuses_is_one_line_on_the_command_line(setting: str) -> None:
    model = "fbank_chroma" if setting.startswith("frame_shift") else "musicfm"
    with pytest.raises(UserError, match=rf"model\.{setting.partition('=')[0]}") as caught:
        make_backbone(compose_cell([f"model={model}", f"model.{setting}"]))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", list(MODELS))
def test_a_model_has_weights_to_choose_if_its_class_has_variants(name: str) -> None:
    backbone = get_class(MODELS[name]["_target_"])
    assert ("weights" in MODELS[name]) == bool(backbone.variants)
    assert MODELS[name].get("weights") in (*backbone.variants, None)


def test_a_backbone_with_variants_cannot_forget_to_check_them() -> None:
    assert Choosy.variant_named("good") == Variant(None)
    with pytest.raises(UserError, match=r"unknown model\.weights=god: set it to one of good, bad"):
        Choosy("god")

    class Forgetful(Choosy):
        def __init__(self) -> None:
            Toy.__init__(self)

    with pytest.raises(UserError, match=r"unknown model\.weights=None: set it to one of good, bad"):
        Forgetful()


class OneByOne(Toy):
    """States of 4 MB a clip."""

    one_by_one_on = ("cpu",)

    def states(self, audio: Tensor) -> Tensor:
        return audio.sum() + torch.zeros(len(audio), 1, 1000, 1000)


def test_clips_that_pass_one_by_one_keep_their_order() -> None:
    audio = torch.arange(3.0)[:, None]
    assert OneByOne()(audio)[:, 0, 0, 0].tolist() == [0, 1, 2]


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the system does not tell")
def test_states_are_held_once_where_clips_pass_one_by_one() -> None:
    """Joined at the end they were there twice: 160 MB in place of 80."""
    cost = measure_forward(OneByOne().freeze(), torch.zeros(20, 1))
    assert cost.n_bytes_before is not None
    assert 80e6 <= cost.n_bytes_more < 130e6


def test_a_backbone_without_variants_has_none_of_any_name() -> None:
    assert Toy.variant_named(None) is None
    assert Toy.variant_named("anything") is None
