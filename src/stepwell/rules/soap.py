"""SOAP: Adam in the eigenbasis of Shampoo's matrices."""

from __future__ import annotations

from functools import cache, partial

import torch
from torch import Tensor

from stepwell.rules.kronecker import Matrix, along, eigen, gram, new, pack, unpack
from stepwell.rules.rule import Rule, State
from stepwell.rules.words import moment, select, sqrt


def soap(
    w: Tensor,
    g: Tensor,
    m: Tensor,
    v: Tensor,
    grams: Tensor,
    bases: Tensor,
    *,
    t: int,
    lr: float,
    beta1: float,
    beta2: float,
    shampoo_beta: float,
    eps: float,
    weight_decay: float,
    precondition_frequency: int,
    largest: int,
    vectors: bool,
) -> tuple[Tensor, ...]:
    """m ← β1 m + (1−β1) g;  v ← β2 v + (1−β2) ĝ²;  w ← (1 − η λ)(w − η c Q[m̂ / (√v + ε)])

    where x̂ is x in the bases: for a matrix x̂ = Q_Lᵀ x Q_R, and Q[x̂] = x is the way back. With s = t − 1,
    c = √(1−β2ˢ) / (1−β1ˢ). The bases are eigenvectors of L ← β L + (1−β) g gᵀ and R ← β R + (1−β) gᵀ g, one
    matrix a dimension of at most `largest`, of vectors only if `vectors`; β is `shampoo_beta`, or β2 where
    that is negative. λ is `weight_decay`. Step 1 makes the bases and leaves w alone, and they change only
    after a step, so that no gradient is turned by itself. Every `precondition_frequency` steps they are
    brought nearer to the eigenvectors by one power iteration and QR; so t is compared, and a GradScaler's
    is waited for.

    torch.optim does not have it.

    Source: Vyas et al. 2024, Algorithm 3, with the first step, the bias correction and the order of v's
    entries of the authors' implementation.
    """
    shape, sides = w.shape or (1,), _sides(w, largest, vectors)
    x, old, beta = g.reshape(shape), unpack(grams, sides), select(shampoo_beta < 0, beta2, shampoo_beta)
    new_grams = [None if a is None else moment(a, gram(x, i), beta) for i, a in enumerate(old)]
    grams = pack(new_grams, grams)
    if t == 1:
        q: list[Matrix] = [None if a is None else eigen(a)[1].flip(1) for a in new_grams]
        return w, m, v, grams, pack(q, bases)
    q = unpack(bases, sides)
    s = t - 1
    m = moment(m, g, beta1)
    v = moment(v, _into(x, q).reshape(w.shape) ** 2, beta2)
    step = _into(m.reshape(shape), q).reshape(w.shape) / (sqrt(v) + eps)
    correction = sqrt(1 - beta2**s) / (1 - beta1**s)
    w = w - lr * correction * _out_of(step.reshape(shape), q).reshape(w.shape)
    w = w - lr * weight_decay * w
    if s % precondition_frequency == 0:
        v, q = _refreshed(v.reshape(shape), new_grams, q)
        v, bases = v.reshape(w.shape), pack(q, bases)
    return w, m, v, grams, bases


def _into(x: Tensor, q: list[Matrix]) -> Tensor:
    for i, a in enumerate(q):
        x = along(x, None if a is None else a.T, i)
    return x


def _out_of(x: Tensor, q: list[Matrix]) -> Tensor:
    for i, a in enumerate(q):
        x = along(x, a, i)
    return x


def _refreshed(v: Tensor, grams: list[Matrix], q: list[Matrix]) -> tuple[Tensor, list[Matrix]]:
    """The bases after one power iteration, largest eigenvalue first, and v with its entries in that order."""
    found: list[Matrix] = []
    for i, (a, b) in enumerate(zip(grams, q, strict=True)):
        if a is None or b is None:
            found.append(None)
            continue
        order = (b * (a @ b)).sum(0).argsort(descending=True)
        v = v.index_select(i, order)
        found.append(torch.linalg.qr(a @ b[:, order])[0])
    return v, found


def _sides(w: Tensor, largest: int, vectors: bool) -> list[tuple[int, int] | None]:
    with_matrices = w.dim() > 1 or vectors
    return [(n, n) if with_matrices and n <= largest else None for n in w.shape or (1,)]


@cache
def soap_rule(largest: int, vectors: bool) -> Rule:
    """SOAP with bases for dimensions of at most this length, and of vectors or not."""

    def start(w: Tensor) -> Tensor:
        return new(w, _sides(w, largest, vectors))

    return Rule(
        "soap",
        partial(soap, largest=largest, vectors=vectors),
        (State("exp_avg"), State("exp_avg_sq"), State("GG", start), State("Q", start)),
        {
            "lr": 3e-3,
            "beta1": 0.95,
            "beta2": 0.95,
            "shampoo_beta": -1.0,
            "eps": 1e-8,
            "weight_decay": 0.01,
            "precondition_frequency": 10,
        },
        elementwise=False,
        matrices=True,
    )


SOAP = soap_rule(10_000, False)
