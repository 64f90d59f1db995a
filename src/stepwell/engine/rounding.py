"""Stochastic rounding to bfloat16: up or down by chance, in proportion to how near each neighbour is.

So that steps smaller than half a unit in the last place are not lost, but made now and then. The bits
depend on (step, parameter, element, which of its tensors) alone: the same on every engine and after a
resume. Source: Gupta et al. 2015, §3; the mixing function is Chris Wellons' lowbias32.
"""

from __future__ import annotations

import torch
from torch import Tensor

MIX = ((16, 0x7FEB352D), (15, 0x846CA68B), (16, 1))  # shift, factor
SALT = 0x9E3779B9
BITS = 0xFFFFFFFF
MEMBER = 0xC2B2AE35  # what the seeds of two members of a population differ by


def seed(step: int, parameter: int) -> int:
    """The seed of a parameter's update; parameters are numbered within their group."""
    return (step * 0x9E3779B1 + (parameter + 1) * 0x85EBCA6B) & BITS


def noise(seed: int, like: Tensor, salt: int) -> Tensor:
    """16 random bits for each element, in the order of memory (a dense copy's, if there are gaps)."""
    strides = torch.empty_like(like).stride()
    x = torch.arange(like.numel(), device=like.device) + seed + SALT * (salt + 1)
    for shift, factor in MIX:
        x &= BITS
        x = (x ^ (x >> shift)) * factor
    return ((x & BITS) >> 16).to(torch.int32).as_strided(like.shape, strides)


def to_bfloat16(x: Tensor, like: Tensor, seed: int, salt: int) -> Tensor:
    """Rounds float32 numbers; infinity and NaN stay. `like` is the tensor that gets them."""
    bits = x.float().contiguous().view(torch.int32)
    rounded = ((bits + noise(seed, like, salt)) & -0x10000).view(torch.float32)
    return torch.where(x.isfinite(), rounded, x).to(torch.bfloat16)
