"""Rectangles of random area and shape that always fit."""

from __future__ import annotations

import math

from torch import Tensor


def sides(area: Tensor, u: Tensor, aspect: float | Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Height and width (B,) in pixels of rectangles with this share of an image's area.

    width / height = r is log-uniform, u being its place, in [aspect, 1 / aspect] as far as the rectangle
    fits into the image: √(a H W r) ≤ W and √(a H W / r) ≤ H. The papers and torchvision draw until one fits,
    which takes as long as it takes and prefers small areas; here the area keeps its distribution.
    """
    least, most = (area * (width / height)).log(), -(area * (height / width)).log()  # of log r, to fit
    bound = -(aspect.log() if isinstance(aspect, Tensor) else math.log(aspect))
    low, high = least.clamp(min=-bound).minimum(most), most.clamp(max=bound).maximum(least)
    half = (low + u * (high - low)) / 2
    root = (area * (height * width)).sqrt()
    return root / half.exp(), root * half.exp()
