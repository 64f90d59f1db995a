"""Adadelta: steps in the units of the weights, with no rate to choose."""

from torch import Tensor

from stepwell.rules.rule import Rule, State
from stepwell.rules.words import mean_square, moment, sqrt


def adadelta(
    w: Tensor, g: Tensor, G: Tensor, D: Tensor, *, t: int, lr: float, rho: float, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """G ← ρ G + (1−ρ) g²;  Δ = √(D + ε) / √(G + ε) · g;  D ← ρ D + (1−ρ) Δ²;  w ← w − η Δ

    G and D are moving averages of the squared gradients and of the squared steps. Both ε stand inside
    their roots, and the one over D is what sets off the first step. The paper has no η (1 here).

    Source: Zeiler 2012, Algorithm 1; as `torch.optim.Adadelta`.
    """
    G = mean_square(G, g, rho)
    step = sqrt(D + eps) / sqrt(G + eps) * g
    return w - lr * step, G, moment(D, step * step, rho)


ADADELTA = Rule(
    "adadelta",
    adadelta,
    (State("square_avg"), State("acc_delta")),
    {"lr": 1.0, "rho": 0.9, "eps": 1e-6},
)
