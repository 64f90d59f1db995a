"""A straight line."""

from stepwell.schedules.arguments import NOT_NEGATIVE, POSITIVE, checked
from stepwell.schedules.schedule import Schedule


@checked(value=NOT_NEGATIVE, steps=POSITIVE, end=NOT_NEGATIVE)
def linear(value: float, steps: float, end: float = 0.0) -> Schedule:
    """From η0 to `end` along a line, up or down.

    η(t) = η0 + (end − η0) · t / steps for t ≤ steps, then `end`

    value: η0 ≥ 0. steps: above 0. end: ≥ 0. torch's LinearLR(start_factor, end_factor, total_iters) is
    `linear(start_factor · η, total_iters, end_factor · η)`.
    """
    return lambda step: value + (end - value) * min(step / steps, 1.0)
