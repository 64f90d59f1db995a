"""Trains a population: members of one shape together, the others one after the other."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from stepwell.population.alone import Alone
from stepwell.population.member import Member, Outcome
from stepwell.progress import Progress
from stepwell.training.reproducible import undisturbed

# At a rung: the update, and the validation loss of each member that is still there → those who go on.
Keep = Callable[[int, dict[int, float]], Collection[int]]


@undisturbed()
def train(
    members: Sequence[Member],
    *,
    folder: Path | None = None,
    rungs: Sequence[int] = (),
    keep: Keep | None = None,
    weights: bool = False,
    interrupted: Callable[[], bool] = lambda: False,
) -> list[Outcome]:
    """Trains every member and returns how each ended, in their order.

    folder: where the state is kept, so that the same call goes on after a kill, with the same end; None: in
    memory alone. rungs, keep: at each of these updates `keep` is asked who goes on; the others are given up.
    weights: put the delivered weights into the outcomes. interrupted: asked now and then; once it is true,
    the state is saved and `Stopped` raised.

    A member's end is that of its recipe trained alone, but for rounding, whoever the others are; one that
    diverges is reported and no longer trained, and the others go on untouched.
    """
    groups: list[Any] = [Alone(number, member) for number, member in enumerate(members)]
    ends = [*sorted(rungs), math.inf]
    found: dict[int, Outcome] = {}
    state = {"fraction": 0.0, "text": f"{len(members)} models"}
    with Progress(lambda: state, after=2.0):
        for rung in ends:
            for place, group in enumerate(groups):
                group.run_to(rung, interrupted)
                if interrupted():
                    raise Stopped
                if rung == math.inf:
                    found |= group.outcomes(weights)
                state["fraction"] = (place + 1) / len(groups)
            if keep is not None and rung != math.inf:
                _select(groups, rung, keep)
    return [found[number] for number in range(len(members))]


class Stopped(Exception):
    """The training of a population was interrupted; what is saved goes on with the same call."""


def _select(groups: list[Any], rung: int, keep: Keep) -> None:
    """Gives up those whom `keep` does not name."""
    losses = {}
    for group in groups:
        losses |= group.losses()
    going = set(keep(rung, losses))
    for group in groups:
        for number in list(group.numbers):
            if number in losses and number not in going:
                group.leave(number)
