"""Affine maps of images: matrices are multiplied, the image is interpolated once.

A matrix (B, 2, 3), float64, says where an output pixel's value comes from: with (x, y) to the right and
down in pixels from the image's center, in = M[:, :, :2] · out + M[:, :, 2].
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from stepwell.data.augment.borders import inside
from stepwell.data.augment.draws import computed, returned


def matrix(a: Tensor, b: Tensor, c: Tensor, d: Tensor, e: Tensor, f: Tensor) -> Tensor:
    """x ← a x + b y + c; y ← d x + e y + f; of (B,) each."""
    return torch.stack([a, b, c, d, e, f], -1).view(-1, 2, 3)


def compose(first: Tensor, then: Tensor) -> Tensor:
    """The map of an image that is changed by `first` and the result by `then`: in = first(then(out)).

    Written out: a matrix product may round otherwise in a batch of another size.
    """
    columns = [first[:, :, 0] * then[:, 0, k, None] + first[:, :, 1] * then[:, 1, k, None] for k in range(3)]
    columns[2] = columns[2] + first[:, :, 2]
    return torch.stack(columns, -1)


def warp(x: Tensor, m: Tensor, *, fill: str = "mirror") -> Tensor:
    """Fetches every pixel of x (B, C, H, W) from where m (B, 2, 3) says, by bilinear interpolation.

    Returns float32 for uint8, else x's type. As PIL's Image.transform(AFFINE, BILINEAR), but that it
    cuts values off to whole numbers: a place counts as inside up to half a pixel around the outermost pixels'
    centers. Shrinking skips pixels (no antialiasing), as in torchvision's RandomAffine.
    """
    height, width = x.shape[-2:]
    m = m.to(torch.float32)[:, :, :, None, None]  # (B, 2, 3, 1, 1)
    right = torch.arange(width, device=x.device) - (width - 1) / 2  # (W,)
    down = (torch.arange(height, device=x.device) - (height - 1) / 2)[:, None]  # (H, 1)
    column = m[:, 0, 0] * right + m[:, 0, 1] * down + m[:, 0, 2] + (width - 1) / 2  # (B, H, W)
    row = m[:, 1, 0] * right + m[:, 1, 1] * down + m[:, 1, 2] + (height - 1) / 2
    i, j = (inside(place, size, fill) for place, size in ((row, height), (column, width)))
    # torch wants places as parts of the sides, between −1 and 1. Of sides that are powers of two these are
    # exact, so that pixels which land on pixels are not blended with their neighbors.
    high, wide = (1 << (side - 1).bit_length() for side in (height, width))
    values = F.pad(computed(x), (0, wide - width, 0, high - height))
    grid = torch.stack([(2 * j + 1) / wide - 1, (2 * i + 1) / high - 1], -1)  # (B, H, W, 2)
    out = F.grid_sample(values, grid.to(values.dtype), "bilinear", "border", align_corners=False)
    if fill == "zero":
        there = (row >= -0.5) & (row <= height - 0.5) & (column >= -0.5) & (column <= width - 0.5)
        out = out * there[:, None]
    return returned(out, x)
