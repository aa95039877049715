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
    parameters = [
        torch.Size(shape).numel() for key, shape in shapes.items() if "running_" not in key
    ]
    assert sum(parameters) == 316_343_296
    assert len(shapes) == 436


def test_folded_convolution_is_convolution_then_batch_norm():
    generator = torch.Generator().manual_seed(0)
    names = ("weight", "bias", "running_mean", "running_var")
    state = {f"bn.{name}": torch.rand(4, generator=generator) + 0.5 for name in names}
    weight, bias = torch.randn(4, 3, 3, 3, generator=generator), torch.randn(4, generator=generator)
    x = torch.randn(2, 3, 8, 8, generator=generator)
    expected = F.batch_norm(
        F.conv2d(x, weight, bias),
        state["bn.running_mean"],
        state["bn.running_var"],
        state["bn.weight"],
        state["bn.bias"],
    )
    torch.testing.assert_close(
        F.conv2d(x, *fold_batch_norm(weight, bias, state, "bn")), expected, rtol=0, atol=1e-5
    )


def test_fold_leaves_its_input_alone():
    size = ConformerSize(conv_dim=4, dim=8, n_layers=1, n_heads=2, ffn_dim=8, kernel=3)
    state = {key: torch.rand(shape) for key, shape in published_shapes(size).items()}
    copies = {key: tensor.clone() for key, tensor in state.items()}
    own = fold(state, size)
    assert all(torch.equal(state[key], copy) for key, copy in copies.items())
    half = own["layers.0.ffn2.outer.weight"] * 2
    assert torch.equal(half, state["conformer.layers.0.ffn2.output_dense.weight"])
