"""A linear rise before any schedule."""

from stepwell.schedules.arguments import NOT_NEGATIVE, checked, function
from stepwell.schedules.schedule import Schedule


@checked(schedule=function, steps=NOT_NEGATIVE)
def warm_up(schedule: Schedule, steps: float) -> Schedule:
    """A linear rise to where the schedule begins, then the schedule from its own 0.

    η(t) = schedule(0) · (t + 1) / (steps + 1) for t < steps, then schedule(t − steps)

    schedule: any. steps: ≥ 0; 0 is no rise. Source: Goyal et al. 2017 (ImageNet in 1 hour), section 2.2.
    The first update has a rate above 0, so that no update is spent on nothing; torch's LinearLR with
    start_factor = 1 / (steps + 1) and total_iters = steps has the same values.
    """
    return lambda step: schedule(0) * (step + 1) / (steps + 1) if step < steps else schedule(step - steps)
