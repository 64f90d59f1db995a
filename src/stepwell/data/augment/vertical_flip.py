"""Mirroring top to bottom."""

from __future__ import annotations

import torch
from torch import Tensor

from stepwell.data.augment.draws import Draws, Stream, of_each


def vertical_flip(x: Tensor, draws: Draws, *, share: float | Tensor) -> Tensor:
    """x[…, ::-1, :] for the share of the images (B, C, H, W) whose u < share; the others stay as they are.

    The trap: few things mean the same upside down. A 6 becomes a mirrored 9.
    """
    return torch.where(of_each(draws.uniform(Stream.VERTICAL_FLIP) < share, x), x.flip(-2), x)
