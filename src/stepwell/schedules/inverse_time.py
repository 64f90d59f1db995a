"""Decay with one over the time."""

from stepwell.schedules.arguments import NOT_NEGATIVE, checked
from stepwell.schedules.schedule import Schedule


@checked(value=NOT_NEGATIVE, rate=NOT_NEGATIVE)
def inverse_time(value: float, rate: float) -> Schedule:
    """Falls fast at first, then ever more slowly.

    η(t) = η0 / (1 + k t)

    value: η0 ≥ 0. rate: k per step, ≥ 0. The sum of all η(t) is infinite and that of all η(t)² finite, the
    conditions under which Robbins & Monro 1951 prove that SGD settles. torch has no class for it.
    """
    return lambda step: value / (1 + rate * step)
