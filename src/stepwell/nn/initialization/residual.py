"""Residual branches that begin at zero (Goyal et al. 2017; Zhang, Dauphin & Ma 2019)."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from stepwell.errors import UserError


@torch.no_grad()
def zero_init_residual(model: nn.Module) -> list[str]:
    """Sets the last layer of every residual branch to zero, in place: y = x + f(x) begins as y = x.

    A deep network then starts as a shallow one, and signals and gradients pass all blocks unchanged
    whatever their number; the branches come in as they learn. Which layers those are says the block's
    class: `branch_ends = ("attention.out", "down")`, names below the block; of one without a weight (a norm
    that is left out) the layer before it. Weight and bias get zero, of a norm γ and β (Goyal et al. 2017,
    section 5.1, for γ of the last batch norm; Zhang et al. 2019, section 3, for the layer itself).

    Returns the names of the layers. Trap: the other layers of a branch get no gradient in the first update,
    since it passes the zero. Raises UserError where the model says of no block how its branches end.
    """
    ends = [
        (f"{path}.{name}".lstrip("."), module.get_submodule(name))
        for path, module in model.named_modules()
        for name in _ends(module)
    ]
    if not ends:
        raise UserError(
            f"{type(model).__name__} has no residual branch to begin at zero: no class of its modules has "
            "the attribute branch_ends, a tuple of names of the layers that end its branches"
        )
    for name, layer in ends:
        for part in ("weight", "bias"):
            value = getattr(layer, part, None)
            if isinstance(value, nn.Parameter):
                value.zero_()
            elif value is not None:
                _assign_zero(layer, part, name)
    return [name for name, _ in ends]


def _ends(block: nn.Module) -> list[str]:
    """The branches' last layers; one without a weight gives way to the child before it."""
    found = []
    children = [name for name, _ in block.named_children()]
    for name in getattr(type(block), "branch_ends", ()):
        while getattr(block.get_submodule(name), "weight", None) is None and name in children[1:]:
            name = children[children.index(name) - 1]
        found.append(name)
    return found


def _assign_zero(layer: Any, part: str, name: str) -> None:
    kept = getattr(layer, part).clone()
    setattr(layer, part, torch.zeros_like(kept))
    if not bool((getattr(layer, part) == 0).all()):
        kind = type(layer.parametrizations[part][0]).__name__
        setattr(layer, part, kept)
        raise UserError(
            f"{name} cannot begin at zero with {kind}, which needs a direction: choose one of the two"
        )
