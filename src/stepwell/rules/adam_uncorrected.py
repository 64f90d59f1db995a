"""Adam without bias correction."""

from torch import Tensor

from stepwell.rules.rule import Rule, State
from stepwell.rules.words import mean_square, moment, sqrt


def adam_uncorrected(
    w: Tensor, g: Tensor, m: Tensor, v: Tensor, *, t: int, lr: float, beta1: float, beta2: float, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """m ← β1 m + (1−β1) g;  v ← β2 v + (1−β2) g²;  w ← w − η m / (√v + ε)

    Both means start at 0 and v is the slower to leave it, so the first steps are long: the very first has
    length (1−β1)/√(1−β2) η in every element, 3.2 η with the defaults, where Adam's has η.

    Source: Kingma & Ba 2015, Algorithm 1 without its two corrections. torch.optim has no such rule.
    """
    m = moment(m, g, beta1)
    v = mean_square(v, g, beta2)
    return w - lr * m / (sqrt(v) + eps), m, v


ADAM_UNCORRECTED = Rule(
    "adam-uncorrected",
    adam_uncorrected,
    (State("exp_avg"), State("exp_avg_sq")),
    {"lr": 1e-3, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8},
)
