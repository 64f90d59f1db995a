"""A linear rise before any schedule."""

from stepwell.schedules.schedule import Schedule


def warm_up(schedule: Schedule, steps: float) -> Schedule:
    """η(t) = schedule(0) · (t + 1) / (steps + 1) for t < steps, then schedule(t − steps).

    The first update has a rate above 0, so that no update is spent on nothing.
    """
    return lambda step: schedule(0) * (step + 1) / (steps + 1) if step < steps else schedule(step - steps)
