"""AdEMAMix: Adam with a second, much slower mean of the gradients."""

from torch import Tensor

from stepwell.rules.rule import Rule, State
from stepwell.rules.words import Value, debias, exp, log, maximum, mean_square, minimum, moment, select, sqrt


def ademamix(
    w: Tensor,
    g: Tensor,
    m1: Tensor,
    m2: Tensor,
    v: Tensor,
    *,
    t: int,
    lr: float,
    beta1: float,
    beta2: float,
    beta3: float,
    alpha: float,
    eps: float,
    alpha_warmup: float,
    beta3_warmup: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """m1 ← β1 m1 + (1−β1) g;  m2 ← β3(t) m2 + (1−β3(t)) g;  v ← β2 v + (1−β2) g²;
    w ← w − η (m̂1 + α(t) m2) / (√v̂ + ε)

    with m̂1 = m1 / (1−β1ᵗ) and v̂ = v / (1−β2ᵗ); m2 is not corrected. α(t) = α min(t/T, 1) with T
    `alpha_warmup`; β3(t) rises from β1 to β3 in `beta3_warmup` steps, see `slow_beta`. 0 is no warm-up.

    Source: Pagliardini et al. 2024, Algorithm 1. torch.optim does not have it.
    """
    slow = slow_beta(t, beta1, beta3, beta3_warmup)
    m1 = moment(m1, g, beta1)
    m2 = slow * m2 + (1 - slow) * g
    v = mean_square(v, g, beta2)
    share = alpha * minimum(t / maximum(alpha_warmup, 1.0), 1.0)
    return w - lr * (debias(m1, beta1, t) + share * m2) / (sqrt(debias(v, beta2, t)) + eps), m1, m2, v


def slow_beta(t: Value, start: Value, end: Value, steps: Value) -> Value:
    """β at step t ≤ `steps` on the way from `start` to `end`: 1 / ln β moves along a line, and with it the
    mean's half-life; `end` from then on. Pagliardini et al. 2024, eq. for β3(t)."""
    done = minimum(t / maximum(steps, 1.0), 1.0)
    # Where β is 0 its logarithm is not: 1e-8 stands for it, as in the authors' code.
    from_, to = (1 / log(maximum(beta, 1e-8)) for beta in (start, end))
    return select(done < 1, exp(1 / ((1 - done) * from_ + done * to)), end)


ADEMAMIX = Rule(
    "ademamix",
    ademamix,
    (State("exp_avg_fast"), State("exp_avg_slow"), State("exp_avg_sq")),
    {
        "lr": 1e-3,
        "beta1": 0.9,
        "beta2": 0.999,
        "beta3": 0.9999,
        "alpha": 2.0,
        "eps": 1e-8,
        "alpha_warmup": 0.0,
        "beta3_warmup": 0.0,
    },
)
