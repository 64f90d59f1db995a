"""Lion: the sign of a mix of momentum and gradient."""

from torch import Tensor

from stepwell.rules.rule import Rule, State
from stepwell.rules.words import moment, sign


def lion(
    w: Tensor, g: Tensor, m: Tensor, *, t: int, lr: float, beta1: float, beta2: float
) -> tuple[Tensor, Tensor]:
    """w ← w − η sign(β1 m + (1−β1) g);  m ← β2 m + (1−β2) g

    Every element moves by η, so η is 3 to 10 times smaller than Adam's, and weight decay as much larger.
    β1 only mixes today's direction; what is kept moves with β2.

    Source: Chen et al. 2023, Algorithm 2. torch.optim does not have it.
    """
    return w - lr * sign(moment(m, g, beta1)), moment(m, g, beta2)


LION = Rule("lion", lion, (State("exp_avg"),), {"lr": 1e-4, "beta1": 0.9, "beta2": 0.99})
