"""SGD, with or without momentum."""

from collections.abc import Iterable
from typing import Any, Never

from stepwell.optim.optimizer import RuleOptimizer
from stepwell.rules import Rule
from stepwell.rules.momentum import MOMENTUM
from stepwell.rules.sgd import SGD as PLAIN


class SGD(RuleOptimizer):
    """w ← w − η g, or with momentum ρ: v ← ρ v + g; w ← w − η v.

    lr: η ≥ 0. momentum: ρ in [0, 1), of each group by itself: from the first step where it is not 0,
    v starts at 0; while it is 0 again, v stays as it was. weight_decay: adds weight_decay · w to the
    gradient (coupled). decay: subtracts lr · decay · w from the weight (decoupled). foreach and fused
    choose torch's kernels and have no effect here; the others are refused except at their defaults.
    As `torch.optim.SGD`, its arguments in its order.
    """

    rules = (PLAIN, MOMENTUM)

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        differentiable: bool = False,
        fused: bool | None = None,
        decay: float = 0.0,
        **unknown: Never,
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "dampening": dampening,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
            "maximize": maximize,
            "foreach": foreach,
            "differentiable": differentiable,
            "fused": fused,
            "decay": decay,
        }
        super().__init__(params, defaults, unknown)

    def rule_of(self, group: dict[str, Any]) -> Rule:
        return MOMENTUM if group["momentum"] else PLAIN
