"""What a rule keeps, as tensors."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from stepwell.errors import UserError
from stepwell.rules import Rule

AVERAGE = "ema"  # the name under which the average of the weights is kept beside a rule's state


class Unsupported(Exception):
    """These parameters or this rule have no kernel: the eager engine takes them."""


def new_state(
    rule: Rule, p: Tensor, h: Mapping[str, float], average: bool = False, kind: torch.dtype | None = None
) -> dict[str, Tensor]:
    """The state of a parameter before its first update, by name.

    h: the hyperparameters, which some state starts from. average: the average of the weights too. kind:
    the type of what has a value for each element; default the parameter's own.
    """
    p = p.detach()
    state = {}
    for s in rule.state:
        if callable(s.start):
            value = s.start(p)
            own = kind is None or s.scalar or not value.is_floating_point()
            state[s.name] = value if own else value.to(kind)
            continue
        value = h[s.start] if isinstance(s.start, str) else s.start
        if s.scalar:
            state[s.name] = torch.full((), value, dtype=torch.float64, device=p.device)
        else:
            state[s.name] = torch.full_like(p, value, dtype=kind)
    if average:
        state[AVERAGE] = p.to(kind or p.dtype, copy=True)
    return state


def check_shapes(rule: Rule, parameters: list[Tensor], before: list[Tensor]) -> None:
    """Refuses parameters whose state no longer fits them."""
    for i, (p, seen) in enumerate(zip(parameters, before, strict=True)):
        if rule.state and p.shape != seen.shape:
            raise UserError(
                f"parameter {i} of its group had shape {tuple(seen.shape)} and now has {tuple(p.shape)}, "
                "which its optimizer's state does not fit: make a new optimizer"
            )
