"""RAdam: Adam that waits until the average of squared gradients can be trusted."""

from torch import Tensor

from stepwell.rules.rule import Rule, State
from stepwell.rules.words import debias, maximum, mean_square, moment, select, sqrt


def radam(
    w: Tensor, g: Tensor, m: Tensor, v: Tensor, *, t: int, lr: float, beta1: float, beta2: float, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """w ← w − η m̂ · r √(1−β2ᵗ) / (√v + ε)  where ρ > 5,  else w ← w − η m̂

    with m, v and m̂ of Adam, ρ∞ = 2/(1−β2) − 1, ρ = ρ∞ − 2t β2ᵗ / (1−β2ᵗ) the length of the average behind
    v, and r² = (ρ−4)(ρ−2) ρ∞ / ((ρ∞−4)(ρ∞−2) ρ), which undoes v's variance. Differs from Adam also in that
    ε is added to √v before its correction, as in torch.optim.RAdam; the paper has no ε and asks for ρ > 4.

    Source: Liu et al. 2020, Algorithm 2.
    """
    m = moment(m, g, beta1)
    v = mean_square(v, g, beta2)
    most = 2 / (1 - beta2) - 1
    length = most - 2 * t * beta2**t / (1 - beta2**t)
    # Where ρ ≤ 5, r is not used: these limits keep its formula from dividing by 0.
    a, b = maximum(length, 5.0), maximum(most, 5.0)
    r = sqrt((a - 4) * (a - 2) * b / ((b - 4) * (b - 2) * a))
    scale = select(length > 5, r * sqrt(1 - beta2**t) / (sqrt(v) + eps), 1.0)
    return w - lr * debias(m, beta1, t) * scale, m, v


RADAM = Rule(
    "radam",
    radam,
    (State("exp_avg"), State("exp_avg_sq")),
    {"lr": 1e-3, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8},
)
