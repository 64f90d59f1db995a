"""The shapes along which a value goes from one to another, and curves made of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

from stepwell.schedules.schedule import Schedule

# From the share of the way that is gone, in [0, 1], to the share that is left of the difference.
SHAPES: dict[str, Callable[[float], float]] = {
    "linear": lambda gone: 1 - gone,
    "cosine": lambda gone: (1 + math.cos(math.pi * gone)) / 2,
    "1-sqrt": lambda gone: 1 - math.sqrt(gone),
}


def through(steps: Sequence[float], values: Sequence[float], shape: str) -> Schedule:
    """A curve that has these values at these steps, along `shape` between two; after the last it stays."""
    left = SHAPES[shape]
    stretches = list(pairwise(zip(steps, values, strict=True)))

    def at(step: float) -> float:
        here = next((stretch for stretch in stretches if step <= stretch[1][0]), stretches[-1])
        (start, a), (end, b) = here
        gone = min((step - start) / (end - start), 1.0) if end > start else float(step > end)
        return b + (a - b) * left(gone)

    return at
