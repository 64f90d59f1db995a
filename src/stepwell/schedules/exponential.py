"""Exponential decay."""

import math

from stepwell.schedules.arguments import FINITE, NOT_NEGATIVE, checked
from stepwell.schedules.schedule import Schedule


@checked(value=NOT_NEGATIVE, rate=FINITE)
def exponential(value: float, rate: float) -> Schedule:
    """The same relative decay at every step.

    η(t) = η0 · e^(−k t)

    value: η0 ≥ 0. rate: k per step; below 0 the value grows. As `torch.optim.lr_scheduler.ExponentialLR`
    with gamma = e^(−k): give k, not gamma.
    """
    return lambda step: value * math.exp(-rate * step)
