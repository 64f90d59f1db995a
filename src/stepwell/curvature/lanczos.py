"""Lanczos: the ends of a symmetric matrix's spectrum from its products with vectors."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from stepwell.errors import UserError

Product = Callable[[Tensor], Tensor]


class Krylov(NamedTuple):
    """H Qᵀ = Qᵀ T + β q_{m+1} e_mᵀ.

    Q: (m, n), orthonormal rows. T: (m, m), tridiagonal, float64. β: how much of H q_m lies outside them;
    0 where the rows span an invariant subspace.
    """

    Q: Tensor
    T: Tensor
    beta: float


class Eigenpairs(NamedTuple):
    """Ritz values, ascending, their vectors as rows, and how far each is from an eigenvalue at most."""

    values: Tensor  # (k,)
    vectors: Tensor  # (k, n)
    errors: Tensor  # (k,)


def lanczos(product: Product, start: Tensor, steps: int) -> Iterator[Krylov]:
    """The Krylov spaces of dimension 1, 2, … up to `steps`, each orthogonalized in full, a product each.

        r = H q_j;  α_j = q_jᵀ r;  r ← r − Qᵀ Q r (twice);  β_j = ‖r‖;  q_{j+1} = r / β_j

    Ends early when the space is invariant (β = 0 but for rounding).
    Source: Parlett 1998, "The Symmetric Eigenvalue Problem", sections 13.1 and 6.9 (twice is enough).
    Trap: without the full orthogonalization copies of converged eigenvalues appear; it takes m vectors.
    """
    n, steps = start.numel(), min(steps, start.numel())
    Q = start.new_empty(steps, n)
    T = torch.zeros(steps, steps, dtype=torch.float64)
    q, largest = start / start.norm(), 0.0
    for j in range(steps):
        Q[j] = q
        r = product(q)
        T[j, j] = float(q @ r)
        largest = max(largest, float(r.norm()))
        for _ in range(2):
            r = r - Q[: j + 1].T @ (Q[: j + 1] @ r)
        beta = float(r.norm())
        if not math.isfinite(beta):
            raise UserError("a product is not finite: is there a root or a norm of 0 in the loss?")
        if j + 1 == n or beta <= n**0.5 * torch.finfo(r.dtype).eps * largest:
            yield Krylov(Q[: j + 1], T[: j + 1, : j + 1], 0.0)
            return
        yield Krylov(Q[: j + 1], T[: j + 1, : j + 1], beta)
        if j + 1 < steps:
            T[j, j + 1] = T[j + 1, j] = beta
            q = r / beta


def eigenpairs(
    product: Product,
    like: Tensor,
    smallest: int = 1,
    largest: int = 1,
    *,
    steps: int = 100,
    tolerance: float = 1e-6,
    seed: int = 0,
) -> Eigenpairs:
    """The smallest and largest eigenvalues of a symmetric H, with vectors and error bounds.

        |θ − λ| ≤ ‖H y − θ y‖ = β_m |s_m| for some eigenvalue λ of H, y = Qᵀ s, T s = θ s

    product: v ↦ H v. like: any vector of H's length, type and device. smallest, largest: how many of each
    end. steps: products at most. tolerance: stops when each bound is below tolerance · max |θ|; where
    `steps` do not suffice, `errors` says what was reached. seed: of the random start.
    Returns fewer pairs when the start's Krylov space has fewer dimensions.
    Source: Lanczos 1950; Parlett 1998, theorem 4.5.1 and section 13.2.
    Trap: the bound is to *an* eigenvalue. θ_min is never below the smallest, but a start that hardly
    contains its vector finds it late; of a multiple eigenvalue one vector is found.
    """
    if smallest < 0 or largest < 0 or smallest + largest < 1 or steps < 1:
        raise UserError(f"smallest={smallest}, largest={largest}, steps={steps}: give counts of at least 1")
    draw = torch.Generator().manual_seed(seed)
    start = torch.randn(like.numel(), generator=draw, dtype=torch.float64).to(like)
    eps = torch.finfo(like.dtype).eps
    found: Any = None
    for Q, T, beta in lanczos(product, start, steps):
        theta, s = torch.linalg.eigh(T)
        m, scale = len(theta), float(theta.abs().max())
        ends = sorted({*range(min(smallest, m)), *range(max(m - largest, 0), m)})
        # Rounding adds to the residual; with its part the bound holds in the products' own precision.
        rounding = eps * (m + like.numel() ** 0.5) * scale
        errors = beta * s[-1, ends].abs() + rounding
        found = Q, theta[ends], s[:, ends], errors
        if m >= smallest + largest and bool((errors <= tolerance * scale + rounding).all()):
            break
    Q, theta, s, errors = found
    return Eigenpairs(theta.to(like), s.T.to(like) @ Q, errors.to(like))
