"""What lies beyond an image's border."""

from __future__ import annotations

import torch
from torch import Tensor


def inside(place: Tensor, size: int, fill: str) -> Tensor:
    """Folds places into [0, size − 1], whole or between pixels.

    mirror: the image's mirror; the border itself is not repeated. edge, zero: the nearest place in it.
    """
    if fill != "mirror":
        return place.clamp(0, size - 1)
    if size == 1:
        return torch.zeros_like(place)
    place = place.remainder(2 * (size - 1))
    return torch.minimum(place, 2 * (size - 1) - place)
