"""What a rule keeps, as tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from stepwell.errors import UserError
from stepwell.rules import Rule

AVERAGE = "ema"  # the name under which the average of the weights is kept beside a rule's state


class Unsupported(Exception):
    """These parameters or this rule have no kernel: the eager engine takes them."""


def new_state(
    rule: Rule,
    p: Tensor,
    h: Mapping[str, Any],
    average: bool = False,
    kind: torch.dtype | None = None,
    members: int | None = None,
) -> dict[str, Tensor]:
    """The state of a parameter before its first update, by name.

    h: the hyperparameters, which some state starts from. average: the average of the weights too. kind:
    the type of what has a value for each element; default the parameter's own. members: of how many
    models the parameter is, one behind the other in its first dimension; None without that dimension.
    """
    p = p.detach()
    state = {}
    for s in rule.state:
        if callable(s.start):
            value = s.start(p) if members is None else torch.stack([s.start(x) for x in p])
            if s.scalar:
                state[s.name] = value.detach().to(torch.float64, copy=True)
                continue
            if not rule.elementwise:
                own = kind is None or not value.is_floating_point()
                state[s.name] = value if own else value.to(kind)
                continue
            # A kernel reads it element by element beside the weight, so it must lie as the weight does.
            if value.shape != p.shape:
                raise UserError(
                    f"{rule.name}: {s.name} starts with shape {tuple(value.shape)} for a weight of "
                    f"{tuple(p.shape)}: an elementwise rule's state has the weight's shape"
                )
            own_kind = value.dtype if value.is_floating_point() else p.dtype
            state[s.name] = torch.empty_like(p, dtype=kind or own_kind).copy_(value)
            continue
        value = torch.as_tensor(h[s.start] if isinstance(s.start, str) else s.start, dtype=torch.float64)
        value = value.to(p.device)
        if s.scalar:
            made = torch.zeros(() if members is None else members, dtype=torch.float64, device=p.device)
            state[s.name] = made + value
        else:
            made = torch.zeros_like(p, dtype=kind)
            state[s.name] = made.add_(value.reshape(value.shape + (1,) * (p.dim() - 1) * value.dim()))
    if average:
        state[AVERAGE] = p.to(kind or p.dtype, copy=True)
    return state


def state_name(element: str) -> str:
    """The name in the state of what a program calls `average` or `state.NAME`."""
    return AVERAGE if element == "average" else element.removeprefix("state.")


def check_shapes(rule: Rule, parameters: list[Tensor], before: list[Tensor]) -> None:
    """Refuses parameters whose state no longer fits them."""
    for i, (p, seen) in enumerate(zip(parameters, before, strict=True)):
        if rule.state and p.shape != seen.shape:
            raise UserError(
                f"parameter {i} of its group had shape {tuple(seen.shape)} and now has {tuple(p.shape)}, "
                "which its optimizer's state does not fit: make a new optimizer"
            )
