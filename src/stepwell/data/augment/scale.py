"""Enlarging and shrinking about the center."""

from __future__ import annotations

import torch
from torch import Tensor

from stepwell.data.augment import affine
from stepwell.data.augment.draws import Draws, Stream


def scale(
    draws: Draws, size: tuple[int, int], *, low: float | Tensor, high: float | Tensor | None = None
) -> Tensor:
    """in = out / s, s log-uniform in [low, high], high = 1 / low where not given; the map (B, 2, 3).

    s > 1 enlarges, s < 1 shrinks, and both are equally likely where high = 1 / low. torchvision's
    RandomAffine(scale=…) draws s itself uniform.
    """
    s = draws.log_uniform(Stream.SCALE, low, 1 / low if high is None else high)
    none = torch.zeros_like(s)
    return affine.matrix(1 / s, none, none, none, 1 / s, none)
