"""A value that stays."""

from stepwell.schedules.schedule import Schedule


def constant(value: float) -> Schedule:
    """η(t) = η0"""
    return lambda step: value
