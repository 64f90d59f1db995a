"""Exponential decay."""

import math

from stepwell.schedules.schedule import Schedule


def exponential(value: float, rate: float) -> Schedule:
    """η(t) = η0 · e^(−k t), with k = `rate` per update; torch's ExponentialLR has gamma = e^(−k)."""
    return lambda step: value * math.exp(-rate * step)
