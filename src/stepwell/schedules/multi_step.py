"""Stepwise decay at given steps."""

from bisect import bisect_right
from collections.abc import Sequence

from stepwell.schedules.arguments import NOT_NEGATIVE, ascending, checked
from stepwell.schedules.schedule import Schedule


@checked(value=NOT_NEGATIVE, milestones=ascending, factor=NOT_NEGATIVE)
def multi_step(value: float, milestones: Sequence[float], factor: float = 0.1) -> Schedule:
    """Multiplies the value by a factor at each milestone.

    η(t) = η0 · factor^(number of milestones ≤ t)

    value: η0 ≥ 0. milestones: steps in order; one that is given twice counts twice. factor: ≥ 0. As
    `torch.optim.lr_scheduler.MultiStepLR(milestones, gamma=factor)`, which also takes them in disorder.
    """
    return lambda step: value * factor ** bisect_right(milestones, step)
