"""How far states are from a reference, layer by layer.

Conventions: states are (B, L+1, T, D); a change is relative to the reference state of its own
layer, taken over clips, frames and features.
"""

import torch
from torch import Tensor


def absolute_change(states: Tensor, reference: Tensor) -> Tensor:
    """Absolute difference, of the shape of the reference.

    It is 0 where both are the same infinity or both NaN, and infinity throughout if the shapes
    differ.
    """
    if states.shape != reference.shape:
        return torch.full_like(reference, torch.inf)
    same = (states == reference) | (states.isnan() & reference.isnan())
    return torch.where(same, 0.0, states - reference).abs()


def relative_rms(states: Tensor, reference: Tensor) -> Tensor:
    """(L+1,) rms of the change over rms of the reference.

    >>> relative_rms(torch.full((1, 2, 3, 4), 3.0), torch.full((1, 2, 3, 4), 2.0))
    tensor([0.5000, 0.5000])
    """
    change = absolute_change(states, reference).square().mean((0, 2, 3)).sqrt()
    return change / _above_zero(reference.square().mean((0, 2, 3)).sqrt())


def relative_max(states: Tensor, reference: Tensor) -> Tensor:
    """(L+1,) largest change over largest absolute reference.

    >>> relative_max(torch.tensor([[[[1.0, 5.0]]]]), torch.tensor([[[[2.0, 4.0]]]]))
    tensor([0.2500])
    """
    change = absolute_change(states, reference).amax((0, 2, 3))
    return change / _above_zero(reference.abs().amax((0, 2, 3)))


def _above_zero(divisor: Tensor) -> Tensor:
    return divisor.clamp(min=torch.finfo(divisor.dtype).tiny)


def span(per_layer: Tensor) -> str:
    """Smallest .. largest over the layers, and which layer has the largest.

    >>> span(torch.tensor([0.5, 0.25, 0.125]))
    '0.12 .. 0.5 (layer 0)'
    """
    low, high = per_layer.min().item(), per_layer.max().item()
    if low == high:
        return f"{low:.2g}"
    return f"{low:.2g} .. {high:.2g} (layer {int(per_layer.argmax())})"
