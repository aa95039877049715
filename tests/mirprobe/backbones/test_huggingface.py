"""Tiny random networks of transformers, saved as a repository is."""

import sys

import pytest
import torch
import torch.nn.functional as F

from datamodules.errors import UserError
from mirprobe.assembly import make_backbone
from mirprobe.backbones.check import findings
from mirprobe.backbones.huggingface import HuggingFace
from mirprobe.backbones.signals import music
from mirprobe.settings import compose_cell

SIZE = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 64,
}
RAW = {**SIZE, "conv_dim": (16,) * 7}
STABLE = {**RAW, "do_stable_layer_norm": True, "feat_extract_norm": "layer"}
RAW_MODELS = {
    "Wav2Vec2": RAW,
    "Wav2Vec2 ": STABLE,
    "Hubert": RAW,
    "Hubert ": STABLE,
    "WavLM": RAW,
    "Data2VecAudio": RAW,
    "UniSpeechSat": RAW,
    "Wav2Vec2Conformer": RAW,
}


@pytest.fixture(scope="module")
def transformers():
    return pytest.importorskip("transformers")


def build(transformers, name: str, size: dict[str, object]):
    torch.manual_seed(0)
    name = name.strip()
    return getattr(transformers, f"{name}Model")(getattr(transformers, f"{name}Config")(**size))


def saved(folder, model, extractor) -> str:
    model.save_pretrained(folder)
    extractor.save_pretrained(folder)
    return str(folder / "model.safetensors")


@pytest.fixture
def hubert(transformers, tmp_path) -> str:
    extractor = transformers.Wav2Vec2FeatureExtractor(do_normalize=True)
    return saved(tmp_path, build(transformers, "Hubert", STABLE), extractor)


@pytest.mark.parametrize("name", list(RAW_MODELS))
def test_states_and_facts_of_networks_on_samples(transformers, name, tmp_path):
    model = build(transformers, name, RAW_MODELS[name]).eval()
    extractor = transformers.Wav2Vec2FeatureExtractor(do_normalize=True)
    backbone = HuggingFace(checkpoint=saved(tmp_path, model, extractor)).freeze()

    facts = (backbone.n_layers, backbone.dim, backbone.sample_rate, backbone.min_samples)
    assert facts == (3, 32, 16_000, 400)
    assert (backbone.hop, backbone.first_frame_s) == (0.02, 0.0125)

    audio = music(8000, 16_000)[None]
    inputs = extractor(audio[0].numpy(), sampling_rate=16_000, return_tensors="pt")
    with torch.no_grad():
        output = model(inputs.input_values, output_hidden_states=True)
    states = backbone(audio)[0]
    expected = [*output.hidden_states[:3], output.last_hidden_state]
    assert len(states) == len(expected)
    for state, one in zip(states, expected, strict=True):
        torch.testing.assert_close(state, one[0], rtol=0, atol=5e-5)


def test_a_network_on_a_mel_is_heard_through_its_own_extractor(transformers, tmp_path):
    size = {**SIZE, "feature_projection_input_dim": 160}
    model = build(transformers, "Wav2Vec2Bert", size).eval()
    extractor = transformers.SeamlessM4TFeatureExtractor()
    backbone = HuggingFace(checkpoint=saved(tmp_path, model, extractor)).freeze()
    assert (backbone.hop, backbone.n_layers, backbone.dim) == (0.02, 3, 32)

    audio = music(16_000, 16_000)[None]
    inputs = extractor(audio[0].numpy(), sampling_rate=16_000, return_tensors="pt")
    with torch.no_grad():
        last = model(**inputs).last_hidden_state
    torch.testing.assert_close(backbone(audio)[:, -1], last, rtol=0, atol=1e-5)


def test_every_must_holds(hubert):
    found = findings(HuggingFace(checkpoint=hubert).freeze(), 0.5)
    assert [one.what for one in found if one.verdict == "FAILED"] == []


def test_without_normalisation_the_level_is_heard(transformers, tmp_path):
    model = build(transformers, "Hubert", STABLE)
    extractor = transformers.Wav2Vec2FeatureExtractor(do_normalize=False)
    plain = HuggingFace(checkpoint=saved(tmp_path / "plain", model, extractor)).freeze()
    extractor.do_normalize = True
    scaled = HuggingFace(checkpoint=saved(tmp_path / "scaled", model, extractor)).freeze()

    audio = music(8000, 16_000)[None]
    loud, quiet = scaled(audio), scaled(0.01 * audio)
    torch.testing.assert_close(quiet, loud, rtol=0, atol=1e-2)
    assert (plain(0.01 * audio) - plain(audio)).abs().max() > 0.1
    assert plain.fingerprint() != scaled.fingerprint()


