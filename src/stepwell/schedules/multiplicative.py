"""A value multiplied at every step by a factor of that step."""

import math

from stepwell.schedules.arguments import NOT_NEGATIVE, checked, function
from stepwell.schedules.schedule import Schedule


@checked(value=NOT_NEGATIVE, factor=function)
def multiplicative(value: float, factor: Schedule) -> Schedule:
    """The value before, times a factor of this step.

    η(0) = η0; η(t) = η(t − 1) · factor(t), so η(t) = η0 · factor(1) · … · factor(⌊t⌋)

    value: η0 ≥ 0. factor: function of the step, asked for 1, 2, … once each. As
    `torch.optim.lr_scheduler.MultiplicativeLR(factor)`.
    """
    products = [value]

    def at(step: float) -> float:
        # All products so far are kept, so that a run of n steps costs n factors, not n² / 2.
        for k in range(len(products), math.floor(step) + 1):
            products.append(products[-1] * factor(k))
        return products[math.floor(step)]

    return at
