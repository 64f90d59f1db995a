"""Root mean square: each step divided by the root mean square of all gradients so far."""

from torch import Tensor

from stepwell.rules.rule import Rule, State
from stepwell.rules.words import select, sqrt


def rms(w: Tensor, g: Tensor, s: Tensor, *, t: int, lr: float) -> tuple[Tensor, Tensor]:
    """s ← s + (g² − s) / t;  σ = √s;  w ← w − η g / σ

    s is σ², the mean of the squares of all t gradients so far: Adagrad with the mean in place of the sum,
    so that the steps do not shrink by themselves. Where σ = 0 every gradient was 0, and w stays. The first
    step has length η in every element.

    Source: Adagrad (Duchi et al. 2011) with the mean in place of the sum. torch.optim has no such rule.
    """
    s = s + (g * g - s) / t
    there = s > 0
    return w - lr * select(there, g / sqrt(select(there, s, 1.0)), 0.0), s


RMS = Rule("rms", rms, (State("square_avg"),), {"lr": 1e-3})
