import pytest

from datamodules.errors import UserError
from mirprobe.backbones.frame_grid import find_hop, find_least


@pytest.mark.parametrize("hop", [160, 320, 512, 1280, 1300, 2047])
@pytest.mark.parametrize("window", [1, 400, 1025, 5000])
def test_hop_and_least_length_are_exact_whatever_they_are(hop, window):
    def n_frames(n_samples: int) -> int:
        return max(0, (n_samples - window) // hop + 1)

    assert find_hop(n_frames, 16_000) == hop
    assert find_least(n_frames, 1, above=0, at_most=32_000) == window


def test_a_fixed_length_is_refused():
    with pytest.raises(UserError, match=r"of a fixed length \(1500 frames for 2 s as for 4 s\)"):
        find_hop(lambda _: 1500, 16_000)


def test_frames_between_samples_are_refused():
    with pytest.raises(UserError, match="no whole number of samples apart, near 100"):
        find_hop(lambda n_samples: int(n_samples / 100.37), 16_000)


def test_frames_that_become_fewer_are_refused():
    with pytest.raises(UserError, match="no whole number of samples apart"):
        find_hop(lambda n_samples: 100_000 - n_samples, 16_000)
