"""LARS: momentum with a rate for each tensor, in proportion to its length."""

from torch import Tensor

from stepwell.rules.rule import Rule, State
from stepwell.rules.words import norm, select


def lars(
    w: Tensor,
    g: Tensor,
    v: Tensor,
    *,
    t: int,
    lr: float,
    momentum: float,
    weight_decay: float,
    trust_coefficient: float,
) -> tuple[Tensor, Tensor]:
    """r = κ ‖w‖ / (‖g‖ + λ ‖w‖);  v ← ρ v + η r (g + λ w);  w ← w − v

    ρ is `momentum`, in [0, 1), λ `weight_decay`, κ `trust_coefficient`, with norms of the whole tensor.
    The rate goes into the velocity, as in the displacement form of momentum. Where ‖w‖ or ‖g‖ is 0, r is
    1, so that a tensor that starts at 0 moves.

    torch.optim does not have it.

    Source: You et al. 2017 (Large batch training of convolutional networks), Algorithm 1.
    """
    length = norm(g) + weight_decay * norm(w)
    r = select((norm(w) > 0) & (norm(g) > 0), trust_coefficient * norm(w) / length, 1.0)
    v = momentum * v + lr * r * (g + weight_decay * w)
    return w - v, v


LARS = Rule(
    "lars",
    lars,
    (State("momentum_buffer"),),
    {"lr": 1.0, "momentum": 0.9, "weight_decay": 0.0, "trust_coefficient": 1e-3},
    elementwise=False,
)
