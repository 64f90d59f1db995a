"""Rprop: steps that follow the gradient's signs alone."""

from torch import Tensor

from stepwell.rules.rule import Rule, State
from stepwell.rules.words import clip, select, sign


def rprop(
    w: Tensor,
    g: Tensor,
    p: Tensor,
    s: Tensor,
    *,
    t: int,
    lr: float,
    eta_minus: float,
    eta_plus: float,
    size_min: float,
    size_max: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """s ← clip(s · η⁺ where g p > 0, · η⁻ where g p < 0, · 1 else);  w ← w − s sign(g)

    p is the gradient before; s, the length of each weight's step, starts at lr and stays between
    `size_min` and `size_max`. Where the sign turned (g p < 0) the weight rests for one step, and p is 0
    for the next. This is the variant iRprop⁻, as torch.optim.Rprop. It is made for whole batches: the
    signs of small ones are noise.

    Source: Riedmiller & Braun 1993; Igel & Hüsken 2000, Algorithm 4.
    """
    s = s * select(t > 1, 1.0, lr)  # lr of the first update, which may come late
    agree = g * p
    s = clip(select(agree > 0, s * eta_plus, select(agree < 0, s * eta_minus, s)), size_min, size_max)
    g = select(agree < 0, 0.0, g)
    return w - s * sign(g), g, s


RPROP = Rule(
    "rprop",
    rprop,
    (State("prev"), State("step_size", 1.0)),
    {"lr": 1e-2, "eta_minus": 0.5, "eta_plus": 1.2, "size_min": 1e-6, "size_max": 50.0},
)
