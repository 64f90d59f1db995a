"""Turning about the center."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from stepwell.data.augment import affine
from stepwell.data.augment.draws import Draws, Stream


def rotation(draws: Draws, size: tuple[int, int], *, degrees: float | Tensor) -> Tensor:
    """Turns by θ uniform in [−degrees, degrees), counterclockwise where θ > 0; the map (B, 2, 3)."""
    return by(draws.between(Stream.ROTATION, -degrees, degrees))


def by(degrees: Tensor) -> Tensor:
    """x ← x cos θ − y sin θ; y ← x sin θ + y cos θ, from output to input, y pointing down.

    torchvision's RandomRotation, PIL's Image.rotate. The trap: corners are lost, and what stands in
    their place comes from `fill`.
    """
    angle = degrees * (math.pi / 180)
    cos, sin, none = angle.cos(), angle.sin(), torch.zeros_like(angle)
    return affine.matrix(cos, -sin, none, sin, cos, none)
