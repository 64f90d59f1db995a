"""ASGD: SGD with a falling rate, beside which the average of the weights is kept."""

from torch import Tensor

from stepwell.rules.rule import Rule, State
from stepwell.rules.words import maximum, select


def asgd(
    w: Tensor,
    g: Tensor,
    eta: Tensor,
    mu: Tensor,
    a: Tensor,
    *,
    t: int,
    lr: float,
    lambd: float,
    alpha: float,
    t0: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """w ← (1 − λ η) w − η g;  a ← a + μ (w − a);  η ← lr / (1 + λ lr t)^α;  μ ← 1 / max(1, t − t0)

    η is lr and μ is 1 at first: a is w itself until step t0, then the mean of all later w. As in
    torch.optim.ASGD, η and μ are those of the step before, and the run goes on at w: a, the state `ax`,
    is for the reader to evaluate.

    Source: Polyak & Juditsky 1992; Bottou 2010, §5, and his `asgd` program.
    """
    eta = select(t > 1, eta, lr)  # lr of the first update, which may come late
    w = (1 - lambd * eta) * w - eta * g
    a = a + mu * (w - a)
    return w, lr / (1 + lambd * lr * t) ** alpha, 1 / maximum(t - t0, 1.0), a


ASGD = Rule(
    "asgd",
    asgd,
    (State("eta", scalar=True), State("mu", 1.0, scalar=True), State("ax")),
    {"lr": 1e-2, "lambd": 1e-4, "alpha": 0.75, "t0": 1e6},
)
