import pytest
import torch
from golden_recipe2 import SMALL, assert_golden, golden_input2, waveform2

from datamodules.errors import UserError
from mirprobe.backbones.mert_state import POSITION, WEIGHT_NORM, published_shapes
from mirprobe.backbones.random_weights import draw_state


@pytest.fixture(params=["mert95", "mert330"])
def tag(request) -> str:
    return request.param


@pytest.fixture
def content(tag):
    """Everything that a published file holds, in the reduced size, as it spells it."""
    state = draw_state(tag, published_shapes(SMALL[tag].size))
    published = {new: old for old, new in WEIGHT_NORM.items()}
    spelled = {published.get(key, key): tensor for key, tensor in state.items()}
    return spelled | {"masked_spec_embed": torch.zeros(96)}


def load(tag, content, tmp_path):
    path = tmp_path / "pytorch_model.bin"
    torch.save(content, path)
    return SMALL[tag](checkpoint=str(path)).freeze()


def test_either_spelling_of_the_weight_norm_loads_to_the_golden_states(tag, content, tmp_path):
    assert f"{POSITION}.weight_g" in content
    loaded = load(tag, content, tmp_path)
    assert (loaded.keys_matched, loaded.keys_ignored) == (len(content) - 1, 1)
    assert_golden(tag, "w1s", loaded(golden_input2("w1s")))

    newer = {WEIGHT_NORM.get(key, key): tensor for key, tensor in content.items()}
    assert torch.equal(load(tag, newer, tmp_path)(waveform2("w1s")), loaded(golden_input2("w1s")))


def test_loading_is_strict_both_ways(tag, content, tmp_path):
    key = f"{POSITION}.weight_g"
    rest = {name: tensor for name, tensor in content.items() if name != key}
    problem = r"1 keys missing \(first: .*original0\)"
    with pytest.raises(UserError, match=problem):
        load(tag, rest, tmp_path)
    with pytest.raises(UserError, match=r"1 keys unknown \(first: lm_head\.weight\)"):
        load(tag, content | {"lm_head.weight": torch.zeros(1)}, tmp_path)
    with pytest.raises(UserError, match=r"1 keys unknown \(first: .*weight_g\)"):
        load(tag, content | {WEIGHT_NORM[key]: content[key]}, tmp_path)
    with pytest.raises(UserError, match=r"keys missing .*keys unknown \(first: hubert\."):
        load(tag, {f"hubert.{name}": tensor for name, tensor in content.items()}, tmp_path)


def test_a_wrapped_state_dict_is_no_published_file(tag, content, tmp_path):
    problem = r"has no state_dict of tensors \(found: dict under the key 'state_dict'\)"
    with pytest.raises(UserError, match=problem):
        load(tag, {"state_dict": content}, tmp_path)


@pytest.mark.parametrize(
    ("n_samples", "n_frames"),
    [(400, 1), (720, 2), (23_999, 74), (24_001, 74), (71_999, 224), (120_000, 374)],
)
def test_number_of_frames(n_samples, n_frames):
    backbone = SMALL["mert95"](weights="random").freeze()
    assert backbone(waveform2("w3s").repeat(1, 2)[:, :n_samples]).shape == (1, 4, n_frames, 96)


def test_the_level_of_a_clip_does_not_matter(tag):
    """Without normalisation a clip at -40 dB moves the states by 4."""
    backbone = SMALL[tag](weights="random").freeze()
    audio = waveform2("w1s")
    torch.testing.assert_close(backbone(0.01 * audio), backbone(audio), rtol=0, atol=5e-3)


def test_a_big_batch_passes_the_front_end_in_parts(tag, monkeypatch):
    backbone, n_at_once = SMALL[tag](weights="random").freeze(), []
    embed = backbone.embed
    monkeypatch.setattr(backbone, "embed", lambda part: n_at_once.append(len(part)) or embed(part))
    monkeypatch.setattr("mirprobe.backbones.mert.FRONT_END_SAMPLES", 48_000)
    with torch.no_grad():
        backbone.states(waveform2("w1s").repeat(3, 1))
    assert n_at_once == [2, 1]


def test_it_is_the_hubert_of_transformers():
    """The published class is this one, with switches that are all off."""
    transformers = pytest.importorskip("transformers")
    config = transformers.HubertConfig(
        hidden_size=96,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=192,
        conv_dim=(32,) * 7,
        do_stable_layer_norm=True,
    )
    backbone = SMALL["mert330"](weights="random").freeze()
    model = transformers.HubertModel(config).eval()
    state = draw_state("mert330", published_shapes(backbone.size))
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert (missing, unexpected) == (["masked_spec_embed"], [])

    audio = waveform2("w1s")
    scaled = (audio - audio.mean()) / torch.sqrt(audio.var(correction=0) + 1e-7)
    with torch.no_grad():
        output = model(scaled, output_hidden_states=True)
    states = backbone(audio)[0]
    torch.testing.assert_close(states[-1], output.last_hidden_state[0], rtol=0, atol=2e-5)
    for state, expected in zip(states[:-1], output.hidden_states, strict=False):
        torch.testing.assert_close(state, expected[0], rtol=0, atol=2e-5)
