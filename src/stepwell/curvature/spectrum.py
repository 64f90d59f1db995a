"""A symmetric system solved in the basis of its eigenvectors."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def through_spectrum(H: Tensor, g: Tensor, curvature: Callable[[Tensor], Tensor]) -> Tensor:
    """x = Σᵢ vᵢ (vᵢᵀ g) / f(λᵢ) over the eigenpairs of H (n, n), with f = `curvature`.

    Where f(λᵢ) is 0 within the rounding of H, n · machine precision · max |λ|, x has no part along vᵢ: with
    f(λ) = λ that is the pseudo-inverse.
    """
    values, vectors = torch.linalg.eigh(H)
    bottom = curvature(values)
    flat = bottom.abs() <= len(g) * torch.finfo(H.dtype).eps * values.abs().max()
    parts = torch.where(flat, 0.0, vectors.T @ g) / torch.where(flat, 1.0, bottom)
    return vectors @ parts
