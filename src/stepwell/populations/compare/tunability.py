"""How wide the range of a key is in which an entry is about as good as at its best."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

TOLERANCE = 0.01  # of the best value; of a share, as accuracy is one, a whole percentage point


def tunability(
    values: Sequence[float], means: Sequence[float | None], higher: bool, share: bool
) -> dict[str, Any] | None:
    """The tried values around the best one whose mean validation metric is within 1 % of the best.

    values: ascending, as tried. means: the metric at each, None where a run failed. higher: the metric is
    the better the higher. share: the metric is a share in [0, 1], of which 1 % is 0.01; else it is a
    hundredth of the best.
    Returns {"low", "high", "decades"}: the first and last of the tried values that are within 1 % without a
    gap, and log₁₀(high/low), None where low is not above 0. None where no value has a mean.

    The trap: between tried values nothing is known, so that a single good one has 0 decades.
    """
    found = {k: mean for k, mean in enumerate(means) if mean is not None and math.isfinite(mean)}
    if not found:
        return None
    best = (max if higher else min)(found, key=lambda k: found[k])
    slack = TOLERANCE * (1.0 if share else abs(found[best]))

    def near(k: int) -> bool:
        return k in found and abs(found[k] - found[best]) <= slack * (1 + 1e-9)

    low = high = best
    while near(low - 1):
        low -= 1
    while near(high + 1):
        high += 1
    first, last = values[low], values[high]
    return {"low": first, "high": last, "decades": math.log10(last / first) if first > 0 else None}