def test_random_weights_are_those_of_the_seed(hubert, tmp_path, monkeypatch):
    config = tmp_path / "config.json"
    monkeypatch.setattr(HuggingFace, "weights_file", classmethod(lambda *_: config))
    state = torch.get_rng_state()
    first, again, other = (HuggingFace(weights="random", seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert first.fingerprint() == again.fingerprint() != other.fingerprint()
    assert first.keys_matched is None


# -- what is refused -------------------------------------------------------------------------------


def refusal(**settings) -> str:
    with pytest.raises(UserError) as caught:
        HuggingFace(**settings)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_models_of_a_fixed_length_are_refused(transformers, tmp_path):
    whisper = {
        "d_model": 32,
        "encoder_layers": 3,
        "decoder_layers": 2,
        "encoder_attention_heads": 4,
        "decoder_attention_heads": 4,
        "encoder_ffn_dim": 64,
        "decoder_ffn_dim": 64,
        "vocab_size": 100,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "decoder_start_token_id": 1,
    }
    model = build(transformers, "Whisper", whisper)
    text = refusal(checkpoint=saved(tmp_path, model, transformers.WhisperFeatureExtractor()))
    assert "it is of a fixed length (1500 frames for 2 s as for 4 s)" in text

    model = build(transformers, "AST", {**SIZE, "max_length": 128})
    extractor = transformers.ASTFeatureExtractor(max_length=128)
    assert "it is of a fixed length" in refusal(checkpoint=saved(tmp_path, model, extractor))


def test_a_network_of_several_inputs_is_refused(transformers, tmp_path):
    audio = {
        "patch_embeds_hidden_size": 16,
        "hidden_size": 64,
        "depths": [2, 2, 2, 2],
        "num_attention_heads": [2, 2, 2, 2],
    }
    size = {"text_config": {**SIZE, "vocab_size": 99}, "audio_config": audio, "projection_dim": 16}
    model = build(transformers, "Clap", size)
    text = refusal(checkpoint=saved(tmp_path, model, transformers.ClapFeatureExtractor()))
    assert "cannot be probed layer by layer" in text


def test_a_file_of_another_prefix_is_refused(transformers, hubert, tmp_path):
    from safetensors.torch import load_file, save_file

    state = {f"net.{key}": tensor for key, tensor in load_file(hubert).items()}
    save_file(state, hubert, metadata={"format": "pt"})
    assert "does not hold the weights of HubertModel" in refusal(checkpoint=hubert)


def test_a_repository_without_safetensors_or_extractor_is_refused(hubert, tmp_path):
    (tmp_path / "preprocessor_config.json").unlink()
    assert "transformers cannot load" in refusal(checkpoint=hubert)
    (tmp_path / "model.safetensors").unlink()
    assert f"no weights at {hubert}: set model.checkpoint to a" in refusal(checkpoint=hubert)


CODE = """
from pathlib import Path
Path({mark!r}).touch()
from transformers import HubertConfig, HubertModel
class OwnConfig(HubertConfig):
    model_type = "own-net"
class OwnModel(HubertModel):
    config_class = OwnConfig
"""


@pytest.mark.parametrize("trusts", [False, True])
def test_code_of_a_repository_runs_only_where_it_is_trusted(hubert, tmp_path, monkeypatch, trusts):
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "m"))
    monkeypatch.setattr(sys, "path", [*sys.path])
    mark, config = tmp_path / "was_run", tmp_path / "config.json"
    (tmp_path / "own.py").write_text(CODE.format(mark=str(mark)))
    text = config.read_text().replace('"model_type": "hubert"', '"model_type": "own-net"')
    names = '"auto_map": {"AutoConfig": "own.OwnConfig", "AutoModel": "own.OwnModel"},'
    config.write_text(text.replace("{", "{" + names, 1))

    if trusts:
        assert HuggingFace(checkpoint=hubert, trust_remote_code=True).n_layers == 3
    else:
        assert "model.trust_remote_code=true then runs it with your rights" in refusal(
            checkpoint=hubert
        )
    assert mark.exists() == trusts


def test_without_transformers_it_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    (tmp_path / "model.safetensors").write_bytes(b"x")
    text = refusal(checkpoint=str(tmp_path / "model.safetensors"))
    assert text.endswith("which is not installed: pip install 'mirprobe[hf]'")


def test_the_command_line_needs_an_id():
    with pytest.raises(UserError, match=r"model=hf needs model\.id=OWNER/NAME, found None"):
        make_backbone(compose_cell(["model=hf"]))


def test_a_clip_is_as_long_as_it_was(hubert):
    """No padding: states of a longer clip are others."""
    backbone = HuggingFace(checkpoint=hubert).freeze()
    audio = music(8000, 16_000)[None]
    padded = backbone(F.pad(audio, (0, 8000)))
    assert (padded[:, :, :24] - backbone(audio)[:, :, :24]).abs().max() > 1e-3
