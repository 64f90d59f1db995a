"""SGD, with or without momentum."""

from collections.abc import Iterable
from typing import Any, Unpack

from stepwell.errors import UserError
from stepwell.optim.extras import Extras, Number
from stepwell.optim.optimizer import RuleOptimizer
from stepwell.rules import Rule
from stepwell.rules.momentum import MOMENTUM
from stepwell.rules.nesterov import NESTEROV
from stepwell.rules.sgd import SGD as PLAIN


class SGD(RuleOptimizer):
    """w ← w − η g, or with momentum ρ: v ← ρ v + (1 − τ) g; w ← w − η v; Nesterov: w ← w − η (g + ρ v).

    lr: η ≥ 0. momentum: ρ in [0, 1), of each group by itself: from the first step where it is not 0, v
    starts at the gradient; while it is 0 again, v stays as it was. dampening: τ, which torch leaves out
    of v's first gradient. weight_decay: adds weight_decay · w to the gradient (coupled). maximize:
    climbs. foreach and fused choose torch's kernels and have no effect here; differentiable is refused.
    As `torch.optim.SGD`, its arguments in its order; besides them see `Extras`.
    """

    rules = (PLAIN, MOMENTUM)
    lazy = (PLAIN,)

    def __init__(
        self,
        params: Iterable[Any],
        lr: Number = 1e-3,
        momentum: Number = 0.0,
        dampening: Number = 0.0,
        weight_decay: Number = 0.0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        differentiable: bool = False,
        fused: bool | None = None,
        **extras: Unpack[Extras],
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
        }
        super().__init__(params, defaults, extras)

    def check_together(self, group: dict[str, Any]) -> None:
        if group["nesterov"] and (not group["momentum"] or group["dampening"]):
            raise UserError("nesterov=True needs a momentum above 0 and dampening=0")

    def rule_of(self, group: dict[str, Any]) -> Rule:
        if not group["momentum"]:
            return PLAIN
        return NESTEROV if group["nesterov"] else MOMENTUM
