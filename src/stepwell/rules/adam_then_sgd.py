"""Adam that turns into SGD once the rate that SGD would need has settled (SWATS)."""

from typing import Any

from torch import Tensor

from stepwell.rules.rule import Rule, State
from stepwell.rules.words import Value, debias, mean_square, moment, select, sqrt


def adam_then_sgd(
    w: Tensor,
    g: Tensor,
    m: Tensor,
    a: Tensor,
    updates: Value,
    estimate: Value,
    rate: Value,
    in_sgd: Value,
    *,
    t: int,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    threshold: float,
    sums: tuple[Value, Value],
) -> tuple[Any, ...]:
    """First Adam:  m ← β1 m + (1−β1) g;  a ← β2 a + (1−β2) g²;  p = −η √(1−β2ᵗ)/(1−β1ᵗ) m / (√a + ε);
    w ← w + p, and over all parameters together, unless p·g = 0, at update k:
    γ = p·p / −p·g;  λ ← β2 λ + (1−β2) γ;  Λ = λ / (1−β2ᵏ);  switch if k > 1, Λ > 0 and |Λ − γ| < threshold.
    Then SGD:  v ← β1 v + g, from 0;  w ← w − (1−β1) Λ v

    `sgd_rate` keeps Λ / η of the switch, 0 until then: a schedule's later η multiplies it. m's memory is v's,
    from this parameter's first step of SGD on, `in_sgd`.

    torch.optim does not have it.

    Source: Keskar & Socher 2017, Algorithm 1, where Λ stays whatever η does and where Λ < 0, which would
    climb, is not excluded; `threshold` is its ε.
    """
    p_p, p_g = sums
    sgd = rate > 0
    v = select(in_sgd > 0, beta1, 0.0) * m + g
    mean, square = moment(m, g, beta1), mean_square(a, g, beta2)
    p = _step(mean, square, t, lr, beta1, beta2, eps)

    k = updates + 1
    told = p_g != 0
    gamma = -p_p / select(told, p_g, 1.0)
    estimate = select(told, moment(estimate, gamma, beta2), estimate)
    settled = debias(estimate, beta2, k)
    switch = told & (k > 1) & (settled > 0) & (abs(settled - gamma) < threshold)

    w = select(sgd, w - (1 - beta1) * rate * lr * v, w + p)
    m = select(sgd, v, mean)
    a = select(sgd, a, square)
    rate = select(sgd, rate, select(switch, settled / select(told, lr, 1.0), 0.0))
    return w, m, a, k, estimate, rate, select(sgd, 1.0, 0.0)


def adam_then_sgd_sums(
    w: Tensor,
    g: Tensor,
    m: Tensor,
    a: Tensor,
    updates: Value,
    estimate: Value,
    rate: Value,
    in_sgd: Value,
    *,
    t: int,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    threshold: float,
) -> tuple[Tensor, Tensor]:
    """p² and p g, of which the sums p·p and p·g are wanted."""
    p = _step(moment(m, g, beta1), mean_square(a, g, beta2), t, lr, beta1, beta2, eps)
    return p * p, p * g


def _step(m: Tensor, a: Tensor, t: Value, lr: Value, beta1: Value, beta2: Value, eps: Value) -> Tensor:
    """The step of Adam; as in the paper ε is added to the root before the correction."""
    return -lr * sqrt(1 - beta2**t) / (1 - beta1**t) * m / (sqrt(a) + eps)


ADAM_THEN_SGD = Rule(
    "adam-then-sgd",
    adam_then_sgd,
    (
        State("exp_avg"),
        State("exp_avg_sq"),
        State("updates", scalar=True),
        State("estimate", scalar=True),
        State("sgd_rate", scalar=True),
        State("in_sgd", scalar=True),
    ),
    {"lr": 1e-3, "beta1": 0.9, "beta2": 0.999, "eps": 1e-9, "threshold": 1e-9},
    sums=adam_then_sgd_sums,
)
