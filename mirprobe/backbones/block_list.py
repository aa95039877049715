"""The list of encoder blocks inside a network of which nothing is known but its depth.

Conventions: found by a probe clip, not by name, since names differ between versions of a library.
State 0 is what the first block is given, state l what block l returns. A state is (B, T, D).
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from datamodules.errors import UserError

DEPTHS = ("num_hidden_layers", "encoder_layers", "num_layers", "depth")  # as configs call it


@dataclass(frozen=True)
class Call:
    """One run of a child of a list: its index, what it was given and what it gave."""

    index: int
    state_in: Tensor | None
    state_out: Tensor | None


def depth_of(config: object) -> int:
    """L, as a config says it.

    Raises:
        UserError: it says none.
    """
    for name in DEPTHS:
        depth = getattr(config, name, None)
        if isinstance(depth, int) and depth > 0:
            return depth
    raise UserError(f"its config says no depth ({', '.join(DEPTHS)})")


def find_blocks(model: nn.Module, n_layers: int, run: Callable[[], object]) -> list[nn.Module]:
    """The blocks: a list of L modules of one class that run once each, in order, at one shape.

    Among several the one with the most parameters.

    Args:
        model: the network.
        n_layers: L.
        run: passes a probe clip through it.

    Raises:
        UserError: there is no such list, as in networks whose stages differ in width.
    """
    candidates = list(_lists(model))
    with ExitStack() as hooks:
        recorded = [hooks.enter_context(recording(children)) for children in candidates]
        run()

    fitting = []
    for children, calls in zip(candidates, recorded, strict=True):
        if len(children) == n_layers and _is_encoder(calls, n_layers):
            fitting.append(children)
    if not fitting:
        raise UserError(
            f"it has no list of {n_layers} blocks that run once each, in order, with states of one "
            "shape (batch, frames, width); stages of different widths or resolutions, as in Swin "
            "and CLAP, are no layers of one backbone"
        )
    return max(fitting, key=_n_parameters)


def _lists(model: nn.Module) -> Iterator[list[nn.Module]]:
    for module in model.modules():
        if isinstance(module, nn.ModuleList | nn.Sequential):
            children = list(module)
            if len(children) >= 2 and len({type(child) for child in children}) == 1:
                yield children


def _is_encoder(calls: list[Call], n_layers: int) -> bool:
    if [call.index for call in calls] != list(range(n_layers)):
        return False
    states = [state for call in calls for state in (call.state_in, call.state_out)]
    shapes = {None if state is None else tuple(state.shape) for state in states}
    first = states[0]
    return len(shapes) == 1 and first is not None and first.ndim == 3


def _n_parameters(children: list[nn.Module]) -> int:
    return sum(parameter.numel() for child in children for parameter in child.parameters())


@contextmanager
def recording(children: list[nn.Module]) -> Iterator[list[Call]]:
    """Notes every run of the modules while it is open."""
    calls: list[Call] = []
    handles = [
        child.register_forward_hook(_note(calls, index), with_kwargs=True)
        for index, child in enumerate(children)
    ]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def _note(calls: list[Call], index: int) -> Callable[..., None]:
    def note(_: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any) -> None:
        given = args[0] if args else kwargs.get("hidden_states")
        calls.append(Call(index, _state(given), _state(output)))

    return note


def _state(value: object) -> Tensor | None:
    """The tensor itself, or the first of a tuple."""
    first = value[0] if isinstance(value, tuple) and value else value
    return first if isinstance(first, Tensor) else None


def states_of(blocks: list[nn.Module], run: Callable[[], object]) -> Tensor:
    """States 0..L of a clip: (B, L+1, T, D).

    Where the network's `last_hidden_state` has the shape of a state, it is state L: it is that of
    block L, or has the final norm on top.
    """
    with recording(blocks) as calls:
        output = run()
    states = [calls[0].state_in, *(call.state_out for call in calls)]

    last = getattr(output, "last_hidden_state", None)
    if isinstance(last, Tensor) and states[-1] is not None and last.shape == states[-1].shape:
        states[-1] = last
    return torch.stack([state for state in states if state is not None], dim=1)
