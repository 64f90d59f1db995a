"""The range test in a loop of the user's own, on a snapshot: afterwards everything is as it was before."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from stepwell.errors import UserError
from stepwell.optim.checked import CheckedOptimizer
from stepwell.optim.wrapper import Wrapper
from stepwell.populations.find_lr import ABOVE, BELOW
from stepwell.populations.range_test import BlowUp, RangeTest, judge, rising
from stepwell.training.reproducible import random_state, restore_random_state


def range_test(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    step: Callable[[], Any],
    low: float | None,
    high: float | None,
    updates: int,
) -> RangeTest:
    """Calls `step`, which makes an update and returns its loss, at rising rates; see `library.range_test`."""
    own = [float(group["lr"]) for group in optimizer.param_groups if "lr" in group]
    if not own or max(own) <= 0:
        raise UserError(f"{type(optimizer).__name__} has no learning rate above 0 yet: give it lr=…")
    if any("lr" in schedules for schedules in getattr(optimizer, "_schedules", [])):
        raise UserError("the optimizer's lr is a schedule, which would set the rate anew: give it a number")
    low = max(own) / BELOW if low is None else low
    rates = rising(low, max(own) * ABOVE if high is None else high, updates)
    losses, blow_up = np.full((1, updates), math.nan), BlowUp()
    with as_before(model, optimizer):
        for u, rate in enumerate(rates):
            _set_rate(optimizer, [rate * share / max(own) for share in own])
            loss = _number(step())
            if blow_up.seen(loss):
                break
            losses[0, u] = loss
    return judge(rates, losses)


@contextmanager
def as_before(model: nn.Module, optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Puts back on leaving, bit for bit, also after an error: weights, gradients, buffers, modes and
    `requires_grad` of the model and what else the optimizer has, its state and its hyperparameters, and the
    state of all random numbers (torch's, NumPy's and Python's).

    Tensors keep their identity and their memory. What a model holds elsewhere, in attributes that are neither
    parameters nor buffers, is not known here.
    """
    held = {id(p): p for group in optimizer.param_groups for p in group["params"]}
    held |= {id(t): t for t in [*model.parameters(), *model.buffers()]}
    tensors = [(t, t.detach().clone(), t.requires_grad) for t in held.values()]
    gradients = [(p, p.grad, None if p.grad is None else p.grad.clone()) for p in held.values() if p.is_leaf]
    modules = [(m, m.training, dict(m._parameters), dict(m._buffers)) for m in model.modules()]
    state, names = copy.deepcopy(optimizer.state_dict()), [set(group) for group in optimizer.param_groups]
    ours = isinstance(optimizer, (CheckedOptimizer, Wrapper))
    own = {} if ours else {p: copy.deepcopy(values) for p, values in optimizer.state.items()}
    device = next((t.device for t in held.values() if t.device.type == "cuda"), torch.device("cpu"))
    randomness = random_state(device)
    try:
        yield
    finally:
        for module, training, parameters, buffers in modules:
            module.training = training
            module._parameters.clear()
            module._parameters.update(parameters)
            module._buffers.clear()
            module._buffers.update(buffers)
        with torch.no_grad():
            for t, value, wanted in tensors:
                t.copy_(value)
                if t.requires_grad != wanted:
                    t.requires_grad_(wanted)
            for p, grad, value in gradients:
                p.grad = grad if grad is None or value is None else grad.copy_(value)
        optimizer.load_state_dict(state)
        for group, before in zip(optimizer.param_groups, names, strict=True):
            for added in set(group) - before:  # torch adds what it knows and a class may not
                del group[added]
        if not ours:  # loading has cast a state of another type than its weight's
            optimizer.state.clear()
            optimizer.state.update(own)
        restore_random_state(randomness, device)


def _set_rate(optimizer: torch.optim.Optimizer, rates: Sequence[float]) -> None:
    groups = [group for group in optimizer.param_groups if "lr" in group]
    for group, rate in zip(groups, rates, strict=True):
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)  # a captured graph looks at this very tensor
        else:
            group["lr"] = rate


def _number(loss: Any) -> float:
    """The loss of a step; UserError where it returned none."""
    try:
        return float(loss.detach() if isinstance(loss, Tensor) else loss)
    except (TypeError, ValueError, RuntimeError):
        shown = f"a tensor of shape {list(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
        raise UserError(
            f"step returned {shown}, not its loss: end it with `return loss`, one number"
        ) from None
