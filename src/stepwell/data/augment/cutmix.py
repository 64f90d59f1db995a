"""A rectangle of another image."""

from __future__ import annotations

import torch
from torch import Tensor

from stepwell.data.augment.beta import Quantiles
from stepwell.data.augment.draws import Draws, Stream
from stepwell.data.augment.erasing import rectangle


def cutmix(
    x: Tensor, other: Tensor, draws: Draws, *, alpha: Quantiles, share: float | Tensor = 1.0
) -> tuple[Tensor, Tensor]:
    """Yun et al. 2019: x̃ = x outside of a rectangle and x' inside; returns x̃ and λ (B,) float32.

    The rectangle's sides are √(1 − λ) of the image's, λ ~ Beta(α, α), its center any pixel; what of it
    lies outside of the image is cut off. The λ returned is that of the real area: exactly 1 − area / (H W).
    other: x', the images' partners (see `partners`). share: of the images; the others have λ = 1.
    x: (B, C, H, W), of any type, which stays. The paper draws one rectangle a batch.
    """
    height, width = x.shape[-2:]
    lam = torch.where(draws.uniform(Stream.CUTMIX_SHARE) < share, alpha(draws.uniform(Stream.CUTMIX)), 1)
    side = (1 - lam).sqrt()
    top, bottom = _edges(draws.uniform(Stream.CUTMIX_DOWN), side, height)
    left, right = _edges(draws.uniform(Stream.CUTMIX_RIGHT), side, width)
    box = rectangle(top, left, bottom, right, (height, width))
    area = (bottom - top) * (right - left)
    return torch.where(box[:, None], other, x), (1 - area / (height * width)).to(torch.float32)


def _edges(u: Tensor, side: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Where the rectangle begins and ends along one side of the image, its center being pixel ⌊u · size⌋."""
    length = (size * side).round()
    start = (u * size).floor() - (length / 2).floor()
    return start.clamp(min=0), (start + length).clamp(max=size)
