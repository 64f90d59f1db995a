"""LAMB: Adam whose step in each tensor is as long as a share of the tensor itself."""

from torch import Tensor

from stepwell.rules.rule import Rule, State
from stepwell.rules.words import debias, mean_square, moment, norm, select, sqrt


def lamb(
    w: Tensor,
    g: Tensor,
    m: Tensor,
    v: Tensor,
    *,
    t: int,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """m ← β1 m + (1−β1) g;  v ← β2 v + (1−β2) g²;  u = m̂ / (√v̂ + ε) + λ w;  w ← w − η (‖w‖ / ‖u‖) u

    with m̂ = m / (1−β1ᵗ), v̂ = v / (1−β2ᵗ), norms of the whole tensor, and λ `weight_decay`, which is
    part of u. Where ‖w‖ or ‖u‖ is 0 the ratio is 1, so that a tensor that starts at 0 moves.

    torch.optim does not have it.

    Source: You et al. 2020, Algorithm 2, with φ(x) = x.
    """
    m = moment(m, g, beta1)
    v = mean_square(v, g, beta2)
    u = debias(m, beta1, t) / (sqrt(debias(v, beta2, t)) + eps) + weight_decay * w
    ratio = select((norm(w) > 0) & (norm(u) > 0), norm(w) / norm(u), 1.0)
    return w - lr * ratio * u, m, v


LAMB = Rule(
    "lamb",
    lamb,
    (State("exp_avg"), State("exp_avg_sq")),
    {"lr": 1e-3, "beta1": 0.9, "beta2": 0.999, "eps": 1e-6, "weight_decay": 0.0},
    elementwise=False,
)
