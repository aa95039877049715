"""The bank as stacked tensors: initial weights, inputs of the heads, standardisation."""

import math

import pytest
import torch

from mirprobe.probing.bank import BankSize, Head, ProbeBank, all_heads

SIZE = BankSize(n_layers=3, dim=5, hidden=7, n_outputs=4)


def features(n_clips: int = 6) -> torch.Tensor:
    return torch.randn(
        SIZE.n_layers + 1, n_clips, SIZE.dim, generator=torch.Generator().manual_seed(1)
    )


def test_heads_are_every_layer_and_the_weighted_sum() -> None:
    assert [head.name for head in all_heads(3)] == [
        "layer_00",
        "layer_01",
        "layer_02",
        "layer_03",
        "weighted",
    ]
    assert [head.name for head in all_heads(0)] == ["layer_00"]
    assert [head.name for head in all_heads(1)] == ["layer_00", "layer_01"]


def test_head_in_a_bank_starts_like_the_head_alone() -> None:
    bank = ProbeBank(all_heads(3), SIZE, seed=5, normal_start=True)
    for index, head in enumerate(all_heads(3)):
        alone = ProbeBank([head], SIZE, seed=5, normal_start=True)
        for name, value in alone.named_parameters():
            assert torch.equal(value[0], bank.get_parameter(name)[index]), (head.name, name)


def test_initial_weights_follow_torch_linear_and_the_seed() -> None:
    wide = BankSize(n_layers=1, dim=400, hidden=300, n_outputs=2)
    weight = ProbeBank([Head("layer_00", 0)], wide, seed=0).hidden_weight
    assert weight.abs().max() <= 1 / math.sqrt(400)
    assert weight.std().item() == pytest.approx(1 / math.sqrt(3 * 400), rel=0.01)
    assert not torch.equal(weight, ProbeBank([Head("layer_00", 0)], wide, seed=1).hidden_weight)


def test_forward_equals_a_plain_mlp_per_head() -> None:
    bank = ProbeBank(all_heads(3), SIZE, seed=0, normal_start=True)
    states = features()
    weights = torch.softmax(bank.layer_weights[4], dim=0)
    inputs = [*states, sum(w * state for w, state in zip(weights, states[1:], strict=True))]
    for h, x in enumerate(inputs):
        hidden = torch.relu(x @ bank.hidden_weight[h] + bank.hidden_bias[h])
        expected = hidden @ bank.output_weight[h] + bank.output_bias[h]
        torch.testing.assert_close(bank(states)[h], expected, atol=1e-6, rtol=0)


def test_layer_weights_start_uniform_or_normal() -> None:
    uniform = ProbeBank(all_heads(3), SIZE, seed=0).softmax_weights()[4]
    assert uniform.tolist() == pytest.approx([1 / 3] * 3)
    drawn = ProbeBank(all_heads(3), SIZE, seed=0, normal_start=True).softmax_weights()[4]
    assert drawn.sum().item() == pytest.approx(1) and drawn.max() - drawn.min() > 0.01


@pytest.mark.parametrize("sizes", [(500,), (1, 199, 300), (250, 250)])
def test_standardised_features_have_mean_zero_and_deviation_one_in_whatever_parts(
    sizes: tuple[int, ...],
) -> None:
    bank = ProbeBank(all_heads(3), SIZE, seed=0)
    values = 40 + 300 * features(500)
    values[:, 200:] += 100  # parts with means of their own
    values[2, :, 1] = 7.0  # a constant feature
    bank.standardize(values.half().split(sizes, dim=1))
    states = (values - bank.get_buffer("mean")) * bank.get_buffer("scale")
    assert states.mean(dim=1).abs().max() < 1e-2
    deviation = states.std(dim=1, correction=0)
    assert deviation[2, 1] < 1e-3  # not blown up
    deviation[2, 1] = 1
    torch.testing.assert_close(deviation, torch.ones_like(deviation), atol=2e-3, rtol=0)


def test_gradients_of_one_head_do_not_reach_another() -> None:
    bank = ProbeBank(all_heads(3), SIZE, seed=0)
    bank(features())[1].sum().backward()
    for parameter in bank.parameters():
        if parameter.grad is not None:
            others = [h for h in range(5) if h != 1]
            assert parameter.grad[others].abs().max() == 0
