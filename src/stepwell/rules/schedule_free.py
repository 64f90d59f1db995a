"""Schedule-free SGD, AdamW and RAdam: an average of the iterates in place of a falling rate.

Three sequences. z takes the steps, x is a weighted average of z, and gradients are taken in between:

    d = the direction at y;  z ← z − γ d;  x ← (1−c) x + c z;  y = (1−β) z + β x

γ is the rate of today and c = γmaxᵖ tʳ / Σ γmaxᵖ tʳ, with γmax the largest γ so far, p `weight_lr_power`
and r `r`. The parameter holds y while it trains, and x = y + (1 − 1/β)(z − y) is what to evaluate and to use.
torch.optim has none of the three.

Source: Defazio et al. 2024, as in the authors' `schedulefree`.
"""

from torch import Tensor

from stepwell.rules.rule import Rule, State
from stepwell.rules.words import Value, debias, maximum, mean_square, minimum, select, sqrt


def schedule_free_sgd(
    y: Tensor,
    g: Tensor,
    z: Tensor,
    weight_sum: Value,
    lr_max: Value,
    *,
    t: int,
    lr: float,
    momentum: float,
    weight_decay: float,
    warmup_steps: float,
    r: float,
    weight_lr_power: float,
) -> tuple[Tensor, Tensor, Value, Value]:
    """d = g + λ y, γ = η min(t/T, 1); then z, x and y as in all three, with β = `momentum`.

    λ is `weight_decay`, T `warmup_steps`.

    Source: Defazio et al. 2024, eq. 3–5 and § 4.
    """
    rate = lr * minimum(t / maximum(warmup_steps, 1.0), 1.0)
    c, weight_sum, lr_max = _share(t, rate, weight_sum, lr_max, r, weight_lr_power)
    return *_move(y, z, g + weight_decay * y, rate, c, momentum), weight_sum, lr_max


def schedule_free_adamw(
    y: Tensor,
    g: Tensor,
    z: Tensor,
    v: Tensor,
    weight_sum: Value,
    lr_max: Value,
    *,
    t: int,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    warmup_steps: float,
    r: float,
    weight_lr_power: float,
) -> tuple[Tensor, Tensor, Tensor, Value, Value]:
    """v ← β2 v + (1−β2) g²;  d = g / (√v + ε) + λ y, γ = η √(1−β2ᵗ) min(t/T, 1); then z, x and y as in
    all three, with β = β1.

    The correction of v is part of γ, and so of the weights of the average.

    Source: Defazio et al. 2024, Algorithm 1.
    """
    rate = lr * minimum(t / maximum(warmup_steps, 1.0), 1.0) * sqrt(1 - beta2**t)
    c, weight_sum, lr_max = _share(t, rate, weight_sum, lr_max, r, weight_lr_power)
    v = mean_square(v, g, beta2)
    y, z = _move(y, z, g / (sqrt(v) + eps) + weight_decay * y, rate, c, beta1)
    return y, z, v, weight_sum, lr_max


def schedule_free_radam(
    y: Tensor,
    g: Tensor,
    z: Tensor,
    v: Tensor,
    weight_sum: Value,
    lr_max: Value,
    *,
    t: int,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    r: float,
    weight_lr_power: float,
    silent_sgd_phase: float,
) -> tuple[Tensor, Tensor, Tensor, Value, Value]:
    """v ← β2 v + (1−β2) g²;  ρ∞ = 2/(1−β2) − 1;  ρ = ρ∞ − 2 t β2ᵗ/(1−β2ᵗ);
    where ρ > 4:  d = g / (√v̂ + ε) + λ y, γ = η √((ρ−4)(ρ−2) ρ∞ / ((ρ∞−4)(ρ∞−2) ρ));
    until then:  d = g + λ y, γ = 0, or η if `silent_sgd_phase` is 0; then z, x and y as at the top of the
    file, with β = β1 and v̂ = v/(1−β2ᵗ).

    Source: Defazio et al. 2024, with the rectification of Liu et al. 2020, Algorithm 2.
    """
    longest = 2 / (1 - beta2) - 1
    length = longest - 2 * t * beta2**t / (1 - beta2**t)
    known = length > 4
    a, b = select(known, length, 5.0), select(longest > 4, longest, 5.0)  # 5: neither root nor division fails
    rectified = sqrt((a - 4) * (a - 2) * b / ((b - 4) * (b - 2) * a))
    rate = lr * select(known, rectified, 1 - silent_sgd_phase)
    c, weight_sum, lr_max = _share(t, rate, weight_sum, lr_max, r, weight_lr_power)
    v = mean_square(v, g, beta2)
    d = select(known, g / (sqrt(debias(v, beta2, t)) + eps), g) + weight_decay * y
    return *_move(y, z, d, rate, c, beta1), v, weight_sum, lr_max


def _share(
    t: Value, rate: Value, weight_sum: Value, lr_max: Value, r: Value, power: Value
) -> tuple[Value, Value, Value]:
    """c, and what it is made of; 0 as long as every rate was 0."""
    lr_max = maximum(lr_max, rate)
    weight = t**r * lr_max**power
    weight_sum = weight_sum + weight
    return weight / select(weight_sum > 0, weight_sum, 1.0), weight_sum, lr_max


def _move(y: Tensor, z: Tensor, d: Tensor, rate: Value, c: Value, beta: Value) -> tuple[Tensor, Tensor]:
    """The new y and z: the three lines at the top of the file, with x put in."""
    return y + c * (z - y) - rate * (1 - beta * (1 - c)) * d, z - rate * d


_AVERAGE = (State("weight_sum", scalar=True), State("lr_max", scalar=True))
_FREE = {"weight_decay": 0.0, "warmup_steps": 0.0, "r": 0.0, "weight_lr_power": 2.0}
_ADAM = {"lr": 2.5e-3, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8}

SCHEDULE_FREE_SGD = Rule(
    "schedule-free-sgd",
    schedule_free_sgd,
    (State("z", Tensor.clone), *_AVERAGE),
    {"lr": 1.0, "momentum": 0.9, **_FREE},
)
SCHEDULE_FREE_ADAMW = Rule(
    "schedule-free-adamw",
    schedule_free_adamw,
    (State("z", Tensor.clone), State("exp_avg_sq"), *_AVERAGE),
    {**_ADAM, **_FREE},
)
SCHEDULE_FREE_RADAM = Rule(
    "schedule-free-radam",
    schedule_free_radam,
    (State("z", Tensor.clone), State("exp_avg_sq"), *_AVERAGE),
    {**_ADAM, "weight_decay": 0.0, "r": 0.0, "weight_lr_power": 2.0, "silent_sgd_phase": 1.0},
)
