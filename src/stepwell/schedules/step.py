"""Stepwise decay at equal distances."""

import math

from stepwell.schedules.arguments import NOT_NEGATIVE, POSITIVE, checked
from stepwell.schedules.schedule import Schedule


@checked(value=NOT_NEGATIVE, every=POSITIVE, factor=NOT_NEGATIVE)
def step(value: float, every: float, factor: float = 0.1) -> Schedule:
    """Multiplies the value by a factor every so many steps.

    η(t) = η0 · factor^⌊t / every⌋

    value: η0 ≥ 0. every: steps between two cuts, above 0. factor: ≥ 0. As
    `torch.optim.lr_scheduler.StepLR(step_size=every, gamma=factor)`.
    """
    return lambda step: value * factor ** math.floor(step / every)
