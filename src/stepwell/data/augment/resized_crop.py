"""A window of random area and shape, brought back to the image's size."""

from __future__ import annotations

import torch
from torch import Tensor

from stepwell.data.augment import affine
from stepwell.data.augment.boxes import sides
from stepwell.data.augment.draws import Draws, Stream


def resized_crop(
    draws: Draws,
    size: tuple[int, int],
    *,
    low: float | Tensor,
    high: float | Tensor = 1.0,
    aspect: float | Tensor = 0.75,
) -> Tensor:
    """in = (window's center) + out · (window's side) / (image's side); returns the map (B, 2, 3).

    The window has a share of the area uniform in [low, high] and a ratio of its sides log-uniform in
    [aspect, 1 / aspect], as far as it fits; its place is uniform over all where it lies in the image.
    Szegedy et al. 2015, §6 (low = 0.08, aspect = 3/4); torchvision's RandomResizedCrop, but that places
    here may lie between pixels, and that a window that does not fit is reshaped, not drawn again.
    """
    height, width = size
    area = draws.between(Stream.WINDOW_AREA, low, high)
    h, w = sides(area, draws.uniform(Stream.WINDOW_ASPECT), aspect, height, width)
    x = (draws.uniform(Stream.WINDOW_RIGHT) - 0.5) * (width - w)  # of the window's center, from the image's
    y = (draws.uniform(Stream.WINDOW_DOWN) - 0.5) * (height - h)
    none = torch.zeros_like(area)
    return affine.matrix(w / width, none, x, none, h / height, y)
