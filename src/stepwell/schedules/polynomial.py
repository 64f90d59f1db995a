"""Polynomial decay."""

from stepwell.schedules.arguments import NOT_NEGATIVE, POSITIVE, checked
from stepwell.schedules.schedule import Schedule


@checked(value=NOT_NEGATIVE, steps=POSITIVE, power=POSITIVE, end=NOT_NEGATIVE)
def polynomial(value: float, steps: float, power: float = 2.0, end: float = 0.0) -> Schedule:
    """From η0 to `end` along a power of the share that is left.

    η(t) = end + (η0 − end) · (1 − t / steps)^power for t ≤ steps, then `end`

    value: η0 ≥ 0. steps: above 0. power: above 0; 1 is a line. end: ≥ 0. As
    `torch.optim.lr_scheduler.PolynomialLR(total_iters=steps, power=power)`, whose power is 1 by default
    and whose end is 0.
    """
    return lambda step: end + (value - end) * (1 - min(step / steps, 1.0)) ** power
