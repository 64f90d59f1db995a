"""Conjugate gradients that stop at negative curvature."""

from __future__ import annotations

import torch
from torch import Tensor

from stepwell.curvature.lanczos import Product


def newton_direction(product: Product, g: Tensor, iterations: int, tolerance: float | None = None) -> Tensor:
    """A direction z with B z ≈ −g, downhill whatever the signs of B's eigenvalues.

        z = 0, r = g, d = −r;  repeat  α = rᵀr / dᵀBd;  z ← z + α d;  r⁺ = r + α B d;
        d ← −r⁺ + (r⁺ᵀr⁺ / rᵀr) d   until ‖r‖ ≤ ε ‖g‖

    and where dᵀBd ≤ 0 it stops: with z as it is, or with the first d if there is none yet.
    product: v ↦ B v. iterations: products at most. tolerance: ε; None is min(½, √‖g‖), with which
    Newton's method converges faster than linearly at the least cost.
    Source: Nocedal & Wright 2006, algorithm 7.1. Differences, by number in the code: (1) the first d is
    cut to rᵀr / |dᵀBd| d, where B with its sign turned has its minimum: a length that fits the problem's
    scale. (2) dᵀBd counts as 0 within its rounding, and then −g is returned as it is.
    """
    first, eps = float(g.norm()), torch.finfo(g.dtype).eps
    if first == 0:
        return torch.zeros_like(g)
    limit = first * (min(0.5, first**0.5) if tolerance is None else tolerance)
    z, r, d = torch.zeros_like(g), g, -g
    square, longest = float(r @ r), 0.0
    for j in range(iterations):
        Bd = product(d)
        curvature, size = float(d @ Bd), float(d.norm())
        longest = max(longest, float(Bd.norm()) / size)
        if curvature <= eps * longest * size**2:  # (2)
            if j > 0:
                return z
            return d * (square / -curvature) if curvature < -eps * longest * size**2 else d  # (1)
        alpha = square / curvature
        z, r = z + alpha * d, r + alpha * Bd
        square, before = float(r @ r), square
        if square**0.5 <= limit:
            break
        d = -r + (square / before) * d
    return z
