"""The training loop.

┌─► rate ◄─ schedule
│   batch ─► forward ─► loss ─► backward     × accumulate
│     looking         around it, where an update is to be described
│     on_gradients    after it, there too
│   update of the weights
│     on_update_end   only where something is due, so that a small step stays small:
│     ├─ check        losses and gradients finite?  no: roll back, lower the rate
│     ├─ metrics      one line of metrics.jsonl
│     ├─ evaluation   validation and test part
│     └─ checkpoint   by updates, by the clock, or since a signal asked to stop
└── until the budget of epochs, updates or seconds is spent
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager
from typing import Protocol

import torch
from torch import Tensor

from stepwell.training.run import Run

SKIPPED_IN_A_ROW = 20  # each halves the scale: 2¹⁶ has become 2⁻⁴


class Hooks(Protocol):
    """What the loop calls; `training.train` is the one that checks, writes and shows."""

    def looking(self, run: Run) -> AbstractContextManager[None]:
        """What forward and backward run inside, where something is due after the update."""
        ...

    def on_gradients(self, run: Run) -> None:
        """Between backward and update, where something is due after the update."""

    def on_update_end(self, run: Run) -> bool:
        """After that update; returns True to stop."""
        ...

    def interrupted(self) -> bool:
        """Whether something became due that could not be foreseen; asked after every update."""
        ...


def fit(run: Run, hooks: Hooks) -> None:
    """Trains until the budget is spent or a hook says stop. All that changes is in `run`."""
    run.network.train()
    due = run.next_stop()
    while not run.finished:
        if run.update + 1 < due:
            loss = backward(run)
        else:
            with hooks.looking(run):
                loss = backward(run)
            hooks.on_gradients(run)
        norm = update(run)
        run.update += 1
        run.look_at_clock()
        run.pending.append((loss, norm))
        if run.update >= due or hooks.interrupted():
            if hooks.on_update_end(run):
                return
            run.network.train()
            due = run.next_stop()


def backward(run: Run) -> Tensor:
    """The gradients of the next update; returns its loss, a tensor on the device that nobody waits for."""
    total = None
    for loss in run.losses():
        (loss if run.scaler is None else run.scaler.scale(loss)).backward()
        total = loss.detach() if total is None else total + loss.detach()
    if run.scaler is not None:
        run.scaler.unscale_(run.optimizer)  # fp16: they were scaled against underflow
    assert total is not None
    return total


def update(run: Run) -> Tensor:
    """One update of the weights; returns the gradients' norm, on the device like the loss.

    fp16: an update whose scaled gradients overflowed is skipped and has norm 0; after SKIPPED_IN_A_ROW
    of them lowering the scale has not helped, and the norm is NaN.
    """
    optimizer = run.optimizer
    run.follow_schedule()
    if run.scaler is None:
        optimizer.update()
    else:
        run.scaler.step(optimizer)
        run.scaler.update()
    optimizer.zero_grad()
    norm = optimizer.gradient_norm
    if norm is None:  # a user's model of which no weight had a part in the loss
        norm = torch.zeros((), device=run.device)
    if optimizer.skipped is not None:
        run.skipped.add_(1).mul_(optimizer.skipped)
        norm = norm.masked_fill(run.skipped >= SKIPPED_IN_A_ROW, math.nan)
    return norm
