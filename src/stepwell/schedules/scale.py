"""A schedule times a number."""

from stepwell.schedules.arguments import NOT_NEGATIVE, checked, function
from stepwell.schedules.schedule import Schedule


@checked(schedule=function, factor=NOT_NEGATIVE)
def scale(schedule: Schedule, factor: float) -> Schedule:
    """A schedule times a number.

    η(t) = factor · schedule(t)

    schedule: any. factor: ≥ 0. Useful for a group of weights that learns more slowly than the others.
    """
    return lambda step: factor * schedule(step)
