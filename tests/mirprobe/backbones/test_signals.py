import torch

from mirprobe.backbones.signals import chirp, music, noise


def test_signals_are_seeded_and_in_range() -> None:
    for signal in (noise(8000), chirp(8000), music(8000, 8000)):
        assert signal.dtype == torch.float32
        assert 0.1 < signal.abs().max() <= 1
    assert torch.equal(noise(100), noise(100))
    assert not torch.equal(music(800, 8000, seed=1), music(800, 8000))


def test_music_is_the_same_at_any_rate() -> None:
    assert torch.allclose(music(8000, 16_000)[::2], music(4000, 8000), atol=1e-6)
