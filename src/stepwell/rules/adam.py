"""Adam: steps scaled by moving averages of the gradient and of its square."""

from torch import Tensor

from stepwell.rules.rule import Rule, State
from stepwell.rules.words import debias, mean_square, moment


def adam(
    w: Tensor, g: Tensor, m: Tensor, v: Tensor, *, t: int, lr: float, beta1: float, beta2: float, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """m ← β1 m + (1−β1) g;  v ← β2 v + (1−β2) g²;  w ← w − η m̂ / (√v̂ + ε)

    with m̂ = m / (1−β1ᵗ) and v̂ = v / (1−β2ᵗ). ε stands outside the root, as in the paper and in
    torch.optim.Adam.

    Source: Kingma & Ba 2015, Algorithm 1.
    """
    m = moment(m, g, beta1)
    v = mean_square(v, g, beta2)
    return w - lr * debias(m, beta1, t) / (debias(v, beta2, t).sqrt() + eps), m, v


ADAM = Rule(
    "adam",
    adam,
    (State("exp_avg"), State("exp_avg_sq")),
    {"lr": 1e-3, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8},
)
