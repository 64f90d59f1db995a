"""Adamax: Adam with the largest recent gradient in place of the root of the mean square."""

from torch import Tensor

from stepwell.rules.rule import Rule, State
from stepwell.rules.words import debias, maximum, moment


def adamax(
    w: Tensor, g: Tensor, m: Tensor, u: Tensor, *, t: int, lr: float, beta1: float, beta2: float, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """m ← β1 m + (1−β1) g;  u ← max(β2 u, |g| + ε);  w ← w − η m̂ / u

    with m̂ = m / (1−β1ᵗ). ε enters the maximum, as in torch.optim.Adamax; the paper has none.

    Source: Kingma & Ba 2015, Algorithm 2.
    """
    m = moment(m, g, beta1)
    u = maximum(beta2 * u, abs(g) + eps)
    return w - lr * debias(m, beta1, t) / u, m, u


ADAMAX = Rule(
    "adamax",
    adamax,
    (State("exp_avg"), State("exp_inf")),
    {"lr": 2e-3, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8},
)
