"""Discovery of encoder blocks in networks that are made up here."""

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from datamodules.errors import UserError
from mirprobe.backbones.block_list import depth_of, find_blocks, states_of


class Block(nn.Module):
    """Returns a tuple, as many do, and takes its state by name."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(dim, dim), nn.Linear(dim, dim)

    def forward(self, hidden_states: Tensor) -> tuple[Tensor, None]:
        return (self.outer(self.inner(hidden_states)), None)


class Network(nn.Module):
    """Three blocks, beside lists that look like blocks in one way or another."""

    def __init__(self) -> None:
        super().__init__()
        self.small = nn.ModuleList(nn.LayerNorm(4) for _ in range(3))  # fewer parameters
        self.maps = nn.ModuleList(nn.Conv1d(4, 4, 1) for _ in range(3))  # (B, D, T, 1)
        self.more = nn.ModuleList(nn.Linear(4, 4) for _ in range(4))  # four of them
        self.idle = nn.ModuleList(nn.Linear(4, 400) for _ in range(3))  # never run
        self.blocks = nn.ModuleList(Block(4) for _ in range(3))
        self.norm = nn.LayerNorm(4)

    def forward(self, x: Tensor) -> SimpleNamespace:
        for module in (*self.small, *self.more):
            x = module(x)
        for module in self.maps:
            x = module(x.transpose(1, 2)).transpose(1, 2)
        for block in self.blocks:
            x = block(hidden_states=x)[0]
        return SimpleNamespace(last_hidden_state=self.norm(x))


@pytest.fixture
def network() -> Network:
    torch.manual_seed(0)
    return Network()


def blocks_of(network: nn.Module, n_layers: int = 3) -> list[nn.Module]:
    clip = torch.randn(1, 7, 4)
    with torch.no_grad():
        return find_blocks(network, n_layers, lambda: network(clip))


def test_the_blocks_are_the_list_of_the_depth_with_the_most_parameters(network):
    assert blocks_of(network) == list(network.blocks)
    assert blocks_of(network, 4) == list(network.more)


def test_hooks_are_gone_afterwards(network):
    blocks_of(network)
    assert not any(module._forward_hooks for module in network.modules())


def test_states_are_the_input_the_outputs_and_the_final_norm(network):
    clip = torch.randn(1, 7, 4)
    with torch.no_grad():
        states = states_of(blocks_of(network), lambda: network(clip))
        last = network(clip).last_hidden_state
        one = network.blocks[0](states[:, 0])[0]
    assert states.shape == (1, 4, 7, 4)
    assert torch.equal(states[:, 1], one)
    assert torch.equal(states[:, 3], last)


def test_a_pooled_last_state_leaves_the_output_of_the_block(network):
    clip = torch.randn(1, 8, 4)
    blocks = blocks_of(network)

    def run() -> SimpleNamespace:
        return SimpleNamespace(last_hidden_state=network(clip).last_hidden_state[:, ::2])

    with torch.no_grad():
        states = states_of(blocks, run)
        expected = network.blocks[2](states[:, 2])[0]
    assert torch.equal(states[:, 3], expected)


class Stages(nn.Module):
    """As Swin: each halves the frames and doubles the width."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(8 * 2**n, 8 * 2**n) for n in range(3))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x.reshape(1, -1, layer.in_features))
        return x


class Backwards(Network):
    def forward(self, x: Tensor) -> Tensor:
        for block in reversed(self.blocks):
            x = block(x)[0]
        return x


class Shared(Network):
    """Blocks that run twice, as ALBERT's."""

    def forward(self, x: Tensor) -> Tensor:
        for block in (*self.blocks, *self.blocks):
            x = block(x)[0]
        return x


@pytest.mark.parametrize("kind", [Stages, Backwards, Shared])
def test_networks_whose_states_are_no_layers_are_refused(kind):
    network = kind()
    clip = torch.randn(1, 32, 4 if kind is not Stages else 8)
    with pytest.raises(UserError, match="it has no list of 3 blocks that run once each, in order"):
        find_blocks(network, 3, lambda: network(clip))


def test_depth_is_the_first_number_that_a_config_says():
    assert depth_of(SimpleNamespace(num_hidden_layers=None, encoder_layers=5, depth=7)) == 5
    with pytest.raises(UserError, match="its config says no depth"):
        depth_of(SimpleNamespace(depths=[2, 2]))
