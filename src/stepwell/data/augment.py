"""Augmentation of whole batches, drawn per sample from (seed, epoch, sample)."""

from __future__ import annotations

import torch
from torch import Tensor

from stepwell.data import counter

_FLIP, _DOWN, _RIGHT, _NOISE = 1, 2, 3, 4  # one stream of random numbers each


def augment(
    x: Tensor, sample: Tensor, seed: int, *, flip: float, crop: int, noise: float, sd: Tensor | None
) -> Tensor:
    """Returns a changed copy of the batch x (B, …); images are (B, C, H, W).

    sample: (B,) the samples' numbers; seed: differs from epoch to epoch. flip: probability of
    mirroring left to right. crop: a window of the image's own size, shifted by up to `crop` pixels
    each way over an image padded with its border's mirror. noise: normal, in units of `sd`, the
    inputs' standard deviation (broadcastable to one sample).
    """
    if crop:
        x = _crop(x, sample, seed, crop)
    if flip:
        mirrored = counter.uniform(counter.key(seed, _FLIP), sample) < flip
        x = torch.where(mirrored.view(-1, *[1] * (x.dim() - 1)), x.flip(-1), x)
    if noise:
        size = x[0].numel()
        number = sample[:, None] * size + torch.arange(size, device=x.device)  # (B, size)
        drawn = counter.normal(counter.key(seed, _NOISE), number).to(torch.float32).view(x.shape)
        x = x.to(torch.float32) + noise * drawn * (1.0 if sd is None else sd)
    return x


def _crop(x: Tensor, sample: Tensor, seed: int, pad: int) -> Tensor:
    batch, _, height, width = x.shape
    down = (counter.uniform(counter.key(seed, _DOWN), sample) * (2 * pad + 1)).long() - pad  # (B,)
    right = (counter.uniform(counter.key(seed, _RIGHT), sample) * (2 * pad + 1)).long() - pad
    rows = _mirror(down[:, None] + torch.arange(height, device=x.device), height)  # (B, H)
    columns = _mirror(right[:, None] + torch.arange(width, device=x.device), width)  # (B, W)
    every = torch.arange(batch, device=x.device)[:, None, None]
    return (
        x.permute(0, 2, 3, 1)[every, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()
    )


def _mirror(place: Tensor, size: int) -> Tensor:
    """Folds places outside [0, size) back at the border, which is not repeated."""
    period = max(2 * (size - 1), 1)
    place = place.remainder(period)
    return torch.minimum(place, period - place) if size > 1 else place * 0
