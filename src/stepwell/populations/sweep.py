"""The losses of members whose learning rate runs through given values: what a range test looks at."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from stepwell.nn.configs import UserModel
from stepwell.populations.groups import divide
from stepwell.populations.member import Member
from stepwell.populations.range_test import BlowUp
from stepwell.populations.train import Stopped
from stepwell.populations.updates import Now
from stepwell.progress import counted
from stepwell.recipe import choose_device
from stepwell.schedules.configs import SCHEDULES
from stepwell.training import source
from stepwell.training.loop import backward, update
from stepwell.training.reproducible import own_randomness, products_repeat, same_arithmetic, undisturbed
from stepwell.training.run import Run


@undisturbed()
def sweep(
    members: Sequence[Member],
    rates: Sequence[float],
    *,
    interrupted: Callable[[], bool] = lambda: False,
) -> NDArray[np.float64]:
    """Lets every member make U updates from its own beginning, update u at rates[u]; nothing is evaluated.

    The member's length, schedule and average of the weights have no effect, and its momentum stays; all else
    is that of its recipe: weights, batches in their order, augmentation, dropout, clipping, decay.

    Returns (K, U) losses, each of the batch of its update and before it; NaN from where a loss is not finite
    or the losses have blown up (see `BlowUp`), where the member ends. Raises `Stopped` once `interrupted()`
    is true.
    """
    members = [_bare(member, len(rates)) for member in members]
    losses = np.full((len(members), len(rates)), math.nan)
    with counted("range test", losses.size) as advance:
        for group in divide(members):
            if group.stacked:
                found = _stacked(group.make(members), rates)
            else:
                found = _alone(members[group.numbers[0]], rates)
            for u, own in enumerate(found):
                losses[group.numbers, u] = own
                advance(len(group.numbers))
                if interrupted():
                    raise Stopped
    return losses


def _bare(member: Member, updates: int) -> Member:
    """The member with neither length, schedule nor average of its own, so that all of one shape are alike."""
    none = {"epochs": None, "seconds": None, "average": None, "early_stopping": None}
    none |= {"evaluate_every": None, "weights": "last"}
    training = member.recipe.training.model_copy(update={**none, "updates": updates})
    changes = {"training": training, "schedule": SCHEDULES["constant"](name="constant")}
    return Member(member.recipe.model_copy(update=changes), member.data)


def _stacked(stack: Any, rates: Sequence[float]) -> Iterator[NDArray[np.float64]]:
    """The losses of all members of a stack, (K,) an update; NaN from where they blow up."""
    ends = [BlowUp() for _ in stack.members]
    stack.rates = _Swept(rates, len(stack.members))
    there = np.ones(len(ends), dtype=bool)
    with stack.surroundings():
        for _ in rates:
            stack.step()
            loss, _ = stack.pending.pop()
            own = loss.double().cpu().numpy()
            there &= [
                not (gone or end.seen(float(v))) for gone, end, v in zip(~there, ends, own, strict=True)
            ]
            if not there.any():
                return
            yield np.where(there, own, math.nan)
    stack.feed.close()


class _Swept:
    """Rates that are the same for all members, and neither momentum nor average of their own course."""

    def __init__(self, rates: Sequence[float], members: int) -> None:
        self.rates, self.nothing = rates, [None] * members

    def at(self, update: int, updates_per_epoch: int) -> Now:
        """Those of the next update."""
        rates = torch.full((len(self.nothing),), self.rates[update], dtype=torch.float64)
        return Now(rates, list(self.nothing), list(self.nothing))


def _alone(member: Member, rates: Sequence[float]) -> Iterator[float]:
    """The losses of one member, one after the other, up to where they blow up."""
    recipe, data = member.recipe, member.data
    device = choose_device(recipe.training.device)
    warn = isinstance(recipe.model, UserModel) or not products_repeat(device)
    begun = getattr(recipe.model, "from")
    with own_randomness(recipe.seed, device):
        run = Run(recipe, data, None if begun is None else source.find(begun))
        run.updates = len(rates)
        run.pace.schedule, run.pace.plateau = lambda place: rates[int(place)], None
        run.pace.momentum = run.pace.averaging = None
        run.network.train()
        blow_up = BlowUp()
        try:
            with same_arithmetic(run.is_small, warn):
                while run.update < len(rates):
                    loss = float(backward(run))
                    if blow_up.seen(loss):
                        return
                    yield loss
                    update(run)
                    run.update += 1
        finally:
            run.batches.close()
