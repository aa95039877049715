"""The recipe of the random weights and of the golden audio, against the checksums of its script."""

import hashlib
import time

import pytest
import torch
from golden_recipe import N_SAMPLES, REDUCED, checksums, waveform

from mirprobe.backbones.conformer_state import ConformerSize, published_shapes
from mirprobe.backbones.random_weights import draw_state


@pytest.fixture(params=["musicfm", "muq"])
def tag(request):
    return request.param


def digest_of(tag: str, size: ConformerSize) -> str:
    digest = hashlib.sha256()
    for key, shape in sorted(published_shapes(size).items()):
        tensor = draw_state(tag, {key: shape})[key]  # one at a time: all take 1.3 GB
        digest.update(key.encode() + b"\0" + tensor.numpy().tobytes())
    return digest.hexdigest()


def test_random_weights_are_the_recipe(tag):
    expected = checksums()[f"weights/{tag}/reduced"]
    state = draw_state(tag, published_shapes(REDUCED))
    assert len(state) == expected["tensors"]
    assert sum(tensor.numel() for tensor in state.values()) == expected["elements"]
    assert digest_of(tag, REDUCED) == expected["sha256"]


@pytest.mark.trial
def test_random_weights_in_full_size_are_the_recipe_and_quick(tag):
    start = time.perf_counter()
    assert digest_of(tag, ConformerSize()) == checksums()[f"weights/{tag}/full"]["sha256"]
    assert time.perf_counter() - start < 20


def test_seed_changes_every_drawn_tensor(tag):
    shapes = published_shapes(REDUCED)
    golden, other = draw_state(tag, shapes), draw_state(tag, shapes, seed=1)
    again = draw_state(tag, shapes, seed=1)
    for key in shapes:
        assert not torch.equal(golden[key], other[key])
        assert torch.equal(again[key], other[key])


@pytest.mark.parametrize("name", list(N_SAMPLES))
def test_golden_audio_is_the_recipe(name):
    digest = hashlib.sha256(waveform(name)[0].numpy().tobytes()).hexdigest()
    assert digest == checksums()[f"wave/{name}"]["sha256_float32"]
