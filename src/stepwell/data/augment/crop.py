"""A window of the image's own size out of the padded image: a shift by whole pixels."""

from __future__ import annotations

import torch
from torch import Tensor

from stepwell.data.augment.borders import inside
from stepwell.data.augment.draws import Draws, Stream, of_each


def crop(x: Tensor, draws: Draws, *, pad: int | Tensor, fill: str = "mirror") -> Tensor:
    """out[i, j] = x[i + down, j + right] with down and right uniform in {−pad, …, pad}, each by itself.

    x: (B, C, H, W), of any type, which stays: pixels are moved, not computed. Beyond the border there is
    its mirror, the nearest edge, or 0 in the data's own units (black, for pixels from 0 to 255).
    He et al. 2016, §4.2 (pad=4, zero, for images of 32 × 32); torchvision's RandomCrop(size, padding).
    """
    height, width = x.shape[-2:]
    down = (draws.uniform(Stream.DOWN) * (2 * pad + 1)).long() - pad  # (B,)
    right = (draws.uniform(Stream.RIGHT) * (2 * pad + 1)).long() - pad
    rows = down[:, None] + torch.arange(height, device=x.device)  # (B, H)
    columns = right[:, None] + torch.arange(width, device=x.device)  # (B, W)
    every = of_each(torch.arange(len(x), device=x.device), x[:, 0])
    i, j = inside(rows, height, fill)[:, :, None], inside(columns, width, fill)[:, None, :]
    out = x.permute(0, 2, 3, 1)[every, i, j].permute(0, 3, 1, 2).contiguous()
    if fill != "zero":
        return out
    there = ((rows >= 0) & (rows < height))[:, None, :, None]
    return out * (there & ((columns >= 0) & (columns < width))[:, None, None, :])
