"""Stepwise decay."""

import math

from stepwell.schedules.schedule import Schedule


def step(value: float, every: float, factor: float = 0.1) -> Schedule:
    """η(t) = η0 · factor^⌊t / every⌋; as `torch.optim.lr_scheduler.StepLR`."""
    return lambda step: value * factor ** math.floor(step / every)
