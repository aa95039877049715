"""The bank as stacked tensors: initial weights, inputs of the heads, standardisation."""

import math

import pytest
import torch
from torch import Tensor

from mirprobe.probing.bank import WEIGHTED, BankSize, Head, ProbeBank, all_heads

SIZE = BankSize(n_layers=3, dim=5, hidden=7, n_outputs=4)
HEADS = all_heads(3, seed=5)
# Weighted heads first, between and last; layers out of order, one of them twice.
MIXED = (
    Head("weighted", WEIGHTED, 5),
    Head("layer_02", 2, 5),
    Head("sum_again", WEIGHTED, 5),
    Head("layer_00", 0, 5),
    Head("layer_02_again", 2, 6),
    Head("weighted", WEIGHTED, 9),
)


def features(n_clips: int = 6) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(SIZE.n_layers + 1, n_clips, SIZE.dim, generator=generator)


def test_heads_are_every_layer_and_the_weighted_sum() -> None:
    layers = ["layer_00", "layer_01", "layer_02", "layer_03"]
    assert [head.name for head in all_heads(3, seed=0)] == [*layers, "weighted"]
    assert [head.name for head in all_heads(0, seed=0)] == layers[:1]
    assert [head.name for head in all_heads(1, seed=0)] == layers[:2]
    assert [head.layer for head in all_heads(3, seed=0)] == [0, 1, 2, 3, None]
    assert {head.seed for head in all_heads(3, seed=7)} == {7}


@pytest.mark.parametrize("heads", [HEADS, MIXED], ids=["layers-first", "mixed"])
def test_head_in_a_bank_starts_like_the_head_alone(heads: tuple[Head, ...]) -> None:
    bank = ProbeBank(heads, SIZE, layer_weights_init="normal")
    for index, head in enumerate(heads):
        alone = ProbeBank([head], SIZE, layer_weights_init="normal")
        for name, value in alone.named_parameters():
            is_head = torch.arange(len(heads)) == index
            here = bank.get_parameter(name)[bank.rows_of(name, is_head)]
            assert torch.equal(value, here), (head.name, name)


def test_initial_weights_follow_torch_linear_and_the_seed() -> None:
    wide = BankSize(n_layers=1, dim=400, hidden=300, n_outputs=2)
    weight = ProbeBank([Head("layer_00", 0, seed=0)], wide).hidden_weight
    assert weight.abs().max() <= 1 / math.sqrt(400)
    assert weight.std().item() == pytest.approx(1 / math.sqrt(3 * 400), rel=0.01)
    other = ProbeBank([Head("layer_00", 0, seed=1)], wide).hidden_weight
    assert not torch.equal(weight, other)


def test_every_head_draws_weights_of_its_own() -> None:
    bank = ProbeBank(HEADS, SIZE)
    for name in ("hidden_weight", "hidden_bias", "output_weight", "output_bias"):
        drawn = bank.get_parameter(name).flatten(1)
        assert len(drawn.unique(dim=0)) == len(HEADS), name


def plain_outputs(bank: ProbeBank, states: Tensor) -> list[Tensor]:
    """(B, C) of each head by itself: linear, ReLU, linear on its layer or its weighted sum."""
    outputs = []
    for h, head in enumerate(bank.heads):
        if head.layer is None:
            weights = torch.softmax(bank.layer_weights[bank.weighted.index(h)], dim=0)
            x = sum(w * state for w, state in zip(weights, states[1:], strict=True))
        else:
            x = states[head.layer]
        hidden = torch.relu(x @ bank.hidden_weight[h] + bank.hidden_bias[h])
        outputs.append(hidden @ bank.output_weight[h] + bank.output_bias[h])
    return outputs


