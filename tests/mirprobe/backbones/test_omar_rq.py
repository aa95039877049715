from pathlib import Path

import pytest
import torch
from golden_recipe2 import (
    SmallOmarRQ25Hz,
    SmallOmarRQMel,
    assert_golden,
    golden_array,
    waveform2,
)
from huggingface_hub import constants

from datamodules.errors import UserError
from mirprobe.backbones import omar_rq_network
from mirprobe.backbones.omar_rq import OmarRQMel
from mirprobe.backbones.omar_rq_state import published_shapes
from mirprobe.backbones.random_weights import draw_state

STD = 0.1908563740990311
CONFIG = f"import nets.waveform\nnets.waveform.Waveform.norm_std = {STD}\nother.norm_std = 3.0\n"


@pytest.fixture(scope="module")
def content():
    """Everything that a published file holds, in the reduced size."""
    state = draw_state("omar25", published_shapes(SmallOmarRQ25Hz.size, 960))
    backbone = SmallOmarRQ25Hz(weights="random")
    for n in range(backbone.n_layers):
        block = f"net.layers.{n}"
        state[f"{block}.attention.rotary_emb.freqs"] = backbone.inv_freq.clone()
        state[f"{block}.conv_block.module.3.num_batches_tracked"] = torch.tensor(400_000)
    return state


def load(content, folder: Path, config: str | None = CONFIG, **settings):
    torch.save(content, folder / "model.ckpt")
    if config is not None:
        (folder / "config.gin").write_text(config)
    checkpoint = str(folder / "model.ckpt")
    return SmallOmarRQ25Hz(weights="25hz", checkpoint=checkpoint, **settings).freeze()


def test_log_mel_is_that_of_the_published_code():
    mel = SmallOmarRQMel(weights="random").log_mel(waveform2("w1s16k"))[0]
    torch.testing.assert_close(mel, golden_array("omarbase", "w1s16k/mel"), rtol=0, atol=4e-5)


def test_the_config_beside_the_weights_says_how_samples_are_scaled(content, tmp_path):
    scaled = load(content, tmp_path)
    assert_golden("omar25", "w1s_fsq", scaled(waveform2("w1s")))
    assert (scaled.keys_matched, scaled.keys_ignored) == (len(content) - 6, 6)

    plain = load(content, tmp_path, CONFIG.replace(str(STD), "None"))
    assert_golden("omar25", "w1s", plain(waveform2("w1s")))
    assert plain.fingerprint() != scaled.fingerprint()


def test_a_setting_says_it_where_no_config_does(content, tmp_path):
    assert_golden(
        "omar25", "w1s_fsq", load(content, tmp_path, None, norm_std=STD)(waveform2("w1s"))
    )
    with pytest.raises(UserError, match=r"no .*config\.gin, which says .*set model\.norm_std=none"):
        load(content, tmp_path, None)
    with pytest.raises(UserError, match=r"config\.gin does not say Waveform\.norm_std: fetch"):
        load(content, tmp_path, "other.norm_std = 3.0\n")


@pytest.mark.parametrize("norm_std", ["nil", 0, -1.0, float("nan"), float("inf"), True])
def test_a_scale_that_is_none_is_refused(norm_std):
    with pytest.raises(UserError, match=r"model\.norm_std must be auto, none or a number above 0"):
        SmallOmarRQ25Hz(weights="random", norm_std=norm_std)


def test_loading_is_strict_both_ways(content, tmp_path):
    key = "net.layers.2.norm1.layer_norm.bias"
    rest = {name: tensor for name, tensor in content.items() if name != key}
    with pytest.raises(UserError, match=rf"1 keys missing \(first: {key}\)"):
        load(rest, tmp_path)
    with pytest.raises(UserError, match=r"1 keys unknown \(first: cls\)"):
        load(content | {"cls": torch.zeros(1)}, tmp_path)


def test_other_rotary_angles_are_refused(content, tmp_path):
    key = "net.layers.1.attention.rotary_emb.freqs"
    with pytest.raises(UserError, match=rf"{key} has other values"):
        load(content | {key: 1.01 * content[key]}, tmp_path)


def test_attention_sees_no_later_frame_and_a_block_15():
    """Three blocks: 45 frames ahead."""
    backbone = SmallOmarRQ25Hz(weights="random").freeze()
    audio = waveform2("w3s")
    other = audio.clone()
    other[:, 60 * 960 :] = 0
    moved = (backbone(audio) - backbone(other))[0].abs().amax(2)
    assert moved[1:, 60].min() > 1e-3
    assert [int((row > 1e-5).nonzero()[0]) for row in moved] == [60, 45, 30, 15]


@pytest.mark.parametrize(("n_samples", "n_frames"), [(768, 1), (15_999, 15), (16_128, 16)])
def test_number_of_frames_of_a_mel(n_samples, n_frames):
    backbone = SmallOmarRQMel(weights="random").freeze()
    assert backbone(waveform2("w3s16k")[:, :n_samples]).shape == (1, 4, n_frames, 96)


def test_fetching_brings_the_config_of_the_same_commit(tmp_path, monkeypatch):
    commit = "c" * 40
    weights = tmp_path / "snapshots" / commit / "model.ckpt"
    asked = []
    monkeypatch.setattr("mirprobe.backbones.backbone.fetch", lambda _: weights)
    monkeypatch.setattr(omar_rq_network, "download", asked.append)
    assert OmarRQMel.fetch({"weights": "base"}) == weights
    assert [(one.repo, one.name, one.revision) for one in asked] == [
        ("mtg-upf/omar-rq-base", "config.gin", commit)
    ]
    assert OmarRQMel.fetch({"weights": "random"}) is None
    assert len(asked) == 1


def test_without_a_pin_the_newest_that_was_fetched_is_read(tmp_path, monkeypatch):
    """The cache says which commit that is."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    repo, commit = tmp_path / "models--mtg-upf--omar-rq-base", "d" * 40
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text(commit)
    path = repo / "snapshots" / commit / "model.ckpt"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"x")
    assert OmarRQMel.weights_file({"weights": "base"}) == path
