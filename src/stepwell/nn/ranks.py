"""Sums over the processes of a distributed training, with gradients."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def count() -> int:
    """How many processes train together: 1 unless torch.distributed has been initialized."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def total(x: Tensor) -> Tensor:
    """Σ over all processes of x, the same tensor in each; every process must call it.

    Its gradient is the sum of the gradients of all processes, since each one's loss depends on every x.
    Works with any backend that reduces, gloo on CPUs as well as NCCL.
    """
    return _Total.apply(x)  # type: ignore[return-value]


class _Total(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return _reduced(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return _reduced(gradients[0])


def _reduced(x: Tensor) -> Tensor:
    x = x.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(x)
    return x