@pytest.mark.parametrize("heads", [HEADS, MIXED], ids=["layers-first", "mixed"])
def test_forward_equals_a_plain_mlp_per_head(heads: tuple[Head, ...]) -> None:
    bank = ProbeBank(heads, SIZE, layer_weights_init="normal")
    states = features()
    for output, expected in zip(bank(states), plain_outputs(bank, states), strict=True):
        torch.testing.assert_close(output, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("order", [(4, 3, 2, 1, 0), (4, 0, 1, 2, 3), (2, 4, 0, 3, 1)])
def test_heads_in_another_order_give_the_same_outputs(order: tuple[int, ...]) -> None:
    usual = ProbeBank(HEADS, SIZE, layer_weights_init="normal")
    other = ProbeBank([HEADS[h] for h in order], SIZE, layer_weights_init="normal")
    for bank in (usual, other):
        bank.standardize([features()])
    states = features()
    torch.testing.assert_close(other(states), usual(states)[list(order)], atol=1e-6, rtol=0)
    assert torch.equal(other.softmax_weights(), usual.softmax_weights())


def test_layer_weights_start_uniform_or_normal() -> None:
    (uniform,) = ProbeBank(HEADS, SIZE).softmax_weights()
    assert uniform.tolist() == pytest.approx([1 / 3] * 3)
    (drawn,) = ProbeBank(HEADS, SIZE, layer_weights_init="normal").softmax_weights()
    assert drawn.sum().item() == pytest.approx(1) and drawn.max() - drawn.min() > 0.01


def test_only_weighted_heads_have_layer_weights() -> None:
    assert ProbeBank(HEADS, SIZE).layer_weights.shape == (1, 3)
    assert ProbeBank(MIXED, SIZE).layer_weights.shape == (3, 3)
    assert ProbeBank(MIXED, SIZE).weighted == [0, 2, 5]

    single = ProbeBank(HEADS[:4], SIZE, layer_weights_init="normal")
    assert single.layer_weights.shape == single.softmax_weights().shape == (0, 3)
    assert single.rows_of("layer_weights", torch.ones(4, dtype=torch.bool)).shape == (0,)
    assert single(features()).shape == (4, 6, SIZE.n_outputs)


def test_rows_of_a_parameter_follow_the_heads_that_are_chosen() -> None:
    bank = ProbeBank(MIXED, SIZE)
    chosen = torch.tensor([False, True, True, False, False, True])
    assert torch.equal(bank.rows_of("hidden_weight", chosen), chosen)
    assert bank.rows_of("layer_weights", chosen).tolist() == [False, True, True]


@pytest.mark.parametrize("sizes", [(500,), (1, 199, 300), (250, 250)])
def test_standardised_features_have_mean_zero_and_deviation_one_in_whatever_parts(
    sizes: tuple[int, ...],
) -> None:
    bank = ProbeBank(HEADS, SIZE)
    values = 40 + 300 * features(500)
    values[:, 200:] += 100  # parts with means of their own
    values[2, :, 1] = 7.0  # a constant feature
    bank.standardize(values.half().split(sizes, dim=1))

    states = (values - bank.mean) * bank.scale
    assert states.mean(dim=1).abs().max() < 1e-2
    deviation = states.std(dim=1, correction=0)
    assert deviation[2, 1] < 1e-3  # not blown up
    deviation[2, 1] = 1
    torch.testing.assert_close(deviation, torch.ones_like(deviation), atol=2e-3, rtol=0)


def test_a_constant_feature_keeps_its_scale() -> None:
    """Its deviation over train is zero, or a last bit; elsewhere it may be a little off."""
    bank = ProbeBank(HEADS, SIZE)
    values = features(500)
    values[2, :, 1] = 0.1
    bank.standardize([values.half()])
    assert bank.scale[2, 0, 1] == 1

    values[2, 0, 1] = 0.1001
    assert (values - bank.mean)[2, 0, 1].abs() * bank.scale[2, 0, 1] < 1e-3


def test_standardising_leaves_the_callers_features_as_they_are() -> None:
    """Float32 needs no conversion: the standardised states must still be other memory."""
    bank, batch = ProbeBank(HEADS, SIZE), features()
    bank.standardize([batch])
    first = bank(batch)
    assert torch.equal(batch, features())
    assert torch.equal(bank(batch), first)


def test_dropout_is_for_training_alone() -> None:
    bank = ProbeBank(HEADS, SIZE, dropout=0.5)
    states = features()
    assert not torch.equal(bank(states), bank(states))
    bank.eval()
    without = ProbeBank(HEADS, SIZE)
    assert torch.equal(bank(states), without(states))


def test_gradients_of_one_head_do_not_reach_another() -> None:
    bank = ProbeBank(HEADS, SIZE)
    bank(features())[1].sum().backward()
    others = [h for h in range(5) if h != 1]
    for name, parameter in bank.named_parameters():
        assert parameter.grad is not None, name
        if name == "layer_weights":
            assert parameter.grad.abs().max() == 0
        else:
            assert parameter.grad[others].abs().max() == 0
            assert parameter.grad[1].abs().max() > 0
