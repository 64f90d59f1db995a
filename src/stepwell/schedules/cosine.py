"""Cosine decay."""

import math

from stepwell.schedules.arguments import NOT_NEGATIVE, POSITIVE, checked
from stepwell.schedules.schedule import Schedule


@checked(value=NOT_NEGATIVE, steps=POSITIVE, end=NOT_NEGATIVE)
def cosine(value: float, steps: float, end: float = 0.0) -> Schedule:
    """From η0 to `end` along half a cosine.

    η(t) = end + (η0 − end) · (1 + cos(π t / steps)) / 2 for t ≤ steps, then `end`

    value: η0 ≥ 0. steps: above 0. end: ≥ 0. Source: Loshchilov & Hutter 2017 (SGDR), eq. 5, without
    restarts; as `torch.optim.lr_scheduler.CosineAnnealingLR(T_max=steps, eta_min=end)` up to `steps`.
    After that torch's rises again, which a run that is a little too long does not want; ours stays.
    """
    return lambda step: end + (value - end) * (1 + math.cos(math.pi * min(step / steps, 1.0))) / 2
