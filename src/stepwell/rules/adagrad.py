"""Adagrad: each weight's step shrinks with the sum of its squared gradients."""

from torch import Tensor

from stepwell.rules.rule import Rule, State
from stepwell.rules.words import sqrt


def adagrad(
    w: Tensor,
    g: Tensor,
    G: Tensor,
    *,
    t: int,
    lr: float,
    lr_decay: float,
    initial_accumulator_value: float,
    eps: float,
) -> tuple[Tensor, Tensor]:
    """G ← G + g²;  w ← w − η / (1 + (t−1) κ) · g / (√G + ε)

    κ is `lr_decay`; G starts at `initial_accumulator_value`. ε stands outside the root, as in
    torch.optim.Adagrad; `adagrad-inside` has it inside.

    Source: Duchi, Hazan & Singer 2011, the diagonal form of Figure 1.
    """
    G = G + g * g
    return w - lr / (1 + (t - 1) * lr_decay) * g / (sqrt(G) + eps), G


def adagrad_inside(
    w: Tensor,
    g: Tensor,
    G: Tensor,
    *,
    t: int,
    lr: float,
    lr_decay: float,
    initial_accumulator_value: float,
    eps: float,
) -> tuple[Tensor, Tensor]:
    """G ← G + g²;  w ← w − η / (1 + (t−1) κ) · g / √(G + ε)

    As `adagrad` with ε inside the root: a weight whose gradients are small beside √ε moves less.
    torch.optim does not have it.

    Source: Duchi, Hazan & Singer 2011, whose δ this ε replaces.
    """
    G = G + g * g
    return w - lr / (1 + (t - 1) * lr_decay) * g / sqrt(G + eps), G


_STATE = (State("sum", "initial_accumulator_value"),)
_DEFAULTS = {"lr": 1e-2, "lr_decay": 0.0, "initial_accumulator_value": 0.0, "eps": 1e-10}

ADAGRAD = Rule("adagrad", adagrad, _STATE, _DEFAULTS)
ADAGRAD_INSIDE = Rule("adagrad-inside", adagrad_inside, _STATE, _DEFAULTS)
