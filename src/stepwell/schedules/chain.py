"""The product of schedules."""

import math
from collections.abc import Sequence

from stepwell.schedules.arguments import checked, functions
from stepwell.schedules.schedule import Schedule


@checked(schedules=functions)
def chain(schedules: Sequence[Schedule]) -> Schedule:
    """The product of schedules, all at the same step.

    η(t) = schedules[0](t) · schedules[1](t) · …

    schedules: at least one, as a rule a rate and factors of it: `chain([cosine(η0, steps), step(1, every)])`.
    As `torch.optim.lr_scheduler.ChainedScheduler` where its parts multiply the rate; torch's is no product
    with one that sets the rate, such as CosineAnnealingWarmRestarts (pytorch issue 129565), or with eta_min.
    """
    return lambda step: math.prod(schedule(step) for schedule in schedules)
