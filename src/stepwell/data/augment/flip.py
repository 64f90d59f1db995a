"""Mirroring left to right."""

from __future__ import annotations

import torch
from torch import Tensor

from stepwell.data.augment.draws import Draws, Stream, of_each


def flip(x: Tensor, draws: Draws, *, share: float | Tensor) -> Tensor:
    """x[…, ::-1] for the share of the images (B, C, H, W) whose u < share; the others stay as they are."""
    return torch.where(of_each(draws.uniform(Stream.FLIP) < share, x), x.flip(-1), x)
