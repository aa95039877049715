import math

import torch
import torch.nn.functional as F

from mirprobe.backbones.conformer_state import (
    ConformerSize,
    fold,
    fold_batch_norm,
    published_shapes,
)


def test_published_size_has_the_published_number_of_parameters():
    shapes = published_shapes(ConformerSize())
    assert len(shapes) == 436

    parameters = [shape for key, shape in shapes.items() if "running_" not in key]
    assert sum(math.prod(shape) for shape in parameters) == 316_343_296


def test_folded_convolution_is_convolution_then_batch_norm():
    generator = torch.Generator().manual_seed(0)
    norm = {}
    for name in ("weight", "bias", "running_mean", "running_var"):
        norm[name] = torch.rand(4, generator=generator) + 0.5
    weight = torch.randn(4, 3, 3, 3, generator=generator)
    bias = torch.randn(4, generator=generator)
    x = torch.randn(2, 3, 8, 8, generator=generator)
    expected = F.batch_norm(F.conv2d(x, weight, bias), **norm)

    state = {f"bn.{name}": tensor for name, tensor in norm.items()}
    folded_weight, folded_bias = fold_batch_norm(weight, bias, state, "bn")
    found = F.conv2d(x, folded_weight, folded_bias)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_fold_leaves_its_input_alone():
    size = ConformerSize(conv_dim=4, dim=8, n_layers=1, n_heads=2, ffn_dim=8, kernel=3)
    state = {key: torch.rand(shape) for key, shape in published_shapes(size).items()}
    copies = {key: tensor.clone() for key, tensor in state.items()}

    own = fold(state, size)

    assert all(torch.equal(state[key], copy) for key, copy in copies.items())
    half = own["layers.0.ffn2.outer.weight"] * 2
    assert torch.equal(half, state["conformer.layers.0.ffn2.output_dense.weight"])
