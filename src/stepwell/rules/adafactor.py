"""Adafactor: RMSprop that keeps the squares of a matrix as one number a row and one a column."""

import torch
from torch import Tensor

from stepwell.rules.rule import Rule, State
from stepwell.rules.words import maximum, mean_square, minimum, moment, norm, sqrt


def adafactor(
    w: Tensor,
    g: Tensor,
    r: Tensor,
    c: Tensor,
    v: Tensor,
    *,
    t: int,
    lr: float,
    beta2_decay: float,
    eps1: float,
    eps2: float,
    d: float,
    weight_decay: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """α = max(ε2, rms(w)) · min(η, 1/√t);  w ← w − η λ w;  w ← w − α u / max(1, rms(u) / d)

    with u = g / max(√v, ε1), and v the mean of g² with β2 = 1 − t^τ. With two dimensions or more, only
    its means along rows and columns (the last two dimensions) are kept, and v = r c / max(mean(r), ε1):
        r ← β2 r + (1−β2) mean(g², along rows);  c ← β2 c + (1−β2) mean(g², along columns)
    τ is `beta2_decay` ≤ 0, d ≥ 1 the largest rms of u, λ `weight_decay`; rms(x) = √mean(x²).

    Source: Shazeer & Stern 2018, Algorithms 4 and 5, in the form of torch.optim.Adafactor: η is the
    largest relative step (0.01 in the paper), and ε1 stands at v and u instead of at g².
    """
    new = t**beta2_decay  # 1 − β2
    alpha = maximum(_rms(w), eps2) * minimum(lr, t**-0.5)
    w = w - lr * weight_decay * w
    if g.dim() > 1:
        r = moment(r, (g * g).mean(-1, keepdim=True), 1 - new)
        c = moment(c, (g * g).mean(-2, keepdim=True), 1 - new)
        square = r @ c / maximum(r.mean(-2, keepdim=True), eps1)
    else:
        square = v = mean_square(v, g, 1 - new)
    u = g / sqrt(maximum(square, eps1 * eps1))
    return w - alpha * u / maximum(_rms(u) / d, 1.0), r, c, v


def adafactor_by_type(w: Tensor, g: Tensor, *state: Tensor, **h: float) -> tuple[Tensor, ...]:
    """Adafactor whose ε1 is the distance from 1 to the next number of the type that is computed in.

    That is float32 for bfloat16 weights, where torch takes bfloat16's own.
    """
    return adafactor(w, g, *state, eps1=torch.finfo(w.dtype).eps, **h)  # type: ignore[arg-type]


def _rms(x: Tensor) -> Tensor:
    return norm(x) / x.numel() ** 0.5


def _rows(w: Tensor) -> Tensor:
    return w.new_zeros((*w.shape[:-1], 1) if w.dim() > 1 else 0)


def _columns(w: Tensor) -> Tensor:
    return w.new_zeros((*w.shape[:-2], 1, w.shape[-1]) if w.dim() > 1 else 0)


def _whole(w: Tensor) -> Tensor:
    return w.new_zeros(0) if w.dim() > 1 else torch.zeros_like(w)


# What a tensor does not need is empty.
_STATE = (State("row_var", _rows), State("col_var", _columns), State("variance", _whole))
_DEFAULTS = {"lr": 1e-2, "beta2_decay": -0.8, "eps2": 1e-3, "d": 1.0, "weight_decay": 0.0}

ADAFACTOR = Rule("adafactor", adafactor_by_type, _STATE, _DEFAULTS, elementwise=False, text=adafactor)
ADAFACTOR_EPS = Rule("adafactor-eps", adafactor, _STATE, {**_DEFAULTS, "eps1": 1e-7}, elementwise=False)
