"""Momentum in its velocity form."""

from torch import Tensor

from stepwell.rules.rule import Rule


def momentum(w: Tensor, g: Tensor, v: Tensor, *, t: int, lr: float, momentum: float) -> tuple[Tensor, Tensor]:
    """v ← ρ v + g;  w ← w − η v

    ρ is `momentum`, in [0, 1). The rate multiplies the velocity, so a change of the rate acts at once
    on all past gradients; in the displacement form it acts on new gradients alone.

    Source: Sutskever et al. 2013, as `torch.optim.SGD(momentum=ρ)`.
    """
    v = momentum * v + g
    return w - lr * v, v


MOMENTUM = Rule("momentum", momentum, ("momentum_buffer",), {"lr": 1e-2, "momentum": 0.9})
