"""RMSprop: steps scaled by a moving average of the squared gradient; centered, with momentum, or both."""

from torch import Tensor

from stepwell.rules.rule import Rule, State
from stepwell.rules.words import maximum, mean_square, moment, sqrt


def rmsprop(
    w: Tensor, g: Tensor, v: Tensor, *, t: int, lr: float, alpha: float, eps: float
) -> tuple[Tensor, Tensor]:
    """v ← α v + (1−α) g²;  w ← w − η g / (√v + ε)

    ε stands outside the root, as in torch.optim.RMSprop, and v is not debiased.

    Source: Tieleman & Hinton 2012, lecture 6e.
    """
    v = mean_square(v, g, alpha)
    return w - lr * g / (sqrt(v) + eps), v


def centered(
    w: Tensor, g: Tensor, v: Tensor, m: Tensor, *, t: int, lr: float, alpha: float, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """m ← α m + (1−α) g;  v ← α v + (1−α) g²;  w ← w − η g / (√(v − m²) + ε)

    v − m² is the gradient's variance. Where rounding makes it negative it is taken as 0; torch has NaN.

    Source: Graves 2013, eq. 38–45, with ε outside the root as in torch.optim.RMSprop(centered=True).
    """
    v, m = mean_square(v, g, alpha), moment(m, g, alpha)
    return w - lr * g / (_deviation(v, m) + eps), v, m


def with_momentum(
    w: Tensor,
    g: Tensor,
    v: Tensor,
    b: Tensor,
    *,
    t: int,
    lr: float,
    alpha: float,
    eps: float,
    momentum: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """v ← α v + (1−α) g²;  b ← ρ b + g / (√v + ε);  w ← w − η b

    ρ is `momentum`.

    Source: Tieleman & Hinton 2012, lecture 6e; as torch.optim.RMSprop(momentum=ρ).
    """
    v = mean_square(v, g, alpha)
    b = momentum * b + g / (sqrt(v) + eps)
    return w - lr * b, v, b


def centered_with_momentum(
    w: Tensor,
    g: Tensor,
    v: Tensor,
    b: Tensor,
    m: Tensor,
    *,
    t: int,
    lr: float,
    alpha: float,
    eps: float,
    momentum: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """m ← α m + (1−α) g;  v ← α v + (1−α) g²;  b ← ρ b + g / (√(v − m²) + ε);  w ← w − η b

    Source: Graves 2013, eq. 38–45, as torch.optim.RMSprop(centered=True, momentum=ρ).
    """
    v, m = mean_square(v, g, alpha), moment(m, g, alpha)
    b = momentum * b + g / (_deviation(v, m) + eps)
    return w - lr * b, v, b, m


def _deviation(v: Tensor, m: Tensor) -> Tensor:
    return sqrt(maximum(v - m * m, 0.0))


_DEFAULTS = {"lr": 1e-2, "alpha": 0.99, "eps": 1e-8}
_SQUARE, _MOMENTUM, _MEAN = State("square_avg"), State("momentum_buffer"), State("grad_avg")

RMSPROP = Rule("rmsprop", rmsprop, (_SQUARE,), _DEFAULTS)
CENTERED = Rule("rmsprop-centered", centered, (_SQUARE, _MEAN), _DEFAULTS)
WITH_MOMENTUM = Rule("rmsprop-momentum", with_momentum, (_SQUARE, _MOMENTUM), {**_DEFAULTS, "momentum": 0.9})
CENTERED_WITH_MOMENTUM = Rule(
    "rmsprop-centered-momentum",
    centered_with_momentum,
    (_SQUARE, _MOMENTUM, _MEAN),
    {**_DEFAULTS, "momentum": 0.9},
)
