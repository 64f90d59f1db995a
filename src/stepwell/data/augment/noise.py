"""Normal noise."""

from __future__ import annotations

from torch import Tensor

from stepwell.data.augment.draws import Draws, Stream, computed, returned
from stepwell.data.augment.units import Units


def noise(x: Tensor, draws: Draws, units: Units, *, sd: float | Tensor) -> Tensor:
    """x + sd · σ · n, n standard normal, σ the inputs' standard deviation; x (B, …) of any shape.

    Returns float32 for uint8, else x's type; values may leave the pixels' range. For a linear model and
    squared errors its mean effect is that of weight decay (Bishop 1995).
    """
    n = draws.normal(Stream.NOISE, tuple(x.shape[1:]))
    return returned(computed(x) + sd * n * units.sd, x)
