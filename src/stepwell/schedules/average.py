"""How much of the average of the weights an update keeps, so that all its points weigh alike."""

from __future__ import annotations

import math

from stepwell.schedules.arguments import NOT_NEGATIVE, checked, number
from stepwell.schedules.schedule import Schedule


@checked(start=NOT_NEGATIVE, every=number(least=1))
def average(start: float = 0.0, every: float = 1.0) -> Schedule:
    """The share ε(t) of an average a ← ε a + (1 − ε) w that makes a the mean of every `every`-th w.

    ε = 1 − 1/n at the n-th point, n = 1, 2, …, so that a = (w₁ + … + wₙ) / n; 1 between two points, where a
    stays; 0 before the first, where a is w itself.

    t counts the updates made before the present one. start: updates after which the first point is taken,
    the weights of update `start` (of the first, at 0 and 1). every: updates between two points, ≥ 1; the
    points are the updates start + ⌊k · every⌉, k = 0, 1, …

    Given as an optimizer's `ema`, it is the Polyak average of all weights after `start` (Polyak & Juditsky
    1992), or with `every` the length of a cycle of the rate, stochastic weight averaging (Izmailov et al.
    2018, algorithm 1): the same pass over memory as ever.

    >>> [average(start=2, every=2)(t) for t in range(6)]
    [0.0, 0.0, 1.0, 0.5, 1.0, 0.6666666666666667]
    """
    first = max(round(start), 1)

    def at(step: float) -> float:
        now = math.floor(step) + 1  # the update that is being made
        if now < first:
            return 0.0
        points = round((now - first) / every)  # the point nearest to it, counted from 0
        if round(points * every) + first != now:
            return 1.0
        return 1 - 1 / (points + 1)

    return at
