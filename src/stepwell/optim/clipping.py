"""Gradient clipping, for the optimizers and for loops of one's own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor


def unit_norms(x: Tensor) -> Tensor:
    """Norms of a weight's units: of each row of a matrix or filter of a convolution (first dimension kept,
    the others 1 long), of the whole for a vector or scalar."""
    if x.dim() < 2:
        return torch.linalg.vector_norm(x)
    return torch.linalg.vector_norm(x, dim=tuple(range(1, x.dim())), keepdim=True)


def clipped_by_unit(
    weights: Iterable[Tensor], gradients: Sequence[Tensor | None], share: float | Tensor, eps: float = 1e-3
) -> list[Tensor | None]:
    """New gradients whose units are no longer than `share` of their weights' units.

    g ← g · min(1, share · max(‖w‖, eps) / ‖g‖), unit by unit (see `unit_norms`). share > 0; eps ≥ 0 lets
    weights that start at 0 move. None stays None, and the gradients given are not changed.

    Source: Brock et al. 2021 (NFNets), eq. 3, with the paper's eps of 1e-3.
    """
    clipped: list[Tensor | None] = []
    with torch.no_grad():
        for w, g in zip(weights, gradients, strict=True):
            if g is None:
                clipped.append(None)
                continue
            limit = share * unit_norms(w).clamp(min=eps)
            clipped.append(g * (limit / unit_norms(g).clamp(min=1e-12)).clamp(max=1.0))
    return clipped
