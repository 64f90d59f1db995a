"""Linear falls again and again: the cyclical rate of stochastic weight averaging."""

from stepwell.schedules.arguments import NOT_NEGATIVE, POSITIVE, checked
from stepwell.schedules.schedule import Schedule


@checked(value=NOT_NEGATIVE, length=POSITIVE, end=NOT_NEGATIVE)
def sawtooth(value: float, length: float, end: float = 0.0) -> Schedule:
    """Falls from η0 along a line towards `end`, and starts anew, in cycles of equal length.

    η(t) = η0 + (end − η0) · (t mod length) / length

    value: η0 ≥ 0. length: steps, above 0. end: ≥ 0. Source: Izmailov et al. 2018, section 3.1, where the last
    step of a cycle has the rate `end` itself; as `torch.optim.lr_scheduler.CyclicLR` has it for a rise of 0.
    """
    return lambda step: value + (end - value) * (step % length) / length
