"""The losses of members whose learning rate runs through given values: what a range test looks at."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from stepwell.nn.configs import UserModel
from stepwell.populations.member import Member
from stepwell.populations.range_test import BlowUp
from stepwell.populations.train import Stopped
from stepwell.progress import counted
from stepwell.recipe import choose_device
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
    losses = np.full((len(members), len(rates)), math.nan)
    with counted("range test", losses.size) as advance:
        for row, member in zip(losses, members, strict=True):
            for u, loss in enumerate(_losses(member, rates)):
                row[u] = loss
                advance(1)
                if interrupted():
                    raise Stopped
    return losses


def _losses(member: Member, rates: Sequence[float]) -> Iterator[float]:
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
