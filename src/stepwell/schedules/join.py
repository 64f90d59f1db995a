"""Schedules one after the other."""

from bisect import bisect_right
from collections.abc import Sequence

from stepwell.errors import UserError
from stepwell.schedules.arguments import ascending, checked, functions
from stepwell.schedules.schedule import Schedule


@checked(schedules=functions, boundaries=ascending)
def join(schedules: Sequence[Schedule], boundaries: Sequence[float]) -> Schedule:
    """One schedule after the other, each beginning at its own 0.

    η(t) = schedules[i](t − boundaries[i − 1]) for boundaries[i − 1] ≤ t < boundaries[i]

    schedules: at least one. boundaries: steps in order, one fewer than schedules; between two that are
    equal, no step is left. As `torch.optim.lr_scheduler.SequentialLR`, but for where torch's parts disturb
    each other: one inside another (pytorch issue 196243), a OneCycleLR, which moves the first rate of all
    parts, and a MultiplicativeLR, which goes on from the rate before it.
    """
    if len(boundaries) != len(schedules) - 1:
        raise UserError(
            f"join: {len(schedules)} schedules need {len(schedules) - 1} boundaries, not {len(boundaries)}"
        )
    starts = [0.0, *boundaries]

    def at(step: float) -> float:
        i = bisect_right(boundaries, step)
        return schedules[i](step - starts[i])

    return at
