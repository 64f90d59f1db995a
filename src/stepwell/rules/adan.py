"""Adan: Nesterov's look-ahead inside Adam, from the difference of gradients."""

from torch import Tensor

from stepwell.rules.rule import Rule, State
from stepwell.rules.words import debias, moment, select, sqrt


def adan(
    w: Tensor,
    g: Tensor,
    m: Tensor,
    d: Tensor,
    n: Tensor,
    last: Tensor,
    *,
    t: int,
    lr: float,
    beta1: float,
    beta2: float,
    beta3: float,
    eps: float,
    weight_decay: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Δ = g − last, 0 at first;  m ← β1 m + (1−β1) g;  d ← β2 d + (1−β2) Δ;
    n ← β3 n + (1−β3) (g + β2 Δ)²;  w ← (w − η (m̂ + β2 d̂) / (√n̂ + ε)) / (1 + η λ);  last ← g

    with m̂ = m / (1−β1ᵗ), d̂ and n̂ likewise. λ is `weight_decay`, in the proximal form.

    Source: Xie et al. 2022, Algorithm 1, whose β are 1 − ours; with the bias corrections of the authors'
    code. torch.optim does not have it.
    """
    change = g - select(t > 1, last, g)
    m = moment(m, g, beta1)
    d = moment(d, change, beta2)
    ahead = g + beta2 * change
    n = moment(n, ahead * ahead, beta3)
    step = (debias(m, beta1, t) + beta2 * debias(d, beta2, t)) / (sqrt(debias(n, beta3, t)) + eps)
    return (w - lr * step) / (1 + lr * weight_decay), m, d, n, g


ADAN = Rule(
    "adan",
    adan,
    (State("exp_avg"), State("exp_avg_diff"), State("exp_avg_sq"), State("last_grad")),
    {"lr": 1e-3, "beta1": 0.98, "beta2": 0.92, "beta3": 0.99, "eps": 1e-8, "weight_decay": 0.0},
)
