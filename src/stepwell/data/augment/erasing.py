"""A rectangle of the image is wiped out."""

from __future__ import annotations

import torch
from torch import Tensor

from stepwell.data.augment.boxes import sides
from stepwell.data.augment.draws import Draws, Stream, computed, of_each, returned
from stepwell.data.augment.units import Units


def erasing(
    x: Tensor,
    draws: Draws,
    units: Units,
    *,
    share: float | Tensor,
    low: float | Tensor = 0.02,
    high: float | Tensor = 1 / 3,
    aspect: float | Tensor = 0.3,
    value: str = "mean",
) -> Tensor:
    """Zhong et al. 2020, algorithm 1, on the share of the images (B, C, H, W) whose u < share.

    The rectangle has an area uniform in [low, high] of the image's, before its sides are rounded to whole
    pixels, at least one; a ratio of sides log-uniform in [aspect, 1 / aspect] as far as it fits; and any
    place in the image. value: the training part's mean, which is 0 after standardization; 0 in the data's
    own units; or noise, normal with the training part's mean and deviation at every number (the paper has
    uniform numbers). zero keeps uint8, the others make it float32. torchvision's RandomErasing(p, scale,
    ratio) draws until a rectangle fits, ten times at most.
    """
    height, width = x.shape[-2:]
    area = draws.between(Stream.ERASING_AREA, low, high)
    h, w = sides(area, draws.uniform(Stream.ERASING_ASPECT), aspect, height, width)
    h, w = h.round().clamp(1, height), w.round().clamp(1, width)
    top = (draws.uniform(Stream.ERASING_DOWN) * (height - h + 1)).floor()
    left = (draws.uniform(Stream.ERASING_RIGHT) * (width - w + 1)).floor()
    gone = rectangle(top, left, top + h, left + w, (height, width))
    gone = gone & of_each(draws.uniform(Stream.ERASING) < share, gone)
    if value == "zero":
        return torch.where(gone[:, None], 0, x)
    put: float | Tensor = units.mean
    if value == "noise":
        put = units.mean + units.sd * draws.normal(Stream.ERASING_NOISE, tuple(x.shape[1:]))
    return returned(torch.where(gone[:, None], put, computed(x)), x)


def rectangle(top: Tensor, left: Tensor, bottom: Tensor, right: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, H, W): true in rows top … bottom − 1 and columns left … right − 1, of (B,) each."""
    rows = torch.arange(size[0], device=top.device)
    columns = torch.arange(size[1], device=top.device)
    down = (rows >= top[:, None]) & (rows < bottom[:, None])
    across = (columns >= left[:, None]) & (columns < right[:, None])
    return down[:, :, None] & across[:, None, :]
