"""Momentum in its velocity form."""

from torch import Tensor

from stepwell.rules.rule import Rule, State
from stepwell.rules.words import select


def momentum(
    w: Tensor, g: Tensor, v: Tensor, *, t: int, lr: float, momentum: float, dampening: float
) -> tuple[Tensor, Tensor]:
    """v ← ρ v + (1 − τ) g;  w ← w − η v

    ρ is `momentum`, in [0, 1), τ `dampening`; as in torch the first gradient enters v whole. The rate
    multiplies the velocity, so a change of the rate acts at once on all past gradients; in the
    displacement form it acts on new gradients alone.

    Source: Sutskever et al. 2013, as `torch.optim.SGD(momentum=ρ, dampening=τ)`.
    """
    v = momentum * v + select(t > 1, 1 - dampening, 1.0) * g
    return w - lr * v, v


MOMENTUM = Rule(
    "momentum", momentum, (State("momentum_buffer"),), {"lr": 1e-2, "momentum": 0.9, "dampening": 0.0}
)
