"""Warm-up, a long stretch of one value, decay."""

from typing import Literal

from stepwell.schedules.arguments import NOT_NEGATIVE, POSITIVE, checked, one_of
from stepwell.schedules.constant import constant
from stepwell.schedules.join import join
from stepwell.schedules.schedule import Schedule
from stepwell.schedules.shapes import SHAPES, through
from stepwell.schedules.warm_up import warm_up


@checked(
    value=NOT_NEGATIVE,
    rise=NOT_NEGATIVE,
    stable=NOT_NEGATIVE,
    decay=POSITIVE,
    shape=one_of(*SHAPES),
    end=NOT_NEGATIVE,
)
def warm_up_stable_decay(
    value: float,
    rise: float,
    stable: float,
    decay: float,
    shape: Literal["linear", "cosine", "1-sqrt"] = "1-sqrt",
    end: float = 0.0,
) -> Schedule:
    """A linear rise, η0 for most of the run, and a fall at its end.

    η(t) = η0 · (t + 1) / (rise + 1) for t < rise, η0 for `stable` steps, then in `decay` steps
    η(t) = end + (η0 − end) · left(s), s the share of the decay that is gone:
    left(s) is 1 − s (linear), (1 + cos π s) / 2 (cosine), 1 − √s (1-sqrt); then `end`

    value: η0 ≥ 0. rise, stable: steps ≥ 0. decay: steps above 0. end: ≥ 0. Source: Hu et al. 2024 (MiniCPM),
    section 4; 1-sqrt is that of Hägele et al. 2024 (Scaling laws … beyond fixed training durations).
    The decay alone needs the run's length: until it begins, a run can be made longer.
    """
    fall = through([0.0, decay], [value, end], shape)
    return warm_up(join([constant(value), fall], [stable]), rise)
