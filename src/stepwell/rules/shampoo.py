"""Shampoo: Adagrad with a matrix for each dimension of the tensor."""

from __future__ import annotations

from functools import cache, partial

from torch import Tensor

from stepwell.rules.kronecker import along, eigen, gram, new, pack, unpack
from stepwell.rules.rule import Rule, State


def shampoo(
    w: Tensor,
    g: Tensor,
    grams: Tensor,
    roots: Tensor,
    *,
    t: int,
    lr: float,
    eps: float,
    precondition_frequency: int,
    largest: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """For a matrix: L ← L + G Gᵀ;  R ← R + Gᵀ G;  w ← w − η (L + εI)^(−1/4) G (R + εI)^(−1/4)

    and for a tensor of k dimensions: along each one, X Xᵀ is added up, where the rows of X are the slices
    of g, and g is multiplied with the inverse 2k-th root of the sum. A dimension longer than `largest`
    has the diagonal of its matrix alone. The roots come from an eigendecomposition in float64, made anew
    at step 1 and every `precondition_frequency` steps; so t is compared, and a GradScaler's is waited for.

    torch.optim does not have it.

    Source: Gupta et al. 2018, Algorithm 2; the diagonal is that of their section 5.
    """
    sides, x = _sides(w, largest), g.reshape(g.shape or (1,))
    sums = [s + _gram(x, i, s) for i, s in enumerate(unpack(grams, sides)) if s is not None]
    if (t - 1) % precondition_frequency == 0:
        roots = pack([_root(s, eps, -0.5 / x.dim()) for s in sums], roots)
    for i, root in enumerate(unpack(roots, sides)):
        assert root is not None
        x = along(x, root, i) if root.dim() == 2 else (x.movedim(i, -1) * root).movedim(-1, i)
    return w - lr * x.reshape(w.shape).to(w.dtype), pack(sums, grams), roots


def _sides(w: Tensor, largest: int) -> list[tuple[int, ...]]:
    return [(n, n) if n <= largest else (n,) for n in w.shape or (1,)]


def _gram(x: Tensor, dimension: int, like: Tensor) -> Tensor:
    if like.dim() == 2:
        return gram(x, dimension)
    return (x * x).movedim(dimension, 0).reshape(x.shape[dimension], -1).sum(1)


def _root(s: Tensor, eps: float, power: float) -> Tensor:
    """(s + εI)^power; eigenvalues that came out below 0 by rounding count as 0."""
    if s.dim() == 1:
        return (s + eps) ** power
    values, vectors = eigen(s)
    return vectors * (values.clamp(min=0) + eps) ** power @ vectors.T


@cache
def shampoo_rule(largest: int) -> Rule:
    """Shampoo with whole matrices for dimensions of at most this length."""

    def start(w: Tensor) -> Tensor:
        return new(w, _sides(w, largest))

    return Rule(
        "shampoo",
        partial(shampoo, largest=largest),
        (State("preconditioners", start), State("inverse_roots", start)),
        {"lr": 0.1, "eps": 1e-4, "precondition_frequency": 1},
        elementwise=False,
        matrices=True,
    )


SHAMPOO = shampoo_rule(1024)
