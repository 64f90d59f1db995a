"""Prodigy: Adam that estimates its own rate from how far the weights have come."""

from typing import Any

from torch import Tensor

from stepwell.rules.rule import Rule, State
from stepwell.rules.words import Value, maximum, minimum, moment, select, sqrt


def prodigy(
    w: Tensor,
    g: Tensor,
    m: Tensor,
    v: Tensor,
    s: Tensor,
    w0: Tensor,
    updates: Value,
    d: Value,
    d_max: Value,
    r: Value,
    *,
    t: int,
    lr: float,
    beta1: float,
    beta2: float,
    beta3: float,
    eps: float,
    weight_decay: float,
    d0: float,
    d_coef: float,
    growth_rate: float,
    use_bias_correction: float,
    safeguard_warmup: float,
    sums: tuple[Value, Value],
) -> tuple[Any, ...]:
    """γ = d η;  m ← β1 m + (1−β1) d g;  v ← β2 v + (1−β2) d² g²;  s ← β3 s + (d/d0) γ g;
    r ← β3 r + Σ (d/d0) γ g · (w0 − w);  d̂ = c r / Σ|s|;  D ← max(D, d̂);  d⁺ = min(D, d · growth_rate);
    w ← w − γ λ w − γ m / (√v + d⁺ ε);  d ← d⁺

    Both Σ run over all parameters, so that they share one d; w0 is the weight at the start, D `d_max`, c
    `d_coef`, λ `weight_decay`. While d is still d0 it moves to d̂ at once. η is 1, or a schedule that ends
    below. use_bias_correction (0 or 1) multiplies γ by √(1−β2ᵗ)/(1−β1ᵗ); safeguard_warmup (0 or 1) leaves
    η out of s. Before any gradient differs from 0 nothing moves.

    torch.optim does not have it.

    Source: Mishchenko & Defazio 2023, Algorithm 4, as in the authors' `prodigyopt`, whose β3 is √β2.
    """
    progress, distance = sums
    rate = _rate(d, t, lr, beta1, beta2, use_bias_correction)
    s = _traveled(g, s, d, rate, beta3, d0, safeguard_warmup)
    m = moment(m, d * g, beta1)
    v = moment(v, d * g * (d * g), beta2)
    moving = distance > 0
    r = select(moving, beta3 * r + progress, r)
    seen = d_coef * r / select(moving, distance, 1.0)
    d_max = select(moving, maximum(d_max, seen), d_max)
    first = select(d == d0, maximum(d, seen), d)
    new_d = select(moving, minimum(d_max, first * growth_rate), d)
    step = select(moving, rate, 0.0)
    w = w - step * weight_decay * w - step * m / (sqrt(v) + new_d * eps)
    return w, m, v, s, w0, updates + 1, new_d, d_max, r


def prodigy_sums(
    w: Tensor,
    g: Tensor,
    m: Tensor,
    v: Tensor,
    s: Tensor,
    w0: Tensor,
    updates: Value,
    d: Value,
    d_max: Value,
    r: Value,
    *,
    t: int,
    **h: Any,
) -> tuple[Tensor, Tensor]:
    """(d/d0) γ g (w0 − w) and |s⁺|, of which the sums are wanted."""
    rate = _rate(d, t, h["lr"], h["beta1"], h["beta2"], h["use_bias_correction"])
    s = _traveled(g, s, d, rate, h["beta3"], h["d0"], h["safeguard_warmup"])
    return d / h["d0"] * rate * g * (w0 - w), abs(s)


def _rate(d: Value, t: Value, lr: Value, beta1: Value, beta2: Value, corrected: Value) -> Value:
    """γ = d η, or with the bias correction of Adam."""
    return d * lr * select(corrected > 0, sqrt(1 - beta2**t) / (1 - beta1**t), 1.0)


def _traveled(g: Tensor, s: Tensor, d: Value, rate: Value, beta3: Value, d0: Value, guarded: Value) -> Tensor:
    """s ← β3 s + (d/d0) γ g, or with d in place of γ."""
    return beta3 * s + d / d0 * select(guarded > 0, d, rate) * g


PRODIGY = Rule(
    "prodigy",
    prodigy,
    (
        State("exp_avg"),
        State("exp_avg_sq"),
        State("s"),
        State("p0", Tensor.clone),
        State("updates", scalar=True),
        State("d", "d0", scalar=True),
        State("d_max", "d0", scalar=True),
        State("d_numerator", scalar=True),
    ),
    {
        "lr": 1.0,
        "beta1": 0.9,
        "beta2": 0.999,
        "beta3": 0.999**0.5,
        "eps": 1e-8,
        "weight_decay": 0.0,
        "d0": 1e-6,
        "d_coef": 1.0,
        "growth_rate": float("inf"),
        "use_bias_correction": 0.0,
        "safeguard_warmup": 0.0,
    },
    sums=prodigy_sums,
)
