"""The product of schedules."""

import math
from collections.abc import Sequence

from stepwell.schedules.arguments import checked, functions
from stepwell.schedules.schedule import Schedule


@checked(schedules=functions)
def chain(schedules: Sequence[Schedule]) -> Schedule:
    """The product of schedules, all at the same step.

    η(t) = schedules[0](t) · schedules[1](t) · …

    schedules: at least one. As `torch.optim.lr_scheduler.ChainedScheduler` with one rate and factors of it:
    `chain([cosine(η0, steps), step(1, every)])`. torch's cannot chain a scheduler that sets the rate instead
    of multiplying it, such as CosineAnnealingWarmRestarts (pytorch issue 129565).
    """
    return lambda step: math.prod(schedule(step) for schedule in schedules)
