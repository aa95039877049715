import pytest
import torch
from golden_recipe2 import SmallMERT2, assert_golden, golden_array, waveform2
from safetensors.torch import save_file

from datamodules.errors import UserError
from mirprobe.backbones.mert2_state import FILTERS, MEL_STD, WINDOW, MERT2Size, published_shapes
from mirprobe.backbones.random_weights import draw_state


@pytest.fixture(scope="module")
def backbone():
    return SmallMERT2(weights="random").freeze()


@pytest.fixture(scope="module")
def content(backbone):
    """Everything that a published file holds, in the reduced size."""
    mel = backbone.mel
    stored = {WINDOW: mel.spectrogram.window, FILTERS: mel.mel_scale.fb}
    return {**draw_state("mert2", published_shapes(SmallMERT2.size)), **stored}


def load(content, tmp_path):
    path = tmp_path / "model.safetensors"
    save_file({key: tensor.clone() for key, tensor in content.items()}, path)
    return SmallMERT2(weights="30s", checkpoint=str(path)).freeze()


def test_log_mel_is_that_of_the_published_code(backbone):
    mel = backbone.mel(waveform2("w1s"))[0].T[::2]
    torch.testing.assert_close(mel, golden_array("mert2", "w1s/mel"), rtol=0, atol=4e-5)


def test_the_filter_bank_of_the_file_is_used(content, tmp_path):
    doubled = load(content | {FILTERS: 2 * content[FILTERS]}, tmp_path)
    assert_golden("mert2", "w1s_fb2", doubled(waveform2("w1s")))
    assert doubled.keys_matched == len(content)
    assert doubled.fingerprint() != load(content, tmp_path).fingerprint()


def test_a_published_file_has_876_tensors():
    assert len(published_shapes(MERT2Size())) + len((WINDOW, FILTERS)) == 876


def test_loading_is_strict_both_ways(content, tmp_path):
    rest = {key: tensor for key, tensor in content.items() if key != FILTERS}
    with pytest.raises(UserError, match=r"1 keys missing \(first: feature_extractor\.mel_scale"):
        load(rest, tmp_path)
    with pytest.raises(UserError, match=r"1 keys unknown \(first: head\)"):
        load(content | {"head": torch.zeros(1)}, tmp_path)


def test_a_band_that_never_moved_in_training_divides_by_no_zero(content, tmp_path):
    still = content[MEL_STD].clone()
    still[3] = 0.0
    states = load(content | {MEL_STD: still}, tmp_path).mel.statistics
    assert states[1, 3] == 1e-5
    assert states[1, 4] == content[MEL_STD][4]


@pytest.mark.parametrize(
    ("n_samples", "n_frames"), [(1025, 1), (1919, 1), (23_999, 24), (24_000, 25), (71_999, 74)]
)
def test_number_of_frames(backbone, n_samples, n_frames):
    """Rounded down, where MuQ rounds up."""
    assert backbone(waveform2("w3s")[:, :n_samples]).shape == (1, 4, n_frames, 96)
