"""AMSGrad: Adam whose denominator never shrinks."""

from torch import Tensor

from stepwell.rules.rule import Rule, State
from stepwell.rules.words import debias, maximum, mean_square, moment, sqrt


def amsgrad(
    w: Tensor,
    g: Tensor,
    m: Tensor,
    v: Tensor,
    u: Tensor,
    *,
    t: int,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """m ← β1 m + (1−β1) g;  v ← β2 v + (1−β2) g²;  u ← max(u, v);  w ← w − η m̂ / (√û + ε)

    with m̂ = m / (1−β1ᵗ) and û = u / (1−β2ᵗ): as in torch.optim.Adam(amsgrad=True), the maximum is taken
    before the correction. The paper has no correction.

    Source: Reddi et al. 2018, Algorithm 2.
    """
    m = moment(m, g, beta1)
    v = mean_square(v, g, beta2)
    u = maximum(u, v)
    return w - lr * debias(m, beta1, t) / (sqrt(debias(u, beta2, t)) + eps), m, v, u


AMSGRAD = Rule(
    "amsgrad",
    amsgrad,
    (State("exp_avg"), State("exp_avg_sq"), State("max_exp_avg_sq")),
    {"lr": 1e-3, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8},
)
