"""Cosine decay with warm restarts."""

import math

from stepwell.schedules.arguments import NOT_NEGATIVE, POSITIVE, checked, number
from stepwell.schedules.schedule import Schedule


@checked(value=NOT_NEGATIVE, first=POSITIVE, growth=number(least=1), end=NOT_NEGATIVE)
def restarts(value: float, first: float, growth: float = 1.0, end: float = 0.0) -> Schedule:
    """Falls from η0 towards `end` again and again, in cycles of growing length.

    η(t) = end + (η0 − end) · (1 + cos(π s / T)) / 2, s steps into a cycle of length T;
    T is `first` in the first cycle and `growth` times as long in each next one

    value: η0 ≥ 0. first: above 0. growth: ≥ 1. end: ≥ 0. Source: Loshchilov & Hutter 2017 (SGDR), eq. 5;
    as `torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(T_0=first, T_mult=growth, eta_min=end)`, which
    takes whole numbers only.
    """

    def at(step: float) -> float:
        place, length = (step % first if growth == 1 else step), first
        # Taking off one cycle after the other has no rounding for whole numbers; a logarithm has.
        while place >= length:
            place, length = place - length, length * growth
        return end + (value - end) * (1 + math.cos(math.pi * place / length)) / 2

    return at
