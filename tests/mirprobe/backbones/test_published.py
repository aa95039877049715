"""What MERT-v1, MERT2 and OMAR-RQ share: golden numbers, musts, files, settings."""

import hashlib
import inspect
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest
import torch
import yaml
from devices import tf32
from golden_recipe2 import (
    SMALL,
    SmallMERT2,
    assert_golden,
    checksums2,
    digest_of,
    golden_input2,
    waveform2,
)
from huggingface_hub import constants
from torch import Tensor

from datamodules.errors import UserError
from mirprobe.assembly import backbone_class
from mirprobe.backbones import layers, mert2_state, mert_state, omar_rq_state
from mirprobe.backbones.backbone import Variant
from mirprobe.backbones.check import findings
from mirprobe.backbones.mert import MERT95M, MERT330M
from mirprobe.backbones.mert2 import FULL_SONG, MERT2
from mirprobe.backbones.omar_rq import OmarRQ25Hz, OmarRQMel
from mirprobe.backbones.published import PublishedBackbone
from mirprobe.settings import compose_cell

CONF = Path(__file__).parents[3] / "conf" / "model"
OURS = {
    "mert_95m": (MERT95M, "published"),
    "mert_330m": (MERT330M, "published"),
    "mert2_30s": (MERT2, "30s"),
    "mert2_fullsong": (MERT2, "fullsong"),
    "omar_rq": (OmarRQ25Hz, "25hz"),
    "omar_rq_fsq": (OmarRQ25Hz, "25hz_fsq"),
    "omar_rq_base": (OmarRQMel, "base"),
    "omar_rq_multicodebook": (OmarRQMel, "multicodebook"),
}
GOLDEN = [
    *[(tag, case) for tag in ("mert95", "mert330") for case in ("w1s", "w3s", "w1s_pad3s")],
    *[(tag, case) for tag in ("mert2", "omar25") for case in ("w1s", "w3s", "w1s_pad3s")],
    *[("omarbase", case) for case in ("w1s16k", "w3s16k", "w1s16k_pad3s")],
]
FULL = {
    "mert95": mert_state.published_shapes(MERT95M.size),
    "mert330": mert_state.published_shapes(MERT330M.size),
    "mert2": mert2_state.published_shapes(MERT2.size),
    "omar25": omar_rq_state.published_shapes(OmarRQ25Hz.size, OmarRQ25Hz.patch),
    "omarbase": omar_rq_state.published_shapes(OmarRQMel.size, OmarRQMel.patch),
}


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module", params=list(SMALL))
def tag(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def backbone(tag) -> PublishedBackbone:
    return SMALL[tag](weights="random").freeze()


def second(backbone: PublishedBackbone) -> Tensor:
    return waveform2("w1s16k" if backbone.sample_rate == 16_000 else "w1s")


# -- numbers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("tag", "case"), GOLDEN)
def test_states_are_those_of_the_published_code(tag, case):
    assert_golden(tag, case, SMALL[tag](weights="random").freeze()(golden_input2(case)))


def test_states_without_onednn_are_those_of_the_published_code(tag, backbone, monkeypatch):
    monkeypatch.setattr(layers, "ONEDNN", False)
    case = "w1s16k" if tag == "omarbase" else "w1s"
    assert_golden(tag, case, backbone(golden_input2(case)))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize(("tag", "case"), GOLDEN)
def test_states_on_a_gpu_are_those_of_the_published_code(tag, case):
    with tf32(allowed=False):
        states = SMALL[tag](weights="random").freeze().cuda()(golden_input2(case).cuda())
    assert_golden(tag, case, states)


def test_a_batch_in_one_pass_gives_what_its_clips_give_alone(backbone):
    clips = torch.cat([second(backbone), second(backbone).flip(1), 0.1 * second(backbone)])
    alone = torch.cat([backbone(clip[None]) for clip in clips])
    with torch.no_grad():
        together = backbone.states(clips)
    largest = alone.abs().amax((0, 2, 3), keepdim=True)
    assert ((together - alone).abs() <= 1e-5 * largest).all()
    assert torch.equal(backbone(clips), alone)


def test_every_must_holds(tag, backbone):
    found = findings(backbone, 0.5)
    assert [one.what for one in found if one.verdict == "FAILED"] == []
    (frames,) = [one for one in found if one.what == "frames as hop says"]
    of_a_window = "<= 1.25 frames, of its window"  # which pads nothing: 400 samples, 320 apart
    assert frames.bound == (of_a_window if tag in ("mert95", "mert330") else "<= 1 frame")


def test_random_weights_are_the_recipe(tag, backbone):
    shapes = {
        "mert95": mert_state.published_shapes,
        "mert330": mert_state.published_shapes,
        "mert2": mert2_state.published_shapes,
        "omar25": lambda size: omar_rq_state.published_shapes(size, backbone.patch),
        "omarbase": lambda size: omar_rq_state.published_shapes(size, backbone.patch),
    }[tag](backbone.size)
    expected = checksums2()[f"weights/{tag}/reduced"]
    assert len(shapes) == expected["tensors"]
    assert digest_of(tag, shapes) == expected["sha256"]


@pytest.mark.parametrize("tag", list(FULL))
def test_keys_and_shapes_in_full_size_are_those_of_the_files(tag):
    expected = checksums2()[f"weights/{tag}/full"]
    n_values = sum(int(torch.Size(shape).numel()) for shape in FULL[tag].values())
    assert (len(FULL[tag]), n_values) == (expected["tensors"], expected["elements"])


@pytest.mark.trial
@pytest.mark.parametrize("tag", list(FULL))
def test_random_weights_in_full_size_are_the_recipe(tag):
    assert digest_of(tag, FULL[tag]) == checksums2()[f"weights/{tag}/full"]["sha256"]


@pytest.mark.parametrize("name", ["w1s", "w3s", "w1s16k", "w3s16k"])
def test_golden_audio_is_the_recipe(name):
    digest = hashlib.sha256(waveform2(name)[0].numpy().tobytes()).hexdigest()
    assert digest == checksums2()[f"wave/{name}"]["sha256_float32"]


def test_fingerprint_knows_the_seed(tag, backbone):
    again, other = SMALL[tag](weights="random"), SMALL[tag](weights="random", seed=1)
    assert again.fingerprint() == backbone.fingerprint() != other.fingerprint()


# -- settings and files ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(OURS))
def test_config_holds_the_arguments_and_nothing_else(name):
    config = yaml.safe_load((CONF / f"{name}.yaml").read_text())
    found, weights = OURS[name]
    arguments = inspect.signature(found).parameters
    assert set(config) == {"name", "_target_", "card", *arguments}
    assert config["_target_"] == f"{found.__module__}.{found.__name__}"
    assert (config["name"], found.variants[weights].file.model) == (name, name)
    for key, argument in arguments.items():
        assert config[key] == (weights if key == "weights" else argument.default)


@pytest.mark.parametrize("name", list(OURS))
def test_the_card_says_that_the_weights_are_not_for_commerce(name):
    licence = yaml.safe_load((CONF / f"{name}.yaml").read_text())["card"]["licence"]
    expected = "CC BY-NC-SA 4.0 (weights)" if name.startswith("omar") else "CC BY-NC 4.0 (weights)"
    assert licence == expected


@pytest.mark.parametrize("name", list(OURS))
def test_missing_weights_name_the_command(name, tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    found, weights = OURS[name]
    problem = f"are not on this machine. Run: mirprobe fetch model={name}, or set"
    with pytest.raises(UserError, match=problem):
        found(weights=weights)


PINS = {"revision": "a" * 40, "sha256": "b" * 64}


def test_pins_take_the_place_of_ours():
    file = MERT2.published_file({"weights": "30s", **PINS})
    assert (file.revision, file.sha256, file.n_bytes) == ("a" * 40, "b" * 64, 2_529_812_848)
    assert MERT2.published_file({"weights": "fullsong", "revision": None}) == FULL_SONG
    assert MERT2.published_file({"weights": "random", **PINS}) is None


@pytest.mark.parametrize("pin", ["main", "a" * 39, "A" * 40, 5])
def test_a_pin_that_is_no_commit_is_refused(pin):
    with pytest.raises(UserError, match=r"model\.revision must be 40 hex digits, or null, found"):
        OmarRQ25Hz(revision=pin)
    with pytest.raises(UserError, match=r"model\.sha256 must be 64 hex digits, or null, found"):
        OmarRQMel(sha256="0x12")


def test_a_pinned_checksum_is_checked(tmp_path, monkeypatch):
    """Of files that we know no checksum of, too."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    folder = tmp_path / "models--mtg-upf--omar-rq-base" / "snapshots" / PINS["revision"]
    folder.mkdir(parents=True)
    (folder / "model.ckpt").write_bytes(b"other")
    with pytest.raises(UserError, match=r"its SHA-256 is not bbbbbbbbbbbb\.\.\. Run: mirprobe f"):
        OmarRQMel(**PINS)


def test_a_file_whose_size_alone_is_unknown_is_held_to_its_checksum(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    file = MERT330M.variants["published"].file
    folder = tmp_path / "models--m-a-p--MERT-v1-330M" / "snapshots" / file.revision
    folder.mkdir(parents=True)
    (folder / file.name).write_bytes(b"other")
    with pytest.raises(UserError, match=r"its SHA-256 is not 0c03774d821a\.\.\."):
        MERT330M()


def test_the_published_file_of_the_other_variant_is_refused(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"full song")
    known = replace(FULL_SONG, n_bytes=9, sha256=hashlib.sha256(b"full song").hexdigest())

    class Small(SmallMERT2):
        variants: ClassVar[Mapping[str, Variant]] = {
            **MERT2.variants,
            "fullsong": Variant(known),
        }

    with pytest.raises(UserError, match=r"is the published model\.safetensors, not 30s: set"):
        Small(weights="30s", checkpoint=str(path))


def test_the_command_line_reaches_the_pins():
    cell = compose_cell(["model=omar_rq", f"model.revision={PINS['revision']}"])
    file = backbone_class(cell).published_file(cell.model)
    assert (file.repo, file.revision) == ("mtg-upf/omar-rq-multifeature-25hz", PINS["revision"])
