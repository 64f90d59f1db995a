"""Shampoo."""

import math
from collections.abc import Iterable
from typing import Any, ClassVar, Unpack

from stepwell.optim.extras import Extras, Number
from stepwell.optim.hyperparameters import ABOVE_0
from stepwell.optim.optimizer import RuleOptimizer
from stepwell.rules import Rule
from stepwell.rules.shampoo import SHAMPOO, shampoo_rule


class Shampoo(RuleOptimizer):
    """w ← w − η (L + εI)^(−1/4) G (R + εI)^(−1/4), with L the sum of G Gᵀ and R that of Gᵀ G.

    lr: η ≥ 0. eps: ε > 0. weight_decay: adds weight_decay · w to the gradient (coupled).
    precondition_frequency: steps between decompositions of L and R, of O(n³) each. max_precond_dim: a
    dimension longer than this has the diagonal of its matrix alone. maximize: climbs. A tensor of k
    dimensions has k matrices and their inverse 2k-th roots. The roots come from an eigendecomposition
    in float64. Nothing is grafted or averaged: as Adagrad's, steps shrink as 1/√t. See `Extras`.
    torch.optim does not have it. Source: Gupta et al. 2018, Algorithm 2.
    """

    ranges: ClassVar = {"eps": (ABOVE_0, math.inf)}
    rules = (SHAMPOO,)

    def __init__(
        self,
        params: Iterable[Any],
        lr: Number = 0.1,
        eps: Number = 1e-4,
        weight_decay: Number = 0.0,
        precondition_frequency: int = 1,
        max_precond_dim: int = 1024,
        *,
        maximize: bool = False,
        **extras: Unpack[Extras],
    ) -> None:
        defaults = {
            "lr": lr,
            "eps": eps,
            "weight_decay": weight_decay,
            "precondition_frequency": precondition_frequency,
            "max_precond_dim": max_precond_dim,
            "maximize": maximize,
        }
        super().__init__(params, defaults, extras)

    def rule_of(self, group: dict[str, Any]) -> Rule:
        return shampoo_rule(group["max_precond_dim"])
