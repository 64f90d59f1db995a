"""RMSprop, also centered and with momentum."""

from collections.abc import Iterable
from typing import Any, Unpack

from stepwell.optim.extras import Extras, Number
from stepwell.optim.optimizer import RuleOptimizer
from stepwell.rules import Rule
from stepwell.rules.rmsprop import CENTERED, CENTERED_WITH_MOMENTUM, RMSPROP, WITH_MOMENTUM


class RMSprop(RuleOptimizer):
    """w ← w − η g / (√v + ε), with v the moving average of g².

    lr: η ≥ 0. alpha: what v keeps, in [0, 1). eps: ε ≥ 0, outside the root. weight_decay: adds
    weight_decay · w to the gradient (coupled). momentum: ρ in [0, 1); above 0 the steps g / (√v + ε) are
    gathered: b ← ρ b + g / (√v + ε), w ← w − η b. centered: v − m² in place of v, with m the moving
    average of g. maximize: climbs. foreach and capturable choose torch's kernels and have no effect
    here; differentiable is refused. As `torch.optim.RMSprop`, its arguments in its order; besides them
    see `Extras`.
    """

    rules = (RMSPROP, CENTERED, WITH_MOMENTUM, CENTERED_WITH_MOMENTUM)

    def __init__(
        self,
        params: Iterable[Any],
        lr: Number = 1e-2,
        alpha: Number = 0.99,
        eps: Number = 1e-8,
        weight_decay: Number = 0.0,
        momentum: Number = 0.0,
        centered: bool = False,
        capturable: bool = False,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
        **extras: Unpack[Extras],
    ) -> None:
        defaults = {
            "lr": lr,
            "alpha": alpha,
            "eps": eps,
            "weight_decay": weight_decay,
            "momentum": momentum,
            "centered": centered,
            "capturable": capturable,
            "foreach": foreach,
            "maximize": maximize,
            "differentiable": differentiable,
        }
        super().__init__(params, defaults, extras)

    def rule_of(self, group: dict[str, Any]) -> Rule:
        if group["centered"]:
            return CENTERED_WITH_MOMENTUM if group["momentum"] else CENTERED
        return WITH_MOMENTUM if group["momentum"] else RMSPROP
