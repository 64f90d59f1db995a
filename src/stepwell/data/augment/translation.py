"""Shifting by parts of the side."""

from __future__ import annotations

import torch
from torch import Tensor

from stepwell.data.augment import affine
from stepwell.data.augment.draws import Draws, Stream


def translation(draws: Draws, size: tuple[int, int], *, share: float | Tensor) -> Tensor:
    """in = out − (right, down), uniform in ±share · width and ±share · height; the map (B, 2, 3).

    Shifts lie between pixels too; `crop` shifts by whole ones. torchvision's RandomAffine(translate=…)
    rounds to whole pixels.
    """
    height, width = size
    right = draws.between(Stream.TRANSLATION_RIGHT, -share, share) * width
    down = draws.between(Stream.TRANSLATION_DOWN, -share, share) * height
    none = torch.zeros_like(right)
    return affine.matrix(none + 1, none, -right, none, none + 1, -down)
