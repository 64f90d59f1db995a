"""Adagrad."""

from collections.abc import Iterable
from typing import Any, Unpack

import torch

from stepwell.optim.extras import Extras, Number
from stepwell.optim.hyperparameters import number
from stepwell.optim.optimizer import RuleOptimizer
from stepwell.rules import Rule
from stepwell.rules.adagrad import ADAGRAD, ADAGRAD_INSIDE


class Adagrad(RuleOptimizer):
    """w ← w − η / (1 + (t−1) κ) · g / (√G + ε), with G the sum of all g² so far.

    lr: η ≥ 0. lr_decay: κ ≥ 0, the 1/t decay of the rate. weight_decay: adds weight_decay · w to the
    gradient (coupled). initial_accumulator_value: what G starts at, ≥ 0. eps: ε ≥ 0, outside the root;
    eps_inside=True, which torch has not, makes the denominator √(G + ε). maximize: climbs. foreach and
    fused choose torch's kernels and have no effect here; differentiable is refused. As
    `torch.optim.Adagrad`, its arguments in its order; besides them see `Extras`.
    """

    rules = (ADAGRAD, ADAGRAD_INSIDE)
    lazy = (ADAGRAD, ADAGRAD_INSIDE)

    def __init__(
        self,
        params: Iterable[Any],
        lr: Number = 1e-2,
        lr_decay: Number = 0.0,
        weight_decay: Number = 0.0,
        initial_accumulator_value: Number = 0.0,
        eps: Number = 1e-10,
        foreach: bool | None = None,
        *,
        maximize: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        eps_inside: bool = False,
        **extras: Unpack[Extras],
    ) -> None:
        defaults = {
            "lr": lr,
            "lr_decay": lr_decay,
            "weight_decay": weight_decay,
            "initial_accumulator_value": initial_accumulator_value,
            "eps": eps,
            "foreach": foreach,
            "maximize": maximize,
            "differentiable": differentiable,
            "fused": fused,
            "eps_inside": eps_inside,
        }
        super().__init__(params, defaults, extras)

    def rule_of(self, group: dict[str, Any]) -> Rule:
        return ADAGRAD_INSIDE if group["eps_inside"] else ADAGRAD

    def state_dict(self) -> dict[str, Any]:
        """As torch's, whose class has state before the first update and cannot be loaded without it."""
        saved = super().state_dict()
        parameters = [(p, group) for group in self.param_groups for p in group["params"]]
        for i, (p, group) in enumerate(parameters):
            if i not in saved["state"]:
                start = torch.full_like(p, number(group["initial_accumulator_value"]), requires_grad=False)
                saved["state"][i] = {"step": torch.tensor(0.0), "sum": start}
        return saved
