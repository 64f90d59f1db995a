"""Momentum in its displacement form."""

from torch import Tensor

from stepwell.rules.rule import Rule, State


def momentum_displacement(
    w: Tensor, g: Tensor, m: Tensor, *, t: int, lr: float, momentum: float
) -> tuple[Tensor, Tensor]:
    """m ← λ m − η g;  w ← w + m

    λ is `momentum`, in [0, 1). m is the last step itself. While the rate is constant this is the
    velocity form (m = −η v); once the rate changes the two part, since here the steps already
    under way keep the rate they were made with. torch.optim has only the velocity form.

    Source: Polyak 1964; Rumelhart et al. 1986.
    """
    m = momentum * m - lr * g
    return w + m, m


MOMENTUM_DISPLACEMENT = Rule(
    "momentum-displacement", momentum_displacement, (State("displacement"),), {"lr": 1e-2, "momentum": 0.9}
)
