"""What an update rule is: a pure function, and the words it is written with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True)
class Rule:
    """An update rule: one formula, and what an engine must know to run it.

    update: (w, g, *state, t, **hyperparameters) → (w⁺, *state⁺). It is pure: it reads tensors of
        one shape and returns new ones, and never changes its arguments. t counts from 1. It and the
        hyperparameters are numbers, or tensors that broadcast against w (a population).
    state: the names of the state tensors, torch's names where torch has the rule. Each starts at 0.
    defaults: the hyperparameters and their default values.
    elementwise: an element's new value depends on that element alone, so that an engine may lay
        small tensors behind one another and update them as one.
    """

    name: str
    update: Callable[..., tuple[Tensor, ...]]
    state: tuple[str, ...] = ()
    defaults: Mapping[str, float] = field(default_factory=dict)
    elementwise: bool = True


def moment(average: Tensor, value: Tensor, beta: float | Tensor) -> Tensor:
    """Moves an exponential average: β a + (1 − β) x = a + (1 − β)(x − a), which is one operation."""
    return torch.lerp(average, value, 1 - beta)


def debias(average: Tensor, beta: float | Tensor, t: int | Tensor) -> Tensor:
    """Corrects an average that started at 0: a / (1 − βᵗ). Kingma & Ba 2015, §3."""
    return average / (1 - beta**t)
