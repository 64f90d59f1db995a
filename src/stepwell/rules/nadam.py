"""NAdam: Adam with Nesterov's look-ahead and a momentum that warms up."""

from torch import Tensor

from stepwell.rules.rule import Rule, State
from stepwell.rules.words import debias, mean_square, moment, sqrt


def nadam(
    w: Tensor,
    g: Tensor,
    m: Tensor,
    v: Tensor,
    P: Tensor,
    *,
    t: int,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    momentum_decay: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """w ← w − η [μ⁺ m / (1 − P μ⁺) + (1−μ) g / (1 − P)] / (√v̂ + ε)

    with μ = β1 (1 − ½ · 0.96^(tψ)), μ⁺ the same of t + 1, P ← P μ the product of all μ so far, and m, v
    and v̂ of Adam. ψ is `momentum_decay`. m moves by β1, as in torch.optim.NAdam; the paper moves it by μ.

    Source: Dozat 2016, Algorithm 2 and §3.
    """
    mu = beta1 * (1 - 0.5 * 0.96 ** (t * momentum_decay))
    following = beta1 * (1 - 0.5 * 0.96 ** ((t + 1) * momentum_decay))
    P = P * mu
    m = moment(m, g, beta1)
    v = mean_square(v, g, beta2)
    ahead = following / (1 - P * following) * m + (1 - mu) / (1 - P) * g
    return w - lr * ahead / (sqrt(debias(v, beta2, t)) + eps), m, v, P


NADAM = Rule(
    "nadam",
    nadam,
    (State("exp_avg"), State("exp_avg_sq"), State("mu_product", 1.0, scalar=True)),
    {"lr": 2e-3, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "momentum_decay": 4e-3},
)
