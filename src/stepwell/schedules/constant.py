"""A value that stays."""

from stepwell.schedules.arguments import NOT_NEGATIVE, checked
from stepwell.schedules.schedule import Schedule


@checked(value=NOT_NEGATIVE)
def constant(value: float) -> Schedule:
    """The same value at every step.

    η(t) = η0

    value: η0 ≥ 0. torch's ConstantLR(factor, total_iters), which is two constants, is
    `join([constant(factor · η0), constant(η0)], [total_iters])`.
    """
    return lambda step: value
